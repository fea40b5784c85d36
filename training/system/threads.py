"""A function of many items, computed in threads, and one that is given up after a while."""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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


def within(seconds: float, function: Callable[[], R]) -> R:
    """Returns what a function returns, or raises what it raises. Raises TimeoutError when that takes longer.

    For waits that have no limit of their own, such as the system's for a name of the network. The thread is left to
    itself then, and ends with the process.
    """
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # it belongs to the caller
            outcome.set_exception(error)

    threading.Thread(target=run, name="within", daemon=True).start()
    return outcome.result(seconds)
