"""Model files compared by ONNX Runtime alone: one two-thread run at a time, or two one-thread runs at once.

`python -m benchmarks.inference FILE FILE ...` prints a Markdown table; docs/benchmarks.md names the files that `make
.bench/models/made` makes. Rounds are interleaved, figures are medians.
"""

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.machine import machine

ARRANGEMENTS = {  # threads of a run, runs at once, images of a run
    "two runs of one thread": (1, 2, 1),
    "the same, 2 images a run": (1, 2, 2),
    "one run of two threads": (2, 1, 1),
    "the same, 2 images a run ": (2, 1, 2),
    "one run of one thread": (1, 1, 1),
}


def main() -> None:
    """Prints images a second of each file in each arrangement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5)
    options = parser.parse_args()
    sessions = {(path, threads): open_session(path, threads) for path in options.models for threads in (1, 2)}
    rates: dict[tuple[str, Path], list[float]] = {(name, path): [] for name in ARRANGEMENTS for path in options.models}
    for _ in range(options.rounds):
        for name, path in rates:
            threads, runs, images = ARRANGEMENTS[name]
            rates[name, path].append(rate(sessions[path, threads], runs, images, options.seconds))
    sys.stdout.write(
        f"| | {' | '.join(path.name for path in options.models)} | ratio |\n|---|{'---|' * (len(options.models) + 1)}\n"
    )
    for name in ARRANGEMENTS:
        medians = [statistics.median(rates[name, path]) for path in options.models]
        figures = " | ".join(f"{median:.1f}" for median in medians)
        sys.stdout.write(f"| {name.strip()} | {figures} | {medians[-1] / medians[0]:.2f} |\n")
    sys.stdout.write(f"\n{machine()}\n")


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Returns a warm session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rate(session, 1, 2, 0)
    return session


def rate(session: onnxruntime.InferenceSession, runs: int, images: int, seconds: float) -> float:
    """Returns images a second, of noise."""
    shape = (images, *session.get_inputs()[0].shape[1:])
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    counts = [0] * runs
    start = time.perf_counter()

    def work(i: int) -> None:
        while True:
            session.run(None, {"image": noise})
            counts[i] += images
            if time.perf_counter() - start >= seconds:
                return

    threads = [threading.Thread(target=work, args=(i,)) for i in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
