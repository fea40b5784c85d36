from app.observability.timing import Decoding, Timing


def test_the_queue_is_the_wait_for_a_decoder_and_for_the_model() -> None:
    assert Timing.of(Decoding(waited=1, begun=50, seconds=2), 4, 8) == Timing(decode=2, queue=5, infer=8)
    assert Timing.of(None, 4, 8) == Timing(decode=0, queue=4, infer=8)


def test_the_stages_of_a_request_are_the_longest_of_its_images() -> None:
    images = [Timing(1, 20, 3), Timing(2, 10, 3), Timing(1, 1, 9)]
    assert Timing.longest(images) == Timing(2, 20, 9)
    assert Timing.longest(images[:1]) == images[0]
