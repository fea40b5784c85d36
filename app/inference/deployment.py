"""A model and its batcher, from the moment it goes live to its last answer."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from app.errors import InferenceFailed
from app.execution.model import Model
from app.inference.batcher import Answer, Batcher, Decode, Run
from app.inference.probation import Probation
from app.inference.statistics import Statistics
from app.observability.observation import CURRENT, Batch
from app.observability.timing import Decoding


class Deployment:
    """A model with its batcher. It ends when it is retired and its last request is answered."""

    def __init__(
        self,
        model: Model,
        delay: float,
        probation: Probation | None,
        observe: Callable[[Batch], None],
    ) -> None:
        self.model = model
        self.statistics = Statistics()
        self.batcher = batcher_of(model, delay, observe, self.statistics.counted(model.run), hung=self._hung)
        self._version = str(model.version)
        self.probation = probation
        self._leases = 0
        self._retired = False

    async def classify(self, image: NDArray[np.uint8] | Decode, decoding: Decoding | None = None) -> Answer:
        """Returns the answer for one image, uint8 `model.shape`, or for a function that decodes it; `decoding` says how
        an image was decoded elsewhere. Raises InferenceFailed, also on NaN and infinity, and what the function raises.

        Each InferenceFailed counts against a version on probation, and a run that hangs ends it; a deadline or a client
        that left does not count.
        """
        try:
            answer = await self.batcher.submit(image, decoding)
            if not np.isfinite(answer.probabilities).all():
                raise InferenceFailed("the model gave probabilities that are not finite numbers")
        except InferenceFailed:
            self._count(failed=True)
            raise
        self._count(failed=False)
        if request := CURRENT.get():
            request.timings.append(answer.timing)
        return answer

    @contextlib.contextmanager
    def lease(self) -> Iterator["Deployment"]:
        """Keeps the deployment running for the length of the block."""
        self._leases += 1
        if request := CURRENT.get():
            request.leased(self._version)
        try:
            yield self
        finally:
            self._leases -= 1
            self._end_if_unused()

    def retire(self) -> None:
        """Ends the deployment now, or when the last lease on it ends."""
        self._retired = True
        self._end_if_unused()

    def _count(self, failed: bool) -> None:
        if self.probation:
            self.probation.count(failed)

    def _hung(self, reason: str) -> None:
        if self.probation:
            self.probation.fail(reason)

    def _end_if_unused(self) -> None:
        if self._retired and not self._leases:
            self.batcher.close()  # its threads hold the last reference: the session is freed with them


def batcher_of(
    model: Model,
    delay: float,
    observe: Callable[[Batch], None] = lambda _: None,
    run: Run | None = None,
    max_batch: int | None = None,
    hung: Callable[[str], None] = lambda _: None,
) -> Batcher:
    """Puts a model to work for requests: in batches, and in its streams where it has some; of `max_batch`, or of what
    its load has settled."""
    return Batcher(
        run or model.run,
        model.shape,
        max_batch or model.measured.alone.batch,
        model.padded,
        delay,
        model.streams.count if model.streams else 1,
        max_batch or model.measured.crowd.batch,
        observe,
        hung,
    )
