"""Every op gives the same bits each time and for any number of threads."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from op_cases import random_points, random_rig, rotation, shift, small_spec

from imkd_edge import Error, ops
from imkd_edge.frames import Ego, RadarSweep

REPEATS, THREADS = 100, (1, 2, 5)
SPEC = small_spec(context_channels=33)
RIG = random_rig(0, velocity="raw")
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8) for _ in range(2)]
CROPS = [ops.image_crop(SPEC.image, 160, 120)] * 2
DEPTH = RNG.random((2, 24, 8, 12), np.float32)
CONTEXT = RNG.standard_normal((2, 33, 8, 12)).astype(np.float32)
SWEEPS = [RadarSweep(f"r{k % 2}", random_points(RNG, 300), -k * 40_000_000) for k in range(6)]
HEATMAP = np.round(RNG.normal(-1, 1.5, (3, 24, 32)) * 4).astype(np.float32) / 4
BOX = RNG.normal(0, 0.5, (20, 24, 32)).astype(np.float32)
TABLE = ops.lift_table(SPEC, RIG)


def table_bytes() -> bytes:
    table = ops.lift_table(SPEC, RIG)
    return b"".join(part.tobytes() for part in (table.cells, table.starts, table.points, table.pixels))


def speed_bytes() -> bytes:
    speed = ops.estimate_ego_speed(RIG, SWEEPS)
    return np.array([speed.speed, speed.residual, speed.inliers]).tobytes()


OPS: dict[str, Callable[[], bytes]] = {
    "preprocess_images": lambda: ops.preprocess_images(IMAGES, CROPS, SPEC.image).tobytes(),
    "lift_table": table_bytes,
    "lift": lambda: ops.lift(SPEC, TABLE, DEPTH, CONTEXT).tobytes(),
    "voxelize_radar": lambda: ops.voxelize_radar(SPEC, RIG, SWEEPS, 0, Ego(twist=(7, 0, 0.1)))[0].tobytes(),
    "estimate_ego_speed": speed_bytes,
    "warp_bev": lambda: ops.warp_bev(SPEC.grid, BOX, shift(1.3, -0.7) @ rotation(0.2)).tobytes(),
    "decode": lambda: b"".join(part.tobytes() for part in ops.decode(SPEC, HEATMAP, BOX)),
}


@pytest.fixture
def any_threads() -> Iterator[None]:
    yield
    ops.set_threads(0)


@pytest.mark.parametrize("name", OPS)
def test_bits_depend_neither_on_repetition_nor_on_threads(name: str, any_threads: None) -> None:
    results = set()
    for threads in THREADS:
        ops.set_threads(threads)
        results |= {OPS[name]() for _ in range(REPEATS)}
    assert len(results) == 1 and len(results.pop()) > 0


@pytest.mark.parametrize("threads", [-1, 1025])
def test_a_number_of_threads_out_of_range_is_refused(threads: int, any_threads: None) -> None:
    with pytest.raises(Error) as caught:
        ops.set_threads(threads)
    assert caught.value.code == "E0511"


def test_more_threads_than_the_system_gives_are_an_error_and_not_a_hang() -> None:
    script = """
import resource
from imkd_edge import Error, ops
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 28), resource.RLIM_INFINITY))  # room for 32 stacks of 8 MB
try: ops.set_threads(1000)
except Error as error: print(error.code)
ops.set_threads(2)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "E0511\n"), run.stderr


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    expected = {name: op() for name, op in OPS.items()}
    with ThreadPoolExecutor(4) as pool:
        for name, result in zip(list(OPS) * 20, pool.map(lambda name: OPS[name](), list(OPS) * 20), strict=True):
            assert result == expected[name], name


def test_a_forked_child_can_use_the_ops() -> None:
    """Data loader workers are forked from a process whose pool already has threads."""
    import multiprocessing

    expected = OPS["lift"]()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(OPS["lift"]() == expected))
    child.start()
    child.join(30)
    alive = child.is_alive()
    if alive:
        child.kill()
    assert not alive and child.exitcode == 0 and queue.get()
