"""A proposal for the ground plane of a rig, from the LiDAR or radar returns of many frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample
from imkd_edge.sources.geometry import transform
from imkd_edge.sources.plane import Plane, fit_plane, heights_above, normal_of

RANGES = {"lidar": (3.0, 30.0), "radar": (5.0, 50.0)}  # m from the ego origin: nearer lies the car, farther is noise
CELL = 1.0  # m
LOW = 0.1  # quantile of the heights in a cell that stands for its ground: below it lie reflections
BANDS = (2.0, 1.0, 0.5, 0.3, 0.2)  # m around the plane that count as ground, from one pass to the next
MIN_CELLS, MIN_SPREAD = 50, 3.0  # cells on the ground, and the standard deviation of their positions along any axis, m
PARTS = 4  # of the drive, each with a proposal of its own: their spread is the uncertainty
# A radar sees objects, not the road: beside the lane their heights follow the buildings. Within LANE of the x axis the
# median return lies 0.6 to 1.1 m above the ground in parts of Astyx's training split (0.6 m in synth), and a plane
# through the returns is off by 1 to 3 degrees.
LANE = 4.0  # m
RADAR_HEIGHT, RADAR_HEIGHT_ERROR, RADAR_TILT_ERROR = 0.8, 0.4, 3.0  # m, m, degrees
MIN_RETURNS, MIN_ELEVATION = 5_000, 0.05  # of a radar: returns, and their median deviation from the plane, m


@dataclass(frozen=True)
class GroundProposal:
    """A ground plane that the returns of a sensor suggest."""

    sensor: str  # "lidar" or "radar"
    plane: Plane  # z = a x + b y + c in the ego frame
    points: int  # returns that support it
    residual: float  # m, median absolute height of these around the plane; of a radar around the median return
    height_error: float  # m, standard error of c over parts of the drive, nan if unknown; of a radar at least 0.4
    tilt_error: float  # degrees, likewise of the slope; of a radar at least 3


@dataclass(frozen=True)
class PlaneDifference:
    """How far one ground plane is from another."""

    height: float  # m, first minus second at the ego origin
    tilt: float  # degrees between the normals


def compare_planes(first: Plane, second: Plane) -> PlaneDifference:
    """The difference of two ground planes of one frame."""
    sine = np.linalg.norm(np.cross(normal_of(first), normal_of(second)))  # of the angle between unit vectors
    return PlaneDifference(first[2] - second[2], float(np.degrees(np.arcsin(np.minimum(sine, 1.0)))))


def propose_ground(samples: Iterable[Sample], sensor: str = "lidar") -> GroundProposal | None:
    """`propose_plane` of the returns of many samples of one mounting.

    Args:
        samples: tens of frames at least, along a drive; their rigs' planes are not read.
        sensor: "lidar", or "radar" for all radars together.
    Raises: Error spec_bad_value for another sensor.
    """
    _check_sensor(sensor)
    clouds = [_radar_points(sample) if sensor == "radar" else sample.lidar for sample in samples]
    return propose_plane([cloud for cloud in clouds if cloud is not None], sensor)


def propose_plane(clouds: Sequence[np.ndarray], sensor: str = "lidar") -> GroundProposal | None:
    """A ground plane for returns of one mounting; None where too few support it or they lie on a line.

    LiDAR: plane through the lowest returns of each cell of 1 m, fitted again in ever narrower bands (lower envelope),
    then through the median ground return of each cell. Radar: RADAR_HEIGHT below a plane through the returns of the
    lane, which finds a mounting in another unit or axis but calibrates none; None for radars without elevation.

    Args:
        clouds: one (N, 3+) array per frame, x, y, z m in the ego frame.
        sensor: "lidar" or "radar".
    Raises: Error spec_bad_value for another sensor.
    """
    _check_sensor(sensor)
    fit = _lidar_plane if sensor == "lidar" else _radar_plane
    near = [_within(cloud, RANGES[sensor]) for cloud in clouds]
    result = fit(near)
    if result is None:
        return None
    plane, points, residual = result
    bounds = np.linspace(0, len(near), PARTS + 1).astype(int)
    parts = [fit(near[start:end]) for start, end in pairwise(bounds)]
    height_error, tilt_error = _standard_error([part[0] for part in parts if part is not None])
    if sensor == "radar":
        height_error = np.fmax(height_error, RADAR_HEIGHT_ERROR)
        tilt_error = np.fmax(tilt_error, RADAR_TILT_ERROR)
    return GroundProposal(sensor, plane, points, residual, float(height_error), float(tilt_error))


def _check_sensor(sensor: str) -> None:
    if sensor not in RANGES:
        what, fix = f"no ground is proposed from {sensor!r}", f"choose one of: {', '.join(RANGES)}"
        raise Error(Code.spec_bad_value, what, "sensor", fix)


def _radar_points(sample: Sample) -> np.ndarray:
    """(N, 3) m in the ego frame: all sweeps; the vehicle's motion between them leaves heights as they are."""
    mounts = {radar.name: np.asarray(radar.T_ego_radar) for radar in sample.rig.radars}
    points = [transform(mounts[sweep.radar], sweep.points[:, :3].astype(np.float64)) for sweep in sample.radar]
    return np.concatenate([np.zeros((0, 3)), *points])


