"""Times of reading an MCAP file, beside the bare iteration of the library mcap.

PYTHONPATH=tests python -m recording.speed drive.mcap
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from imkd_edge.sources import open_source
from imkd_edge.sources.recording.index import Decoder, Indexer
from imkd_edge.sources.recording.open import open_container

TIMES = 5


def bare(path: Path, ordered: bool) -> Iterable[object]:
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        yield from make_reader(file).iter_messages(log_time_order=ordered)


def scan(path: Path) -> Iterable[object]:
    yield from open_container(path).scan()


def index(path: Path) -> None:
    container = open_container(path)
    Indexer(container, Decoder(path)).run()


def best(task: Callable[[], object]) -> float:
    """The shortest of some runs, s."""
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return min(times)


def count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)


def measure(path: Path, frames: int = 50) -> dict[str, float]:
    """Seconds of the whole file, ms of a frame with its images decoded."""
    assert count(bare(path, False)) == count(scan(path))
    library = {
        "library_log_order_s": best(lambda: count(bare(path, True))),
        "library_file_order_s": best(lambda: count(bare(path, False))),
    }
    ours = {"scan_s": best(lambda: count(scan(path))), "index_s": best(lambda: index(path))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(path)
    names = source.names[:frames]
    start, cpu = time.perf_counter(), time.process_time()
    for name in names:
        source[name]
    frame = {"frame_ms": time.perf_counter() - start, "frame_cpu_ms": time.process_time() - cpu}
    frame = {key: seconds / len(names) * 1000 for key, seconds in frame.items()}
    return {**library, **ours, **frame, "load": os.getloadavg()[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    result = measure(parser.parse_args().path)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}, indent=1))
