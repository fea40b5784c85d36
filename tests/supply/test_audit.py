import json
from pathlib import Path

from supply.audit import UNREACHABLE, judge, main
from supply.locks import locks, pinned

LOCKS = {"serve": {("pillow", "12.0.0"), ("numpy", "2.0.0")}, "train": {("pillow", "12.0.0")}}
FOUND = {
    "name": "pillow",
    "version": "12.0.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["12.0.1", "11.9"]}, {"id": "GHSA-2", "fix_versions": []}],
}
FINE = {"name": "numpy", "version": "2.0.0", "vulns": []}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}


def answer(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_each_vulnerability_is_a_line_with_its_locks() -> None:
    assert judge(answer(FOUND, FINE), "", LOCKS) == (
        [
            "pillow 12.0.0 (serve, train): PYSEC-1, mended in 12.0.1, 11.9",
            "pillow 12.0.0 (serve, train): GHSA-2, mended in no version",
        ],
        1,
    )


def test_none_is_known() -> None:
    assert judge(answer(FINE), "", LOCKS) == (["audit: no vulnerability is known of 1 packages in 2 locks"], 0)


def test_a_source_that_knows_nothing_is_no_good_news() -> None:
    """pip-audit says "No known vulnerabilities found" and ends with 0 where every package was skipped."""
    for packages in ([SKIPPED], [SKIPPED, FINE], []):
        (line,), status = judge(answer(*packages), "No known vulnerabilities found", LOCKS)
        assert status == UNREACHABLE
        assert line.startswith("audit: the data on vulnerabilities cannot be reached, so nothing is known: ")
    lines, status = judge(answer(FOUND, SKIPPED), "", LOCKS)
    assert (len(lines), status) == (3, 1)


def test_no_network_is_one_line(tmp_path: Path) -> None:
    said = "Traceback\n  File ...\nrequests.exceptions.ConnectionError: Failed to resolve 'pypi.org'\n"
    (line,), status = judge("", said, LOCKS)
    assert status == UNREACHABLE
    assert line.endswith("requests.exceptions.ConnectionError: Failed to resolve 'pypi.org'")
    program = tmp_path / "pip-audit"  # one that says nothing
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert main(str(program)) == UNREACHABLE


def test_every_lock_is_read() -> None:
    found = {lock.stem for lock in locks()}
    assert found == {"dev", "serve", "serve-cuda", "serve-openvino", "train", "train-cuda"}
    for lock in locks():
        assert "pillow" in {name for name, _ in pinned(lock)}
