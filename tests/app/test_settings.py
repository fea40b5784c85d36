import ast
import re
from pathlib import Path

import pytest

import app
from app.settings import Settings, SettingsError, read_settings, unknown_variables
from training.images import decode
from training.jobs import settings as shared_settings
from training.jobs.settings import SharedSettings


def test_defaults_are_valid_and_frozen() -> None:
    settings = read_settings()
    assert (settings.model, settings.max_upload, settings.api_keys) == ("resnext50", 32 * 1024**2, ())
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("RESNEXT_MODELS", "/srv/models", "models", Path("/srv/models")),
        ("RESNEXT_MAX_UPLOAD", "8MiB", "max_upload", 8 * 1024**2),
        ("RESNEXT_MAX_UPLOAD", "1000", "max_upload", 1000),
        ("RESNEXT_MAX_BATCH", "16", "max_batch", 16),
        ("RESNEXT_MAX_BATCH", "auto", "max_batch", "auto"),
        ("RESNEXT_THREADS", "", "threads", "auto"),
        ("RESNEXT_PRECISION", "fp16", "precision", "fp16"),
        ("RESNEXT_CUDA_GRAPHS", "false", "cuda_graphs", False),
        ("RESNEXT_ROOT_PATH", "/a/vision/", "root_path", "/a/vision"),
        ("RESNEXT_ROOT_PATH", "vision", "root_path", "/vision"),
        ("RESNEXT_ROOT_PATH", "/", "root_path", ""),
        ("RESNEXT_TRUSTED_HOSTS", "A.example, *.b.example", "trusted_hosts", ("a.example", "*.b.example")),
        (
            "RESNEXT_CORS_ORIGINS",
            "https://a.example, https://b.example",
            "cors_origins",
            ("https://a.example", "https://b.example"),
        ),
    ],
)
def test_environment(monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: object) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(read_settings(), field) == value


def test_api_keys_are_split_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEXT_API_KEYS", "first, second,")
    settings = read_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["first", "second"]
    assert "first" not in repr(settings)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNEXT_SECRETS", str(tmp_path))
    return tmp_path


def test_a_setting_may_be_a_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "resnext_api_keys").write_text("first\nsecond, third\n")
    (secrets / "resnext_database").write_text("postgresql://jobs:word@host/name\n")
    (secrets / "RESNEXT_MAX_UPLOAD").write_text("8MiB")
    settings = read_settings()
    assert (settings.api_keys, settings.api_keys_file) == ((), secrets / "resnext_api_keys")  # to be read again
    assert settings.database_url == "postgresql://jobs:word@host/name?connect_timeout=5"
    assert settings.max_upload == 8 * 1024**2
    assert "word" not in repr(settings)
    assert SharedSettings().database == settings.database
    monkeypatch.setenv("RESNEXT_API_KEYS_FILE", "elsewhere")
    assert read_settings().api_keys_file == Path("elsewhere")
    monkeypatch.delenv("RESNEXT_API_KEYS_FILE")
    monkeypatch.setenv("RESNEXT_API_KEYS", "from the environment")
    settings = read_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["from the environment"]
    assert settings.api_keys_file is None


def test_an_empty_secret_means_the_default(secrets: Path) -> None:
    for name in ("resnext_api_keys", "resnext_database"):
        (secrets / name).touch()
    settings = read_settings()
    assert (settings.api_keys, settings.api_keys_file) == ((), None)
    assert settings.database_url.startswith("sqlite:")


def test_files_of_the_default_folder_are_read_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_settings, "SECRETS", tmp_path / "secrets")
    assert read_settings().api_keys_file is None
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "resnext_api_keys").write_text("one")
    assert read_settings().api_keys_file == tmp_path / "secrets" / "resnext_api_keys"


def test_a_secret_that_cannot_be_read_is_reported_by_name(secrets: Path) -> None:
    (secrets / "resnext_api_keys").write_bytes(b"\xff\xfe")  # its mode would not do: root may read anything
    with pytest.raises(SettingsError, match="a secret cannot be read: 'utf-8' codec") as caught:
        read_settings()
    assert "\n" not in str(caught.value)


