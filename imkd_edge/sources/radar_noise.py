"""Four kinds of radar noise, after RobuRCDet (ICLR 2025): missing beams, false returns, shifts, disturbed values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from imkd_edge.sources.base import Sample

BEAM = np.radians(5.0)  # rad, azimuth
MISSING = 0.3  # share of the beams
SPURIOUS = 0.5  # false returns for each true one
SHIFT = 0.5  # m, standard deviation along each axis
INTENSITY, VELOCITY = 5.0, 1.0  # dB and m/s, standard deviations

Noise = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # points (N,5), strength, draws -> points (M,5)


def missing_beams(points: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Without the returns of random beams."""
    azimuth = np.nan_to_num(np.arctan2(points[:, 1], points[:, 0]))
    beam = ((azimuth + np.pi) / BEAM).astype(int)
    missing = rng.random(int(2 * np.pi / BEAM) + 1) < MISSING * strength
    return points[~missing[beam]]


def spurious_points(points: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """With false returns behind the true ones: range, direction, intensity and velocity are each of a true one."""
    count = round(SPURIOUS * strength * len(points))
    pick = rng.integers(max(len(points), 1), size=(4, count))
    range_m = np.linalg.norm(points[:, :3], axis=1)
    direction = points[:, :3] / np.maximum(range_m, 1e-6)[:, None]
    false = np.empty((count, 5), np.float32)
    false[:, :3] = range_m[pick[0], None] * direction[pick[1]]
    false[:, 3], false[:, 4] = points[pick[2], 3], points[pick[3], 4]
    return np.concatenate([points, false])


def shifted_points(points: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Positions with Gaussian errors."""
    result = points.copy()
    result[:, :3] += rng.normal(0, SHIFT * strength, (len(points), 3)).astype(np.float32)
    return result


def disturbed_values(points: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Intensities and radial velocities with Gaussian errors."""
    result = points.copy()
    result[:, 3:] += (rng.normal(0, strength, (len(points), 2)) * [INTENSITY, VELOCITY]).astype(np.float32)
    return result


NOISES: dict[str, Noise] = {
    "radar_missing": missing_beams,
    "radar_spurious": spurious_points,
    "radar_shifted": shifted_points,
    "radar_disturbed": disturbed_values,
}


def disturb(sample: Sample, kind: str, strength: float, rng: np.random.Generator) -> Sample:
    """A sample whose sweeps have one kind of noise.

    Args:
        sample: unchanged.
        kind: one of NOISES.
        strength: 0 without noise, 1 with that of the constants above.
        rng: of the draws.
    """
    noise = NOISES[kind]
    return replace(sample, radar=[replace(s, points=noise(s.points, strength, rng)) for s in sample.radar])
