"""What the CUDA kernels cost, counted without a GPU: registers and memory by nvcc, bytes and waits by running them on
the CPU.

python tests/cuda_budget.py prints both as tables; cpp/budget.json is what the tests allow.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
from op_cases import FORWARD, random_points, rotation, shift

from imkd_edge import ModelSpec, ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.training.config import load_config

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("IMKD_TEST_BUILD", ROOT / "build" / "tests")) / "tests" / "cpp"
BUDGET = ROOT / "cpp" / "budget.json"
KERNELS = sorted((ROOT / "cpp" / "src" / "ops").glob("*.cu"))
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", f"-I{ROOT}/cpp/include", f"-I{ROOT}/cpp/src")
ORIN = 204.8e9  # bytes/s of AGX Orin's DRAM (NVIDIA's data sheet)
# Assumed, not measured: what a kernel costs however little it does, and what waits within one.
BARRIER = 0.25e-6  # s: about 50 ns for the block, and 200 ns until the next step has read in the L2 what others wrote
EXCHANGE = 0.02e-6  # s between the lanes of a warp: about 25 cycles of 1.3 GHz
NOT_PER_FRAME = ("resize_table",)  # made when the calibration changes
COUNTS = ("bytes", "launches", "barriers", "exchanges")


def load(name: str) -> ModuleType | None:
    """A module that tests/cpp builds; None where it was not built."""
    found = sorted(BUILD.glob(f"{name}*.so"))
    if not found:
        return None
    spec = importlib.util.spec_from_loader(name, importlib.machinery.ExtensionFileLoader(name, str(found[0])))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nvcc() -> str | None:
    return os.environ.get("IMKD_NVCC") or shutil.which("nvcc")


def toolkit() -> Path:
    """The folder of nvcc's own headers and libraries, as nvcc itself says."""
    said = subprocess.run(
        [str(nvcc()), "--dryrun", "-E", os.devnull, "-x", "cu"], capture_output=True, text=True
    ).stderr  # "#$ TOP=folder"
    return Path(next(line.split("=", 1)[1] for line in said.splitlines() if line.startswith("#$ TOP=")))


