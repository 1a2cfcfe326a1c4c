"""`imkd-edge check`: everything about recordings that cannot be, or is unusual, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.checks.data import images, labels, presence, radar, rig, times, velocity
from imkd_edge.checks.data.gather import Survey, survey
from imkd_edge.checks.data.page import write_page
from imkd_edge.checks.data.report import Findings, Report, error, warning
from imkd_edge.errors import Code, Error
from imkd_edge.options import CheckOptions
from imkd_edge.progress import Track
from imkd_edge.sources.base import Source
from imkd_edge.sources.folder.format import LIDAR
from imkd_edge.sources.plane import Plane
from imkd_edge.sources.select import ALL
from imkd_edge.view.page import check_page

DEFAULTS = CheckOptions()
MIN_BOXES = 30  # of a class, for its returns
MAX_WITHOUT_LIDAR = 0.5  # share of the visible boxes
MAX_REFLECTANCE = 255.0
OLD = 0.15  # s of a radar sweep


def check(
    source: str | Path | Source,
    options: CheckOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> Report:
    """Checks recordings. Every line of a drive folder is read, and the sensor files of some frames.

    Args:
        source: a Source, or the name of one.
        options: how many frames, and the page on them.
        source_options: of the source's reader.
        track: wraps the frame names, for a progress bar.
    Raises:
        Error: those of opening a source that is no drive folder; defects of a drive folder are findings; write_failed.
    """
    if options.html is not None:
        check_page(options.html)
    data = survey(source, options.limit, source_options, track)
    report = report_of(data)
    if options.html is not None:
        write_page(options.html, report, data.source, track)
    return report


def report_of(data: Survey) -> Report:
    """The report of a survey."""
    moments, source = data.moments, data.source
    sensors = times.sensor_offsets(moments)
    for name, camera in data.cameras.items():
        sensors.setdefault(name, {"kind": "camera"}).update(camera.to_dict())
    ground = rig.ground_report(data.ground, data.ground.proposals())
    return Report(
        source=data.name,
        kind="folder" if source is None else source.kind,
        frames=len(moments.names) if source is None else len(source.names),
        read=len(data.read),
        scenes=len({scene for scene, _ in data.times.values()}) or len(set(moments.scenes)),
        labelled=sum(moments.labelled),
        counted=len(moments.names),
        splits=_splits(data),
        times=times.statistics(data.times),
        sensors=sensors,
        radars={name: statistics.to_dict() for name, statistics in data.radars.items()},
        classes=_classes(data),
        rig={} if data.rig is None else rig.statistics(data.rig),
        ground=ground,
        findings=(*data.faults, *_judge(data, sensors, ground)),
    )


def _judge(data: Survey, sensors: Mapping[str, Any], ground: dict[str, Any]) -> Findings:
    source, moments = data.source, data.moments
    dataset = getattr(source, "dataset", None)
    yield from times.judge(data.times, sensors, moments, getattr(dataset, "interval", None))
    yield from times.judge_ego(moments)
    yield from labels.judge(moments, getattr(dataset, "classes", ()))
    yield from labels.judge_bottoms(moments, _planes(data))
    yield from _judge_lidar(data)
    yield from radar.judge(data.radars, getattr(source, "intensity", "") or "")
    if data.rig is not None:
        yield from velocity.judge_without_motion(data.speeds, data.motions.get("none", 0), data.rig)
    if data.motions.get("none") == len(data.read) and max(data.ages, default=0) > OLD:
        what = f"no frame has a known ego motion, and sweeps are up to {max(data.ages):.2f} s old"
        fix = "write ego poses or twists: without them old sweeps stay where they were measured, off the images"
        yield warning(Code.source_missing_key, "ego motion", what, "ego", fix)
    yield from radar.judge_boxes(data.boxes)
    yield from images.judge(data.cameras)
    yield from _judge_rigs(data)
    yield from rig.judge_ground(ground)
    known = {fault.what for fault in data.faults}  # of what the source counted itself
    yield from (found for found in presence.judge(moments, list(data.rigs.values())) if found.what not in known)
    if moments.names and not any(moments.labelled):
        what, fix = "no frame has labels", "fine for infer; training and evaluation need objects"
        yield warning(Code.source_bad_label, "labels", what, data.name, fix)


def _planes(data: Survey) -> Plane:
    """The ground plane of the frames that were read, in the median."""
    a, b, c = np.median(np.array(list(data.planes.values()) or [rig.FLAT]), 0).tolist()
    return a, b, c


def _judge_rigs(data: Survey) -> Findings:
    """Each finding once, though several rigs have it."""
    known: set[tuple[str, str]] = set()
    where = "rig.json" if data.source is None or data.source.kind == "folder" else "rig"
    for number, calibration in enumerate(data.rigs.values()):
        for finding in rig.judge(calibration, where if not number else f"rig {number + 1}"):
            key = finding.code, finding.what.split(":")[0]
            if key not in known:
                known.add(key)
                yield finding


def _judge_lidar(data: Survey) -> Findings:
    """Labelled boxes without LiDAR returns, and reflectances of another range."""
    for label, counts in data.lidar_boxes.items():
        empty = sum(count == 0 for count in counts)
        if len(counts) >= MIN_BOXES and empty > MAX_WITHOUT_LIDAR * len(counts):
            what = f"{empty} of {len(counts)} visible {label} boxes hold no LiDAR return"
            fix = "compare frames and times of labels and LiDAR; LiDAR points are in the ego frame of the frame's time"
            yield error(Code.source_bad_label, "returns in boxes", what, "objects and lidar", fix)
    largest = max(data.reflectance, default=MAX_REFLECTANCE)
    if data.reflectance and (largest > MAX_REFLECTANCE or largest <= 1):
        what, fix = f"the largest LiDAR intensity is {largest:g}", "scale it to 0 to 255: the teacher reads it so"
        yield warning(Code.source_bad_points, "reflectance", what, LIDAR, fix)


def _classes(data: Survey) -> dict[str, dict[str, Any]]:
    result = labels.statistics(data.moments)
    for label, counts in data.lidar_boxes.items():
        if label in result:
            result[label]["without_lidar"] = round(sum(count == 0 for count in counts) / len(counts), 3)
    return result


def _splits(data: Survey) -> dict[str, dict[str, Any]]:
    """Frames of every split, and labelled frames and objects by class among those that were counted."""
    try:
        splits: Mapping[str, Any] = dict(getattr(data.source, "splits", None) or {})
    except Error:  # among the faults
        splits = {}
    moments = data.moments
    if data.source is not None:
        splits = {**splits, ALL: data.source.names}
    index = {name: i for i, name in enumerate(moments.names)}
    objects = _objects_by_frame(data)
    result = {}
    for split, names in splits.items():
        rows = [index[name] for name in names if name in index]
        counts: dict[str, int] = {}
        for row in rows:
            for label in objects.get(row, ()):
                counts[label] = counts.get(label, 0) + 1
        labelled = sum(moments.labelled[row] for row in rows)
        result[split] = {"frames": len(names), "labelled": labelled, "objects": dict(sorted(counts.items()))}
    return result


def _objects_by_frame(data: Survey) -> dict[int, list[str]]:
    result: dict[int, list[str]] = {}
    for frame, label in zip(data.moments.frame_of, data.moments.labels):
        result.setdefault(frame, []).append(label)
    return result
