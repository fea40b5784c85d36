"""`make audit`: looks up known vulnerabilities of all locked packages, by pip-audit, whose path is the argument.

Exit status: 0 none is known, 1 some are, 3 it is not known, since the data cannot be reached.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from supply.locks import locks, pinned

KNOWN = 1
UNREACHABLE = 3
LIMIT_S = 540

Json = dict[str, Any]  # Any: JSON


class Verdict(NamedTuple):
    """The lines to print, and the exit status."""

    lines: list[str]
    status: int


def main(program: str) -> int:
    """Asks for every package of every lock, prints what is known, and returns the exit status."""
    files = [part for lock in locks() for part in ("--requirement", str(lock))]
    # the locks are complete and hashed: nothing has to be resolved
    options = ["--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off", "--timeout=15"]
    try:
        done = subprocess.run([program, *options, *files], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        verdict = unreachable(f"no answer within {LIMIT_S} s")
    else:
        verdict = judge(done.stdout, done.stderr, {lock.stem: pinned(lock) for lock in locks()})
    for line in verdict.lines:
        print(line)  # noqa: T201  a command's own output
    return verdict.status


def judge(answer: str, said: str, by_lock: dict[str, set[tuple[str, str]]]) -> Verdict:
    """Reads pip-audit's JSON, and what it said on stderr where there is none.

    It counts a package that its source does not know as fine, also where that source knows none.
    """
    try:
        packages: list[Json] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError):
        return unreachable(said.strip().rpartition("\n")[2] or "it says nothing")
    skipped = sorted({package["name"] for package in packages if "skip_reason" in package})
    lines = [_line(package, found, by_lock) for package in packages for found in package.get("vulns", ())]
    if lines:
        return Verdict([*lines, *(unreachable(_missing(skipped, packages)).lines if skipped else ())], KNOWN)
    if skipped or not packages:
        return unreachable(_missing(skipped, packages))
    return Verdict([f"audit: no vulnerability is known of {len(packages)} packages in {len(by_lock)} locks"], 0)


def unreachable(why: str) -> Verdict:
    """Returns the verdict that nothing can be said."""
    line = f"audit: the data on vulnerabilities cannot be reached, so nothing is known: {why}"
    return Verdict([line], UNREACHABLE)


def _missing(skipped: list[str], packages: list[Json]) -> str:
    return f"{len(skipped)} of {len(packages)} packages were not found there, as {', '.join(skipped[:3]) or 'all'}"


def _line(package: Json, found: Json, by_lock: dict[str, set[tuple[str, str]]]) -> str:
    name, version = package["name"], package["version"]
    where = ", ".join(lock for lock, known in by_lock.items() if (name, version) in known)
    fixed = ", ".join(found.get("fix_versions", ())) or "no version"
    return f"{name} {version} ({where}): {found['id']}, mended in {fixed}"


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]))))
