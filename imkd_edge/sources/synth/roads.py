"""A smooth road and motion along it.

The heading has a closed form, the position is its integral; offsets to the left are positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MARGIN = 100.0  # m from the axes of the world to the road
WAVE_RATE = 0.6  # rad/s, of the slow change of progress along a lane
WAVE_PER_SPEED = 0.12  # s: its amplitude in m per m/s of a vehicle
MAX_BEND = 0.025  # 1/m: a street 15 m wide to each side does not fold
_MEANDER = 160.0  # m, from a turn to the next to the same side
_STEP = 0.5  # m between nodes of the position table
_GAUSS = np.array([-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526])
_WEIGHT = np.array([0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538])


class Road:
    """Centre line with heading(s) = h0 + sum of two sines; s in m, valid from `first` to `last`."""

    def __init__(self, rng: np.random.Generator, first: float, last: float, bend: float | None = None):
        """Draws a road; one of a `bend`, 1/m, meanders with that curvature at s = 0 and in every turn."""
        self.first, self.last = first, last
        self._heading0 = rng.uniform(-np.pi, np.pi)
        wavelength = rng.uniform([140.0, 80.0], [320.0, 140.0])
        self._amplitude = rng.uniform(0.1, 1.0) * np.array([0.45, 0.12])  # rad; radius of curvature stays above 40 m
        self._wavenumber = 2 * np.pi / wavelength
        self._phase = rng.uniform(0, 2 * np.pi, 2)
        if bend is not None:
            self._wavenumber = 2 * np.pi / np.array([_MEANDER, 2 * _MEANDER])
            self._amplitude = np.array([bend / self._wavenumber[0], 0.0])
            self._phase = np.array([0.0 if self._phase[0] < np.pi else np.pi, 0.0])  # to the left or to the right first
        self._nodes = np.arange(first, last + _STEP, _STEP)
        s = self._nodes[:-1, None] + _STEP * (_GAUSS + 1) / 2  # (n - 1, 4) Gauss nodes of each interval
        steps = np.stack([np.cos(self.heading(s)) @ _WEIGHT, np.sin(self.heading(s)) @ _WEIGHT], 1) * _STEP / 2
        self._points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])  # (n, 2)
        self._points += MARGIN - self._points.min(0)  # all coordinates positive, as on a city's map
        self._tangents = _unit(self.heading(self._nodes)) * _STEP

    def heading(self, s: np.ndarray) -> np.ndarray:
        """Direction of travel towards larger s, rad."""
        angle = np.asarray(s)[..., None] * self._wavenumber + self._phase
        return self._heading0 + (self._amplitude * np.sin(angle)).sum(-1)

    def curvature(self, s: np.ndarray) -> np.ndarray:
        """d heading / d s, 1/m."""
        angle = np.asarray(s)[..., None] * self._wavenumber + self._phase
        return (self._amplitude * self._wavenumber * np.cos(angle)).sum(-1)

    def point(self, s: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """World position (..., 2) m at arc length s, `offset` m to the left of the centre line."""
        s = np.asarray(s, float)
        i = np.clip(((s - self.first) / _STEP).astype(int), 0, len(self._nodes) - 2)
        u = (s - self._nodes[i])[..., None] / _STEP
        a, b = self._points[i], self._points[i + 1]
        ta, tb = self._tangents[i], self._tangents[i + 1]
        # cubic Hermite: exact tangents at the nodes, fourth-order between them
        p = (1 + 2 * u) * (1 - u) ** 2 * a + u * (1 - u) ** 2 * ta + u**2 * (3 - 2 * u) * b + u**2 * (u - 1) * tb
        direction = _unit(self.heading(s))
        normal = np.stack([-direction[..., 1], direction[..., 0]], -1)
        return p + np.asarray(offset, float)[..., None] * normal


@dataclass
class State:
    """The N objects at one time, in the world frame."""

    xy: np.ndarray  # (N, 2) m
    yaw: np.ndarray  # (N,) rad
    velocity: np.ndarray  # (N, 2) m/s
    swing: np.ndarray  # (N,) -1..1, phase of the walk


class Motion:
    """Motion of N objects: along a lane at slightly varying speed, straight at constant velocity, or none."""

    def __init__(self, road: Road):
        self.road = road
        self._rows: list[tuple] = []
        self._table = np.zeros((0, 8))

    def lane(
        self, s0: float, offset: float, direction: int, speed: float, wave: float = 0.0, phase: float = 0.0
    ) -> tuple:
        """A row that follows the road; `wave` m and `phase` rad are of a slow change of progress."""
        return (1.0, s0, offset, direction, speed, wave, phase, 0.0)

    def line(self, xy, yaw: float, velocity=(0.0, 0.0)) -> tuple:
        """A row with position xy (2,) m at time 0 and constant velocity (2,) m/s and yaw rad, in the world frame."""
        return (0.0, xy[0], xy[1], yaw, velocity[0], velocity[1], 0.0, 0.0)

    def append(self, row: tuple) -> None:
        """Adds an object by its row of `lane` or `line`."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def moves(self) -> np.ndarray:
        """(N,) bool: which objects ever move."""
        table = np.array(self._rows, float).reshape(-1, 8)
        return (table[:, 4:6] != 0).any(1)

    def at(self, t: float, rows: list[tuple] | None = None) -> State:
        """All objects at time t s, or instead those of `rows`."""
        if len(self._table) != len(self._rows):
            self._table = np.array(self._rows, float).reshape(-1, 8)
        table = self._table if rows is None else np.array(rows, float).reshape(-1, 8)
        velocity = table[:, 4:6].copy()
        state = State(table[:, 1:3] + t * velocity, table[:, 3].copy(), velocity, np.zeros(len(table)))

        # those on a lane
        on = np.flatnonzero(table[:, 0] == 1)
        if len(on):
            _, s0, offset, direction, speed, wave, phase, _ = table[on].T
            s = s0 + direction * (speed * t + wave * (np.sin(WAVE_RATE * t + phase) - np.sin(phase)))
            rate = direction * (speed + WAVE_RATE * wave * np.cos(WAVE_RATE * t + phase))
            heading = self.road.heading(s)
            along = rate * (1 - offset * self.road.curvature(s))
            state.xy[on] = self.road.point(s, offset)
            state.velocity[on] = along[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1)
            state.yaw[on] = heading + np.where(direction < 0, np.pi, 0.0)

        speeds = np.hypot(*state.velocity.T)
        state.swing = np.sin(2 * np.pi * t * speeds / 1.5 + np.arange(len(table))) * np.minimum(speeds, 1.0)
        state.yaw = np.arctan2(np.sin(state.yaw), np.cos(state.yaw))
        return state


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], -1)
