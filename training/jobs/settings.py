"""Where things lie: the settings that the service, the worker and the command line share."""

from collections.abc import Container
from pathlib import Path
from typing import Any

from pydantic import DirectoryPath, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from training.environment import ENV_PREFIX, Places
from training.errors import TrainingError

SECRETS = Path("/run/secrets")  # where Docker and Podman mount them
CONNECT_TIMEOUT_S = 5  # the driver's own is more than two minutes


class SecretUnreadable(TrainingError):
    """A setting in a file that this user may not read."""


class _SecretFiles(SecretsSettingsSource):
    """Reads the files of the folder, but not those of the settings that are `set` already.

    Where a setting has a second one, `<setting>_file`, that one becomes the path, so that the file can be read again.
    """

    def __init__(self, settings_cls: type[BaseSettings], folder: Path, set_already: Container[str]) -> None:
        super().__init__(settings_cls, folder)
        self._folder = folder
        self._set = set_already

    def __call__(self) -> dict[str, Any]:  # Any: a setting's value is whatever came
        try:
            found = {name: value for name, value in super().__call__().items() if name not in self._set}
        except SettingsError as error:
            raise SecretUnreadable(f"a secret cannot be read: {error.__cause__ or error}") from error
        for name in [name for name in found if f"{name}_file" in self.settings_cls.model_fields]:
            if found.pop(name):
                found.setdefault(f"{name}_file", self.find_case_path(self._folder, f"{ENV_PREFIX}{name}", False))
        return found


class SharedSettings(Places):
    """Folders, the database and the limit on images.

    Each field is the environment variable `RESNEXT_<FIELD>`; empty means the default. A field without a variable comes
    from the file `resnext_<field>` in the folder of secrets.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    models: Path = Field(Path("models"), description="folder of the model repository")
    datasets: Path = Field(
        Path("datasets"), description="folder of the datasets: uploaded ones, and folders that the operator put there"
    )
    state: Path = Field(Path("state"), description="folder of the training jobs, and of their database")
    database: SecretStr | None = Field(
        None,
        description="URL of the jobs' database, as postgresql://user:password@host/name; SQLite in STATE by default",
    )
    secrets: DirectoryPath | None = Field(
        None, description="folder of files that are settings, as resnext_api_keys; /run/secrets where there is one"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  handed over by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  its folder is a setting here
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads arguments first, then the environment, then files. Raises SecretUnreadable when the files are read."""
        given = env_settings() | init_settings()
        folder = Path(given.get("secrets") or SECRETS)
        # without the folder the field complains, if it was set
        files = [_SecretFiles(settings_cls, folder, given)] if folder.is_dir() else []
        return init_settings, env_settings, *files

    @property
    def jobs(self) -> Path:
        """The folder of job folders."""
        return self.state / "jobs"

    @property
    def database_url(self) -> str:
        """The URL that the jobs' engine connects to."""
        if self.database:
            url = self.database.get_secret_value()
            if "connect_timeout=" in url:
                return url
            return f"{url}{'&' if '?' in url else '?'}connect_timeout={CONNECT_TIMEOUT_S}"
        return f"sqlite:///{(self.state / 'jobs.sqlite').absolute()}"
