"""The calibration frames: chosen by herding, so that their radar statistics match the whole recording's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import valid_points
from imkd_edge.progress import Track
from imkd_edge.rig import SensorRig
from imkd_edge.sources.select import Selection

MIN_FRAMES = 16
BINS = 8  # of each histogram in the descriptor
HELD_OUT = 32  # frames at most that an INT8 form is accepted on; with fewer than FEW the extreme ones are among them
FEW = 8
STRESS = 8  # extreme frames that are held out, at most a tenth of all


@dataclass(frozen=True)
class Frames:
    """Frames of a source, chosen for calibration and for the acceptance behind it."""

    names: list[str]  # in the order of herding: every prefix is a good choice too
    stress: list[str]  # extreme frames, held out
    unusable: dict[str, str]  # name -> reason
    held_out: list[str]  # others, spread over the source


def choose_frames(selection: Selection, rig: SensorRig | None, count: int, track: Track | None = None) -> Frames:
    """Reads the radar of every frame and chooses `count` frames by herding.

    Args:
        rig: of the bundle; the source must have sensors of the same names. None: of its first readable frame.
        track: makes a progress bar of the names.

    Raises:
        Error: calibration_other_rig, calibration_no_radar, calibration_few_frames.
    """
    clouds, unusable = _read(selection, rig, track)
    where = str(getattr(selection.source, "path", selection.source.kind))
    if len(clouds) < MIN_FRAMES:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(unusable.items())[:3])
        what = f"{len(clouds)} usable frames, and a calibration needs {MIN_FRAMES}"
        what += f"; {reasons}" if reasons else ""
        raise Error(Code.calibration_few_frames, what, where, "give a longer recording, or a larger split")
    if not any(len(cloud) for cloud in clouds.values()):
        raise Error(Code.calibration_no_radar, "no frame has a radar return", where, "give a recording with radar")

    points = descriptors(list(clouds.values()))
    names = np.array(list(clouds))
    extremes = farthest(points, min(STRESS, len(names) // 10))
    rest = np.setdiff1d(np.arange(len(names)), extremes)
    order = rest[herd(points[rest], min(count, len(rest)))]
    others = np.setdiff1d(rest, order)
    if len(others) < FEW:
        others = np.union1d(others, extremes)
    held_out = others[:: max(1, len(others) // HELD_OUT)][:HELD_OUT]
    return Frames(names[order].tolist(), names[extremes].tolist(), unusable, names[held_out].tolist())


def _read(
    selection: Selection, rig: SensorRig | None, track: Track | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Name -> returns (N, 3): range m, intensity dB, radial velocity m/s; and name -> reason of unusable frames."""
    expected = None if rig is None else sensors(rig)
    clouds, unusable, other_rigs = {}, {}, 0
    for name in selection.names if track is None else track(selection.names):
        try:
            sample = selection.source[name]
        except Error as error:
            unusable[name] = error.what
            continue
        expected = expected or sensors(sample.rig)
        if sensors(sample.rig) != expected:
            unusable[name], other_rigs = f"sensors {sensors(sample.rig)}", other_rigs + 1
            continue
        points = np.concatenate([np.zeros((0, 5), np.float32), *(sweep.points for sweep in sample.radar)])
        points = points[valid_points(points)]
        clouds[name] = np.column_stack([np.hypot(points[:, 0], points[:, 1]), points[:, 3], points[:, 4]])
    if other_rigs and not clouds:
        what = f"the frames are of other sensors than the bundle's {expected}"
        fix = "calibrate with the sensors that the model was trained for"
        raise Error(Code.calibration_other_rig, what, selection.source.kind, fix)
    return clouds, unusable


def sensors(rig: SensorRig) -> tuple[list[str], list[str]]:
    """Names of the cameras, and of the radars."""
    return [camera.name for camera in rig.cameras], [radar.name for radar in rig.radars]


def descriptors(clouds: list[np.ndarray]) -> np.ndarray:
    """Radar statistics of each frame, (frames, 3 * BINS + 2), each column standardised over the frames.

    Args:
        clouds: (N, 3) each: range m, intensity dB, radial velocity m/s. The edges of the histograms are quantiles over
            all clouds.
    """
    every = np.concatenate(clouds)
    edges = [np.quantile(every[:, i], np.linspace(0, 1, BINS + 1)[1:-1]) for i in range(3)]
    rows = []
    for cloud in clouds:
        counts = [np.bincount(np.searchsorted(edges[i], cloud[:, i], "right"), minlength=BINS) for i in range(3)]
        contrast = cloud[:, 1].max() - np.median(cloud[:, 1]) if len(cloud) else 0.0
        rows.append(np.concatenate([*(np.sqrt(c) for c in counts), [np.sqrt(len(cloud)), contrast]]))
    table = np.array(rows)
    return (table - table.mean(0)) / np.maximum(table.std(0), 1e-9)


def farthest(points: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of the rows farthest from the mean, ascending."""
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    return np.sort(np.argsort(-distance, kind="stable")[:count])


def herd(points: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of rows whose running mean stays closest to the mean of all rows (Welling 2009).

    Greedy; ties go to the lowest index.
    """
    mean, total = points.mean(0), np.zeros(points.shape[1])
    free = np.ones(len(points), bool)
    order = []
    for step in range(1, count + 1):
        distance = np.linalg.norm((total + points) / step - mean, axis=1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        free[best], total = False, total + points[best]
        order.append(best)
    return np.array(order, np.int64)
