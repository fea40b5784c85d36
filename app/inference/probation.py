"""A watch over the first images of a version that has just taken over from another one."""

from collections.abc import Callable


class Probation:
    """A count of the first `images` images and of those that the model failed on.

    It calls `on_failure` as soon as more than `error_rate * images` have failed. For the event loop's thread alone.
    """

    def __init__(self, images: int, error_rate: float, on_failure: Callable[["Probation"], None]) -> None:
        self._images = images
        self._allowed = images * error_rate
        self._on_failure = on_failure
        self.restart()

    def restart(self) -> None:
        """Counts from zero again, beginning with the next image."""
        self._seen = 0
        self._failed = 0
        self.reason = ""  # for going back, for the operator

    @property
    def lasts(self) -> bool:
        """Whether the version still has to prove itself."""
        return self._seen < self._images and not self.reason

    def count(self, failed: bool) -> None:
        """Counts one image, which the model answered or failed on."""
        if not self.lasts:
            return
        self._seen += 1
        self._failed += failed
        if self._failed > self._allowed:
            self._end(f"the model failed on {self._failed} of the first {self._seen} images after it went live")

    def fail(self, reason: str) -> None:
        """Ends the probation at once, unless it has ended already."""
        if self.lasts:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self.reason = reason
        self._on_failure(self)
