"""A function of many items, computed in threads."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """Yields `function` of each item, in order. Closing the generator drops the items that have not begun."""
    pool = ThreadPoolExecutor(thread_name_prefix="items")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
