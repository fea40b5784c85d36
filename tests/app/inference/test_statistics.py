from app.inference.statistics import Statistics, Total
from app.observability.timing import Timing


def test_a_request_adds_the_longest_of_its_images() -> None:
    statistics = Statistics()
    statistics.succeeded([Timing(1, 20, 3), Timing(2, 10, 3)], 25)
    statistics.succeeded([Timing(1, 1, 1)], 3)
    assert (statistics.images, statistics.success) == (3, Total(2, 28))
    assert (statistics.decode, statistics.queue, statistics.infer) == (Total(2, 3), Total(2, 21), Total(2, 4))
