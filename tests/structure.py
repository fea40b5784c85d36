"""Prints how a checkout is built: sizes, arrows of imports, and circles. `python -m tests.structure [PATH]`.

A package's entries are the files and folders directly in it. An arrow leads from one module to another that it imports;
between folders or entries, an arrow stands for all imports from the modules of one to those of the other. Files named
`__init__.py` are not counted, since they hold a docstring at most.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grimp

PACKAGES = ("app", "training")
Arrows = set[tuple[str, str]]  # from and to, as dotted names


@dataclass(frozen=True)
class Files:
    """The code files of a folder or of several, with the lines of each."""

    name: str
    lines: dict[str, int]

    def __str__(self) -> str:
        largest = max(self.lines, key=lambda path: self.lines[path])
        sizes = self.lines.values()
        return (
            f"{self.name:<26}{len(sizes):>4} files {sum(sizes):>6} lines"
            f"   median {median(sizes):>3.0f}   largest {self.lines[largest]:>4} {largest}"
        )


def folders(root: Path, package: str) -> list[Files]:
    """Returns the folders of a package, each with the files directly in it."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for path in sorted((root / package).rglob("*.py")):
        if path.name != "__init__.py":
            place = path.relative_to(root)
            found[f"{place.parent}/"][str(place)] = len(path.read_text().splitlines())
    return [Files(name, lines) for name, lines in found.items()]


def top(root: Path, package: str) -> list[str]:
    """Returns the entries of a package that hold code."""
    entries = (path for path in (root / package).iterdir() if path.suffix == ".py" or any(path.rglob("*.py")))
    return sorted(path.name for path in entries if path.name != "__init__.py")


def imports(root: Path) -> tuple[Arrows, set[str]]:
    """Returns the arrows between the modules below `root`, and which of these are packages."""
    sys.path.insert(0, str(root))  # before the checkout that this module comes from
    try:
        graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    finally:
        sys.path.remove(str(root))
    arrows = {(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)}
    return arrows, {module for module in graph.modules if graph.find_children(module)}


def between_folders(arrows: Arrows, packages: set[str]) -> Arrows:
    """Returns the arrows between the folders that hold the modules."""

    def folder(module: str) -> str:
        return module if module in packages else module.rpartition(".")[0]

    return {(folder(a), folder(b)) for a, b in arrows if folder(a) != folder(b)}


def between_entries(arrows: Arrows, package: str) -> Arrows:
    """Returns the arrows between the entries of one package."""

    def entry(module: str) -> str:
        return module.removeprefix(f"{package}.").partition(".")[0]

    inside = {(entry(a), entry(b)) for a, b in arrows if all(m.startswith(f"{package}.") for m in (a, b))}
    return {(a, b) for a, b in inside if a != b}


def circles(arrows: Arrows) -> list[list[str]]:
    """Returns the groups of names that can all be reached from each other."""
    after: dict[str, set[str]] = defaultdict(set)
    for a, b in arrows:
        after[a].add(b)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = {start}
        while ahead:
            ahead = {name for known in ahead for name in after[known]} - seen
            seen |= ahead
        return seen

    reach = {name: reached(name) for name in list(after)}
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in reach if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def circles_of_entries(arrows: Arrows, packages: Iterable[str]) -> dict[str, list[list[str]]]:
    """Returns the circles between the entries of each package that has some."""
    found = {package: circles(between_entries(arrows, package)) for package in sorted(packages)}
    return {package: groups for package, groups in found.items() if groups}


def report(root: Path) -> Iterator[str]:
    arrows, packages = imports(root)
    for package in PACKAGES:
        parts = folders(root, package)
        yield from map(str, parts)
        yield str(Files(package, {path: lines for part in parts for path, lines in part.lines.items()}))
        yield ""
    for package in PACKAGES:
        inner = {(a, b) for a, b in arrows if a.startswith(package) and b.startswith(package)}
        yield (
            f"{package}: {len(top(root, package))} entries at the top; arrows: {len(inner)} between modules,"
            f" {len(between_folders(inner, packages))} between folders,"
            f" {len(between_entries(inner, package))} between the entries at the top"
        )
    yield f"arrows from app to training: {len({(a, b) for a, b in arrows if a.split('.')[0] != b.split('.')[0]})}"
    yield f"circles of modules: {circles(arrows) or 'none'}"
    yield f"circles of entries: {circles_of_entries(arrows, packages) or 'none'}"


if __name__ == "__main__":
    for line in report(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()):
        print(line)  # noqa: T201  its purpose
