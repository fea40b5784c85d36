"""Damage in a repository: one thing is broken, not all, and an activation mends what an activation writes."""

import os
import resource
import shutil
from pathlib import Path

import pytest

from tests.damage import DAMAGES, damage
from tests.training.contract.flowers import manifest
from training.contract.activation import Activations
from training.contract.manifest import MANIFEST_FILE, MODEL_FILE
from training.contract.repository import ModelRepository, VersionActive
from training.errors import ContractError, RepositoryUnreadable


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes versions 1 to 3: 1 was active, 3 has failed, 2 is active."""
    repository = ModelRepository(tmp_path_factory.mktemp("models"), "flowers")
    for _ in range(3):
        with repository.staging() as folder:
            (folder / MODEL_FILE).write_bytes(b"weights")
            repository.publish(folder, manifest())
    repository.activate(1)
    repository.activate(3)
    repository.roll_back(1, bad={3: "calls roses tulips"})
    repository.activate(2)
    return repository.root


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> ModelRepository:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)  # each publication waits for the disk
    return ModelRepository(tmp_path, "flowers")


@pytest.mark.parametrize("file", ["ACTIVE", "HISTORY", "FAILURES"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_an_activation_mends_what_is_damaged_and_keeps_it(repository: ModelRepository, file: str, kind: str) -> None:
    path = repository.folder / file
    damage(path, kind)
    with pytest.raises(ContractError, match=f"^flowers/{file} "):
        repository.predecessors()
    with pytest.raises(ContractError, match=f"^flowers/{file} "):
        repository.delete(3)
    assert repository.versions() == [1, 2, 3]
    repository.activate(1)
    assert repository.active() == 1
    assert repository.predecessors() == ([1, 2] if file == "ACTIVE" else [2])[-1:]
    assert list(repository.failures()) == ([] if file == "FAILURES" else [3])
    (aside,) = repository.folder.glob("*.damaged-*")
    assert aside.name.startswith(f"{file}.damaged-")
    repository.delete(3)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_version_whose_manifest_is_damaged_is_one_such_version(repository: ModelRepository, kind: str) -> None:
    damage(repository.path(3) / MANIFEST_FILE, kind)
    with pytest.raises(ContractError, match=rf"^flowers/3/{MANIFEST_FILE} "):
        repository.manifest(3)
    with pytest.raises(ContractError):
        repository.activate(3)
    assert [repository.manifest(version).version for version in (1, 2)] == [1, 2]
    assert repository.active() == 2
    assert repository.prune(2) == [3]  # it has failed before


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link to itself"])
def test_another_thing_in_the_place_of_a_file_is_no_file(repository: ModelRepository, kind: str) -> None:
    damage(repository.path(3) / MODEL_FILE, kind)
    with pytest.raises(RepositoryUnreadable, match=f"^flowers/3/{MODEL_FILE} cannot be read"):
        repository.verify_files(3)


def test_what_is_no_folder_is_no_version(repository: ModelRepository) -> None:
    for name, kind in (("4", "garbage"), ("5", "a link to itself"), ("9" * 200, "a folder")):
        damage(repository.folder / name, kind)
    assert repository.versions() == [1, 2, 3]
    assert repository.manifest_stamp(4) == 0


def test_a_model_folder_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path, "flowers")
    damage(repository.folder, "a link to itself")
    with pytest.raises(RepositoryUnreadable, match="the folder of 'flowers' cannot be read: Too many levels"):
        repository.versions()


def test_a_moment_without_descriptors_damages_nothing(repository: ModelRepository) -> None:
    before = {path: path.read_bytes() for path in repository.folder.iterdir() if path.is_file()}
    activations = Activations(repository.folder)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(RepositoryUnreadable, match="Too many open files"):
            activations.activate(1, [1, 2, 3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert {path: path.read_bytes() for path in repository.folder.iterdir() if path.is_file()} == before


def test_only_the_active_version_is_refused_as_such(repository: ModelRepository) -> None:
    with pytest.raises(VersionActive):
        repository.delete(2)
