"""Hostile images to `POST /predict`, with a good one in each request or a good client beside."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.chaos.harness import GOOD, LIMIT_S, GoodClient, Outcome, Target, target, watched
from tests.chaos.pictures import costly, mutants

MUTANTS = 20_000
IN_A_REQUEST = 24
CODES = {"empty_file", "file_too_large", "not_an_image", "corrupt_image", "image_too_large", "unsupported_pixels"}
MOST_MEGABYTES = 2000  # above the memory before, with any one of the costly files


def run(folder: Path) -> Iterator[Outcome]:
    with target(folder / "images") as service:
        yield mutated(service)
    with target(folder / "bombs") as service:
        yield bombs(service)


def mutated(service: Target) -> Outcome:
    """Sends each mutant with others and one good image, whose answer has to stay what it is."""
    outcome, refused = Outcome("mutated images, in requests of 24 and a good one", MUTANTS), 0
    with watched(service, outcome), service.client() as client:
        expected = service.good(client).json()["results"][0]["predictions"]
        parts = mutants(MUTANTS, seed=1)
        while part := list(itertools.islice(parts, IN_A_REQUEST)):
            files = [("file", (str(i), data)) for i, data in enumerate([*part, GOOD])]
            try:
                reply = client.post("/predict", files=files)
            except httpx.TransportError as error:
                outcome.problems.append(f"{type(error).__name__} for a request of mutants")
                continue
            if reply.status_code != 200:
                outcome.problems.append(f"{reply.status_code}: {reply.text[:200]}")
                continue
            *results, good = reply.json()["results"]
            if good.get("predictions") != expected:
                outcome.problems.append(f"the good image was answered with {good}")
            codes = [result["error"]["code"] for result in results if "error" in result]
            outcome.problems += [f"an image's error has the code {code}" for code in codes if code not in CODES]
            refused += len(codes)
    outcome.seen = f"{refused:,} refused, the others classified"
    return outcome


def bombs(service: Target) -> Outcome:
    """Sends each costly file alone, and four times in one request, while a good client goes on."""
    files = costly()
    outcome = Outcome("images made to cost, alone and four in a request", 5 * len(files))
    longest = 0.0
    with watched(service, outcome), GoodClient(service, allowed=(200, 503)) as good, service.client() as client:
        before = service.resident()
        for name, data in files.items():
            for count in (1, 4):
                begun = time.monotonic()
                try:
                    reply = client.post("/predict", files=[("file", (name, data))] * count)
                except httpx.TransportError as error:
                    outcome.problems.append(f"{count} x {name}: {type(error).__name__}")
                    continue
                longest = max(longest, time.monotonic() - begun)
                if reply.status_code not in (200, 413, 422, 503):
                    outcome.problems.append(f"{count} x {name}: {reply.status_code}, {reply.text[:200]}")
            if (most := service.resident(peak=True)) > before + MOST_MEGABYTES:
                outcome.problems.append(f"{name}: {most} MB, {before} before")
                service.forget_peak()
    outcome.problems += good.problems
    if good.longest > LIMIT_S / 4:
        outcome.problems.append(f"a good client waited {good.longest:.1f} s")
    outcome.seen = f"the longest answer took {longest:.1f} s, a good client's {good.longest:.1f} s"
    return outcome
