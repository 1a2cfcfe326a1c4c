"""Statistics of the radars' returns: points a sweep, intensity, returns in labelled boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imkd_edge.checks.contract import INTENSITY_STEP, MAX_POINTS, Histogram
from imkd_edge.checks.data import velocity
from imkd_edge.checks.data.report import Findings, error, listed, warning
from imkd_edge.errors import Code
from imkd_edge.frames import MAX_INTENSITY, valid_points
from imkd_edge.ops import EgoMotion
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.geometry import inside_boxes, inverse, transform

# dB, where the median of a radar's returns lies by the unit of its intensity. Of cars, walls and ground the RCS is -20
# to 30 dBsm; a detection lies above the noise, and no receiver has 90 dB of headroom over it.
USUAL_MEDIANS = {"rcs_dbsm": (-25.0, 35.0), "snr_db": (3.0, 60.0), "magnitude_db": (-120.0, 120.0)}
UNEQUAL = 20.0  # dB between the medians of two radars, or of a scene and all
MAX_INVALID = 0.01  # share of the points; the detector discards them
MAX_INVALID_ERROR = 0.5
MAX_EMPTY = 0.5  # share of the sweeps
MIN_SWEEPS = 5
MIN_ELEVATION = 0.05  # m, spread of the heights in a radar's own frame
# Returns in the footprints of boxes, each wider by REACH at every side, against the same boxes SHIFT m away.
REACH, SHIFT = 0.5, 8.0  # m
MIN_BOXES, MIN_LIFT = 30, 1.5
CERTAIN = 2.0  # times more returns in boxes that are read another way


@dataclass
class RadarStatistics:
    """Of one radar over the frames that were read."""

    calibration: RadarCalibration
    sweeps: int = 0
    empty: int = 0
    total: int = 0
    invalid: int = 0
    points: Histogram = field(default_factory=lambda: Histogram(0, MAX_POINTS, 1))
    intensity: Histogram = field(default_factory=lambda: Histogram(-MAX_INTENSITY, MAX_INTENSITY, INTENSITY_STEP))
    by_scene: dict[str, list[float]] = field(default_factory=dict)  # medians of sweeps
    returns: velocity.EgoReturns = field(default_factory=velocity.EgoReturns)
    static: int = 0  # points whose velocity is exactly 0
    spreads: list[float] = field(default_factory=list)  # m, of the heights in the radar's frame, by sweep

    def add(self, points: np.ndarray, scene: str, twist: np.ndarray | None) -> None:
        """The newest sweep of a frame; twist: of the ego, None where it is unknown."""
        valid = points[valid_points(points)]
        self.sweeps += 1
        self.empty += not len(points)
        self.total += len(points)
        self.invalid += len(points) - len(valid)
        self.static += int((valid[:, 4] == 0).sum())
        self.points.add([len(valid)])
        if len(valid):
            self.spreads.append(float(valid[:, 2].std()))
        self.intensity.add(valid[:, 3])
        if len(valid):
            self.by_scene.setdefault(scene, []).append(float(np.median(valid[:, 3])))
        if twist is not None:
            self.returns.add(valid, self.calibration, twist)

    @property
    def measures_elevation(self) -> bool:
        """Whether the heights of its returns differ."""
        return bool(self.spreads) and float(np.median(self.spreads)) > MIN_ELEVATION

    @property
    def measures_velocity(self) -> bool:
        """Whether any velocity is not 0."""
        return self.static < self.total - self.invalid

    def fit(self) -> velocity.Fit | None:
        return self.returns.fit(self.calibration)

    def to_dict(self) -> dict[str, Any]:
        fit = self.fit()
        low, high = self.intensity.usual()
        return {
            "sweeps": self.sweeps,
            "empty": self.empty,
            "points": {"p1": self.points.usual()[0], "p50": self.points.quantile(0.5), "p99": self.points.usual()[1]},
            "invalid": self.invalid,
            "intensity": {"p1": low, "p50": self.intensity.quantile(0.5), "p99": high},
            "velocity": self.calibration.velocity,
            "ego_motion_share": None if fit is None else fit.share,
            "ego_motion_support": None if fit is None else fit.support,
        }


@dataclass
class BoxReturns:
    """Radar returns in the footprints of boxes, and of the same boxes beside them."""

    boxes: int = 0
    inside: int = 0
    beside: float = 0.0
    mirrored: int = 0  # in the boxes with left for right
    from_world: int = 0  # in the boxes whose centres are taken as those of the world frame

    def add(self, points: np.ndarray, boxes: np.ndarray, T_world_ego: np.ndarray | None = None) -> None:
        """(N, 3+) points of the newest sweeps and (M, 9) boxes, both in the ego frame, whose pose may be known."""
        boxes = np.array(boxes[:, :7], np.float64)
        if not len(points) or not len(boxes):
            return
        boxes[:, 3:5] += 2 * REACH
        boxes[:, 5] = np.inf  # a radar's heights are too coarse
        self.boxes += len(boxes)
        self.inside += int(inside_boxes(points, boxes).sum())
        for shift in ((SHIFT, 0), (-SHIFT, 0), (0, SHIFT), (0, -SHIFT)):
            self.beside += float(inside_boxes(points, boxes + [*shift, 0, 0, 0, 0, 0]).sum()) / 4

        self.mirrored += int(inside_boxes(points, boxes * [1, -1, 1, 1, 1, 1, -1]).sum())
        if T_world_ego is not None:
            boxes[:, :3] = transform(inverse(np.asarray(T_world_ego)), boxes[:, :3])
            self.from_world += int(inside_boxes(points, boxes).sum())

    @property
    def lift(self) -> float | None:
        """How many times more returns lie in boxes than beside them; None for too few boxes."""
        if self.boxes < MIN_BOXES or self.inside + self.beside < MIN_BOXES:
            return None
        return (self.inside + 1) / (self.beside + 1)


def newest_in_ego(sample: Sample, motion: EgoMotion) -> np.ndarray:
    """(N, 3) m, the valid points of each radar's newest sweep in the ego frame of the sample."""
    mounts = {radar.name: np.asarray(radar.T_ego_radar) for radar in sample.rig.radars}
    parts = [np.zeros((0, 3))]
    for sweep in newest_sweeps(sample).values():
        points = sweep.points[valid_points(sweep.points), :3].astype(np.float64)
        T = mounts[sweep.radar]
        if sweep.timestamp_ns is not None:
            T = motion.T_ref_at(sweep.timestamp_ns) @ T
        parts.append(transform(T, points))
    return np.concatenate(parts)


