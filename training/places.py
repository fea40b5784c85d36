"""Where things lie: what the service, the worker and the command line have to agree on."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "RESNEXT_"
CONNECT_TIMEOUT_S = 5  # the driver's own is more than two minutes


class Places(BaseSettings):
    """Folders and the database. Each field is the environment variable `RESNEXT_<FIELD>`; empty means the default."""

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

    @property
    def jobs(self) -> Path:
        """The folder of job folders."""
        return self.state / "jobs"

    @property
    def database_url(self) -> str:
        """What the jobs' engine connects to."""
        if self.database:
            url = self.database.get_secret_value()
            if "connect_timeout=" in url:
                return url
            return f"{url}{'&' if '?' in url else '?'}connect_timeout={CONNECT_TIMEOUT_S}"
        return f"sqlite:///{(self.state / 'jobs.sqlite').absolute()}"
