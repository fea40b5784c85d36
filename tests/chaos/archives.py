"""Hostile archives to `PUT /datasets/NAME`: nothing may be written outside, left behind, or take all of the memory."""

import gzip
import io
import random
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.app.network import encoded, random_images
from tests.chaos.harness import GoodClient, Outcome, Target, target, watched
from tests.chaos.pictures import costly, mutants

Member = tuple[str, bytes]
PHOTOS = [encoded(image) for image in random_images(24)]
SANE: list[Member] = [(f"{label}/{i}.png", PHOTOS[10 * k + i]) for k, label in enumerate("ab") for i in range(10)]
MUTATED = 200
LINKS = {"symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}
OTHERS = {"device": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE, "unknown member": b"Z"}


def run(folder: Path) -> Iterator[Outcome]:
    with target(folder / "archives") as service:
        yield meant(service)
        yield changed(service)


def meant(service: Target) -> Outcome:
    """Sends archives that are hostile on purpose."""
    cases = hostile(service.folder / "evil.png")
    return _sent(service, Outcome("archives that are hostile on purpose", len(cases)), cases)


def changed(service: Target) -> Outcome:
    """Sends archives with bytes changed at random, and archives of changed pictures."""
    dice, cases = random.Random(2), {}
    for number in range(MUTATED):
        data = bytearray((zipped, _tar)[number % 2](SANE))
        for _ in range(dice.randint(1, 20)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        cases[f"changed archive {number}"] = bytes(data[: dice.randint(len(data) // 2, len(data))])
    for number in range(10):
        pictures = [(f"a/mutant {i}.jpg", data) for i, data in enumerate(mutants(100, seed=number))]
        cases[f"archive of mutants {number}"] = zipped([*SANE, *pictures])
    return _sent(service, Outcome("archives changed at random, and of changed images", len(cases)), cases)


def _sent(service: Target, outcome: Outcome, cases: dict[str, bytes]) -> Outcome:
    taken, longest = 0, 0.0
    with watched(service, outcome), GoodClient(service, allowed=(200, 503)) as good, service.client(180) as client:
        for name, data in cases.items():
            begun = time.monotonic()
            try:
                reply = client.put("/datasets/chaos", content=data)
            except httpx.TransportError as error:
                outcome.problems.append(f"{name}: {type(error).__name__}")
                continue
            longest = max(longest, time.monotonic() - begun)
            taken += reply.is_success
            if reply.status_code not in (200, 201, 413, 422, 503):
                outcome.problems.append(f"{name}: {reply.status_code}, {reply.text[:200]}")
            outcome.problems += [f"{name}: left {path}" for path in _strange(service.folder)]
    outcome.problems += good.problems
    outcome.seen = f"{taken} taken, the longest in {longest:.1f} s; a good client's longest answer {good.longest:.1f} s"
    return outcome


def _strange(folder: Path) -> list[Path]:
    """Returns what no upload may leave: files beside the datasets, links, and what lies in the place for unpacking."""
    datasets = folder / "datasets"
    outside = [
        path for path in (folder / "evil.png", folder.parent / "evil.png", datasets / "evil.png") if path.exists()
    ]
    links = [path for path in datasets.rglob("*") if path.is_symlink()]
    return [*outside, *links, *(path for path in datasets.glob(".staging*/*"))]


def hostile(outside: Path) -> dict[str, bytes]:
    """Returns archives by what is wrong with them. `outside` is a path that none of them may write."""
    cases: dict[str, bytes] = {}
    for name in (
        "../evil.png",
        "a/../../evil.png",
        str(outside),
        "..\\..\\evil.png",
        "C:\\evil.png",
        "//evil/share.png",
    ):
        cases[f"zip with {name}"] = zipped([*SANE, (name, PHOTOS[20])])
        cases[f"tar with {name}"] = _tar([*SANE, (name, PHOTOS[20])])
    for what, kind in LINKS.items():
        for goal in ("/etc/passwd", "../../evil.png", "0.png"):
            cases[f"tar with a {what} to {goal}"] = _tar(SANE, special=[("a/link.png", kind, goal)])
    cases["tar that writes through a link"] = _tar(
        [], [("out", tarfile.SYMTYPE, str(outside.parent))], [("out/evil.png", PHOTOS[20]), *SANE]
    )
    for what, kind in OTHERS.items():
        cases[f"tar with a {what}"] = _tar(SANE, special=[("a/thing.png", kind, "")])
    linked = zipfile.ZipInfo("a/link.png")
    linked.create_system, linked.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    whole, packed = zipped(SANE), _tar(SANE, mode="w:gz")
    cases |= {
        "zip with a symbolic link": zipped(SANE, [(linked, b"/etc/passwd")]),
        "zip with one name twice": zipped([*SANE, ("a/0.png", PHOTOS[20])]),
        "zip with names that differ in case": zipped([*SANE, ("A/0.png", PHOTOS[20]), ("a/0.PNG", PHOTOS[21])]),
        "zip with a file that is a folder too": zipped([*SANE, ("a/0.png/x.png", PHOTOS[20])]),
        "zip with a name of 300 letters": zipped([*SANE, (f"a/{'n' * 300}.png", PHOTOS[20])]),
        "zip with line breaks in a class": zipped(
            [*SANE, *((f"x\nERROR forged/{i}.png", PHOTOS[20 + i]) for i in range(3))]
        ),
        "zip with reversed letters in a class": zipped(
            [*SANE, *((f"a\u202egnp/{i}.png", PHOTOS[20 + i]) for i in range(3))]
        ),
        "zip with Windows' own names": zipped([*SANE, ("CON/0.png", PHOTOS[20]), ("a/NUL.png", PHOTOS[21])]),
        "tar 400 folders deep": _tar([*SANE, ("a/" + "d/" * 400 + "x.png", PHOTOS[20])]),
        "zip that is encrypted": whole.replace(b"PK\x03\x04\x14\0\0\0", b"PK\x03\x04\x14\0\1\0").replace(
            b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"
        ),
        "zip cut off": whole[:-40],
        "tar cut off": _tar(SANE)[:3000],
        "compressed tar cut off": packed[:-20],
        "compressed tar with more behind it": packed + b"more" * 100,
        "picture before a zip": PHOTOS[0] + whole,
        "zip of 1 GB of zeros": zipped([*SANE, ("a/zeros.png", bytes(1024**3))]),
        "compressed tar of 1 GB of zeros": gzip.compress(_tar([("a/zeros.png", bytes(1024**3))]), 1),
        "tar of 100,000 empty files": _tar([(f"a/{i}.txt", b"") for i in range(100_000)], mode="w:gz"),
        "gzip in gzip": gzip.compress(gzip.compress(bytes(50 * 1024**2))),
        "nothing": b"",
        "text": b"hello" * 100,
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    }
    for name, data in costly().items():
        cases[f"zip with a {name}"] = zipped([*SANE, ("a/costly.png", data)])
    return cases


def zipped(members: list[Member], infos: list[tuple[zipfile.ZipInfo, bytes]] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo()
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED  # the constructor would mend the name
            archive.writestr(info, data)
        for info, data in infos or ():
            archive.writestr(info, data)
    return file.getvalue()


def _tar(
    members: list[Member],
    special: list[tuple[str, bytes, str]] | None = None,
    after: list[Member] | None = None,
    mode: str = "w",
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]  # it is one of its words
        for name, kind, goal in special or ():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.devmajor, info.devminor = kind, goal, 1, 3
            archive.addfile(info)
        for name, data in [*members, *(after or ())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()
