"""The gate's verdict on a candidate, and the figures behind it."""

from typing import Literal

from pydantic import BaseModel, Field


class ClassRecall(BaseModel):
    """The share of one class's test images that is named right. `live` is the active version's share.

    `live` is None for a class that the active version lacks, and where there is no comparison.
    """

    candidate: float
    live: float | None
    images: int | None = Field(None, description="test images of the class")


class Comparison(BaseModel):
    """A comparison of a candidate with the active version, image by image."""

    images: int
    candidate_only: int = Field(description="images that the candidate alone names right")
    live_only: int = Field(description="images that the active version alone names right")
    p_value: float = Field(description="p-value of McNemar's exact test on these two counts, two-sided")
    outcome: Literal["better", "worse", "indistinguishable"] = Field(
        description="how the candidate did; indistinguishable where the p-value is not below gate.significance"
    )
    images_to_tell: int | None = Field(
        description="estimate of how many more test images would tell the two apart, if they keep differing at the "
        "same rate; null where they are told apart already, and where no number would do"
    )

    def render(self) -> str:
        """Returns the comparison as a sentence."""
        if not self.candidate_only + self.live_only:
            return f"both are right and wrong on the same of {self.images} images"
        counts = (
            f"the candidate alone is right on {self.candidate_only} of {self.images} images, the active version alone "
            f"on {self.live_only}"
        )
        if self.outcome != "indistinguishable":
            return f"{counts}: {self.outcome} beyond chance (p = {self.p_value:.2g})"
        more = f"; about {self.images_to_tell} more test images would tell" if self.images_to_tell else ""
        return f"{counts}: not distinguishable (p = {self.p_value:.2g}){more}"


class Verdict(BaseModel):
    """The gate's verdict on a candidate, with its figures. Accuracies are fractions of 1, on the test split."""

    passed: bool
    reasons: list[str] = Field(description="why it did not pass; empty when it did")
    notes: list[str] = Field(description="what an operator should know although it does not decide")
    policy: str
    dry_run: bool
    images: int | None = Field(None, description="test images that all figures are about")
    accuracy: float
    accuracy_interval: tuple[float, float] | None = Field(None, description="the accuracy's 95 % interval (Wilson)")
    minimum: float = Field(description="accuracy that was required whichever version is active")
    live_version: int | None = Field(description="the version that was active when the gate judged")
    live_accuracy: float | None = Field(description="the active version's accuracy; null without a comparison")
    live_accuracy_interval: tuple[float, float] | None = Field(None, description="95 % interval (Wilson)")
    comparison: Comparison | None = Field(
        None, description="image by image with the active version; null where none was compared"
    )
    classes: dict[str, ClassRecall]
