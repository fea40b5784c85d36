import tempfile
from pathlib import Path

from tests.compose.engine import compose, healthy
from tests.compose.service import at_work, get, over, ready, submitted
from tests.process import until


def postgres() -> None:
    """Jobs live in PostgreSQL, whose URL is a secret; the models stay."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (word := Path(folder, "word")).write_text("not-so-secret")
        (database := Path(folder, "url")).write_text("postgresql://resnext:not-so-secret@postgres/resnext")
        variables = {"POSTGRES_PASSWORD_FILE": str(word), "RESNEXT_DATABASE_FILE": str(database)}
        compose("--profile", "postgres", "up", "--detach", "--no-build", "--force-recreate", **variables)
        until(ready, 120)
        until(lambda: healthy("postgres") and healthy("trainer"), 60)
        assert get("/train")["total"] == 0
        id = submitted("digits")
        until(lambda: at_work(id), 60)
        compose("--profile", "postgres", "restart", "postgres", "trainer")
        until(lambda: over(id), 600)
        assert get(f"/train/{id}")["state"] == "rejected"
        assert "not-so-secret" not in compose("logs", "api", "trainer")
    compose("up", "--detach", "--no-build", "--force-recreate")
    compose("--profile", "postgres", "rm", "--stop", "--force", "postgres")
