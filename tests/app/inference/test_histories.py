"""Histories of a service: images arrive, leave, break a run or cannot be decoded, runs hang, versions are swapped.

Hypothesis makes them up. After any of them each image has got the answer of its own version for its own pixels, or the
error that is its own or its batch's, and every thread has ended.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, TypeVar

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.inference.deployment import Deployment
from training.images.decode import ImageError

SHAPE = (2, 2, 3)
BREAKING = 255  # a pixel that fails the run it is in
LIMIT_S = 5.0  # for what should end at once
Fate = Literal["answered", "breaks its run", "cannot be decoded"]
T = TypeVar("T")


class Version:
    """A model that answers with its number and the pixel. Its runs wait while `gate` is closed."""

    def __init__(self, number: int, streams: int, gate: threading.Event) -> None:
        self.version, self.shape, self.gate = number, SHAPE, gate
        self.streams = SimpleNamespace(count=streams) if streams > 1 else None
        self.measured = SimpleNamespace(alone=SimpleNamespace(batch=4), crowd=SimpleNamespace(batch=2))
        self.running, self.most, self.largest = 0, 0, 0
        self._lock = threading.Lock()

    def padded(self, images: int) -> int:
        return images

    def run(self, images: NDArray[np.uint8], _: bool) -> NDArray[np.float32]:
        with self._lock:
            self.running += 1
            self.most, self.largest = max(self.most, self.running), max(self.largest, len(images))
        try:
            assert self.gate.wait(LIMIT_S)
            values = images[:, 0, 0, 0].astype(np.float32)
            if BREAKING in values:
                raise RuntimeError("a broken kernel")
            return np.stack([values, np.full(len(values), self.version, np.float32)], axis=1)
        finally:
            with self._lock:
                self.running -= 1


@dataclass
class Asked:
    """An image that was sent, the version that it was sent to, and what is to become of it."""

    value: int
    version: int
    fate: Fate
    answer: "concurrent.futures.Future[tuple[float, float]]"
    left: bool = False


class Histories(RuleBasedStateMachine):
    """The service's hot path, from a lease on the live version to the answer."""

    @initialize(streams=st.integers(1, 3), delay=st.sampled_from([0.0, 0.005]))
    def begin(self, streams: int, delay: float) -> None:
        self.streams, self.delay = streams, delay
        self.gate = threading.Event()
        self.gate.set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.asked: list[Asked] = []
        self.versions: list[Version] = []
        self.deployments: list[Deployment] = []
        self.uploaded = asyncio.Event()
        self.deploy()

    def end_uploads(self) -> None:
        """Lets the slow clients go on. The next ones wait for another event."""
        self.uploaded.set()
        self.uploaded = asyncio.Event()

    def deploy(self) -> None:
        version = Version(len(self.versions) + 1, self.streams, self.gate)
        self.versions.append(version)
        # it stands for a model
        self.deployments.append(Deployment(version, self.delay, None, lambda _: None))  # type: ignore[arg-type]

    @rule(
        values=st.lists(st.integers(0, BREAKING - 1), min_size=1, max_size=6),
        fates=st.lists(st.sampled_from(["answered"] * 5 + ["breaks its run", "cannot be decoded"]), min_size=6),
        encoded=st.booleans(),
        slow=st.booleans(),
    )
    def arrive(self, values: list[int], fates: list[Fate], encoded: bool, slow: bool) -> None:
        """A slow client's upload ends after the next swap, if there is one."""
        live, uploaded = self.deployments[-1], self.uploaded

        async def ask(source: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]) -> tuple[float, float]:
            with live.lease():
                if slow:
                    await uploaded.wait()
                value, version = (await live.classify(source)).probabilities
            return float(value), float(version)

        for value, fate in zip(values, fates, strict=False):
            pixels = np.full(SHAPE, BREAKING if fate == "breaks its run" else value, np.uint8)

            def decode(pixels: NDArray[np.uint8] = pixels, fate: Fate = fate) -> NDArray[np.uint8]:
                if fate == "cannot be decoded":
                    raise ImageError("corrupt_image", "made so")
                return pixels

            source = decode if encoded or fate == "cannot be decoded" else pixels
            answer = asyncio.run_coroutine_threadsafe(ask(source), self.loop)
            self.asked.append(Asked(value, len(self.versions), fate, answer))
        self.in_loop(lambda: None)  # each has its lease now

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        asked = self.asked[data.draw(st.integers(0, len(self.asked) - 1))]
        asked.left = True
        asked.answer.cancel()

    @rule()
    def hang(self) -> None:
        self.gate.clear()

    @rule()
    def go_on(self) -> None:
        self.gate.set()

    @rule()
    def swap(self) -> None:
        def swap() -> None:
            self.deploy()
            self.deployments[-2].retire()
            self.end_uploads()

        self.in_loop(swap)

    @rule()
    def settle(self) -> None:
        self.gate.set()
        self.in_loop(self.end_uploads)
        concurrent.futures.wait([one.answer for one in self.asked], LIMIT_S)
        for one in self.asked:
            self.check(one)
        self.asked.clear()

    def check(self, one: Asked) -> None:
        assert one.answer.done(), f"{one} was never answered"
        if one.answer.cancelled():
            assert one.left, f"{one} was cancelled"
            return
        error = one.answer.exception()
        if one.fate == "cannot be decoded":
            assert isinstance(error, ImageError), f"{one} got {error!r}"
        elif one.fate == "breaks its run":
            assert isinstance(error, InferenceFailed), f"{one} got {error!r}"
        elif error:
            broken = any(other.fate == "breaks its run" and other.version == one.version for other in self.asked)
            assert isinstance(error, InferenceFailed), f"{one} got {error!r}"
            assert broken, f"{one} failed, and nothing broke its run"
        else:
            assert one.answer.result() == (one.value, one.version), f"{one} got {one.answer.result()}"

    @invariant()
    def bounds_hold(self) -> None:
        for version in getattr(self, "versions", ()):
            assert version.most <= self.streams
            assert version.largest <= 4

    def teardown(self) -> None:
        self.settle()
        self.in_loop(self.deployments[-1].retire)
        for deployment in self.deployments:  # the retired ones have ended with their last lease
            joined = threading.Thread(target=deployment.batcher.join, daemon=True)
            joined.start()
            joined.join(LIMIT_S)
            assert not joined.is_alive(), f"version {deployment.model.version} has threads left"
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(LIMIT_S)
        self.loop.close()

    def in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(LIMIT_S)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,  # two busy cores
    derandomize=True,  # the same histories each time
    phases=[Phase.explicit, Phase.generate],  # to shrink one that hangs would take its limit hundreds of times
    suppress_health_check=[HealthCheck.too_slow],
)
