import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.training.contract.flowers import manifest
from training.contract.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
)
from training.contract.repository import ActiveChanged, ModelRepository, VersionMissing
from training.errors import ContractError
from training.system.staging import STAGING_PREFIX, STALE_STAGING_S

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path, "flowers")


def publish(repository: ModelRepository, content: bytes = b"weights") -> int:
    with repository.staging() as folder:
        (folder / MODEL_FILE).write_bytes(content)
        (folder / "report").mkdir()
        (folder / "report" / "loss.json").write_text("[]")
        return repository.publish(folder, manifest()).version


def test_publish_numbers_versions_and_records_every_file(repository: ModelRepository) -> None:
    assert [publish(repository), publish(repository, b"others")] == [1, 2]
    assert repository.versions() == [1, 2]
    written = repository.manifest(2)
    assert written.version == 2
    assert written.files == {
        MODEL_FILE: hashlib.sha256(b"others").hexdigest(),
        "report/loss.json": hashlib.sha256(b"[]").hexdigest(),
    }
    repository.verify_files(2)


def test_published_is_not_active_until_activated(repository: ModelRepository) -> None:
    publish(repository)
    assert repository.active() is None
    repository.activate(1)
    assert repository.active() == 1


def test_activate_writes_what_triton_reads(repository: ModelRepository) -> None:
    publish(repository)
    repository.activate(publish(repository))
    config = (repository.folder / "config.pbtxt").read_text()
    assert (repository.folder / "ACTIVE").read_text() == "2\n"
    assert (repository.folder / "labels.txt").read_text() == "daisy\ntulip\n"
    assert "versions: [2]" in config
    assert "dims: [32, 48, 3]" in config
    assert 'name: "flowers"' in config


def test_versions_sort_as_numbers_and_other_folders_are_ignored(repository: ModelRepository) -> None:
    publish(repository)
    for name in ("2", "10", "9", "01", "0", "x", ".staging-abc", "٣"):
        (repository.folder / name).mkdir()
    (repository.folder / "3").write_text("a file")
    assert repository.versions() == [1, 2, 9, 10]


def test_no_repository_is_an_empty_one(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "absent", "flowers")
    assert (repository.versions(), repository.active()) == ([], None)


@pytest.mark.parametrize("content", [b"weightz", b"weights and more", b""])
def test_tampered_file_is_found(repository: ModelRepository, content: bytes) -> None:
    folder = repository.path(publish(repository))
    (folder / MODEL_FILE).write_bytes(content)
    with pytest.raises(ContractError, match=r"model\.onnx should have SHA-256 [0-9a-f]{64}, it has"):
        repository.verify_files(1)


def test_missing_file_is_found(repository: ModelRepository) -> None:
    (repository.path(publish(repository)) / MODEL_FILE).unlink()
    with pytest.raises(ContractError, match=r"model\.onnx is named in the manifest and missing"):
        repository.verify_files(1)


def test_stamp_of_a_manifest_changes_with_it(repository: ModelRepository) -> None:
    assert repository.manifest_stamp(1) == 0
    publish(repository)
    first = repository.manifest_stamp(1)
    assert first == repository.manifest_stamp(1) > 0
    os.utime(repository.path(1) / MANIFEST_FILE, ns=(0, first + 1))
    assert repository.manifest_stamp(1) == first + 1


def test_a_message_is_shortened_to_paths_below_the_root(repository: ModelRepository) -> None:
    publish(repository, b"weights")
    (repository.path(1) / MODEL_FILE).unlink()
    with pytest.raises(ContractError) as caught:
        repository.verify_files(1)
    assert repository.shorten(str(caught.value)) == f"flowers/1/{MODEL_FILE} is named in the manifest and missing"


def test_unknown_version_names_the_known_ones(repository: ModelRepository) -> None:
    with pytest.raises(ContractError, match="has no version 3; it has: none"):
        repository.path(3)
    publish(repository)
    with pytest.raises(ContractError, match="has no version 3; it has: 1"):
        repository.manifest(3)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "01", "1 2"])
