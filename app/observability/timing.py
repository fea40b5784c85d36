"""Where an image's time goes, in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoding:
    """The decoding of one image: seconds of its wait for a thread, its begin (`time.perf_counter`), and its seconds."""

    waited: float
    begun: float
    seconds: float

    @property
    def ended(self) -> float:
        """When it ended, by `time.perf_counter`."""
        return self.begun + self.seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """The stages of one image that the model has answered. `queue` is its wait for a decoder and for the model.

    `decode` is 0 for an image that came as pixels.
    """

    decode: float
    queue: float
    infer: float

    @classmethod
    def of(cls, decoding: Decoding | None, waited: float, infer: float) -> "Timing":
        """Adds up the stages of an image that waited for the model for `waited` seconds after its decoding, if any."""
        if decoding is None:
            return cls(0.0, waited, infer)
        return cls(decoding.seconds, decoding.waited + waited, infer)

    @classmethod
    def longest(cls, images: Sequence["Timing"]) -> "Timing":
        """Returns the stages of a request of at least one image: each is the longest of its images'."""
        if len(images) == 1:
            return images[0]
        return cls(
            max(image.decode for image in images),
            max(image.queue for image in images),
            max(image.infer for image in images),
        )
