"""What a caller sees of every fault of every sensor: expected by hand, compared with a drive, and written as a page.

python tests/fault_matrix.py --record runs/faults.jsonl --page docs/guide/faults.md   # half an hour on one core
python tests/fault_matrix.py --frames 75 --begin 20 --end 35 --bundles small,small-t4   # random networks: minutes
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fault_table import EXPECTED, Cell, Expected, page, recorded
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

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Detector, Result
from imkd_edge.bundle.files import write_atomically
from imkd_edge.sources.synth import default_rig

ROOT = Path(__file__).resolve().parents[1]
COMMIT = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.strip()  # at the start: a run takes long
RECOVERY = 2  # frames after the fault within which the drive is as it was before
SETTLED = 10  # frames in a row that equal those of the drive without the fault: history has passed


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
        good = self.run.good[0][result.timestamp_ns]
        self.times.append(result.timestamp_ns)
        self.codes.add(code)
        others = {name: s for name, s in result.health.sensors.items() if name != self.cell.sensor}
        if any(good.health.sensors[name] != state for name, state in others.items()):
            self.problem(result, f"another sensor is affected: {others}")
        if not all(np.isfinite(a).all() for a in (result.boxes[:, :7], result.scores)) or result.health.boxes_invalid:
            self.problem(result, "boxes are not finite")
        same = equal(result, good)
        if not same and (self.expected.same or result.timestamp_ns < self.begin):
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
        if gap > self.expected.gap:
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


def open_bundle(name: str, folder: str) -> Bundle:
    """A shipped one; "small" and "small-t4" are random networks for its sensors, the second with three past maps."""
    if not name.startswith("small"):
        return Bundle.load(name)
    past = 3 if name.endswith("t4") else 0
    return Bundle.load(write_random_bundle(Path(folder) / f"{name}.imkd", random_spec(past=past)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--begin", type=int, default=60, help="first frame of the fault")
    parser.add_argument("--end", type=int, default=120, help="first frame after it")
    parser.add_argument("--bundles", default="tiny,tiny-t4")
    parser.add_argument("--devices", default="cpu,cuda", help='"cuda" runs its kernels on the CPU')
    parser.add_argument("--sensors", default="all", help="all; one: of each kind; or names, separated by commas")
    parser.add_argument("--record", type=Path, help="JSON lines that the cells are added to")
    parser.add_argument("--page", type=Path, help="page to write of everything in the record; needs --record")
    return parser.parse_args()


def main() -> int:
    options, good = parse(), True
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, options.bundles.split(",")):
            bundle = open_bundle(name, folder)
            drive = FaultDrive(bundle.spec, options.frames, default_rig((160, 90)))
            for device in options.devices.split(","):
                cells = cells_of(bundle, drive, device, name, options)
                good = good and not any(cell.problems for cell in cells)
                if options.record:
                    add(options.record, name, device, cells)
    if options.page:
        write_atomically(options.page, page(*recorded(options.record)).encode())
    return 0 if good else 1


def cells_of(bundle: Bundle, drive: FaultDrive, device: str, name: str, options: argparse.Namespace) -> list[Cell]:
    detector = open_detector(bundle, drive.rig, device)
    if detector is None:
        print(f"{name} on {device}: the module cuda_on_host is not built", file=sys.stderr)
        sys.exit(3)
    with detector:
        run = Drive.make(drive, detector, options.begin, options.end)
        some = {"all": drive.sensors(), "one": one_of_each(drive)}
        sensors = some.get(options.sensors, options.sensors.split(","))
        return run_all(run, sensors, lambda cell: show(cell, f"{name} {device}"))


def add(record: Path, bundle: str, device: str, cells: list[Cell]) -> None:
    words = " ".join(word for word in sys.argv[1:] if "/" not in word and word not in ("--record", "--page"))
    run = {"bundle": bundle, "device": device, "commit": COMMIT, "command": words, "cells": list(map(asdict, cells))}
    with record.open("a") as file:
        file.write(json.dumps(run) + "\n")


def show(cell: Cell, at: str) -> None:
    print(f"{at} {cell.sensor:18} {cell.fault:14} {cell.seen_after:3} {cell.recovered_after:3} {cell.settled_after:3}")
    for problem in cell.problems:
        print("   ", problem)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
