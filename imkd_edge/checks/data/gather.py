"""Reads a source once and gathers what a check and a training's config need to know about it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.checks.contract import spaced
from imkd_edge.checks.data.images import ImageStatistics
from imkd_edge.checks.data.moments import Moment, Moments
from imkd_edge.checks.data.radar import (
    MIN_ELEVATION,
    BoxReturns,
    RadarStatistics,
    newest_in_ego,
    newest_sweeps,
    rig_radars,
)
from imkd_edge.checks.data.report import Finding, of_error, warning
from imkd_edge.checks.data.rig import GroundReturns, ground
from imkd_edge.checks.data.velocity import speed_as_raw
from imkd_edge.errors import Code, Error
from imkd_edge.frames import RadarSweep
from imkd_edge.ops import EgoMotion
from imkd_edge.options import CheckOptions
from imkd_edge.progress import Track
from imkd_edge.rig import SensorRig
from imkd_edge.sources.absences import Absences
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.files import read_bytes
from imkd_edge.sources.folder import FolderSource, is_folder, problems
from imkd_edge.sources.folder.format import RIG, Frame
from imkd_edge.sources.open import is_synth
from imkd_edge.sources.plane import Plane
from imkd_edge.sources.select import OPTIONAL, open_with, source_name

LIMIT = CheckOptions.limit
HIDDEN = 3  # Truth.occlusion of an object that is not seen


@dataclass
class Survey:
    """What a source holds."""

    name: str
    source: Source | None = None  # None: it does not open
    moments: Moments = field(default_factory=Moments)
    times: dict[str, tuple[str, int]] = field(default_factory=dict)  # of every frame: scene, ns
    read: list[str] = field(default_factory=list)  # frames whose sensor files were read
    rigs: dict[str, SensorRig] = field(default_factory=dict)  # hash -> rig
    planes: dict[str, Plane] = field(default_factory=dict)  # frame -> ground plane, of those that were read
    radars: dict[str, RadarStatistics] = field(default_factory=dict)
    ages: list[float] = field(default_factory=list)  # s, of the oldest sweep of each frame
    points: list[int] = field(default_factory=list)  # of all sweeps of a frame
    cameras: dict[str, ImageStatistics] = field(default_factory=dict)
    boxes: BoxReturns = field(default_factory=BoxReturns)
    lidar_boxes: dict[str, list[int]] = field(default_factory=dict)  # class -> LiDAR returns in each visible box
    reflectance: list[float] = field(default_factory=list)  # largest of each cloud
    ground: GroundReturns = field(default_factory=GroundReturns)
    motions: dict[str, int] = field(default_factory=dict)  # source of the ego motion -> frames
    speeds: list[float] = field(default_factory=list)  # m/s, by the returns of frames of unknown ego motion
    faults: list[Finding] = field(default_factory=list)  # of the format and of reading

    @property
    def rig(self) -> SensorRig | None:
        """That of most frames; the first where several are as frequent."""
        return next(iter(self.rigs.values()), None)

    def add_rig(self, folder: Path) -> None:
        """The rig of a drive folder that does not open, where the rig itself does."""
        with contextlib.suppress(Error):
            rig = SensorRig.from_json(read_bytes(folder / RIG).decode("utf-8", "replace"))
            self.rigs[rig.hash()] = rig

    def add_sample(self, sample: Sample, index: int, twist: np.ndarray | None) -> None:
        """A sample; twist: of its frame by the poses of frames, None where these are not known."""
        self.read.append(sample.name)
        self.rigs.setdefault(sample.rig.hash(), sample.rig)
        self.planes[sample.name] = ground(sample.rig)
        for camera, image in sample.frames.items():
            self.cameras.setdefault(camera, ImageStatistics()).add(sample.name, image)
        motion = sample.motion()
        source = motion.source if motion.source in ("poses", "twist") else "none" if twist is None else "frames' poses"
        self.motions[source] = self.motions.get(source, 0) + 1
        if motion.source in ("poses", "twist") and motion.twist is not None:
            twist = np.asarray(motion.twist)
        if twist is None and (speed := speed_as_raw(sample)) is not None:
            self.speeds.append(speed)
        self._add_radar(sample, twist)
        cloud = newest_in_ego(sample, motion)
        self._add_boxes(sample, cloud)
        if index % max(1, self._expected // GroundReturns.FRAMES) == 0:
            self.ground.add(sample.rig, sample.lidar, _with_elevation(sample, motion))
        if sample.lidar is not None and len(sample.lidar):
            self.reflectance.append(float(sample.lidar[:, 3].max()))

    _expected: int = 1  # samples that will be added

    def _add_radar(self, sample: Sample, twist: np.ndarray | None) -> None:
        calibrations = rig_radars(sample.rig)
        for name, sweep in newest_sweeps(sample).items():
            radar = self.radars.setdefault(name, RadarStatistics(calibrations[name]))
            radar.add(sweep.points, sample.scene, twist)
        if sample.radar:
            times = [_time(sweep, sample) for sweep in sample.radar]
            self.ages.append((sample.timestamp_ns - min(times)) * 1e-9)
            self.points.append(sum(len(sweep.points) for sweep in sample.radar))

    def _add_boxes(self, sample: Sample, cloud: np.ndarray) -> None:
        truth = sample.truth
        if truth is None or not len(truth.boxes):
            return
        visible = truth.occlusion < HIDDEN
        self.boxes.add(cloud, truth.boxes[visible], None if sample.ego is None else sample.ego.T_world_ego)
        for label, count, seen in zip(truth.labels, truth.lidar_points.tolist(), visible):
            if seen and count >= 0:
                self.lidar_boxes.setdefault(label, []).append(count)


def survey(
    source: str | Path | Source,
    limit: int = LIMIT,
    options: Mapping[str, Any] | None = None,
    track: Track | None = None,
    validate: bool = True,
) -> Survey:
    """Surveys a source: every line of a drive folder, and the sensor files of some frames.

    Args:
        source: a Source, or the name of one.
        limit: frames whose sensor files are read, evenly spaced.
        options: of the source's reader.
        track: wraps the frame names, for a progress bar.
        validate: True also lists every defect of a drive folder's format, instead of raising the first.
    Raises:
        Error: those of opening the source, unless it is a drive folder and `validate`; source_unknown_frame without a
            frame.
    """
    result = Survey(source_name(source))
    source = str(source) if isinstance(source, Path) else source
    folder = Path(source) if isinstance(source, str) and not is_synth(source) and _is_folder(source) else None
    if folder is None and isinstance(source, FolderSource):
        folder = source.path
    if folder is not None and validate:
        _validate(folder, limit, result, track)
        if any(fault.is_error for fault in result.faults):
            try:
                result.source = open_with(source, options or {})
            except Error:  # listed among the faults
                result.add_rig(folder)
                return result
    if result.source is None:
        result.source = open_with(source, options or {}, dict.fromkeys(OPTIONAL, True) if folder is not None else {})
    if not result.source.names:
        raise Error(Code.source_unknown_frame, "no frames are there", result.name, "copy the recording again")
    if folder is not None and not validate:
        _read_lines(result)
    _read_samples(result, limit, track, lines=folder is not None)
    return result


def _is_folder(name: str) -> bool:
    try:
        return is_folder(Path(name))
    except OSError:
        return False


def _validate(folder: Path, limit: int, result: Survey, track: Track | None) -> None:
    def visit(frame: Frame) -> None:
        result.moments.add(Moment.of_frame(frame))

    result.faults += _by_class([of_error(problem.error()) for problem in problems(folder, limit, track, visit)])


def _subject(what: str) -> str:
    """What a fault says, without which object it is and how many there are, where a label is no class."""
    label = what.partition(".label is ")[2]
    return label.partition(" (")[0] if label else what


def _by_class(faults: list[Finding]) -> list[Finding]:
    """The faults, those of one label that is no class as one."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for number, fault in enumerate(faults):
        subject = _subject(fault.what)
        groups.setdefault((fault.code, f"{number}" if subject == fault.what else subject), []).append(fault)
    return [
        replace(group[0], what=f"{group[0].what} ({len(group)} objects)") if len(group) > 1 else group[0]
        for group in groups.values()
    ]


