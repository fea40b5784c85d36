"""Pulls published weights from the Hugging Face hub, or from any address, into the folder of weights."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from training.errors import TrainingError, UsageError
from training.system.threads import within
from training.weights.download import (
    PATIENCE,
    DownloadError,
    Patience,
    Progress,
    Remote,
    downloaded,
    http_errors,
    length_of,
    require_success,
    without_secrets,
)
from training.weights.importing import Description, description_of, take_in
from training.weights.licences import check_licence
from training.weights.presets import HUB_PREFIX, PRESETS, Preset, preset_named
from training.weights.store import DEFAULT_WEIGHTS, TENSORS_SUFFIX, WeightsDamaged, WeightsRecord, WeightsStore

# Set before anything imports huggingface_hub, which otherwise tells the hub about the machine, and asks it for a list
# of programs to look for.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

HUB_FILE = "model.safetensors"
SHA256 = re.compile("[0-9a-f]{64}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class PullError(TrainingError):
    """Weights that could not be pulled. The message says why, and how to do without the network."""


@dataclass(frozen=True)
class Source:
    """The weights to pull, and their name here. `place` is a repository on the hub or an address."""

    place: str
    preset: Preset
    name: str
    revision: str | None = None
    image_size: int | None = None

    @property
    def origin(self) -> str:
        """The place as it is written into the record."""
        return without_secrets(self.place) if self.is_address else self.place

    @property
    def is_address(self) -> bool:
        return _is_address(self.place)


@dataclass(frozen=True)
class Pulled:
    """Weights that are here now. `note` says what is known of those that were here before; it is empty for new ones."""

    record: WeightsRecord
    note: str = ""


def source_of(
    text: str,
    preset: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    image_size: int | None = None,
) -> Source:
    """Returns what a person means: a preset's name, a repository on the hub, or an address.

    Raises PullError for something else, UsageError when --preset is missing, PresetError for one that is not known.
    """
    if _is_address(text):
        _check_address(text)
        if revision:
            raise UsageError("--revision is a branch, a tag or a commit on the hub: an address has none")
        place, chosen, default = text, _given(preset, without_secrets(text)), _name_in(text)
    else:
        place = PRESETS[text].hub if text in PRESETS else text
        if not REPOSITORY.fullmatch(place):
            raise PullError(
                f"weights should be a repository on the hub, as {HUB_PREFIX}{DEFAULT_WEIGHTS}, an address that begins "
                f"with https://, or one of {', '.join(PRESETS)}; got {text!r}"
            )
        known = PRESETS.get(place.removeprefix(HUB_PREFIX)) if place.startswith(HUB_PREFIX) else None
        chosen = known if known and not preset else _given(preset, place)
        default = known.name if known else place.partition("/")[2]
    chosen.preprocessing(image_size)  # an unknown size is said before anything is downloaded
    return Source(place, chosen, name or default, revision, image_size)


def pull(
    store: WeightsStore,
    source: Source,
    progress: Progress,
    judge: Callable[[Path, Description], None],
    *,
    allow_noncommercial: bool = False,
    endpoint: str | None = None,
    patience: Patience = PATIENCE,
) -> Pulled:
    """Puts weights into the store, or checks those that were pulled from the same place before.

    `judge` gets the file before anybody else sees it. When it raises WeightsRejected the file is kept aside. Raises
    PullError when the file does not come, and what `take_in` raises.
    """
    check_licence(source.name, source.preset.licence, allow_noncommercial=allow_noncommercial)
    if source.name in store.names():
        return _again(store, source, endpoint, patience)
    store.require_free(source.name)
    with _without_network(source, endpoint):
        remote = find(source, endpoint, patience)
        with downloaded(remote, store.folder, progress, patience) as file:
            description = description_of(
                source.preset, source.image_size, origin=source.origin, revision=remote.revision
            )
            with store.keeping_rejected(source.name, file):
                judge(file, description)
            record = take_in(
                store, file, source.name, description, allow_noncommercial=allow_noncommercial, called=source.origin
            )
    return Pulled(record)


def _again(store: WeightsStore, source: Source, endpoint: str | None, patience: Patience) -> Pulled:
    """Compares the weights that have this name with their record, and with what lies at the source now."""
    try:
        record = store.record(source.name)
        if record.origin != source.origin or source.image_size not in (None, record.preprocessing.height):
            store.require_free(source.name)
        store.verified_file(source.name)
    except WeightsDamaged as error:
        raise PullError(f"{error}. resnext weights remove {source.name} makes room to pull them again") from error
    try:
        remote = find(source, endpoint, patience)
    except DownloadError as error:
        return Pulled(record, f"whether they have changed there is not known: {error}")
    if remote.sha256 not in (None, record.sha256) or remote.size not in (None, record.bytes):
        theirs = f"SHA-256 {remote.sha256}" if remote.sha256 else f"{remote.size} bytes"
        raise PullError(
            f"{source.origin} has changed: its file has {theirs}{_at(remote.revision)}, the weights {record.name!r} "
            f"have SHA-256 {record.sha256} and {record.bytes} bytes{_at(record.revision)}. They stay as they are; "
            "--name OTHER pulls the new ones"
        )
    if remote.sha256:
        return Pulled(record, "the hub has the same file")
    return Pulled(
        record, "the server has a file of the same size" if remote.size else "the server says nothing of its file"
    )


@contextlib.contextmanager
def _without_network(source: Source, endpoint: str | None) -> Iterator[None]:
    """Adds to the error of a file that does not come how to do without the network."""
    try:
        yield
    except DownloadError as error:
        address = without_secrets(source.place if source.is_address else _hub_address(source, endpoint))
        file = PurePosixPath(urlsplit(address).path).name
        name = f" --name {source.name}" if source.name != source.preset.name else ""
        size = f" --image-size {source.image_size}" if source.image_size else ""
        raise PullError(
            f"{error}. Without a network: download {file} from {address} on another machine, then: "
            f"resnext weights import {file} --preset {source.preset.name}{name}{size}"
        ) from error


def _at(revision: str | None) -> str:
    return f" at {revision[:7]}" if revision else ""


def find(source: Source, endpoint: str | None = None, patience: Patience = PATIENCE) -> Remote:
    """Returns where the file lies and what the server says of it. Raises DownloadError.

    `endpoint` is the hub's address, by default HF_ENDPOINT or huggingface.co.
    """
    if source.is_address:
        return _at_address(source.place, patience)
    return _on_hub(source, endpoint, patience)


def _on_hub(source: Source, endpoint: str | None, patience: Patience) -> Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not in an __all__

    url = _hub_address(source, endpoint)
    shown = without_secrets(url)
    with http_errors(shown, patience, patience.connect_s), _hub_errors(source, shown):
        facts = within(patience.answer_s, lambda: get_hf_file_metadata(url, timeout=patience.connect_s))
    if not facts.commit_hash:
        raise DownloadError(f"{shown} does not answer as a Hugging Face hub does: HF_ENDPOINT should be one")
    return Remote(
        address=hf_hub_url(source.place, HUB_FILE, revision=facts.commit_hash, endpoint=endpoint),
        sha256=facts.etag if facts.etag and SHA256.fullmatch(facts.etag) else None,
        size=facts.size,
        revision=facts.commit_hash,
        headers=build_hf_headers(),  # with the token, which the client does not send to other servers
    )


def _hub_address(source: Source, endpoint: str | None) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.place, HUB_FILE, revision=source.revision, endpoint=endpoint)


@contextlib.contextmanager
def _hub_errors(source: Source, shown: str) -> Iterator[None]:
    """Raises what the hub refuses as DownloadError."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise DownloadError(f"{source.place!r} is no repository on the hub: {error}") from None
    except errors.GatedRepoError:
        raise DownloadError(f"{shown} is for those who accepted its terms: do that there, and set HF_TOKEN") from None
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"{shown} answers {error.response.status_code}: there is no {source.place}, or it is private (set HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{source.place} has no revision {source.revision or 'main'}") from None
    except errors.RemoteEntryNotFoundError:
        raise DownloadError(f"{source.place} has no file {HUB_FILE}") from None
    except errors.HfHubHTTPError as error:
        require_success(error.response.status_code, shown)
        raise DownloadError(f"{shown}: {error}") from None


