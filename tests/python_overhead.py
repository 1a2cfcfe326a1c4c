"""What Python costs per frame: the C++ Detector in a process of its own and Python's take turns at the same frame.

python tests/python_overhead.py [BUNDLE [TURNS [THREADS]]] prints one JSON object; needs build/tests (make test).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge import Bundle, Detector
from imkd_edge.bench.race import BackgroundLoad
from imkd_edge.engines import onnxruntime_library
from imkd_edge.rig import SensorRig
from imkd_edge.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(os.environ.get("IMKD_TEST_BUILD", ROOT / "build" / "tests")) / "tests" / "cpp" / "frame_times"
ENGINES = ("onnxruntime-native", "onnxruntime")  # the example's own, and Python's default


@contextmanager
def example(
    bundle: Bundle, rig: SensorRig, images: dict[str, np.ndarray], points: dict[str, np.ndarray], threads: int
) -> Iterator[Any]:
    """A call that lets the C++ program do one frame: (ms, boxes)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for camera, image in images.items():
            (folder / f"{camera}.rgb").write_bytes(image.tobytes())
        for radar, rows in points.items():
            (folder / f"{radar}.bin").write_bytes(rows.astype(np.float32).tobytes())
        (folder / "rig.json").write_text(rig.to_json())
        command = [str(PROGRAM), str(bundle.path), str(folder / "rig.json"), str(folder), str(threads)]
        environment = {**os.environ, "IMKD_ORT_LIBRARY": str(onnxruntime_library())}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as program:

            def frame() -> tuple[float, int]:
                program.stdin.write(b"\n")
                program.stdin.flush()
                taken, boxes = program.stdout.readline().split()
                return int(taken) / 1e6, int(boxes)

            yield frame
            program.stdin.close()


def compare(
    bundle: Bundle,
    rig: SensorRig,
    images: dict[str, np.ndarray],
    points: dict[str, np.ndarray],
    turns: int,
    threads: int,
) -> dict[str, Any]:
    """Medians in ms.

    "overhead": Python's p50 less the C++ program's; "around_core": the wall clock less the C++ core's own time of the
    same call, which is free of the noise between two calls."""
    detectors = {name: Detector(bundle, rig, device="cpu", engine=name, threads=threads) for name in ENGINES}
    totals: dict[str, list[float]] = {name: [] for name in ("c++", *ENGINES)}
    around: dict[str, list[float]] = {name: [] for name in ENGINES}
    others, boxes = BackgroundLoad(), set()
    with example(bundle, rig, images, points, threads) as frame:
        for turn in range(turns + 5):
            taken, count = frame()
            totals["c++"].append(taken)
            boxes.add(count)
            for name, detector in detectors.items():
                started = time.perf_counter()
                result = detector.infer(images, points)
                taken = 1e3 * (time.perf_counter() - started)
                totals[name].append(taken)
                around[name].append(taken - result.total_us / 1e3)
                boxes.add(len(result.detections))
            if turn == 4:  # that was the warm-up
                for record in (*totals.values(), *around.values()):
                    record.clear()
    medians = {name: float(np.median(record)) for name, record in totals.items()}
    return {
        "turns": turns,
        "threads": threads,
        "boxes": sorted(boxes),
        "p50_ms": medians,
        "overhead_ms": {name: medians[name] - medians["c++"] for name in ENGINES},
        "around_core_ms": {name: float(np.median(record)) for name, record in around.items()},
        "others_cores": others.cores(),
    }


def main(bundle: str = "tiny", turns: str = "300", threads: str = "1") -> None:
    source = open_source("synth")
    sample = source[source.names[0]]
    points = {}
    for sweep in sample.radar:
        points.setdefault(sweep.radar, np.asarray(sweep.points))
    print(
        json.dumps(
            compare(Bundle.load(bundle), sample.rig, dict(sample.frames), points, int(turns), int(threads)), indent=2
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
