"""The reasons why a class has too few images."""

from collections.abc import Iterable, Iterator

from training.datasets.layout import Sample
from training.datasets.report import Unreadable


def causes(files: list[Sample], readable: Iterable[Sample], unreadable: Iterable[Unreadable], labels: list[str]) -> str:
    """Returns what happened to a class's files.

    For example `20 files: 18 are not_an_image (owl/0.jpg: ...), 2 have the same bytes as in 'cat' (owl/1.jpg as
    cat/5.jpg)`. `readable` are the hashed files of all classes; the first of equal files counts as the original.
    """
    names = {file.name for file in files}
    parts = [*_unread(names, unreadable), *_copies(names, readable, labels)]
    return f"{len(files)} files" + (f": {', '.join(parts)}" if parts else "")


def _unread(names: set[str], unreadable: Iterable[Unreadable]) -> Iterator[str]:
    by_code: dict[str, list[Unreadable]] = {}
    for bad in unreadable:
        if bad.path in names:
            by_code.setdefault(bad.code, []).append(bad)
    for code, group in by_code.items():
        yield f"{_are(len(group))} {code} ({group[0].path}: {group[0].message})"


def _copies(names: set[str], readable: Iterable[Sample], labels: list[str]) -> Iterator[str]:
    originals: dict[str, Sample] = {}
    by_label: dict[int, list[tuple[Sample, Sample]]] = {}
    for sample in readable:
        original = originals.setdefault(sample.sha256, sample)
        if original is not sample and sample.name in names:
            by_label.setdefault(original.label, []).append((sample, original))
    for label, pairs in by_label.items():
        copy, original = pairs[0]
        has = "has" if len(pairs) == 1 else "have"
        yield f"{len(pairs)} {has} the same bytes as in {labels[label]!r} ({copy.name} as {original.name})"


def _are(count: int) -> str:
    return f"{count} {'is' if count == 1 else 'are'}"
