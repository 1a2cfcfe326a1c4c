"""What a caller sees of every fault of every sensor: expected by hand, compared with a drive, and written as a page.

python tests/fault_matrix.py --record runs/faults.jsonl --page docs/guide/faults.md   # half an hour on one core
python tests/fault_matrix.py --frames 60 --begin 20 --end 35 --sensors one --bundles tiny --devices cpu
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from faults import (
    EGO,
    FAULTS,
    TIME_FAULTS,
    FaultDrive,
    Stretch,
    equal,
    infer,
    open_detector,
    with_content_fault,
    with_time_fault,
)

from imkd_edge import Bundle, Detector, Result
from imkd_edge.bundle.files import write_atomically
from imkd_edge.sources.synth import default_rig

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"camera": "a camera", "reference": "the reference camera", "radar": "a radar", EGO: "ego motion"}
RECOVERY = 2  # frames after the fault within which the drive is as it was before
SETTLED = 10  # frames in a row that equal those of the drive without the fault: history has passed


@dataclass(frozen=True)
class Expected:
    """What a user would want to see of one fault."""

    state: str  # of the sensor; of the ego motion its source
    mode: str
    within: int = 0  # frames from the first faulty one until then
    warnings: tuple[str, ...] = ()
    error: str = ""  # code that the call with the faulty value raises; the frame is then given without the sensor
    same: bool = False  # every frame equals that of the drive without the fault, to the bit
    gap: int = 0  # frames that there are none of
    note: str = ""


# Frames until what was delivered before is too old: sweeps and poses serve for radar.max_age, 0.6 s.
AGED = 7
GONE = Expected("missing", "partial")
SWEEPS = "its older sweeps serve for 0.6 s"
POSES = "older poses serve for 0.6 s, then what is older than a sweep stays where it was"
SAME = Expected("ok", "full", same=True, note="the second one is ignored")
LOST = "no frame for 1 s, `lost_after` of the Synchronizer; then the next camera sets the frames' times"
UNSEEN = "not seen: any bytes may be an image"
EGO_GONE = Expected("none", "partial", AGED, ("W0131",), note=POSES)
EGO_BROKEN = Expected("none", "partial", AGED, ("W0131", "W0132"), note=POSES)

CAMERA = {
    "absent": GONE,
    "late": Expected("missing", "partial", note="a frame waits 0.1 s, `timeout`, for an image"),
    "frozen": Expected("frozen", "partial", 2, note="from the third equal image on, it is left out"),
    "garbage": Expected("ok", "full", note=UNSEEN),
    "empty": Expected("invalid", "partial", note="a camera that has never delivered its size: E0202"),
    "wrong size": Expected("invalid", "partial", note="a camera that has never delivered its size: E0202"),
    "NaN": Expected("missing", "partial", error="E0201", note="images are uint8; the caller's mistake"),
    "saturated": Expected("invalid", "partial", note="white, black or of one colour: it is left out"),
    "shifted clock": Expected("missing", "partial", note="5 s ahead: the push answers future"),
    "doubled": SAME,
    "out of order": Expected("ok", "full", note="by one period; a frame waits for it, up to `timeout`"),
}
EXPECTED: dict[str, dict[str, Expected]] = {
    "camera": CAMERA,
    "reference": {
        **CAMERA,
        "late": Expected(
            "ok", "full", gap=3, note="the frames are as late; those that a later one overtakes are left out"
        ),
        "shifted clock": Expected("missing", "partial", 10, gap=11, note=LOST),
        "out of order": Expected("ok", "full", gap=1, note="a frame that a later one has overtaken is left out"),
    },
    "radar": {
        "absent": Expected("missing", "partial", AGED, note=SWEEPS),
        "late": Expected("late", "full", 4, note="the frames have its sweeps of 0.4 s ago and before"),
        "frozen": Expected(
            "frozen", "partial", 3, note="from the third equal sweep on, all of its sweeps are left out"
        ),
        "garbage": Expected("invalid", "partial", AGED, note=SWEEPS),
        "empty": Expected("invalid", "partial", AGED, note=SWEEPS),
        "wrong size": Expected("missing", "partial", AGED, error="E0202", note="(N, 4); the caller's mistake"),
        "NaN": Expected("invalid", "partial", AGED, note=SWEEPS),
        "saturated": Expected("ok", "full", note="not seen at one radar: W0102 compares the median of all"),
        "shifted clock": Expected("missing", "partial", AGED, note="5 s ahead: the push answers future; " + SWEEPS),
        "doubled": SAME,
        "out of order": Expected("ok", "full", note="a frame may miss a sweep that the next one has"),
    },
    EGO: {
        "absent": EGO_GONE,
        "late": Expected("poses", "full", note="extrapolated from poses of 0.4 s ago"),
        "frozen": Expected("poses", "full", note="not seen: that of a parked vehicle is the same"),
        "garbage": EGO_BROKEN,
        "empty": EGO_GONE,
        "wrong size": Expected("none", "partial", AGED, ("W0131",), error="E0202", note="(3, 3); the caller's mistake"),
        "NaN": EGO_BROKEN,
        "saturated": Expected(
            "poses", "full", warnings=("W0132",), note="655 m/s: the twist is left out, the pose serves"
        ),
        "shifted clock": Expected("none", "partial", AGED, ("W0131",), note="5 s ahead: the push answers future"),
        "doubled": replace(SAME, state="poses"),
        "out of order": Expected("poses", "full", note="interpolated where the pose is not there yet"),
    },
}


@dataclass
class Cell:
    """One fault of one sensor on one drive, and what contradicts the expectation."""

    fault: str
    sensor: str
    kind: str
    seen_after: int = 0  # frames
    recovered_after: int = 0
    settled_after: int = 0  # frames until equal to the bit
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Drive:
    """A drive with its bundle, and its results without a fault."""

    drive: FaultDrive
    detector: Detector
    begin: int  # frames of the fault: begin to end - 1
    end: int
    first: int = 0  # of the frames that are replayed
    # By time; from the first frame on and from the second: a history of which every second map is kept has two phases.
    good: tuple[dict[int, Result], dict[int, Result]] = ({}, {})

    @classmethod
    def make(cls, drive: FaultDrive, detector: Detector, begin: int, end: int) -> Drive:
        lead = 20  # frames before the fault, so that the history of tiny-t4 is full
        first = max(0, begin - lead)
        good = []
        for phase in range(2):
            detector.reset()
            frames = drive.frames[first + phase :]
            good.append({frame.timestamp_ns: infer(detector, frame, "")[0] for frame in frames})
        return cls(drive, detector, begin, end, first, tuple(good))

    def time(self, frame: int) -> int:
        return self.drive.frames[frame].timestamp_ns

    def run(self, fault: str, sensor: str) -> Cell:
        """The drive with the fault, until it is as it was."""
        cell = Cell(fault, sensor, self.drive.kind(sensor))
        stretch = Stretch(sensor, self.time(self.begin), self.time(self.end))
        judge = Judge(self, cell, EXPECTED[cell.kind][fault])
        self.detector.reset()
        for frame, code in self._frames(fault, stretch):
            if frame.timestamp_ns < self.time(self.first):
                continue
            result, raised = infer(self.detector, frame, sensor)
            judge.see(result, raised or code)
            if judge.settled >= SETTLED:
                break
        judge.close()
        return cell

    def _frames(self, fault: str, stretch: Stretch) -> Iterator:
        if fault in TIME_FAULTS:
            return self.drive.live(with_time_fault(self.drive.items, fault, stretch))
        return ((frame, "") for frame in with_content_fault(self.drive, fault, stretch))


class Judge:
    """Compares the frames of one cell with the expectation."""

    def __init__(self, run: Drive, cell: Cell, expected: Expected) -> None:
        self.run, self.cell, self.expected = run, cell, expected
        self.settled = 0
        self.codes: set[str] = set()
        self.times: list[int] = []
        self.begin, self.end = run.time(run.begin), run.time(run.end)

    def problem(self, result: Result, text: str) -> None:
        if len(self.cell.problems) < 5:
            frame = (result.timestamp_ns - self.begin) // self.run.drive.PERIOD + self.run.begin
            self.cell.problems.append(f"frame {frame}: {text}")

    def state(self, result: Result) -> str:
        health = result.health
        return health.ego_motion if self.cell.sensor == EGO else health.sensors[self.cell.sensor]

    def see(self, result: Result, code: str) -> None:
        good, expected = self.run.good[0][result.timestamp_ns], self.expected
        self.times.append(result.timestamp_ns)
        self.codes.add(code)
        others = {name: s for name, s in result.health.sensors.items() if name != self.cell.sensor}
        if any(good.health.sensors[name] != state for name, state in others.items()):
            self.problem(result, f"another sensor is affected: {others}")
        if not all(np.isfinite(a).all() for a in (result.boxes[:, :7], result.scores)) or result.health.boxes_invalid:
            self.problem(result, "boxes are not finite")
        same = equal(result, good)
        if not same and (expected.same or result.timestamp_ns < self.begin):
            self.problem(result, "not equal to the frame without the fault")
        if self.begin <= result.timestamp_ns < self.end:
            self.during(result, good)
        elif result.timestamp_ns >= self.end:
            same = same or equal(result, self.run.good[1][result.timestamp_ns])
            self.after(result, good, same)

    def during(self, result: Result, good: Result) -> None:
        expected, health = self.expected, result.health
        codes = {w.code for w in health.warnings} - {w.code for w in good.health.warnings}
        as_expected = (
            self.state(result) == expected.state and health.mode == expected.mode and set(expected.warnings) == codes
        )
        since = (result.timestamp_ns - self.begin) // self.run.drive.PERIOD
        if not as_expected and since >= expected.within:
            self.problem(result, f"{self.state(result)}, {health.mode}, {sorted(codes)}")
        if not as_expected:
            self.cell.seen_after = since + 1

    def after(self, result: Result, good: Result, same: bool) -> None:
        since = (result.timestamp_ns - self.end) // self.run.drive.PERIOD
        recovered = result.health.mode == good.health.mode and self.state(result) == self.state(good)
        recovered = recovered and result.health.warnings == good.health.warnings
        if not recovered:
            self.cell.recovered_after = since + 1
            if since >= RECOVERY:
                self.problem(result, f"not recovered: {result.health}")
        self.settled = self.settled + 1 if same else 0
        if not same:
            self.cell.settled_after = since + 1

    def close(self) -> None:
        if self.settled < SETTLED:
            self.cell.problems.append("never again equal to the drive without the fault")
        if self.codes - {""} != {self.expected.error} - {""}:
            self.cell.problems.append(f"errors {sorted(self.codes)}, expected {self.expected.error!r}")
        gap = max(np.diff(self.times)) // self.run.drive.PERIOD - 1
        if gap > self.expected.gap or (gap == 0) != (self.expected.gap == 0):
            self.cell.problems.append(f"{gap} frames in a row are missing")


def run_all(drive: Drive, sensors: list[str], report=None) -> list[Cell]:
    """Every fault of the sensors; the reference camera differs from others in time only."""
    cells = []
    for sensor in sensors:
        for fault in FAULTS:
            cells.append(drive.run(fault, sensor))
            if report is not None:
                report(cells[-1])
    return cells


def one_of_each(drive: FaultDrive) -> list[str]:
    return [drive.reference, drive.rig.cameras[1].name, drive.rig.radars[0].name, EGO]


# ---- page ----
TITLE = "# What is seen of a sensor's fault"
INTRODUCTION = """\
Each row is one fault, in one sensor at a time, on a drive at 10 Hz: what `result.health` says of that sensor (of ego
motion: the source of the motion, `health.ego_motion`), the mode and the warnings. In every row the boxes stay finite,
the states of the other sensors stay as they were, and a frame allocates nothing (`Allocations` in
`build/tests/tests/cpp/imkd_tests`). *Seen after* and *recovered after* count frames from the first faulty one and from
the first one after it, *as before* frames until boxes and health equal to the bit those of the drive without the fault;
each is the largest of all runs.

