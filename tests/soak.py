"""A long drive on which everything changes: does the memory stay flat, and does every handle close?

    python tests/soak.py                                    # 200,000 frames of a small random network
    python tests/soak.py --bundle tiny --frames 5000 --out runs/soak.json

Sensors come and go, rigs change, detectors are made and closed, infer is called from changing threads, and some results
are kept for a while. The first tenth is the warm-up. Exit status 1: memory grew by more than 1 %, or handles grew.
Blocks of 128 KiB and more are given back when they are freed: by default glibc keeps those of a closed detector, more
after one detector than after the next (--heap measures that).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

import numpy as np

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Detector, Ego, RadarSweep, SensorRig
from imkd_edge.bench.memory import heap_bytes
from imkd_edge.bundle.files import write_atomically
from imkd_edge.sources.synth import default_rig

PERIOD = 100_000_000  # ns
POOL = 16  # images and sweeps of each sensor, in turn
KEPT = 64  # results
PARTS = 10  # of the drive, after each of which memory and handles are read
GROWTH = 0.01  # of the resident memory, that is flat
M_MMAP_THRESHOLD, THRESHOLD = -3, 2**17  # of glibc's mallopt; its default, which it raises unless it was set


@dataclass(frozen=True)
class Part:
    """What was read after one tenth of the drive, and the latencies of its frames."""

    frames: int
    resident_mib: float
    in_use_mib: float  # of the heap; nan without glibc 2.33
    handles: int
    threads: int
    p50_ms: float
    p99_ms: float


@dataclass
class Drive:
    """Frames on which everything changes; the same seed gives the same ones."""

    bundle: Bundle
    rig: SensorRig
    kept: deque = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self.random, self.time = np.random.default_rng(0), 0
        self.images = {
            camera.name: self.random.integers(0, 256, (POOL, camera.height, camera.width, 3), np.uint8)
            for camera in self.rig.cameras
        }
        low, high = [1, -30, -1, -10, -8], [50, 30, 2, 30, 8]
        self.points = {
            radar.name: self.random.uniform(low, high, (POOL, 100, 5)).astype(np.float32) for radar in self.rig.radars
        }
        self.worker = ThreadPoolExecutor(1, "soak")

    def next(self, index: int) -> dict[str, Any]:
        """The arguments of infer; every sensor is absent in a tenth of its stretches of 20 frames."""
        self.time += PERIOD

        def there(name: str) -> bool:
            return crc32(f"{name} {index // 20}".encode()) % 10 != 0

        pose = np.eye(4)
        pose[0, 3] = 0.9 * index
        k = index % POOL
        return {
            "frames": {name: images[k] for name, images in self.images.items() if there(name)},
            "radar": [RadarSweep(name, sweeps[k], self.time) for name, sweeps in self.points.items() if there(name)],
            "ego": Ego(pose, (9.0, 0.0, 0.0)) if there("ego") else None,
            "timestamp_ns": self.time,
        }

    def moved_rig(self, index: int) -> SensorRig:
        rig = SensorRig.from_json(self.rig.to_json())
        T = np.array(rig.cameras[0].T_ego_camera)
        T[2, 3] += 0.01 * (index % 7)
        rig.cameras[0].T_ego_camera = T
        return rig

    def on_a_thread(self, index: int, call: Callable[[], Any]) -> Any:
        """On the main thread, on one that stays, or on one of its own."""
        if index % 3 == 0:
            return call()
        if index % 50 != 1:
            return self.worker.submit(call).result()
        results: list[Any] = []
        thread = Thread(target=lambda: results.append(call()))
        thread.start()
        thread.join()
        return results[0]

    def run(self, frames: int, renew: int, report: Callable[[Part], None] = lambda part: None) -> list[Part]:
        """Args: frames of the drive; after each `renew` frames, which divide a part, another detector is made.

        So the detector has the same age whenever memory is read: ONNX Runtime takes more in its first two frames.
        """
        parts: list[Part] = []
        detector, latencies = Detector(self.bundle, self.rig, threads=1), []
        for index in range(frames):
            if index > 0 and index % renew == 0:
                detector.close()
                detector = Detector(self.bundle, self.rig, threads=1)
            if index % 40 == 39:
                detector.set_rig(self.moved_rig(index // 40))
            arguments = self.next(index)
            begin = time.perf_counter()
            result = self.on_a_thread(index, lambda d=detector, a=arguments: d.infer(**a))
            latencies.append((time.perf_counter() - begin) * 1e3)
            if index % 5 == 0:
                self.kept.append(result)
            if (index + 1) % (frames // PARTS) == 0:
                parts.append(measured(index + 1, latencies))
                report(parts[-1])
                latencies = []
        detector.close()
        self.worker.shutdown()
        return parts


def give_back_large_blocks() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, THRESHOLD)


def measured(frames: int, latencies: list[float]) -> Part:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc: what is free is not what is held
    if trim is not None:
        trim(0)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    memory = (round(amount / 2**20, 2) for amount in (resident, heap_bytes() or np.nan))
    handles, threads = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
    p50, p99 = np.percentile(latencies, [50, 99])
    return Part(frames, *memory, handles, threads, round(float(p50), 3), round(float(p99), 3))


def growth(parts: list[Part]) -> float:
    """Of the resident memory, from the end of the first tenth to the end, as a share."""
    return parts[-1].resident_mib / parts[0].resident_mib - 1


def growth_in_use(parts: list[Part]) -> float:
    return parts[-1].in_use_mib / parts[0].in_use_mib - 1


def handles_grew(parts: list[Part]) -> bool:
    return parts[-1].handles > parts[0].handles or parts[-1].threads > parts[0].threads


def small_drive(folder: Path) -> Drive:
    """Two cameras of 64 x 36 px and two radars, on a random network with past maps: a frame takes milliseconds."""
    spec = random_spec(cameras=2, past=2)
    spec.image.width, spec.image.height = 64, 32
    spec.grid.cell = 3.2
    spec.radar.cell = 1.6
    rig = default_rig((64, 36))
    rig.cameras, rig.radars = list(rig.cameras)[:2], list(rig.radars)[:2]
    return Drive(Bundle.load(write_random_bundle(folder / "small.imkd", spec)), rig)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="", help="a shipped one; by default a small random network")
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--renew", type=int, default=500, help="frames after which another detector is made")
    parser.add_argument("--heap", action="store_true", help="leave large blocks to glibc, which may keep them")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    if options.frames % (PARTS * options.renew):
        parser.error(f"--frames {options.frames} is no multiple of {PARTS} times --renew {options.renew}")
    if not options.heap:
        give_back_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        if options.bundle:
            drive = Drive(Bundle.load(options.bundle), default_rig((160, 90)))
        else:
            drive = small_drive(Path(folder))
        print("frames, resident MiB, in use MiB, handles, threads, p50 ms, p99 ms")
        parts = drive.run(options.frames, options.renew, lambda part: print(*asdict(part).values(), flush=True))
    change, used, grew = growth(parts), growth_in_use(parts), handles_grew(parts)
    slower = parts[-1].p99_ms / parts[0].p99_ms - 1
    print(f"memory {change:+.2%}, in use {used:+.2%}, p99 {slower:+.1%}, handles {'grew' if grew else 'flat'}")
    if options.out:
        write_atomically(options.out, json.dumps([asdict(part) for part in parts], indent=1).encode())
    return 1 if grew or max(change, used) > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
