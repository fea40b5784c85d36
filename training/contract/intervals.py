"""The confidence interval of a share: with few images a share says little."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Proportion:
    """A number of images, `count`, out of `images`."""

    count: int
    images: int

    @classmethod
    def of(cls, share: float, images: int) -> Self:
        """Returns the proportion whose share of `images` is `share`, rounded to whole images."""
        return cls(round(share * images), images)

    @property
    def share(self) -> float:
        """The fraction of 1; 0 where there are no images."""
        return self.count / self.images if self.images else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true share: Wilson, "Probable inference, the law of succession" (1927)."""
        if not self.images:
            return 0.0, 1.0
        middle = (self.share + Z**2 / (2 * self.images)) / (1 + Z**2 / self.images)
        spread = Z / (1 + Z**2 / self.images)
        spread *= math.sqrt(self.share * (1 - self.share) / self.images + Z**2 / (4 * self.images**2))
        return max(0.0, middle - spread), min(1.0, middle + spread)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.4f} (95 %: {low:.2f} to {high:.2f})"
