"""Proves the CUDA side on a GPU: python tests/gpu/prove.py [--minutes 8] [--out DIR].

Builds the core and the ops for this machine's GPU, compares every CUDA op with its CPU op, runs the Detector with
PyTorch's networks (golden drives, graph replay, streams, faults, times), times the kernels, trains, and runs a part of
the cases under compute-sanitizer. Needs an NVIDIA GPU, nvcc, CMake, pybind11, NumPy, OpenCV, pytest and filelock, and
no network; PyTorch, ONNX, timm, CuPy, cuda-core and TensorRT where they are. Writes DIR/prove.json and DIR/prove.md. A
part that fails does not stop the others. Each has its share of the time, and what one leaves the next ones get; parts
that do not fit are skipped, and the output names them.

Exit status: 0, all parts passed; 1, something differs or failed or was skipped for lack of time; 3, this machine lacks
something, which is named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import machine
import parts
import programs
from page import page

PARTS: dict[str, Callable[[parts.Context], parts.Record]] = {
    "build": parts.build,
    "ops": parts.ops,
    "detector": programs.detector,
    "data": programs.data,
    "streams": programs.streams,
    "faults": programs.faults,
    "kernels": parts.kernels,
    "end_to_end": programs.end_to_end,
    "training": programs.training,
    "several_gpus": programs.several_gpus,
    "tensorrt": programs.tensorrt,
    "sanitizer": parts.sanitizer,
}
SHARES = {  # of the time; what the build leaves, and it may take long, the others get
    "build": 25,
    "ops": 4,
    "detector": 2,
    "data": 1,
    "streams": 1,
    "faults": 1,
    "kernels": 1,
    "end_to_end": 4,
    "training": 4,
    "several_gpus": 2,
    "tensorrt": 3,
    "sanitizer": 5,
}
LEAST = 45.0  # seconds of a part: the first ones read PyTorch and its libraries from a cold disk

CONTEXT = parts.Context  # its defaults are those of the options


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8, help="time box of all parts together")
    parser.add_argument("--out", type=Path, default=machine.ROOT / "build" / "prove-out", help="folder of the results")
    parser.add_argument("--build", type=Path, help="folder of the build; build/prove, or build/tests with --fake")
    parser.add_argument("--json-include", type=Path, help="folder of nlohmann/json.hpp, where it is not installed")
    parser.add_argument("--commit", help="name of the commit, where the tree has no git")
    parser.add_argument("--cases", default="", help="only these cases of the ops: an expression for pytest -k")
    parser.add_argument("--repeats", type=int, default=30, help="launches of each timed op")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these parts")
    parser.add_argument("--data", default="", help="folder of real frames with cameras and radars, as for infer --data")
    parser.add_argument("--bundles", nargs="+", default=CONTEXT.bundles, help="whose golden drives are run")
    parser.add_argument("--models", nargs="+", default=CONTEXT.models, help="which are timed, and trained")
    parser.add_argument("--steps", type=int, default=CONTEXT.steps, help="of training")
    parser.add_argument("--fake", action="store_true", help="without a GPU: the fake CUDA runtime's module")
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or options.repeats < 1 or options.steps < 1:
        parser.error("--minutes must be above 0, --repeats and --steps 1 or more")
    return options


def make_context(options: argparse.Namespace, about: dict[str, str]) -> parts.Context:
    build = options.build or machine.ROOT / "build" / ("tests" if options.fake else "prove")
    options.out.mkdir(parents=True, exist_ok=True)
    return parts.Context(
        out=options.out.resolve(),
        build=build.resolve(),
        fake=options.fake,
        deadline=time.monotonic() + 60 * options.minutes,
        capability=about["capability"],
        json_folder=options.json_include,
        cases=options.cases,
        repeats=options.repeats,
        bundles=tuple(options.bundles),
        models=tuple(options.models),
        steps=options.steps,
        data=options.data,
    )


def share_of(context: parts.Context, name: str, selected: list[str]) -> parts.Context:
    """The context with the deadline of a part: LEAST, or its share of what is left for it and the parts after it."""
    after, left = selected[selected.index(name) :], max(0.0, context.remaining())
    share = left * SHARES[name] / sum(SHARES[part] for part in after)
    return replace(context, deadline=time.monotonic() + min(left, max(share, LEAST)))


def run_part(context: parts.Context, name: str, label: str) -> parts.Record:
    """The record of a part; whatever it raises is a failure of that part alone."""
    start = time.monotonic()
    try:
        if context.remaining() <= 0:
            record = {"status": "skipped", "reason": "the time is up"}
        else:
            record = PARTS[name](context)
    except parts.OutOfTime as error:
        record = {"status": "failed", "reason": str(error)}
    except Exception as error:  # a part must not stop the others
        record = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "tail": traceback.format_exc()}
    return {**record, "seconds": time.monotonic() - start, "measured_on": label}


def prove(options: argparse.Namespace) -> int:
    about = machine.describe(options.fake, options.commit)
    context = make_context(options, about)
    print(f"proving on {about['label']}, at most {options.minutes:g} minutes", flush=True)
    records = {}
    for name in options.parts:
        records[name] = run_part(share_of(context, name, options.parts), name, about["label"])
        reason = records[name].get("reason", "")
        print(f"{name}: {records[name]['status']}, {records[name]['seconds']:.1f} s {reason}".rstrip(), flush=True)
        write(context.out, options, about, records)  # after each part: whoever stops the program keeps the others
    status = write(context.out, options, about, records)
    print(f"{status}; see {context.out / 'prove.md'}")
    return 0 if status == "passed" else 1


def write(out: Path, options: argparse.Namespace, about: dict[str, str], records: parts.Record) -> str:
    """prove.json and prove.md; returns the status of the whole."""
    statuses = {record["status"] for record in records.values()}
    lacks_time = any(r["status"] == "skipped" and r.get("reason") == "the time is up" for r in records.values())
    status = "failed" if "failed" in statuses or lacks_time else "passed"
    proof = {
        "status": status,
        "fake": options.fake,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minutes": options.minutes,
        "machine": about,
        "libraries": parts.libraries(),
        "parts": records,
    }
    (out / "prove.json").write_text(json.dumps(proof, indent=1))
    try:
        text = page(proof)
    except Exception:  # of a record that no table expects: prove.json has it, and the parts go on
        text = traceback.format_exc()
    (out / "prove.md").write_text(text)
    return status


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    lacks = [] if options.fake else machine.missing(options.json_include)
    if lacks:
        print("cannot prove anything here:", *(f"- {lack}" for lack in lacks), sep="\n", file=sys.stderr)
        return 3
    return prove(options)


if __name__ == "__main__":
    sys.exit(main())
