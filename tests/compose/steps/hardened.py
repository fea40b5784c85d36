from tests.compose.engine import fails, inspect, within

USER = "10001"


def hardened() -> None:
    """Nobody is root, only the volumes and /tmp can be written, and the api's image has no TensorFlow."""
    for service in ("api", "trainer"):
        found = inspect(service)
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert (found["HostConfig"]["CapDrop"], found["Config"]["User"]) == (["ALL"], f"{USER}:{USER}")
        assert within(service, "id", "-u").decode().strip() == USER
        assert within(service, "cat", "/proc/1/comm").decode().strip() == "tini"
        for folder in ("/app", "/usr/local/lib", "/data", "/"):
            said = fails(service, "touch", f"{folder}/x")
            assert "Read-only" in said, said
        for folder in ("/data/models", "/data/datasets", "/data/weights", "/data/state", "/tmp"):
            within(service, "sh", "-c", f"touch {folder}/.x && rm {folder}/.x")
    assert "No module named 'tensorflow'" in fails("api", "python", "-c", "import tensorflow")
