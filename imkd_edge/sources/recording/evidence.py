"""Whether a radar's velocities are raw or compensated, and their sign, by what a standing world gives while driving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imkd_edge.errors import Error
from imkd_edge.sources.recording.container import Container
from imkd_edge.sources.recording.guess import Guess
from imkd_edge.sources.recording.index import Decoder, Index, read_message
from imkd_edge.sources.recording.motion import motion_of
from imkd_edge.sources.recording.poses import Odometry
from imkd_edge.sources.recording.radar import fields_of, radar_points
from imkd_edge.sources.recording.topic_map import RadarTopic, TopicMap

SLOWEST = 1.0  # m/s of the vehicle, below which velocities tell nothing
NEAR = 0.5  # m/s from what a hypothesis expects, within which a return supports it; below USUAL in proportion less
USUAL = 2.0  # m/s of the vehicle
_SWEEPS = 20  # that are looked at, evenly spaced
_LEAST, _LEAD = 0.3, 2.0  # share of the returns and lead over the next hypothesis that decide

# hypothesis -> velocity and sign of the topic map
HYPOTHESES = {
    "raw, positive when receding": ("raw", 1),
    "raw, positive when approaching": ("raw", -1),
    "compensated": ("compensated", 1),
}


@dataclass(frozen=True)
class Evidence:
    """Which share of a radar's returns stands still, by hypothesis."""

    speed: float  # m/s, mean of the vehicle in these sweeps
    shares: Mapping[str, float]

    @property
    def verdict(self) -> str:
        """The hypothesis that the returns decide for; empty where they do not."""
        first, second = sorted(self.shares.values(), reverse=True)[:2]
        best = max(self.shares, key=lambda name: self.shares[name])
        return best if first >= _LEAST and first >= _LEAD * second else ""

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.0%} if {name}" for name, share in self.shares.items())
        return f"at {self.speed:.1f} m/s so many returns stand still: {shares}"


def weigh(
    index: Index, container: Container, decoder: Decoder, topic_map: TopicMap, radar: RadarTopic
) -> Evidence | None:
    """What a radar's sweeps say of its velocity; None where the vehicle's motion is unknown or too slow."""
    topic, where = index.topics[radar.topic], Path(radar.topic)
    try:
        motion = motion_of(index, topic_map, where)
        T = index.tree.fixed(topic_map.ego_frame, radar.frame or topic.frame, radar.topic)[0]
    except Error:
        return None
    if not isinstance(motion, Odometry):
        return None
    fields = replace(fields_of(radar), sign=1)
    speeds, residuals = [], []
    for row in np.unique(np.linspace(0, len(topic.locations) - 1, _SWEEPS).astype(int)):
        twist = motion.twist(int(topic.stamps[row]))
        if twist is None or np.hypot(*twist[:2]) < SLOWEST:
            continue
        try:
            points = radar_points(read_message(container, decoder, topic, int(row)).points, fields, radar.topic)
        except Exception:  # a damaged message: another one is an example as well
            continue
        speeds.append(float(np.hypot(*twist[:2])))
        residuals.append(_residuals(points[np.isfinite(points).all(1)], twist, T) * max(1.0, USUAL / speeds[-1]))
    if not residuals or not sum(map(len, residuals)):
        return None
    near = np.concatenate(residuals) < NEAR
    return Evidence(float(np.mean(speeds)), dict(zip(HYPOTHESES, near.mean(0).tolist())))


def _residuals(points: np.ndarray, twist: np.ndarray, T_ego_radar: np.ndarray) -> np.ndarray:
    """(N, 3) m/s between the velocities of (N, 5) points and those of a standing world, by hypothesis."""
    xyz = points[:, :3].astype(np.float64)
    unit = xyz / np.maximum(np.linalg.norm(xyz, axis=1, keepdims=True), 1e-6)
    sensor = np.array([*twist[:2], 0.0]) + np.cross([0, 0, twist[2]], T_ego_radar[:3, 3])
    approach = unit @ (T_ego_radar[:3, :3].T @ sensor)
    return np.abs(points[:, 4:5] - np.stack([-approach, approach, np.zeros(len(points))], 1))


def refine(guess: Guess, index: Index, container: Container, decoder: Decoder) -> dict[str, Evidence | None]:
    """Decides a guess's doubts about velocities where the returns do; radar -> what they say."""
    radars, result = dict(guess.topic_map.radars), {}
    for name, radar in radars.items():
        evidence = result[name] = weigh(index, container, decoder, guess.topic_map, radar)
        key = f"radars.{name}.velocity"
        if evidence is None or key not in guess.comments:
            continue
        guess.comments[key] = str(evidence)
        if evidence.verdict:
            velocity, sign = HYPOTHESES[evidence.verdict]
            radars[name] = replace(radar, velocity=velocity, sign=sign)
            guess.doubts = [doubt for doubt in guess.doubts if not doubt.startswith(f"{name}: whether its velocity")]
    guess.topic_map = replace(guess.topic_map, radars=radars)
    return result
