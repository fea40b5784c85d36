"""What the gate said of a candidate, and on which figures."""

from typing import Literal

from pydantic import BaseModel, Field

Outcome = Literal["better", "worse", "indistinguishable"]


class ClassRecall(BaseModel):
    """Share of one class's test images that are named right. `live` is None for a class the live version lacks."""

    candidate: float
    live: float | None
    images: int | None = Field(None, description="test images of the class")


class Comparison(BaseModel):
    """A candidate against the live version, image by image."""

    images: int
    candidate_only: int = Field(description="images that the candidate alone names right")
    live_only: int = Field(description="images that the live version alone names right")
    p_value: float = Field(description="of McNemar's exact test on these two, two-sided")
    outcome: Outcome = Field(description="of the candidate; indistinguishable where gate.significance is not reached")
    images_to_tell: int | None = Field(
        description="about so many more test images would tell the two apart, if they went on to differ as they do; "
        "null where they are told apart, and where no number would do"
    )

    def render(self) -> str:
        """The comparison in a sentence."""
        if not self.candidate_only + self.live_only:
            return f"both are right and wrong on the same of {self.images} images"
        counts = (
            f"the candidate alone is right on {self.candidate_only} of {self.images} images, the live version alone on "
            f"{self.live_only}"
        )
        if self.outcome != "indistinguishable":
            return f"{counts}: {self.outcome} beyond chance (p = {self.p_value:.2g})"
        more = f"; about {self.images_to_tell} more test images would tell" if self.images_to_tell else ""
        return f"{counts}: not distinguishable (p = {self.p_value:.2g}){more}"


class Verdict(BaseModel):
    """What the gate said of a candidate, and on which figures. Accuracies are fractions of 1, on the test split."""

    passed: bool
    reasons: list[str] = Field(description="why it did not pass; empty when it did")
    notes: list[str] = Field(description="what an operator should know all the same")
    policy: str
    dry_run: bool
    images: int | None = Field(None, description="test images, which all of this is about")
    accuracy: float
    accuracy_interval: tuple[float, float] | None = Field(None, description="its 95 % interval (Wilson)")
    minimum: float = Field(description="the accuracy that was asked for, whatever is live")
    live_version: int | None = Field(description="the version that was live; the candidate was compared with it")
    live_accuracy: float | None
    live_accuracy_interval: tuple[float, float] | None = Field(None, description="its 95 % interval (Wilson)")
    comparison: Comparison | None = Field(None, description="of the two, on the same images; null without a live one")
    classes: dict[str, ClassRecall]
