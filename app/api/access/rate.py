"""Limits how many requests one caller may send in a time."""

import functools
import ipaddress
import math
import time
from collections.abc import Callable

from limits import parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from app.errors import RateLimited

# All addresses share so many counts, so that a client with many addresses cannot fill the memory. Python's hash decides
# which share one, and its secret is another in each process.
PLACES = 16_384
KNOWN_ADDRESSES = 1024
MOST_CHARACTERS = 64  # a proxy may pass on what a client made up


class RateLimit:
    """A limit such as "100/second" for each caller. The time begins with a caller's first request, and then anew."""

    def __init__(self, rate: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = parse(rate)
        self._clock = clock
        self._windows = _Windows(clock)
        self._limiter = FixedWindowRateLimiter(self._windows)

    def take(self, key: str, address: str) -> None:
        """Counts a request of a key, or with "" of an address. Raises RateLimited when it is one too many."""
        caller = key or place_of(address[:MOST_CHARACTERS])
        if self._limiter.hit(self._rate, caller):
            return
        end = self._limiter.get_window_stats(self._rate, caller).reset_time
        seconds = max(1, math.ceil(end - self._clock()))
        whose = f"the API key {key!r}" if key else "this address"
        raise RateLimited(
            f"{whose} may send {self._rate}, this is one more; try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        )

    @property
    def counts(self) -> int:
        """The number of counts that are kept."""
        return len(self._windows.counts)


class _Windows(Storage):
    """The counts of windows of time. limits' own storage starts a thread for every hit, 80 us, to sweep what is over.

    Nothing is swept here: there are at most PLACES addresses and as many keys as the service has.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.counts: dict[str, tuple[int, float]] = {}  # and when their window is over
        self._clock = clock

    base_exceptions = ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts in the key's window of `expiry` seconds; returns its count."""
        now = self._clock()
        count, end = self.counts.get(key, (0, 0.0))
        if end <= now:
            count, end = 0, now + expiry
        self.counts[key] = (count + amount, end)
        return count + amount

    def get(self, key: str) -> int:
        """Returns the count of the key's window."""
        return self.counts[key][0]

    def get_expiry(self, key: str) -> float:
        """Returns when the key's window is over, by the clock."""
        return self.counts[key][1]

    def check(self) -> bool:
        """Whether the storage can be used."""
        return True

    def reset(self) -> int:
        """Forgets all windows; returns how many there were."""
        number = len(self.counts)
        self.counts.clear()
        return number

    def clear(self, key: str) -> None:
        """Forgets the key's window."""
        self.counts.pop(key, None)


@functools.lru_cache(KNOWN_ADDRESSES)
def place_of(address: str) -> str:
    """Returns the name of the count that an address has. Of IPv6 the first 64 bits count, which one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return f"#{hash(address) % PLACES}"
    if isinstance(found, ipaddress.IPv6Address):
        return f"#{hash(str(found.ipv4_mapped or int(found) >> 64)) % PLACES}"
    return f"#{hash(str(found)) % PLACES}"
