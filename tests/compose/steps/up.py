import httpx

from tests.compose.engine import compose, healthy, url
from tests.compose.service import at_work, get
from tests.process import until


def up() -> None:
    """On empty volumes both services are healthy, there is no model yet, and the starter is being trained."""
    compose("up", "--detach", "--no-build")
    until(lambda: healthy("api") and healthy("trainer"), 120)
    assert httpx.get(url() + "/health/ready").status_code == 503
    assert get("/health")["status"] == "no_model"
    until(lambda: get("/train")["total"] == 1, 60)
    (job,) = get("/train")["jobs"]
    assert (job["id"][:4], job["dataset"]["name"], job["config"]["name"]) == ("key-", "digits", "resnext50")
    until(lambda: at_work(job["id"]), 60)
    (worker,) = get("/health")["trainer"]["workers"]
    assert (worker["name"], worker["host"]) == ("worker-0", "trainer")
    assert f"its starter is job {job['id']}" in compose("logs", "trainer")
