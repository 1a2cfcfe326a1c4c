"""The synthetic world: one street per scene, with traffic, pedestrians, parked vehicles and fixtures that hide them.

A scene is a function of (seed, scene) alone and a moment in it of the time alone, so frames can be drawn in any order.
World frame: x, y on flat ground, z up. All motion is smooth in time; its velocity is the analytic derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.synth.layout import random_layout
from imkd_edge.sources.synth.objects import Catalogue, ClassNames
from imkd_edge.sources.synth.populate import Things, populate
from imkd_edge.sources.synth.roads import MAX_BEND, WAVE_PER_SPEED, WAVE_RATE, Motion, Road, State

__all__ = ["Drive", "Scene", "Things"]

MAX_SPEED = 40.0  # m/s of the ego
STRETCH = 105.0  # m of furnished road behind and ahead of the ego


@dataclass(frozen=True)
class Drive:
    """How the ego drives; by default at a speed of the scene's own, along a street of the scene's own."""

    speed: float | None = None  # m/s along the middle of the street
    turn_rate: float | None = None  # rad/s, in the middle of each turn, left and right in alternation

    def bend(self) -> float | None:
        """Curvature of the turns, 1/m."""
        return None if self.turn_rate is None or not self.speed else self.turn_rate / self.speed

    def check(self) -> None:
        """Raises Error spec_bad_value for a speed or a turn that no street has."""
        if self.speed is not None and not 0 <= self.speed <= MAX_SPEED:
            what, fix = f"speed is {self.speed} m/s", f"0 to {MAX_SPEED:g} m/s"
            raise Error(Code.spec_bad_value, what, "SynthSource(speed=)", fix)
        if self.turn_rate is None:
            return
        if not self.speed or not 0 <= self.turn_rate <= MAX_BEND * self.speed * (1 + 1e-9):
            most = np.degrees(MAX_BEND * (self.speed or 0))
            what = f"turn_rate is {np.degrees(self.turn_rate):g} degrees/s at a speed of {self.speed or 0:g} m/s"
            fix = f"at that speed 0 to {most:.1f} degrees/s: a turn has a radius of {1 / MAX_BEND:g} m or more"
            raise Error(Code.spec_bad_value, what, "SynthSource(turn_rate=)", fix)


class Scene:
    """One recording: the street, its objects (labelled) and fixtures (not labelled), light and the ego's motion."""

    def __init__(
        self, seed: int, index: int, duration: float, classes: ClassNames | Catalogue, drive: Drive | None = None
    ):
        drive = Drive() if drive is None else drive
        self.catalogue = classes if isinstance(classes, Catalogue) else Catalogue.of(classes)
        self.seed, self.index, self.duration, self.classes = seed, index, duration, self.catalogue.kinds
        rng = np.random.default_rng([seed, index, 1])
        self.ego_speed = float(rng.choice([0.0, rng.uniform(3.0, 13.0)], p=[0.07, 0.93]))
        if drive.speed is not None:
            self.ego_speed = drive.speed
        ahead = self.ego_speed * duration
        self.first, self.last = -STRETCH, ahead + STRETCH  # stretch of the road that is furnished
        self.road = Road(rng, self.first - 15 * duration - 40, self.last + 15 * duration + 40, drive.bend())
        self.layout = random_layout(rng, ahead)
        self.motion = Motion(self.road)

        # what stands and moves in the street
        lane = int(rng.integers(self.layout.lanes))
        self.ego_offset = -(lane + 0.5) * self.layout.lane_width
        wave = WAVE_PER_SPEED * self.ego_speed if drive.speed is None else 0.0
        self.ego_rows = [self.motion.lane(0.0, self.ego_offset, 1, self.ego_speed, wave, rng.uniform(0, 6))]
        self.objects, self.fixtures, self.fixture_poses = populate(self, rng)  # the poses: (F, 3) x, y m, yaw rad

        # light
        self.sun = _sun(rng)
        self.haze = float(rng.uniform(0.0012, 0.0055))  # 1/m
        self.warmth = rng.uniform(0.93, 1.07, 3)  # white balance
        self.exposure = float(rng.uniform(0.82, 1.12))

    def ego_pose(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Pose T_world_ego (4, 4) and twist (vx, vy m/s, yaw rate rad/s in the ego frame) at time t s."""
        state = self.motion.at(t, self.ego_rows)
        cos, sin = np.cos(state.yaw[0]), np.sin(state.yaw[0])
        pose = np.eye(4)
        pose[:2, :2] = [[cos, -sin], [sin, cos]]
        pose[:2, 3] = state.xy[0]
        speed = float(np.hypot(*state.velocity[0]))
        _, s0, _, _, v, wave, phase, _ = self.ego_rows[0]
        s = s0 + v * t + wave * (np.sin(WAVE_RATE * t + phase) - np.sin(phase))
        rate = float(self.road.curvature(s)) * (v + WAVE_RATE * wave * np.cos(WAVE_RATE * t + phase))
        return pose, np.array([speed, 0.0, rate])

    def state(self, t: float) -> State:
        """The labelled objects at time t s."""
        return self.motion.at(t)


def _sun(rng: np.random.Generator) -> np.ndarray:
    """(3,) unit vector to the sun."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.35, 1.15)
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