A value that has never been right is the calling program's mistake and raises an error that says how to mend it. What
was right before is a fault of the sensor: `infer` goes on, and health names it.
"""


def row(fault: str, kind: str, cells: list[Cell]) -> str:
    expected = EXPECTED[kind][fault]
    through = "synchronizer" if fault in TIME_FAULTS else "infer"
    seen, recovered, settled = (
        max(getattr(cell, name) for cell in cells) for name in ("seen_after", "recovered_after", "settled_after")
    )
    says = ", ".join([*([f"error {expected.error}"] if expected.error else []), *expected.warnings]) or "–"
    return (
        f"| {fault} | {through} | {expected.state} | {expected.mode} | {says} | {seen} | {recovered} | {settled} "
        f"| {expected.note} |"
    )


def page(cells: list[Cell], runs: str) -> str:
    parts = [TITLE, INTRODUCTION]
    for kind, name in KINDS.items():
        parts.append(f"## {name[0].upper()}{name[1:]}")
        lines = ["| fault | through | state | mode | says | seen after | recovered after | as before | |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for fault in FAULTS:
            of_row = [cell for cell in cells if (cell.fault, cell.kind) == (fault, kind)]
            if of_row and not (kind == "reference" and EXPECTED[kind][fault] == CAMERA[fault]):
                lines.append(row(fault, kind, of_row))
        parts.append("\n".join(lines))
        if kind == "reference":
            parts.append("Every other fault of it is that of any camera.")
    parts.append(f"## The runs\n\n{runs}")
    return "\n\n".join(parts) + "\n"


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def recorded(path: Path) -> tuple[list[Cell], str]:
    """The cells of every run in the record, and a line of text for each run."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        f"- `{run['bundle']}`, device {run['device']}: {len(run['cells'])} cells at commit {run['commit']}, "
        f"`python tests/fault_matrix.py {run['command']}`"
        for run in runs
    ]
    return [Cell(**cell) for run in runs for cell in run["cells"]], "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--begin", type=int, default=60, help="first frame of the fault")
    parser.add_argument("--end", type=int, default=120, help="first frame after it")
    parser.add_argument("--bundles", default="tiny,tiny-t4")
    parser.add_argument("--devices", default="cpu,cuda", help='"cuda" runs its kernels on the CPU')
    parser.add_argument("--sensors", default="all", help="all, or one: of each kind")
    parser.add_argument("--record", type=Path, help="JSON lines that the cells are added to")
    parser.add_argument("--page", type=Path, help="page to write of everything in the record; needs --record")
    return parser.parse_args()


