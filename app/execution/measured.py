"""What a network was seen to do on this machine: it holds for its later versions, whose weights alone differ."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """`speeds` are images/s by precision; the curves are seconds by batch size, of one run at a time and of streams."""

    precision: str
    speeds: dict[str, float]
    curve: dict[int, float]
    max_batch: int
    stream_curve: dict[int, float]
    stream_batch: int