def _at_address(address: str, patience: Patience) -> Remote:
    """Asks for the headers of the file. A server that gives only the file itself is taken as one that says nothing."""
    import httpx2
    from huggingface_hub import get_session

    shown = without_secrets(address)
    timeout = httpx2.Timeout(patience.connect_s)
    with http_errors(shown, patience, patience.connect_s):
        answer = within(
            patience.answer_s,
            lambda: get_session().head(address, timeout=timeout, headers={"Accept-Encoding": "identity"}),
        )
    if not answer.is_success:
        return Remote(address)
    etag = answer.headers.get("ETag")
    return Remote(
        address,
        size=length_of(answer),
        etag=etag if etag and etag.startswith('"') else None,  # W/"...": such a file may be another one
    )


def _given(preset: str | None, place: str) -> Preset:
    if preset is None:
        raise UsageError(
            f"--preset is missing: it says what images the network of {place} expects, and which licence it has. "
            f"There are: {', '.join(PRESETS)}"
        )
    return preset_named(preset)


def _is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _check_address(text: str) -> None:
    """Raises PullError for an address without a server or a file, or with a port that is none."""
    try:
        parts = urlsplit(text)
        complete = bool(parts.hostname and parts.path.strip("/")) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise PullError(
            f"an address should name a server and a file, as https://host/file{TENSORS_SUFFIX}; got {text!r}"
        )


def _name_in(address: str) -> str:
    """Returns the file's name in an address, without its ending."""
    return PurePosixPath(urlsplit(address).path).name.removesuffix(TENSORS_SUFFIX)
