"""Whether radial velocities are what the rig says: how much of the ego motion static returns show.

A static return's raw velocity is minus the radar's velocity along the line of sight, a compensated one is 0. So the
share s of the ego motion in `v = -s * (u . v_radar)` that most returns agree on tells the kind, the sign and the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imkd_edge.checks.data.report import Findings, error, listed, warning
from imkd_edge.errors import Code
from imkd_edge.frames import valid_points
from imkd_edge.ops import estimate_ego_speed
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.recording.evidence import SLOWEST

SHARES = np.round(np.arange(-4.5, 4.51, 0.05), 2)  # candidates of s
TOLERANCE = 0.5  # m/s of a static return
MIN_SPEED = 3.0  # m/s of the ego; of slower vehicles, kind and sign are told, no scale and no pattern
MIN_EXPECTED = 2.0  # m/s along the line of sight, likewise
MIN_RETURNS, MIN_SUPPORT = 100, 0.15  # returns, and the share of them that must agree
MAX_RETURNS = 20_000  # of a radar, evenly sampled
MARGIN = 0.2  # of s, around what the rig says
LARGE = 0.06  # of s: a wrong scale of the velocities or of the ego speed
MIN_FRAMES = 5
DISTINCT = 1.3  # support of the best s over that of the one the rig says
MIN_UNFIT = 300  # returns, of MIN_FRAMES sweeps, that no motion explains
NOTCH, MIN_DENSITY = 0.3, 0.02  # where what stands is suppressed: share of the density beside it; density, s/m
WEAK = 0.3  # support below which a scale is none: a wrong mounting has such, too
CLEAR = 0.5  # support of a majority: what fewer returns agree on may be an accident of a wrong mounting
MOUNTING = (
    "look at T_ego_radar (yaw, and a roll of 180 degrees), at y positive to the left, at the order of the columns (x, "
    "y, z, intensity, velocity) and at the unit of the angle (rad) that x and y were made of"
)


@dataclass(frozen=True)
class Fit:
    """The share of the ego motion that most returns show."""

    share: float
    support: float  # share (0..1) of the returns within TOLERANCE
    returns: int


@dataclass
class EgoReturns:
    """Velocities of a radar's returns beside those that the ego motion makes, while the vehicle drives."""

    # Of each sweep (N, 2) m/s: measured, and expected, u . v_radar. Below MIN_SPEED both are scaled to that speed.
    fast: list[np.ndarray] = field(default_factory=list)
    slow: list[np.ndarray] = field(default_factory=list)

    def add(self, points: np.ndarray, radar: RadarCalibration, twist: np.ndarray) -> None:
        """Points (N, 5) of a sweep, and the ego's twist at its time."""
        speed = float(np.hypot(*twist[:2]))
        if speed < SLOWEST:
            return
        points = points[valid_points(points)].astype(np.float64)
        scale = max(1.0, MIN_SPEED / speed)
        expected = line_of_sight_velocity(points, radar, twist) * scale
        clear = np.abs(expected) >= MIN_EXPECTED
        sweeps = self.slow if speed < MIN_SPEED else self.fast
        sweeps.append(np.column_stack([points[clear, 4] * scale, expected[clear]]))

    def velocities(self, radar: RadarCalibration) -> tuple[np.ndarray, np.ndarray, bool]:
        """(N,) measured and expected m/s, and whether they are a slow vehicle's, for lack of a faster one's."""
        fast, slow = (sum(map(len, sweeps)) for sweeps in (self.fast, self.slow))
        slowly = fast < MIN_RETURNS <= slow and radar.velocity != "aliased"
        both = np.concatenate([np.zeros((0, 2)), *(self.slow if slowly else self.fast)])
        return both[:, 0], both[:, 1], slowly

    def fit(self, radar: RadarCalibration) -> Fit | None:
        """The share of the ego motion in the velocities; None where too few returns agree on one."""
        measured, expected, _ = self.velocities(radar)
        step = max(1, len(measured) // MAX_RETURNS)
        return fit_share(measured[::step], expected[::step], period_of(radar))


def line_of_sight_velocity(points: np.ndarray, radar: RadarCalibration, twist: np.ndarray) -> np.ndarray:
    """(N,) m/s, the radar's velocity over ground along the line of sight to each point in the radar frame."""
    T = np.asarray(radar.T_ego_radar)
    velocity = np.array([twist[0], twist[1], 0.0]) + np.cross([0.0, 0.0, twist[2]], T[:3, 3])
    unit = points[:, :3] / np.maximum(np.linalg.norm(points[:, :3], axis=1, keepdims=True), 1e-9)
    return unit @ (T[:3, :3].T @ velocity)


def period_of(radar: RadarCalibration) -> float:
    """m/s after which the radar's velocities repeat."""
    return float(radar.period) if radar.velocity == "aliased" else np.inf


def fit_share(measured: np.ndarray, expected: np.ndarray, period: float = np.inf) -> Fit | None:
    """The s with most returns within TOLERANCE of measured = -s * expected, of SHARES and refined between them."""
    if len(measured) < MIN_RETURNS:
        return None
    supports = [support(measured, expected, s, period) for s in SHARES]
    best = float(SHARES[int(np.argmax(supports))])
    fine = best + np.linspace(-0.05, 0.05, 21)
    weights = [support(measured, expected, s, period) for s in fine]
    share = float(fine[np.asarray(weights) >= max(weights) - 1e-9].mean())
    fit = Fit(round(share, 3), round(max(weights), 3), len(measured))
    return fit if fit.support >= MIN_SUPPORT else None


def support(measured: np.ndarray, expected: np.ndarray, share: float, period: float = np.inf) -> float:
    """Share (0..1) of the returns that are static where the velocities hold that share of the ego motion."""
    residual = measured + share * expected
    if np.isfinite(period):
        residual = residual - period * np.round(residual / period)
    gain = 1 - (residual / TOLERANCE) ** 2
    return float(np.maximum(gain, 0).mean())


def judge(name: str, radar: RadarCalibration, returns: EgoReturns, fit: Fit | None) -> Findings:
    """Whether the velocities of a radar are of the kind that its rig says."""
    if fit is None:
        yield from _judge_unfit(name, radar, returns)
        return
    topic, where, code = "velocity kind", f"radar {name}", Code.source_bad_calibration
    expected = 0.0 if radar.velocity == "compensated" else 1.0
    off = fit.share - expected
    agree = f"{100 * fit.support:.0f} % of {fit.returns} returns agree"
    measured, ahead, slowly = returns.velocities(radar)
    if abs(off) <= MARGIN:
        if slowly:
            return
        if abs(off) > LARGE and fit.support < WEAK:
            yield from _judge_unfit(name, radar, returns)
        elif abs(off) > LARGE:
            what = f"static returns show {fit.share:.2f} times the ego motion, the rig says {expected:.0f} ({agree})"
            fix = "compare the vehicle's speed with another source; correct the scale of the speed or of the velocities"
            yield warning(code, "velocity scale", what, where, fix)
        return
    by_rig = support(measured, ahead, expected, period_of(radar))
    if fit.support < DISTINCT * by_rig:
        if by_rig < MIN_SUPPORT and not slowly:
            yield from _judge_unfit(name, radar, returns)
        return
    what = f"the rig says {radar.velocity}, but static returns show {fit.share:.2f} times the ego motion ({agree})"
    scale = max(1.0, abs(fit.share))  # of the unit, which also scales the noise
    clear = support(measured / scale, ahead, fit.share / scale, period_of(radar) / scale) >= CLEAR
    yield error(code, topic, what, where, _cure(fit.share, expected) if clear else MOUNTING)


def _judge_unfit(name: str, radar: RadarCalibration, returns: EgoReturns) -> Findings:
    """Many returns of a moving vehicle's radar, of which hardly any stands whatever their velocities hold."""
    measured, ahead, slowly = returns.velocities(radar)
    sweeps = sum(len(part) > 0 for part in returns.fast)
    if len(measured) < MIN_UNFIT or sweeps < MIN_FRAMES or radar.velocity == "aliased" or slowly:
        return
    over_ground = np.abs(measured + (0.0 if radar.velocity == "compensated" else ahead))
    standing = float((over_ground < TOLERANCE).mean()) / (2 * TOLERANCE)
    slow = float(((over_ground > 2 * TOLERANCE) & (over_ground < 6 * TOLERANCE)).mean()) / (8 * TOLERANCE)
    if slow > MIN_DENSITY and standing < NOTCH * slow:
        return  # a radar that leaves out what stands
    what = f"no static pattern fits the velocities of {len(measured)} returns in {sweeps} sweeps of the moving vehicle"
    fix = f"{MOUNTING}; fine only for a radar that reports nothing that stands"
    yield warning(Code.source_bad_calibration, "velocity pattern", what, f"radar {name}", fix)


def speed_as_raw(sample: Sample) -> float | None:
    """The ego speed, m/s, at which most returns stand if their velocities are raw; None where none is distinct."""
    rig = SensorRig.from_json(sample.rig.to_json())
    for index in range(len(rig.radars)):
        if rig.radars[index].velocity == "compensated":
            rig.radars[index].velocity = "raw"
    estimate = estimate_ego_speed(rig, sample.radar)
    return estimate.speed if estimate.valid else None


def judge_without_motion(speeds: Sequence[float], frames: int, rig: SensorRig) -> Findings:
    """What the returns alone say where poses and twists are unknown.

    Args:
        speeds: of `speed_as_raw`, of the frames that have one.
        frames: that were asked.
        rig: the sensors.
    """
    if len(speeds) < MIN_FRAMES or len(speeds) < frames / 4:
        return
    middle, code = float(np.median(speeds)), Code.source_bad_calibration
    compensated = [radar.name for radar in rig.radars if radar.velocity == "compensated"]
    topic, where = "velocity kind", f"radar {listed(compensated or [radar.name for radar in rig.radars])}"
    seen = f"the returns of {len(speeds)} of {frames} frames stand at an ego speed of {middle:.1f} m/s"
    if compensated and abs(middle) > MIN_SPEED:
        what = f"the rig says compensated, but {seen}, in the median"
        yield error(code, topic, what, where, _cure(1.0 if middle > 0 else -1.0, 0.0))
    elif not compensated and middle < -MIN_SPEED:
        what = f"the vehicle seems to drive backwards: {seen}, in the median"
        yield error(code, topic, what, where, _cure(-1.0, 1.0))


def _cure(share: float, expected: float) -> str:
    """The usual cause of a share of the ego motion that the rig does not say."""
    if abs(share) <= MARGIN:
        return 'the velocities are compensated for the ego motion: write "velocity": "compensated" in the rig'
    if abs(share - 1) <= MARGIN:
        return 'the velocities are raw: write "velocity": "raw" in the rig ("aliased" and its period where they wrap)'
    if abs(share + 1) <= MARGIN:
        what = "the sign is reversed, of the velocities or of the ego motion"
        return f"{what}: write positive for receding targets, and the ego's vx positive when driving forward"
    if abs(share - 2) <= MARGIN and not expected:
        return "the ego motion was compensated with the wrong sign: add it to the raw velocities, or write them raw"
    if abs(share - 3.6) <= 2 * MARGIN:
        return "the velocities are in km/h: divide them by 3.6"
    return "write the velocities in m/s along the line of sight, and name their kind in the rig"