def main() -> int:
    options, good = parse(), True
    for name in filter(None, options.bundles.split(",")):
        bundle = Bundle.load(name)
        drive = FaultDrive(bundle.spec, options.frames, default_rig((160, 90)))
        for device in options.devices.split(","):
            detector = open_detector(bundle, drive.rig, device)
            if detector is None:
                print(f"{name} on {device}: the module cuda_on_host is not built", file=sys.stderr)
                return 3
            with detector:
                run = Drive.make(drive, detector, options.begin, options.end)
                sensors = one_of_each(drive) if options.sensors == "one" else drive.sensors()
                cells = run_all(run, sensors, lambda cell, at=f"{name} {device}": show(cell, at))
            good = good and not any(cell.problems for cell in cells)
            if options.record:
                add(options.record, name, device, cells)
    if options.page:
        write_atomically(options.page, page(*recorded(options.record)).encode())
    return 0 if good else 1


def add(record: Path, bundle: str, device: str, cells: list[Cell]) -> None:
    words = " ".join(word for word in sys.argv[1:] if "/" not in word and word not in ("--record", "--page"))
    run = {"bundle": bundle, "device": device, "commit": commit(), "command": words, "cells": list(map(asdict, cells))}
    with record.open("a") as file:
        file.write(json.dumps(run) + "\n")


def show(cell: Cell, at: str) -> None:
    print(f"{at} {cell.sensor:18} {cell.fault:14} {cell.seen_after:3} {cell.recovered_after:3} {cell.settled_after:3}")
    for problem in cell.problems:
        print("   ", problem)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
