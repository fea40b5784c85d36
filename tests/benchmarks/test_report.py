from pathlib import Path

from benchmarks.report import BEGIN, END, Findings, Sample, SwapSample, render, write


def findings() -> Findings:
    found = Findings("a machine", rounds=2, seconds=1.0, import_seconds=0.5, failures={"litserve": "log\nit broke"})
    for round_, rate in enumerate((10.0, 30.0)):
        for server, bound in (("resnext", 40.0), ("resnext-fp32", 25.0), ("mosec", 20.0)):
            sample = Sample(round_, server, "eight", "int8" if server == "resnext" else "fp32", rate, bound)
            sample.latencies = [0.1, 0.2]
            sample.errors = {"HTTP 503": 2} if server == "mosec" else {}
            found.samples.append(sample)
    found.swaps.append(SwapSample("resnext", "int8", 10.0, 2.0, [0.01], [0.5], {}))
    return found


def test_a_section_without_markers_goes_to_the_end_and_is_replaced_in_place_after_that(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nkept\n")
    write(findings(), page)
    page.write_text(page.read_text() + "\n## After it\n")
    written = page.read_text()
    section = write(findings(), page)
    assert page.read_text() == written
    assert written.startswith("# Benchmarks\n\nkept\n\n## Serving\n\n" + section)
    assert written.endswith(f"{END}\n\n## After it\n")
    assert written.count(BEGIN) == 1


def test_it_says_rates_shares_errors_and_who_is_missing() -> None:
    text = render(findings())
    assert "| **ResNeXt Service, as shipped** (INT8) | 10.0 / 20.0 / 30.0 (50%) |" in text
    assert "| bound, INT8 | 40.0 / 40.0 / 40.0 |" in text
    assert "| bound, FP32 | 25.0 / 25.0 / 25.0 |" in text
    assert "| bound, FP32, peers | 20.0 / 20.0 / 20.0 |" in text
    assert "mosec, 8 clients: HTTP 503 4" in text
    assert "LitServe is left out: it broke" in text
    assert "| 10.0 images/s | 10 / 10 / 10 | 500 / 500 / 500 | 2.0 s |" in text
    assert "a machine" in text


def test_findings_survive_the_file(tmp_path: Path) -> None:
    findings().save(tmp_path / "found.json")
    assert Findings.read(tmp_path / "found.json") == findings()