def compile_kernels(folder: Path) -> dict[str, dict[str, int]]:
    """Compiles every .cu for sm_87 and sm_110 into folder, with the PTX of the former; raises CalledProcessError.

    Returns: kernel -> registers, shared and stack bytes, spills, as ptxas reports them for sm_87.
    """
    code = [
        "-gencode",
        "arch=compute_87,code=[sm_87,compute_87]",
        "-gencode",
        "arch=compute_110,code=sm_110",
        "--no-compress",
    ]
    host = ["-cudart", "none", "-Xptxas", "-v", "-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off"]

    def one(source: Path) -> str:
        command = [nvcc(), *FLAGS, *code, *host, "-c", str(source), "-o", str(folder / f"{source.stem}.o")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return {k: v for text in pool.map(one, KERNELS) for k, v in resources(text).items()}


def resources(text: str) -> dict[str, dict[str, int]]:
    """ptxas -v of sm_87 -> numbers by kernel."""
    found = {}
    for part in text.split("Compiling entry function '")[1:]:
        if "for 'sm_87'" not in part.split("\n")[0]:
            continue
        name = subprocess.run(["c++filt", part.split("'")[0]], capture_output=True, text=True, check=True).stdout
        name = re.sub(r"^void |imkd::cuda::|\(anonymous namespace\)::|\(.*", "", name).strip()

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        found[name] = {
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        }
    return found


THREADS = dict.fromkeys(("keep_points", "scan_cells", "select_candidates"), 1024)  # the launch bounds; others have 256
THREADS |= {"rank_candidates": 128, "compare_boxes": 64, "suppress": 32}
THREADS |= dict.fromkeys(("place_points", "place_frustum", "order_points", "write_grid", "find_peaks"), 128)


def occupancy(name: str, registers: int, shared: int) -> float:
    """Share of sm_87's 48 warps per SM that a kernel can fill: 64 Ki registers, 164 KiB shared memory, 16 blocks."""
    warps = THREADS.get(name.split("<")[0], 256) // 32
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = 164 * 1024 // (shared + 1024)
    return min(16, by_registers, by_shared, 48 // warps) * warps / 48


def frame_rig(spec: ModelSpec) -> SensorRig:
    """Six cameras of 1600x900 all around and five radars."""
    K = [[1266, 0, 816], [0, 1266, 491], [0, 0, 1]]
    poses = [rotation(i * np.pi / 3) @ shift(1.5, 0, 1.5) @ FORWARD for i in range(spec.cameras)]
    cameras = [
        CameraCalibration(name=f"c{i}", width=1600, height=900, K=K, T_ego_camera=T) for i, T in enumerate(poses)
    ]
    radars = [RadarCalibration(name=f"r{i}", T_ego_radar=rotation(i * 1.25) @ shift(2, 0, 0.5)) for i in range(5)]
    return SensorRig(cameras=cameras, radars=radars)


def frame_calls(module: ModuleType) -> dict[str, Callable[[], object]]:
    """The ops of a frame of r50-nuscenes in half precision, by a module of ops_module.cpp.

    lift_table is the whole rebuild of a frame whose exposures move every camera; at rest there is none.
    """
    spec, rng = load_config("r50-nuscenes").spec, np.random.default_rng(0)
    rig, H, W = frame_rig(spec), spec.grid.height(), spec.grid.width()
    crops = [ops.image_crop(spec.image, c.width, c.height) for c in rig.cameras]
    table = module.lift_table(spec, rig, crops)
    images = [rng.integers(0, 256, (900, 1600, 3), dtype=np.uint8) for _ in rig.cameras]
    shape = (spec.cameras, -1, spec.image.feature_height(), spec.image.feature_width())
    pixels = shape[0] * shape[2] * shape[3]
    depth = rng.random(spec.depth.bins * pixels).astype(np.float16).reshape(shape)
    context = rng.standard_normal(spec.context_channels * pixels).astype(np.float16).reshape(shape)
    turned = np.ascontiguousarray(np.moveaxis(context, 1, 3))  # as build-engine has it written
    sweeps = [RadarSweep(f"r{k % 5}", random_points(rng, 125, 30), -(k // 5) * 70_000_000) for k in range(30)]
    past = rng.standard_normal((spec.history.frames * spec.history.channels, H, W)).astype(np.float16)
    heatmap = rng.normal(-6, 1.5, (len(spec.head.classes), H, W)).astype(np.float16)
    box = rng.normal(0, 0.5, (spec.head.groups() * 10, H, W)).astype(np.float16)
    return {
        "preprocess_images": lambda: module.preprocess_images(images, crops, spec.image, half=True),
        "lift_table": lambda: module.lift_table(spec, rig, crops),
        "lift": lambda: module.lift(spec, table, depth, turned, channels_last=True),
        "voxelize_radar": lambda: module.voxelize_radar(spec, rig, sweeps, 0, Ego(twist=(7, 0, 0)), half=True),
        "warp_bev": lambda: module.warp_bev(spec.grid, past, shift(3.3, 0.1) @ rotation(0.02)),
        "decode": lambda: module.decode(spec, heatmap, box),
    }


def frame_counts(counted: ModuleType) -> dict[str, dict[str, int]]:
    """Op of a frame -> COUNTS of its kernels, and "fewest": its inputs and outputs once.

    Barriers and exchanges of a kernel are those of the block, or the warp, that has most.
    """
    found = {}
    for name, call in frame_calls(counted).items():
        counted.start_counting()
        call()
        counts = counted.counted()
        fewest = sum(counts.pop("fewest"))
        kernels = [(v[0] + v[1], *v[2:]) for k, v in counts.items() if k not in NOT_PER_FRAME]
        found[name] = {**dict(zip(COUNTS, map(sum, zip(*kernels)))), "fewest": fewest}
    return found


def predicted(op: dict[str, int]) -> dict[str, float]:
    """Seconds on AGX Orin, if nothing overlaps: of the bytes, of the launches, and of the steps that wait."""
    from imkd_edge.predict.roofline import GAP  # needs onnx, which the proof on a GPU may lack

    waits = op["barriers"] * BARRIER + op["exchanges"] * EXCHANGE
    return {"bytes": op["bytes"] / ORIN, "launches": op["launches"] * GAP, "waits": waits}


def print_tables(folder: Path) -> None:
    print("| kernel (sm_87) | registers | shared, bytes | stack | spills | occupancy |\n|---|---|---|---|---|---|")
    for name, k in sorted(compile_kernels(folder).items()):
        share = occupancy(name, k["registers"], k["shared"])
        print(f"| {name} | {k['registers']} | {k['shared']} | {k['stack']} | {k['spills']} | {share:.0%} |")
    print("\n| op | bytes moved | fewest | ratio | launches | barriers | exchanges | predicted on AGX Orin, us |")
    print("|---|---|---|---|---|---|---|---|")
    found = frame_counts(load("cuda_counted"))
    found["all"] = {k: sum(op[k] for op in found.values()) for k in (*COUNTS, "fewest")}
    for name, op in found.items():
        times = {k: 1e6 * v for k, v in predicted(op).items()}
        parts = " + ".join(f"{v:.0f}" for v in times.values())
        print(
            f"| {name} | {op['bytes']:,} | {op['fewest']:,} | {op['bytes'] / op['fewest']:.2f} | {op['launches']} "
            f"| {op['barriers']} | {op['exchanges']} | {parts} = {sum(times.values()):.0f} |"
        )


def budget() -> dict:
    return json.loads(BUDGET.read_text())


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print_tables(Path(place))