def _read_lines(result: Survey) -> None:
    source = result.source
    assert isinstance(source, FolderSource)
    for name in source.names:
        result.moments.add(Moment.of_frame(source.frame(name)))


def _read_samples(result: Survey, limit: int, track: Track | None, lines: bool) -> None:
    """Reads the sensor files of some frames; lines: the frames' lines are known already."""
    source = result.source
    assert source is not None
    moment = getattr(source, "moment", None)
    if moment is not None:
        result.times = {name: moment(name) for name in source.names}
    names = spaced(source.names, limit)
    twists = dict(zip(result.moments.names, result.moments.twists())) if lines else {}
    result._expected = len(names)
    before = {_subject(finding.what) for finding in result.faults}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # absent files are counted below
        for index, name in enumerate(track(names) if track else names):
            try:
                sample = source[name]
                twist = twists.get(name)
                result.add_sample(sample, index, None if twist is None or np.isnan(twist).any() else twist)
            except Error as fault:
                if _subject(fault.what) not in before:
                    result.faults.append(of_error(fault, "reading"))
                continue
            if not lines:
                result.moments.add(Moment.of_sample(sample))
                result.times.setdefault(name, (sample.scene, sample.timestamp_ns))
    if not lines:
        result.faults += _absences(getattr(source, "absent", {}), len(names), result.name)


def _absences(absent: Mapping[str, int] | Absences, frames: int, where: str) -> list[Finding]:
    """Optional data that the frames lack, by kind."""
    counts = absent.counts() if isinstance(absent, Absences) else absent
    fix = "copy the missing files, where the frames need them"
    texts = [f"{count} of {frames} frames are without {kind}" for kind, count in counts.items()]
    return [warning(Code.source_missing_file, "absent", text, where, fix) for text in texts]


def _time(sweep: RadarSweep, sample: Sample) -> int:
    return sample.timestamp_ns if sweep.timestamp_ns is None else sweep.timestamp_ns


def _with_elevation(sample: Sample, motion: EgoMotion) -> np.ndarray:
    """(N, 3) m in the ego frame: newest sweeps of the radars that measure elevation."""
    sweeps: Sequence[RadarSweep] = [
        sweep
        for sweep in newest_sweeps(sample).values()
        if len(sweep.points) and np.nanstd(sweep.points[:, 2]) > MIN_ELEVATION
    ]
    other = Sample(sample.name, sample.timestamp_ns, sample.rig, {}, list(sweeps), sample.ego)
    return newest_in_ego(other, motion)
