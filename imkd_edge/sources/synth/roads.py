"""A smooth road: heading given in closed form, position integrated from it, offsets to the left positive."""

from __future__ import annotations

import numpy as np

MARGIN = 100.0  # m from the axes of the world to the road
_STEP = 0.5  # m between nodes of the position table
_GAUSS = np.array([-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526])
_WEIGHT = np.array([0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538])


class Road:
    """Centre line with heading(s) = h0 + sum of two sines; s in m, valid from `first` to `last`."""

    def __init__(self, rng: np.random.Generator, first: float, last: float):
        self.first, self.last = first, last
        self._heading0 = rng.uniform(-np.pi, np.pi)
        wavelength = rng.uniform([140.0, 80.0], [320.0, 140.0])
        self._amplitude = rng.uniform(0.1, 1.0) * np.array([0.45, 0.12])  # rad; radius of curvature stays above 40 m
        self._wavenumber = 2 * np.pi / wavelength
        self._phase = rng.uniform(0, 2 * np.pi, 2)
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


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], -1)