def newest_sweeps(sample: Sample) -> dict[str, Any]:
    """The newest sweep of each radar."""
    result: dict[str, Any] = {}
    for sweep in sample.radar:
        other = result.get(sweep.radar)
        if other is None or (sweep.timestamp_ns or sample.timestamp_ns) > (other.timestamp_ns or sample.timestamp_ns):
            result[sweep.radar] = sweep
    return result


def judge(radars: Mapping[str, RadarStatistics], unit: str) -> Findings:
    """What is wrong with the returns of the radars."""
    for name, radar in radars.items():
        yield from _judge_points(name, radar)
        yield from _judge_intensity(name, radar, unit)
        yield from velocity.judge(name, radar.calibration, radar.returns, radar.fit())
    medians = {name: radar.intensity.quantile(0.5) for name, radar in radars.items() if radar.intensity.total}
    if medians and max(medians.values()) - min(medians.values()) > UNEQUAL:
        low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
        what = f"median intensities of {medians[low]:g} dB ({low}) and {medians[high]:g} dB ({high})"
        yield warning(
            Code.source_bad_points, "intensity", what, "radars", "write the intensities of all radars in one unit"
        )


def _judge_points(name: str, radar: RadarStatistics) -> Findings:
    where, code = f"radar {name}", Code.source_bad_points
    if radar.sweeps >= MIN_SWEEPS and radar.empty > MAX_EMPTY * radar.sweeps:
        what, fix = f"{radar.empty} of {radar.sweeps} sweeps are empty", "look for the radar's points in the recording"
        yield warning(code, "points", what, where, fix)
    if radar.invalid > MAX_INVALID * radar.total:
        grade = error if radar.invalid > MAX_INVALID_ERROR * radar.total else warning
        what = f"{radar.invalid} of {radar.total} points are not finite, nearer than 0.1 m, or of impossible values"
        fix = "leave them out; of all points, look at the order of the columns: x, y, z, intensity, velocity"
        yield grade(code, "points", what, where, fix)
    valid = radar.total - radar.invalid
    if valid >= velocity.MIN_RETURNS and not radar.measures_velocity:
        what, fix = "every velocity is 0", "write the radial velocities, in m/s, positive when receding"
        yield warning(code, "velocity", what, where, fix)


def _judge_intensity(name: str, radar: RadarStatistics, unit: str) -> Findings:
    where, code, topic = f"radar {name}", Code.source_bad_points, "intensity"
    if not radar.intensity.total:
        return
    median, (low, high) = radar.intensity.quantile(0.5), radar.intensity.usual()
    usual = USUAL_MEDIANS.get(unit)
    if low == high:
        what, fix = f"every intensity is {median:g} dB", "write the returns' RCS, SNR or magnitude"
        yield warning(code, topic, what, where, fix)
    elif usual and not usual[0] <= median <= usual[1]:
        what = f"the median intensity is {median:g} dB; that of {unit} lies from {usual[0]:g} to {usual[1]:g}"
        fix = "correct the offset or the scale, or name another intensity in dataset.json"
        yield error(code, topic, what, where, fix)
    scenes = {scene: float(np.median(values)) for scene, values in radar.by_scene.items()}
    middle = float(np.median(list(scenes.values())))
    unlike = [scene for scene, value in scenes.items() if abs(value - middle) > UNEQUAL]
    if unlike:
        value = scenes[unlike[0]]
        what = f"the median intensity is {value:g} dB in {listed(map(repr, unlike))}, {middle:g} dB elsewhere"
        yield warning(code, topic, what, where, "write the intensities of all scenes in one unit")


def judge_boxes(returns: BoxReturns) -> Findings:
    """Whether labels lie where the radars have returns."""
    lift = returns.lift
    least = CERTAIN * max(returns.inside, returns.beside, MIN_BOXES)
    readings = (
        (
            returns.mirrored,
            "labels or radar points are mirrored: y is positive to the left in both, yaw turns from x to y",
        ),
        (returns.from_world, "the centres are in the world frame: write them in the ego frame"),
    )
    for count, fix in readings if returns.boxes >= MIN_BOXES else ():
        if count > least:
            what = f"{returns.boxes} boxes hold {returns.inside} radar returns, read another way {count}"
            yield error(Code.source_bad_label, "returns in boxes", what, "objects", fix)
            return
    if lift is not None and lift < MIN_LIFT:
        what = f"{returns.boxes} boxes hold {returns.inside} radar returns; {SHIFT:g} m beside them are as many"
        what += f" ({returns.beside:.0f})"
        fix = "compare frames and times of labels and radars, T_ego_radar, and the labels' frame (x forward, y left)"
        yield error(Code.source_bad_label, "returns in boxes", what, "objects and radars", fix)


def rig_radars(rig: SensorRig) -> dict[str, RadarCalibration]:
    """Radars of a rig by name."""
    return {radar.name: radar for radar in rig.radars}