def test_active_that_is_no_number(repository: ModelRepository, text: str) -> None:
    publish(repository)
    (repository.folder / "ACTIVE").write_text(text)
    with pytest.raises(ContractError, match="should hold a version number"):
        repository.active()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', '{"labels": ["one"]}'])
def test_bad_manifest(repository: ModelRepository, text: str) -> None:
    (repository.path(publish(repository)) / MANIFEST_FILE).write_text(text)
    with pytest.raises(ContractError, match="is not a valid manifest"):
        repository.manifest(1)
    with pytest.raises(ContractError):
        repository.activate(1)
    assert repository.active() is None


def test_delete(repository: ModelRepository) -> None:
    publish(repository)
    repository.activate(publish(repository))
    with pytest.raises(ContractError, match="version 2 of 'flowers' is active"):
        repository.delete(2)
    repository.delete(1)
    assert repository.versions() == [2]
    with pytest.raises(ContractError, match="no version 1"):
        repository.delete(1)
    assert not list(repository.folder.glob(f"{STAGING_PREFIX}*"))


def test_number_of_a_deleted_version_is_not_used_again_while_a_later_one_is_there(repository: ModelRepository) -> None:
    for _ in range(3):
        publish(repository)
    repository.delete(2)
    assert publish(repository) == 4


def test_prune_keeps_the_newest_the_active_and_its_predecessor(repository: ModelRepository) -> None:
    for _ in range(7):
        publish(repository)
    for version in (2, 4):
        repository.activate(version)
    assert repository.prune(2) == [1, 3, 5]
    assert repository.versions() == [2, 4, 6, 7]


def test_rollback_goes_through_what_was_active_and_past_what_never_was(repository: ModelRepository) -> None:
    for _ in range(5):
        publish(repository)
    for version in (1, 2, 4, 5):
        repository.activate(version)
    assert repository.predecessors() == [4, 2, 1]
    assert [repository.roll_back() for _ in range(3)] == [4, 2, 1]
    assert (repository.active(), repository.predecessor()) == (1, None)
    assert "versions: [1]" in (repository.folder / "config.pbtxt").read_text()
    with pytest.raises(ContractError, match="version 1 of 'flowers' is active, and there is none to go back to"):
        repository.roll_back()


def test_rollback_of_a_bad_version_is_done_once_by_whoever_comes_first(repository: ModelRepository) -> None:
    for _ in range(3):
        repository.activate(publish(repository))
    replicas = [ModelRepository(repository.folder.parent, "flowers") for _ in range(2)]
    assert [replica.roll_back(bad={3: "golden check"}) for replica in replicas] == [2, 2]
    assert (repository.active(), repository.predecessors()) == (2, [1])
    assert repository.failures()[3].reason == "golden check"


def test_failed_version_is_passed_over_until_it_is_activated_by_hand(repository: ModelRepository) -> None:
    for _ in range(3):
        repository.activate(publish(repository))
    assert repository.roll_back(to=1, bad={3: "no", 2: "neither"}) == 1
    for version in (3, 1):
        repository.activate(version)
    assert list(repository.failures()) == [2]
    assert repository.predecessors() == [3]


def test_rollback_to_a_version_that_is_not_there(repository: ModelRepository) -> None:
    with pytest.raises(ContractError, match="no version of 'flowers' is active"):
        repository.roll_back()
    repository.activate(publish(repository))
    with pytest.raises(VersionMissing):
        repository.roll_back(to=7, bad={1: "no"})
    assert (repository.active(), repository.failures()) == (1, {})


def test_active_version_that_is_gone_can_be_rolled_back(repository: ModelRepository) -> None:
    for _ in range(2):
        repository.activate(publish(repository))
    shutil.rmtree(repository.path(2))
    assert repository.roll_back() == 1