def test_what_the_worker_is_given_leads_to_the_same_settings(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "resnext_database").write_text("postgresql://jobs@host/name")
    given = read_settings().environment()
    monkeypatch.setenv("RESNEXT_SECRETS", given["RESNEXT_SECRETS"])
    monkeypatch.setenv("RESNEXT_DATABASE", given["RESNEXT_DATABASE"])
    assert SharedSettings().database_url == "postgresql://jobs@host/name?connect_timeout=5"
    monkeypatch.delenv("RESNEXT_SECRETS")
    assert read_settings().environment()["RESNEXT_SECRETS"] == ""


def test_no_child_but_another_process_of_the_service_has_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEXT_API_KEYS", "secret")
    settings = read_settings()
    for variables in (settings.environment_of_child(), settings.environment_of_worker()):
        assert "secret" not in variables.values()
        assert variables["RESNEXT_MAX_PIXELS"] == str(settings.max_pixels)
    assert settings.environment()["RESNEXT_API_KEYS"] == "secret"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("RESNEXT_PORT", "99999", "RESNEXT_PORT: Input should be less than or equal to 65535, got '99999'"),
        (
            "RESNEXT_PROVIDER",
            "gpu",
            "RESNEXT_PROVIDER: Input should be 'auto', 'cpu', 'cuda', 'tensorrt' or 'openvino', got 'gpu'",
        ),
        ("RESNEXT_MAX_BATCH", "many", "or Input should be 'auto', got 'many'"),
        ("RESNEXT_MAX_UPLOAD", "0", "RESNEXT_MAX_UPLOAD: Input should be greater than 0"),
        ("RESNEXT_ROOT_PATH", "https://a.example/vision", "RESNEXT_ROOT_PATH: String should match pattern"),
        ("RESNEXT_MODEL", "../x", "RESNEXT_MODEL: a name should have 1 to 64 characters"),
        ("RESNEXT_SECRETS", "/nowhere", "RESNEXT_SECRETS: Path does not point to a directory, got '/nowhere'"),
        ("RESNEXT_TRUSTED_HOSTS", "https://a.example", "RESNEXT_TRUSTED_HOSTS: String should match pattern"),
        ("RESNEXT_RATE_LIMIT", "0/second", "RESNEXT_RATE_LIMIT: String should match pattern"),
        ("RESNEXT_TRUSTED_PROXIES", "*", "RESNEXT_TRUSTED_PROXIES: value is not a valid IPv4 or IPv6 network, got '*'"),
        ("RESNEXT_QUEUE_SIZE", "10", "RESNEXT_MAX_FILES should be at most RESNEXT_QUEUE_SIZE (10), got 64"),
    ],
)
def test_bad_value_names_itself_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEXT_PORT", "x")
    monkeypatch.setenv("RESNEXT_BATCH_DELAY", "-1")
    with pytest.raises(SettingsError, match=r"RESNEXT_BATCH_DELAY: .*; RESNEXT_PORT: .*"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RESNEXT_WORKERS", "RESNEXT_WORKER"),
        ("RESNEXT_DRAIN_TIME", "RESNEXT_DRAIN_TIMEOUT"),
        ("resnext_api_key", "RESNEXT_API_KEYS"),
        ("RESNEXT_XYZZY", None),
    ],
)
def test_a_variable_that_is_no_setting_is_reported_with_the_nearest_setting(name: str, nearest: str | None) -> None:
    (complaint,) = unknown_variables([name, "PATH", "RESNEXT_PORT", "resnext_port", "RESNEXT_NAME"])
    assert complaint.startswith(f"{name} is no setting")
    assert (f"; did you mean {nearest}?" in complaint) if nearest else ("did you mean" not in complaint)


def test_variables_of_other_parts_of_the_project_are_known() -> None:
    root = Path(app.__path__[0]).parent
    files = [root / "Makefile", root / "Dockerfile", *root.glob("docker-compose*.yml")]
    named = {name for file in files for name in re.findall(r"RESNEXT_[A-Z_]+", file.read_text())}
    assert len(named) > 10
    assert unknown_variables(named) == []


def test_every_setting_is_described_and_read() -> None:
    sources = [path for path in Path(app.__path__[0]).rglob("*.py") if path.name != "settings.py"]
    # the service hands the shared settings and the limits on as a whole
    sources += [Path(shared_settings.__file__), Path(decode.__file__)]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    read.add("secrets")  # read before the settings exist
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert name in read, name
