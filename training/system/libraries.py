"""Versions of the libraries that are installed."""

import importlib.metadata
from collections.abc import Iterable


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Returns the version of each of these libraries that is installed."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}
