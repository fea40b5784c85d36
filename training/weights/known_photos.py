"""Photos of known things, which come with the package, and what ImageNet's labels call them.

Where they are from and what a published classifier says of them is in `photos/README.md`.
"""

from dataclasses import dataclass
from importlib import resources

from training.weights.presets import imagenet_labels
from training.weights.store import WeightsRejected

MOST_WRONG = 1  # one photo decides nothing: published networks differ in what they see first


@dataclass(frozen=True)
class KnownPhoto:
    """A photo in `photos/`. One of `labels` should come first; each of them names what it shows."""

    file: str
    labels: frozenset[str]

    def read(self) -> bytes:
        """Returns the bytes of the JPEG."""
        return resources.files(__package__).joinpath("photos", self.file).read_bytes()


KNOWN_PHOTOS = (
    KnownPhoto("camera.jpg", frozenset({"tripod", "reflex camera"})),
    KnownPhoto("cat.jpg", frozenset({"tabby", "tiger cat", "Egyptian cat"})),
    KnownPhoto("coffee.jpg", frozenset({"espresso", "cup", "coffee mug"})),
    KnownPhoto("rocket.jpg", frozenset({"missile", "projectile", "space shuttle"})),
)


@dataclass(frozen=True)
class Opinion:
    """The answer of weights to a photo: the label that came first, and its probability."""

    photo: KnownPhoto
    label: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the label names what the photo shows."""
        return self.label in self.photo.labels

    def __str__(self) -> str:
        return f"{self.photo.file}: {self.label} ({self.probability:.2f})"


def has_known_labels(labels: list[str]) -> bool:
    """Whether the photos can be named with these labels: they are ImageNet's, in ImageNet's order."""
    return labels == imagenet_labels()


def require_right(name: str, opinions: list[Opinion]) -> None:
    """Raises WeightsRejected when more than `MOST_WRONG` of the photos were named wrongly."""
    wrong = [opinion for opinion in opinions if not opinion.right]
    if len(wrong) > MOST_WRONG:
        said = "; ".join(f"{opinion}, expected {' or '.join(sorted(opinion.photo.labels))}" for opinion in wrong)
        raise WeightsRejected(
            f"the weights {name!r} should name {len(opinions) - MOST_WRONG} of {len(opinions)} photos of known things, "
            f"they name {len(opinions) - len(wrong)}. They say of {said}"
        )