def test_deleted_version_leaves_no_trace(repository: ModelRepository) -> None:
    for _ in range(3):
        repository.activate(publish(repository))
    repository.roll_back(bad={3: "no"})
    for version in (1, 3):
        repository.delete(version)
    assert (repository.failures(), repository.predecessors()) == ({}, [])
    publish(repository)
    assert repository.predecessors() == []


def test_activate_of_what_was_judged_by_another_active_version(repository: ModelRepository) -> None:
    for _ in range(2):
        publish(repository)
    repository.activate(1, expected=None)
    with pytest.raises(ActiveChanged, match="version None of 'flowers' should be active, it is 1"):
        repository.activate(2, expected=None)
    repository.activate(2, expected=1)
    assert repository.active() == 2


def test_package_of_one_run_is_published_once(repository: ModelRepository) -> None:
    made = datetime.now(UTC)

    def publish_run(created: datetime) -> int:
        with repository.staging() as folder:
            (folder / MODEL_FILE).write_bytes(b"weights")
            return repository.publish(folder, manifest(run="job", created=created)).version

    publish(repository)
    (repository.path(publish(repository)) / MANIFEST_FILE).write_text("{")
    assert [publish_run(made), publish_run(made)] == [3, 3]
    assert publish_run(made + timedelta(seconds=1)) == 4  # exported again
    assert repository.versions() == [1, 2, 3, 4]


def test_prune_removes_what_an_old_crash_left(repository: ModelRepository) -> None:
    publish(repository)
    old, new = repository.folder / f"{STAGING_PREFIX}old", repository.folder / f"{STAGING_PREFIX}new"
    for folder in (old, new):
        folder.mkdir()
    long_ago = time.time() - STALE_STAGING_S - 60
    os.utime(old, (long_ago, long_ago))
    repository.prune(1)
    assert not old.exists()
    assert new.exists()


def test_staging_that_fails_leaves_nothing(repository: ModelRepository) -> None:
    with pytest.raises(ZeroDivisionError), repository.staging() as folder:  # noqa: PT012  the block is what fails
        (folder / MODEL_FILE).write_bytes(b"half")
        _ = 1 / 0
    assert repository.versions() == []
    assert not list(repository.folder.glob(f"{STAGING_PREFIX}*"))


def _publish_many(root: Path, count: int) -> None:
    for _ in range(count):
        publish(ModelRepository(root, "flowers"))


def test_concurrent_publishers_get_versions_of_their_own(repository: ModelRepository, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_publish_many, args=(tmp_path, 5)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert repository.versions() == list(range(1, 16))
    for version in repository.versions():
        assert repository.manifest(version).version == version
        repository.verify_files(version)


PUBLISHER = """
import itertools, sys
from pathlib import Path
from tests.training.contract.flowers import manifest
from training.contract.repository import ModelRepository
repository = ModelRepository(Path(sys.argv[1]), "flowers")
print("ready", flush=True)
for n in itertools.count():
    with repository.staging() as folder:
        for name in ("model.onnx", "golden.npz", "labels"):
            (folder / name).write_bytes(bytes([n % 256]) * 200_000)
        repository.publish(folder, manifest())
    repository.activate(max(repository.versions()))
    if len(repository.versions()) > 5:
        repository.delete(repository.versions()[0])
"""


def test_kill_in_the_middle_of_a_publish_leaves_nothing_half(repository: ModelRepository, tmp_path: Path) -> None:
    """A publisher that never rests is killed at moments of all kinds; what is in sight is whole each time."""
    for delay in (0.0, 0.011, 0.037, 0.053, 0.072):
        process = subprocess.Popen([sys.executable, "-c", PUBLISHER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        # the moment of the kill, not something that the test waits for
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for version in repository.versions():
            assert repository.manifest(version).version == version
            repository.verify_files(version)
        active = repository.active()
        assert active is None or active in repository.versions()
        publish(repository)  # the lock went with the process
