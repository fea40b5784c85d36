"""The settings of the service, read once at start from the environment and from files of secrets."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ByteSize,
    Field,
    IPvAnyNetwork,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from app.execution.provider import Provider
from training.config import MODEL_NAME
from training.contract.manifest import Precision
from training.contract.names import Name
from training.environment import ENV_PREFIX
from training.jobs.settings import SecretUnreadable, SharedSettings

# variables that the worker and docker-compose.yml read
ELSEWHERE = {"RESNEXT_NAME", "RESNEXT_DATABASE_FILE"}


HostName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]


class SettingsError(Exception):
    """The environment does not make valid settings. The message is one line for the operator."""


class Settings(SharedSettings):
    """The service's settings. Each field is the environment variable `RESNEXT_<FIELD>`; empty means the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    model: Name = Field(MODEL_NAME, description="name of the model to serve")
    provider: Literal["auto", Provider] = Field(
        "auto",
        description="execution provider; auto is CUDA or OpenVINO where one works, else CPU. A provider that is named "
        "and does not work stops the start. tensorrt has not been tried on real hardware yet",
    )
    precision: Literal["auto", Precision] = Field(
        "auto", description="precision to serve; auto measures at each load which of a version's files is fastest here"
    )
    cuda_graphs: bool = Field(
        True,
        description="with CUDA, replay each batch size as one graph; not done for a version that cannot be captured",
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="threads of one model run on the CPU; auto is this process' share of the cores"
    )
    decode_threads: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="threads that decode images on a GPU, on OpenVINO, or with RESNEXT_THREADS=1; otherwise the "
        "model's threads decode. auto is this process' share of the cores",
    )

    processes: PositiveInt = Field(
        1,
        description="processes that serve on the port, each with its own model, its own queue and its share of the "
        "cores. More than one helps with a small model, or a GPU that one process cannot keep busy",
    )

    max_batch: PositiveInt | Literal["auto"] = Field(
        "auto", description="most images in one model run; auto is measured at each load"
    )
    batch_delay: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="milliseconds that an idle model waits for a batch to fill; with 0 it never waits",
    )
    queue_size: PositiveInt = Field(
        256, description="most images admitted at one time; a request beyond that is answered with 503"
    )
    queue_seconds: float = Field(
        1.5,
        gt=0,
        le=3600,
        description="most seconds of work that may wait, at the measured rate; a request that would wait longer is "
        "answered with 503",
    )
    request_timeout: float = Field(
        30.0, gt=0, description="most seconds from the end of the upload to the answer; after that the answer is 504"
    )
    rate_limit: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$",
        description="most requests of one API key, or without keys of one address, as 100/second or 600/minute; one "
        "more is answered with 429. Each of RESNEXT_PROCESSES counts alone",
    )
    run_timeout: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="seconds after which a run of the model is ended; 10 times what it took when it was measured, if "
        "that is more",
    )
    load_timeout: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="seconds after which the load of a version is given up; TensorRT compiles for minutes and "
        "may need more",
    )
    max_upload: ByteSize = Field(
        ByteSize(32 * 1024**2), gt=0, description="most bytes of a request's body, as a number or as 32MiB"
    )
    upload_memory: Annotated[ByteSize, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="most bytes of images and tensors under way, from their arrival to the answer; a request beyond "
        "that is answered with 503. auto is an eighth of the memory and at most 1 GiB, divided by RESNEXT_PROCESSES",
    )
    max_files: PositiveInt = Field(64, description="most images in one request")
    max_dataset_upload: ByteSize = Field(
        ByteSize(10 * 1024**3), gt=0, description="most bytes of an archive that is uploaded as a dataset"
    )
    max_dataset_files: PositiveInt = Field(1_000_000, description="most files and folders in an uploaded archive")
    max_dataset_bytes: ByteSize = Field(
        ByteSize(50 * 1024**3), gt=0, description="most bytes that an uploaded archive may unpack to"
    )
    intake_timeout: float = Field(
        3600.0, gt=0, le=604_800, description="most seconds that unpacking and checking one dataset may take"
    )

    worker: bool = Field(
        False, description="whether to keep a training worker running beside the service; `make serve` sets it"
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="API keys, separated by commas. When there are keys, every path except /, /health*, /v2/health*, "
        "/docs and /openapi.json needs one of them",
    )
    api_keys_file: Path | None = Field(
        None,
        description="file of API keys, one a line, as name:scope:sha256 or as they are. It is read again when it "
        "changes. By default the secret resnext_api_keys, where there is one",
    )
    insecure: bool = Field(
        False,
        description="whether a service without API keys that other machines can reach lets everybody train, upload, "
        "activate and delete; by default everybody may only classify there",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins, separated by commas, whose pages may call this service from a browser"
    )

    trusted_hosts: Annotated[tuple[HostName, ...], NoDecode] = Field(
        (),
        description="names of this service, separated by commas, *.example.com for all below; a request for another "
        "name is refused. IP addresses and names without a dot are always taken. By default any name is, but without "
        "API keys only to classify",
    )
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        (),
        description="addresses or networks of proxies, separated by commas, whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed; by default nobody's are",
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; with 0, any free one")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="prefix under which a proxy serves this service, as /vision, whether or not the proxy removes it",
    )
    grpc_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the Open Inference Protocol over gRPC, on the same address; without it there is no "
        "gRPC. Needs the extra `grpc`",
    )
    log: Literal["text", "json"] = Field(
        "text", description="form of the log on stderr; json writes one object a line, and a line for each request"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is logged; debug adds a line for each request"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/]",
        description="OpenTelemetry collector to send traces to, by OTLP over HTTP, as http://host:4318. "
        "Needs the extra `otel`",
    )
    poll_interval: float = Field(1.0, gt=0, description="seconds between two reads of ACTIVE")
    rollback: bool = Field(
        True,
        description="whether the service goes back to the previous version when one does not load or fails on images",
    )
    probation_images: NonNegativeInt = Field(
        200, description="number of a version's first images after a swap whose failures are counted; 0 counts none"
    )
    probation_error_rate: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of RESNEXT_PROBATION_IMAGES that may fail; one failure more, and the service goes back",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        description="seconds between SIGTERM, when /health/ready turns to 503, and closing the port; set it to the "
        "time that the load balancer needs to notice",
    )
    drain_timeout: int = Field(
        30, ge=1, description="seconds that requests in flight get to finish once the port is closed"
    )

    @field_validator("api_keys", "cors_origins", "trusted_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # Any: a validator's input is whatever came
        """Splits at commas and, since a value may come from a file, at line ends."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.replace("\n", ",").split(",") if part.strip())

    @field_validator("root_path", mode="before")
    @classmethod
    def _with_one_slash(cls, value: Any) -> Any:  # Any: a validator's input is whatever came
        """Returns `/vision` for `vision`, `/vision` and `/vision/`, and no prefix for `/`."""
        if not isinstance(value, str):
            return value
        return f"/{bare}" if (bare := value.strip("/")) else ""

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.max_files > self.queue_size:
            raise ValueError(
                f"RESNEXT_MAX_FILES should be at most RESNEXT_QUEUE_SIZE ({self.queue_size}), got {self.max_files}"
            )
        return self

    def environment_of_child(self) -> dict[str, str]:
        """Returns this process' environment with these limits and folders, without the keys, for a child process."""
        return _without_keys(super().environment_of_child())

    def environment_of_worker(self) -> dict[str, str]:
        """Returns `environment` without the keys, which training and the images that it reads have no need of."""
        return _without_keys(self.environment())

    def environment(self) -> dict[str, str]:
        """Returns this process' environment with the shared settings, for a child that works in the same folders."""
        shared = {name: getattr(self, name) for name in SharedSettings.model_fields}
        shared["database"] = self.database and self.database.get_secret_value()
        return {**os.environ, **{ENV_PREFIX + name.upper(): str(value or "") for name, value in shared.items()}}


def _without_keys(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.upper() != f"{ENV_PREFIX}API_KEYS"}


def read_settings() -> Settings:
    """Reads the settings from the environment and the files of secrets. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except SecretUnreadable as error:
        raise SettingsError(str(error)) from None


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Returns a complaint for each variable that looks like a setting and is not one, mostly a typing error."""
    known = [name.upper() for name in Settings.model_fields]
    complaints = []
    for name in sorted(names):
        bare = name.upper().removeprefix(ENV_PREFIX)
        if bare in known or name.upper() in ELSEWHERE or not name.upper().startswith(ENV_PREFIX):
            continue
        nearest = difflib.get_close_matches(bare, known, 1)
        meant = f"; did you mean {ENV_PREFIX}{nearest[0]}?" if nearest else ""
        complaints.append(f"{name} is no setting{meant} (docs/settings.md lists all settings)")
    return complaints


def _one_line(error: ValidationError) -> str:
    """Returns `RESNEXT_PORT: Input should be ..., got '99999'` for each bad field. A union's complaints are joined."""
    complaints: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for item in error.errors():
        if not item["loc"]:  # a rule between fields names them itself
            complaints[item["msg"].removeprefix("Value error, ")] = []
            continue
        name = ENV_PREFIX + str(item["loc"][0]).upper()
        complaints.setdefault(name, []).append(item["msg"])
        got[name] = f", got {item['input']!r}"
    return "; ".join(f"{k}: {' or '.join(v)}{got[k]}" if v else k for k, v in complaints.items())
