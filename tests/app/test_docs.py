"""The documents name everything that the code has, and nothing else."""

import inspect
import os
import re
from pathlib import Path

import pytest

from app import __version__
from app.__main__ import main
from app.errors import status_and_code
from app.main import create_app
from app.observability.metrics import Metrics
from app.observability.observation import Observation
from app.observability.resources import gpu_metrics, process_metrics, room_metrics
from app.settings import Settings
from app.trainer.job_metrics import show_jobs
from tests.app.world import every_error
from training.environment import ENV_PREFIX
from training.images import decode as images

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs/api.md").read_text()
CLIENTS = (ROOT / "docs/clients.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
MONITORING = (ROOT / "docs/monitoring.md").read_text()


def test_every_setting_stands_in_the_table_with_its_default_and_its_meaning() -> None:
    rows = re.findall(r"^\| `(RESNEXT_\w+)` \| (?:`(.*?)`)? ?\| (.+) \|$", SETTINGS, re.MULTILINE)
    documented = {name: (default, meaning) for name, default, meaning in rows}
    fields = {ENV_PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
    assert list(documented) == list(fields)
    for name, field in fields.items():
        default, meaning = documented[name]
        assert meaning == field.description
        parsed = Settings.model_validate({name.removeprefix(ENV_PREFIX).lower(): default} if default else {})
        assert getattr(parsed, name.removeprefix(ENV_PREFIX).lower()) == field.default, name


def test_documents_name_no_setting_that_is_not_there() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"RESNEXT_[A-Z_]+", API + SETTINGS + MONITORING + CLIENTS)) <= known


def counted() -> str:
    """Returns a scrape after one request, with the names of the metrics of GPUs and jobs, though there are none."""
    metrics = Metrics()
    metrics.show_model("resnext50", 1, "fp32", "CPUExecutionProvider")
    metrics.count_request("POST", "/predict", Observation("id", 0, status=200, version="1"), 0.1)
    asked = [*show_jobs([], [], 0), *process_metrics([os.getpid()])]
    asked += [*room_metrics({"models": ROOT}), *gpu_metrics("no driver")]
    return metrics.render(asked).decode()


def test_every_metric_stands_in_the_table_with_its_kind_and_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(resnext_\w+)(?:{([\w,]+)})?` \| (\w+) \|", MONITORING, re.MULTILINE)
    text = counted()
    assert {name: kind for name, _, kind in rows} == dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    for name, labels, _ in rows:
        for series in re.findall(rf"^{name}(?:_sum)?(?:{{(.+)}})? ", text, re.MULTILINE):
            assert set(re.findall(r"(\w+)=", series)) == set(filter(None, labels.split(","))), name


def test_the_monitoring_page_names_no_metric_that_is_not_there() -> None:
    documented = set(re.findall(r"^\| `(resnext_\w+)", MONITORING, re.MULTILINE))
    named = set(re.findall(r"\bresnext_\w+", MONITORING))
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in named} == documented


def test_settings_of_the_inference_service_are_valid() -> None:
    found = re.findall(r"\{name: RESNEXT_(\w+), value: \"?([^}\"]+)\"?\}", CLIENTS)
    settings = Settings.model_validate({name.lower(): value for name, value in found})
    assert settings.models == Path("/mnt/models")
    assert f"containerPort: {settings.port}," in CLIENTS
    assert CLIENTS.count(f"port: {settings.port}}}") == 2
    assert settings.drain_delay + settings.drain_timeout < 30  # then Kubernetes kills


def test_every_route_stands_in_the_table_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", API, re.MULTILINE))
    paths = create_app(Settings(provider="cpu")).openapi()["paths"]
    assert documented == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def calls(text: str) -> list[tuple[str, str]]:
    """Returns the method and the path of each call by curl to the service's own port."""
    found = []
    for line in re.findall(r"^curl .*", text.replace("\\\n", " "), re.MULTILINE):
        if path := re.search(r"localhost:8000(/[^\s'?]*)", line):
            named = re.search(r" -X (\w+)", line)
            sends = "PUT" if " -T " in line else "POST" if re.search(r" (?:-F|-d|--data-binary) ", line) else "GET"
            found.append((named[1] if named else sends, path[1]))
    return found


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{name}.md" for name in ("api", "clients", "containers", "datasets"))]
)
def test_every_call_by_curl_meets_a_route(page: str) -> None:
    routes = [
        (method.upper(), re.compile(re.sub(r"{\w+}", "[^/]+", path)))
        for path, methods in create_app(Settings(provider="cpu")).openapi()["paths"].items()
        for method in methods
    ]
    asked = calls((ROOT / page).read_text())
    assert asked
    for method, path in asked:
        assert any(method == known and pattern.fullmatch(path) for known, pattern in routes), (method, path)


def test_every_error_stands_in_the_table_and_no_other() -> None:
    documented = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", API, re.MULTILINE)}
    seen = [status_and_code(error) for error in every_error()]
    routers_own = {"not_found": 404, "method_not_allowed": 405}
    assert documented == {code: status for status, code in seen} | routers_own


def test_every_image_error_is_named() -> None:
    raised = set(re.findall(r'ImageError\(\s*"(\w+)"', inspect.getsource(images)))
    sentence = re.search(r"Its codes: (.*?)\.\n", API, re.DOTALL)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == raised


def test_command_line_is_documented_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--help"])
    assert ended.value.code == 0
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    paragraph = next(part for part in SETTINGS.split("\n\n") if part.startswith("`resnext tune`"))
    assert set(re.findall(r"`(--[a-z-]+)`", paragraph)) == flags


def test_version_is_the_packages() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