def _within(points: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """The finite points within a range of the ego origin, (N, 3) float64."""
    points = points[np.isfinite(points[:, :3]).all(1), :3].astype(np.float64)
    distance = np.hypot(points[:, 0], points[:, 1])
    return points[(distance >= bounds[0]) & (distance < bounds[1])]


def _lidar_plane(clouds: Sequence[np.ndarray]) -> tuple[Plane, int, float] | None:
    """Plane, number of ground returns and their median absolute height."""
    points = np.concatenate([np.zeros((0, 3)), *clouds])
    low = _quantile_of_cells(points, LOW)
    if not _supports(low):
        return None
    plane = fit_plane(low)
    for band in BANDS:
        ground = low[heights_above(plane, low) < band]  # what lies lower stays, Huber's weights bound it
        if not _supports(ground):
            return None
        plane = fit_plane(ground)
    for band in BANDS[-2:]:
        ground = points[np.abs(heights_above(plane, points)) < band]
        middle = _quantile_of_cells(ground, 0.5)
        if not _supports(middle):
            return None
        plane = fit_plane(middle)
    return plane, len(ground), float(np.median(np.abs(heights_above(plane, ground))))


def _radar_plane(clouds: Sequence[np.ndarray]) -> tuple[Plane, int, float] | None:
    """Plane, number of returns and their median absolute height around the median return."""
    points = np.concatenate([np.zeros((0, 3)), *clouds])
    points = points[np.abs(points[:, 1]) < LANE]
    if len(points) < MIN_RETURNS:
        return None
    a, b, c = fit_plane(points)
    residual = float(np.median(np.abs(heights_above((a, b, c), points))))
    if residual < MIN_ELEVATION:  # all returns on one plane, which is the radar's own: it measures no elevation
        return None
    return (a, b, c - RADAR_HEIGHT), len(points), residual


def _quantile_of_cells(points: np.ndarray, quantile: float) -> np.ndarray:
    """The point of that height in each cell, (M, 3)."""
    cells = np.floor(points[:, :2] / CELL).astype(np.int64)
    points = points[np.lexsort((points[:, 2], cells[:, 1], cells[:, 0]))]
    cells = np.floor(points[:, :2] / CELL).astype(np.int64)
    _, start, count = np.unique(cells, axis=0, return_index=True, return_counts=True)
    return points[start + (quantile * (count - 1)).astype(np.int64)]


def _supports(points: np.ndarray) -> bool:
    """Whether there are enough points, and spread along both directions of the ground."""
    if len(points) < MIN_CELLS:
        return False
    return bool(np.linalg.eigvalsh(np.cov(points[:, :2].T))[0] >= MIN_SPREAD**2)


def _standard_error(planes: Sequence[Plane]) -> tuple[float, float]:
    """Of height (m) and tilt (degrees) of the mean of some planes; nan for fewer than two."""
    if len(planes) < 2:
        return float("nan"), float("nan")
    spread = np.std(planes, axis=0, ddof=1) / np.sqrt(len(planes))
    return float(spread[2]), float(np.degrees(np.hypot(spread[0], spread[1])))
