"""Times the CUDA ops of a frame of r50-nuscenes beside a copy: kernels.py FILE REPEATS [--fake] writes JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median
from types import ModuleType

from cuda_budget import budget, frame_calls, load

COPIED, FLUSHED = 1 << 30, 256 << 20  # bytes; several times the L2 of any GPU
COPIED_IN_FAKE, FLUSHED_IN_FAKE = 1 << 20, 1 << 20


def copy_speed(module: ModuleType, size: int, repeats: int) -> dict[str, float]:
    """A copy from device memory to device memory, bytes per second, counted as read and written."""
    times = module.measure_copy(size, repeats + 3)[3:]  # us; the first ones warm up
    return {"bytes": size, "us": median(times), "bytes_per_s": 2 * size / median(times) * 1e6}


def op_times(times: dict[str, list[float]], moved: int, copy: dict[str, float]) -> dict[str, float]:
    """moved: bytes that the kernels read and write; share: of the speed of the copy, with emptied caches."""
    cold, queued = median(times["cold"]), times["queued"][0]
    speed = moved / cold * 1e6
    return {
        "us": cold,
        "us_least": min(times["cold"]),
        "us_most": max(times["cold"]),
        "us_queued": queued,
        "bytes": moved,
        "bytes_per_s": speed,
        "share_of_copy": speed / copy["bytes_per_s"],
    }


def measure(module: ModuleType, repeats: int, fake: bool) -> dict:
    copy = copy_speed(module, COPIED_IN_FAKE if fake else COPIED, repeats)
    result: dict = {"model": "r50-nuscenes, float16", "repeats": repeats, "copy": copy, "ops": {}}
    for name, call in frame_calls(module).items():
        call()  # loads the kernels
        module.time_launches(repeats, FLUSHED_IN_FAKE if fake else FLUSHED)
        call()
        module.time_launches(0, 0)
        result["ops"][name] = op_times(module.launch_times(), budget()["frame"][name]["bytes"], copy)
    return result


def main(file: str, repeats: str, *options: str) -> None:
    module = load(os.environ["IMKD_CUDA_MODULE"])
    if module is None:
        sys.exit(f"no module {os.environ['IMKD_CUDA_MODULE']} in {os.environ['IMKD_TEST_BUILD']}/tests/cpp: build it")
    Path(file).write_text(json.dumps(measure(module, int(repeats), "--fake" in options), indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
