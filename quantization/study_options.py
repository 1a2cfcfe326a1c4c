"""Options of `python -m imkd_edge.quantization.study`."""

from __future__ import annotations

import argparse
from pathlib import Path

# Other tools' methods -> calibration frames. Histograms of onnxruntime hold every tensor of every frame in memory.
RIVALS: dict[str, int | None] = {
    "MinMax": None,
    "Percentile": 24,
    "Entropy": 24,
    "modelopt-max": None,
    "modelopt-entropy": 24,
}


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("bundles", nargs="+", metavar="BUNDLE")
    add("--data", required=True, help="source of the calibration frames and of the measured ones")
    add("--option", action="append", help="KEY=VALUE of the source's reader")
    add("--split", default="val", help="to measure on")
    add("--limit", type=int, default=None, help="measure on the first frames only, for a quick look")
    add("--calibration-split", default=None, help="the default is train, where the source has it")
    add("--frames", type=int, default=128, help="calibration frames")
    add(
        "--subset",
        type=int,
        nargs=2,
        default=[0, 1],
        metavar=("I", "N"),
        help="calibrate on frames I, I + N, I + 2 N ... of the split only",
    )
    add("--out", type=Path, required=True, help="JSON file of the rows")
    add("--state", type=Path, default=None, help="folder for the files that an interrupted command resumes from")
    add("--threads", type=int, default=0)
    add("--bits", type=int, nargs="+", default=[8, 6])
    add("--methods", nargs="+", default=None, help="only these calibrators")
    add("--qat", type=int, default=0, metavar="STEPS", help="also fisher with so many steps of training")
    add("--refine", type=int, default=0, metavar="STEPS", help="also fisher with so many steps of refining its scales")
    add(
        "--jitter",
        type=int,
        default=0,
        metavar="COPIES",
        help="instead: copies of the float model whose weights have the noise of a quarter of an INT8 step, and of"
        " --methods with ranges jittered by 2 %%",
    )
    add("--radar-share", type=float, nargs="+", default=[], help="instead: riac with these shares, and its placebos")
    add(
        "--rivals",
        nargs="+",
        choices=RIVALS,
        default=[],
        help="instead: onnxruntime.quantization and nvidia-modelopt with these methods",
    )
    add(
        "--modelopt",
        type=Path,
        default=None,
        metavar="PYTHON",
        help="of an environment with nvidia-modelopt[onnx], which needs another onnxruntime than we",
    )
    add("--gate", type=float, nargs="+", default=[], help="instead: --methods under these gates")
    return parser
