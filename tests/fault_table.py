"""What a user would want to see of every fault of every sensor, and the page that says what was seen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults import EGO, FAULTS, TIME_FAULTS

KINDS = {"camera": "a camera", "reference": "the reference camera", "radar": "a radar", EGO: "ego motion"}


@dataclass(frozen=True)
class Expected:
    """What a user would want to see of one fault."""

    state: str  # of the sensor; of the ego motion its source
    mode: str
    within: int = 0  # frames from the first faulty one until then
    warnings: tuple[str, ...] = ()
    error: str = ""  # code that the call with the faulty value raises; the frame is then given without the sensor
    same: bool = False  # every frame equals that of the drive without the fault, to the bit
    gap: int = 0  # frames in a row that there are none of, at most
    note: str = ""


# Frames until what was delivered before is too old: sweeps and poses serve for radar.max_age, 0.6 s.
AGED = 7
GONE = Expected("missing", "partial")
SWEEPS = "its older sweeps serve for 0.6 s"
POSES = "older poses serve for 0.6 s, then what is older than a sweep stays where it was"
SAME = Expected("ok", "full", same=True, note="the second one is ignored")
LOST = "no frame for 1 s, `lost_after` of the Synchronizer; then the next camera sets the frames' times"
UNSEEN = "not seen: any bytes may be an image"
STILL = (
    "by 3 m of the twist, faster than 0.5 m/s; from then on the poses that repeat are left out. "
    "Not seen without a twist"
)
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
            "ok", "full", gap=4, note="the frames are as late; those that a later one overtakes are left out"
        ),
        "shifted clock": Expected("missing", "partial", 10, gap=11, note=LOST),
        "out of order": Expected("ok", "full", gap=1, note="a frame that a later one has overtaken is left out"),
    },
    "radar": {
        "absent": Expected("missing", "partial", AGED, note=SWEEPS),
        "late": Expected(
            "late", "full", 4, note="by 0.45 s, of which a frame waits 0.1 s; late is a newest sweep older than 0.3 s"
        ),
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
        "late": Expected("poses", "full", note="extrapolated from poses of 0.45 s ago"),
        "frozen": Expected("twist", "full", AGED, ("W0132",), note=STILL),
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


# ---- page ----
TITLE = "# What is seen of a sensor's fault"
INTRODUCTION = """\
Each row is one fault, of one sensor at a time, in some frames of a synthetic drive at 10 Hz (`--begin` to `--end` of
the runs below): what `result.health` says of that sensor (of ego motion: its source, `health.ego_motion`), the mode,
and the warnings, or the code of the error that a call with the faulty value raises; the frame is then given without
that value. In every row the boxes stay finite and, unless it says otherwise, the states of the other sensors are those
of the drive without the fault. Frames are counted from the first faulty one until the state is seen, and from the first
good one until health is as it was, and until boxes and health equal to the bit those of the drive without the fault;
each is the largest number of all runs. On device "cuda" the kernels ran on the CPU. No frame with
at most 16 sweeps per radar allocates, outside the networks' engine
(`ctest --test-dir build/tests -R allocates_nothing`). The tests have a short form of every row
(`python -m pytest tests/drive/test_fault_matrix.py`), for a camera and a radar also on device "cuda".

A value that has never been right is the calling program's mistake, and raises an error that says how to mend it. What
was right before is a fault of the sensor: `infer` goes on, and health names it.
"""


UNSEEN_FAULTS = """\
## What is not seen

- **An image of random bytes.** Neighbouring pixels of real images are alike, but in the dark those of a good camera are
  not: at 1/128 of the light its read noise is all that is left.
- **A pose that stands still, without a twist beside it.** It is that of a parked vehicle; it is not compared with the
  radars' velocities.
- **An image too dark for the model.** It is `ok` while it shows something, though a model that knows daylight only is
  better off without it ([training](../../training/results/README.md#robustness-of-the-shipped-models)).
- **One radar whose values are all at their limits**: W0102 and W0103 are about the radars together.
- **A partly covered camera**, and at night one that sees only lights smaller than a thirty-second of the image's width
  and height: an image counts as flat, and is left out, where 95 % of the pixels lie within four grey levels and no
  light stands out of them. Real images are flat where white has two grey levels left (1/128 of the light) and the read
  noise is no larger than one; at 1/64 with that noise, and with the lamps of one car at any gain, they are not
  (`python -m pytest tests/detector/test_useless_sensors.py -k "dark or night"`).
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
        lines = ["| fault | through | state | mode | warning, error | seen | recovered | equal | |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for fault in FAULTS:
            of_row = [cell for cell in cells if (cell.fault, cell.kind) == (fault, kind)]
            if of_row and not (kind == "reference" and EXPECTED[kind][fault] == CAMERA[fault]):
                lines.append(row(fault, kind, of_row))
        parts.append("\n".join(lines))
        if kind == "reference":
            parts.append("Every other fault of it is that of any camera.")
    parts += [UNSEEN_FAULTS.rstrip(), f"## The runs\n\n{runs}"]
    return "\n\n".join(parts) + "\n"


def recorded(path: Path) -> tuple[list[Cell], str]:
    """The cells of every run in the record, and a line of text for each run."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        f"- `{run['bundle']}`, device {run['device']}: {len(run['cells'])} cells at commit {run['commit']}, "
        f"`python tests/fault_matrix.py {run['command']}`"
        for run in runs
    ]
    return [Cell(**cell) for run in runs for cell in run["cells"]], "\n".join(lines)
