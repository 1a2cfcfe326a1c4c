"""The cameras of the renderer: where each pixel looks, and where each point lands, through any lens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.synth.ground import LEVELS, RESOLUTION, fixed_point

NEAR = 0.25  # m, near plane of every lens but fisheye
FAR = 130.0  # m, nothing is drawn beyond
SCALE = 2  # polygons are drawn at twice the size and averaged down
_WIDEST = np.radians(95.0)  # off the axis; a fisheye's image is black beyond
_STEP = np.radians(5.0)  # longest chord of an edge that a lens bends
_MARGIN = np.radians(3.0)  # beyond the image, to which corners out of sight are drawn in
_SKY_STEPS = 400  # of the sky's ramp per unit of tan(elevation)


class Camera:
    """A camera on the vehicle with its ground lookup, built once per calibration; the ground is z = 0."""

    def __init__(
        self,
        K: np.ndarray,
        T_ego_camera: np.ndarray,
        width: int,
        height: int,
        distortion: str = "none",
        coefficients: tuple[float, ...] = (),
    ):
        self.K, self.T, self.width, self.height = np.asarray(K, float), np.asarray(T_ego_camera, float), width, height
        self.focal = float(self.K[0, 0])
        self.lens = CameraCalibration(
            name="lens", width=width, height=height, K=self.K, T_ego_camera=self.T, distortion=distortion,
            coefficients=coefficients,
        )  # fmt: skip
        self.fisheye, self.straight = distortion == "fisheye", distortion == "none"  # whether edges stay straight
        self.level = self.straight and abs(self.T[2, 0]) < 1e-9 and abs(self.T[2, 2]) < 1e-9

        rays = self._rays()
        self._look_up(rays @ self.T[:3, :3].T)
        half = max(abs(np.arctan2(self.K[0, 2] + 1, self.focal)), abs(np.arctan2(width - self.K[0, 2], self.focal)))
        self.side = (np.cos(half), np.sin(half))

        # how far off the axis the image reaches, and the angle to which corners beyond are drawn in
        self.half_angle = float(np.arccos(np.clip(rays[..., 2] / np.linalg.norm(rays, axis=-1), -1, 1)).max())
        self.drawn_angle = min(0.999 * self._lens_limit(), max(self.half_angle + _MARGIN, np.radians(80)))

    def _rays(self) -> np.ndarray:
        """(H, W, 3) m in the camera frame; (0, 0, 1) at pixels that see nothing, which `blind` marks."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(float)
        if self.straight:
            self.blind: np.ndarray | None = None
            return np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(self.K).T
        rays = ops.pixel_rays(self.lens, np.stack([u, v], -1))
        blind = ~(rays[..., 2] >= np.cos(_WIDEST))
        self.blind = blind if blind.any() else None
        rays[blind] = 0, 0, 1
        return rays

    def _lens_limit(self) -> float:
        """The largest angle off the axis that the lens projects, rad."""
        angles = np.linspace(0, np.pi, 3601)
        pixels = ops.project(self.lens, np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1))
        return float(angles[np.isfinite(pixels).all(1)].max())

    def _look_up(self, rays: np.ndarray) -> None:
        """Sky and ground of each pixel from its ray (H, W, 3) in the ego frame."""
        # sky: a colour by elevation
        with np.errstate(divide="ignore", invalid="ignore"):
            elevation = np.nan_to_num(rays[..., 2] / np.linalg.norm(rays[..., :2], axis=-1), posinf=1e3, neginf=-1e3)
        self.sky_index = np.clip(elevation * _SKY_STEPS, 0, 255).astype(np.uint8)

        # ground: where each pixel's ray meets z = 0, from the first row that does
        with np.errstate(divide="ignore"):
            distance = np.where(rays[..., 2] < 0, -self.T[2, 3] / np.minimum(rays[..., 2], -1e-9), np.inf)
        self.on_ground = rays[..., 2] < -1e-3
        self.top = int(np.argmax(self.on_ground.any(1))) if self.on_ground.any() else self.height
        reach = np.where(self.on_ground, distance, 0)[self.top :]
        self.ground_x = (self.T[0, 3] + reach * rays[self.top :, :, 0]).astype(np.float32)
        self.ground_y = (self.T[1, 3] + reach * rays[self.top :, :, 1]).astype(np.float32)
        on_ground, ranges = self.on_ground[self.top :], np.hypot(self.ground_x, self.ground_y)
        self.ground_range = np.where(on_ground, ranges, 1e4).astype(np.float32)
        self.mask = None if on_ground.all() else on_ground.astype(np.uint8)
        self.bands = self._bands()

    def _bands(self) -> list[tuple[int, int, int]]:
        """(first row, last row, map level): the level whose pixels fit the geometric mean of a pixel's footprint."""
        rows = zip(self.ground_range, self.on_ground[self.top :], strict=True)
        middle = np.array([np.median(row[on]) if on.any() else 1e4 for row, on in rows], np.float32)
        footprint = middle * np.sqrt(np.maximum(middle, 1) / max(self.T[2, 3], 0.1)) / self.focal  # m
        level = np.clip(np.floor(np.log2(np.maximum(footprint / RESOLUTION, 1.0)) + 0.5), 0, LEVELS - 1).astype(int)
        cuts = [0, *(np.flatnonzero(np.diff(level)) + 1), len(level)]
        return [(a, b, int(level[a])) for a, b in pairwise(cuts) if b > a]

    # ---- polygons ----
    def sees(self, centres: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """(n,) bool: which balls, centres (n, 3) m in the camera frame, may be in the picture."""
        x, y, z = centres.T
        distance = np.sqrt(x * x + y * y + z * z)
        angle = np.arctan2(np.hypot(x, y), z) - np.arcsin(np.minimum(radius / np.maximum(distance, 1e-9), 1))
        return (distance - radius < FAR) & (angle < self.half_angle)

    def outlines(self, points: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fixed-point corners of polygons on the doubled canvas, centres at 2 u + 0.5.

        Args:
            points: (v, 3) m in the camera frame, polygon after polygon.
            lengths: (p,) corners of each.

        Returns:
            (w, 2) int32 and (p,) corners of each; edges that the lens bends have more.
        """
        if not self.straight:
            points, lengths = self._split(points, lengths)
            points = self._draw_in(points)
        pixels = np.nan_to_num(ops.project(self.lens, points), nan=0.0)
        return fixed_point(np.clip(pixels * SCALE + (SCALE - 1) / 2, -1e6, 1e6)), lengths

    def nearest(self, points: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each polygon: the near plane z, m, and whether it must be cut there; starts: (p,) first corners.

        A fisheye's plane lies behind it, where the polygon's corner next to the axis is _WIDEST off it.
        """
        depth = np.minimum.reduceat(points[:, 2], starts)
        if not self.fisheye:
            return np.full(len(starts), NEAR), depth < NEAR
        across = np.hypot(points[:, 0], points[:, 1])
        cosine = points[:, 2] / np.maximum(np.hypot(across, points[:, 2]), 1e-9)
        plane = np.minimum.reduceat(across, starts) / np.tan(_WIDEST + np.radians(0.7))
        return plane, np.minimum.reduceat(cosine, starts) < np.cos(_WIDEST + 2 * _MARGIN)

    @staticmethod
    def _split(points: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Edges in parts of at most _STEP as seen from the camera."""
        ends = np.cumsum(lengths)
        after = np.arange(1, len(points) + 1)
        after[ends - 1] = ends - lengths
        units = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
        angle = np.arccos(np.clip((units * units[after]).sum(1), -1, 1))
        parts = np.clip(np.ceil(angle / _STEP), 1, 36).astype(int)
        index = np.repeat(np.arange(len(points)), parts)
        share = (np.arange(len(index)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[index]
        split = points[index] + (points[after[index]] - points[index]) * share[:, None]
        return split, np.add.reduceat(parts, ends - lengths)

    def _draw_in(self, points: np.ndarray) -> np.ndarray:
        """Points beyond the lens's reach on its rim, in the same direction from the axis."""
        across = np.hypot(points[:, 0], points[:, 1])
        beyond = np.flatnonzero(np.arctan2(across, points[:, 2]) > self.drawn_angle)
        if not len(beyond):
            return points
        points = points.copy()
        points[beyond, :2] *= (np.sin(self.drawn_angle) / np.maximum(across[beyond], 1e-9))[:, None]
        points[beyond, 2] = np.cos(self.drawn_angle)
        return points


def clip(points: np.ndarray, near: float) -> np.ndarray | None:
    """The part of a polygon (k, 3) in front of the plane z = near."""
    corners = []
    for a, b in zip(points, np.roll(points, -1, 0)):
        if a[2] >= near:
            corners.append(a)
        if (a[2] >= near) != (b[2] >= near):
            corners.append(a + (b - a) * (near - a[2]) / (b[2] - a[2]))
    return np.array(corners) if len(corners) >= 3 else None
