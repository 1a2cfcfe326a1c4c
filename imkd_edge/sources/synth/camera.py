"""Perspective pictures of a scene: ground by lookup, objects as shaded polygons from far to near, occlusion."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from imkd_edge.sources.synth.depth import depth_order
from imkd_edge.sources.synth.ground import LEVELS, RESOLUTION, SHIFT, Ground, fixed_point
from imkd_edge.sources.synth.mesh import FIXTURE_ID, GROUND_ID, PosedMesh, SceneMesh

_NEAR = 0.25  # m, near plane
_FAR = 130.0  # m, nothing is drawn beyond
_SHADOW_RANGE = 70.0  # m, of the shadows of moving objects
_SHADE = 0.56  # brightness in a shadow
_SCALE = 2  # polygons are drawn at twice the size and averaged down


@dataclass
class Picture:
    """One rendered image, and how much of each of N objects it shows."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    # (H * 2, W * 2) uint8: object index, 254 fixture, 255 ground or sky; pixel centres at (u - 0.5) / 2
    ids: np.ndarray
    visible: np.ndarray  # (N,) id pixels that show the object
    total: np.ndarray  # (N,) id pixels of the object drawn alone


class Camera:
    """A pinhole camera on the vehicle with its ground lookup, built once per calibration."""

    def __init__(self, K: np.ndarray, T_ego_camera: np.ndarray, width: int, height: int):
        self.K, self.T, self.width, self.height = np.asarray(K, float), np.asarray(T_ego_camera, float), width, height
        self.focal = float(self.K[0, 0])

        # sky: a colour by elevation
        v, u = np.mgrid[0:height, 0:width].astype(float)
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(self.K).T @ self.T[:3, :3].T  # (H, W, 3) ego frame
        elevation = rays[..., 2] / np.linalg.norm(rays[..., :2], axis=-1)
        self.sky_index = np.clip(elevation * 400, 0, 255).astype(np.uint8)

        # ground: where each pixel's ray meets z = 0, from the first row that does
        with np.errstate(divide="ignore"):
            distance = np.where(rays[..., 2] < 0, -self.T[2, 3] / np.minimum(rays[..., 2], -1e-9), np.inf)
        self.on_ground = rays[..., 2] < -1e-3
        self.top = int(np.argmax(self.on_ground.any(1))) if self.on_ground.any() else height  # first row with ground
        reach = np.where(self.on_ground, distance, 0)[self.top :]
        self.ground_x = (self.T[0, 3] + reach * rays[self.top :, :, 0]).astype(np.float32)
        self.ground_y = (self.T[1, 3] + reach * rays[self.top :, :, 1]).astype(np.float32)
        on_ground, ranges = self.on_ground[self.top :], np.hypot(self.ground_x, self.ground_y)
        self.ground_range = np.where(on_ground, ranges, 1e4).astype(np.float32)
        self.mask = None if on_ground.all() else on_ground.astype(np.uint8)
        self.bands = self._bands()
        half = max(abs(np.arctan2(self.K[0, 2] + 1, self.focal)), abs(np.arctan2(width - self.K[0, 2], self.focal)))
        self.side = (np.cos(half), np.sin(half))

    def _bands(self) -> list[tuple[int, int, int]]:
        """(first row, last row, map level): the level whose pixels fit the geometric mean of a pixel's footprint."""
        middle = np.median(self.ground_range, 1)
        footprint = middle * np.sqrt(np.maximum(middle, 1) / self.T[2, 3]) / self.focal  # m
        level = np.clip(np.floor(np.log2(np.maximum(footprint / RESOLUTION, 1.0)) + 0.5), 0, LEVELS - 1).astype(int)
        cuts = [0, *(np.flatnonzero(np.diff(level)) + 1), len(level)]
        return [(a, b, int(level[a])) for a, b in pairwise(cuts) if b > a]


class Renderer:
    """Draws one scene with any number of cameras."""

    def __init__(self, mesh: SceneMesh):
        self.mesh, self.scene = mesh, mesh.scene
        self.ground = Ground(mesh.scene)
        self.sun = self.scene.sun

        # colours of haze and sky
        horizon = np.array([198, 206, 214]) * self.scene.exposure * self.scene.warmth
        zenith = np.array([92, 134, 190]) * self.scene.exposure
        ramp = np.linspace(0, 1, 256)[:, None] ** 0.6
        self.haze_colour = np.clip(horizon, 0, 255)
        self.sky = np.clip(horizon * (1 - ramp) + zenith * ramp, 0, 255).astype(np.uint8)  # (256, 3)
        self._veils: dict[Camera, tuple[np.ndarray, ...]] = {}

        # shadows of what stands still are painted once
        still = np.flatnonzero(self.mesh.still[self.mesh.piece_owner])
        self._in_shadow: list[np.ndarray] = []
        self._bake_shadows(self._shadows(mesh.pose(self.scene.state(0.0)), still))
        self._moving = np.flatnonzero(~self.mesh.still[self.mesh.piece_owner])

    def draw(self, cameras: list[Camera], posed: PosedMesh, T_world_ego: np.ndarray, seeds: list[int]) -> list[Picture]:
        """One picture per camera of the scene posed at one time; `seeds` fix the sensor noise."""
        shade = self._shade(posed)
        near = np.hypot(*(posed.corners[self._moving].mean(1) - T_world_ego[:2, 3]).T) < _SHADOW_RANGE
        saved = self._cast_shadows(self._shadows(posed, self._moving[near]))
        try:
            return [self._draw_one(c, posed, T_world_ego, shade, seed) for c, seed in zip(cameras, seeds)]
        finally:
            for level, y, x, patch in reversed(saved):
                self.ground.levels[level][y : y + patch.shape[0], x : x + patch.shape[1]] = patch

    def _shade(self, posed: PosedMesh) -> np.ndarray:
        """Lit colour of every polygon (P, 3), before haze."""
        facing = np.maximum(posed.normals @ self.sun, 0)
        light = _light(np.where(self.mesh.two_sided, 0.5, facing), posed.normals[:, 2])
        light = np.where(self.mesh.glowing, 1.0, light) * self.scene.exposure
        return np.clip(self.mesh.colours * light[:, None] * self.scene.warmth, 0, 255)

    def _shadows(self, posed: PosedMesh, pieces: np.ndarray) -> list[np.ndarray]:
        """Outlines (k, 2) of the pieces' shadows on the ground, world m."""
        offset = -self.sun[:2] / self.sun[2]  # m of shadow per m of height
        heights = np.minimum(self.mesh.sizes[self.mesh.piece_owner[pieces], 2], 14.0)
        feet = posed.corners[pieces]
        outlines = np.concatenate([feet, feet + offset * heights[:, None, None]], 1).astype(np.float32)
        return [cv2.convexHull(outline)[:, 0].astype(float) for outline in outlines]

    def _bake_shadows(self, outlines: list[np.ndarray]) -> None:
        """Darkens the map where something that never moves hides the sun."""
        for level, image in enumerate(self.ground.levels):
            shadow = np.zeros(image.shape[:2], np.uint8)
            for outline in outlines:
                cv2.fillConvexPoly(shadow, fixed_point(self.ground.pixels(outline, level)), 1, cv2.LINE_8, SHIFT)
            cv2.copyTo(cv2.convertScaleAbs(image, alpha=_SHADE), shadow, image)
            self._in_shadow.append(shadow)

    def _cast_shadows(self, outlines: list[np.ndarray]) -> list[tuple[int, int, int, np.ndarray]]:
        """Darkens the map where something that moves hides the sun; returns the patches to restore."""
        saved = []
        for outline in outlines:
            for level, image in enumerate(self.ground.levels):
                points = self.ground.pixels(outline, level)
                x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0).tolist()
                x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 2, image.shape[1::-1]).tolist()
                if x1 <= x0 or y1 <= y0:
                    continue
                block = image[y0:y1, x0:x1]
                saved.append((level, y0, x0, block.copy()))
                mask = self._in_shadow[level][y0:y1, x0:x1] ^ 1  # dark pixels stay as they are
                lit = np.zeros_like(mask)
                cv2.fillConvexPoly(lit, fixed_point(points - (x0, y0)), 1, cv2.LINE_8, SHIFT)
                cv2.copyTo(cv2.convertScaleAbs(block, alpha=_SHADE), lit & mask, block)
        return saved

    # ---- one camera ----
    def _draw_one(
        self, camera: Camera, posed: PosedMesh, T_world_ego: np.ndarray, shade: np.ndarray, seed: int
    ) -> Picture:
        canvas = cv2.cvtColor(self._background(camera, T_world_ego), cv2.COLOR_RGB2RGBA)  # alpha 255 = GROUND_ID
        size = (camera.width * _SCALE, camera.height * _SCALE)
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_LINEAR)
        canvas[..., 3] = GROUND_ID
        polygons = self._project(camera, posed, T_world_ego, shade)
        for points, colour, _, _ in polygons:
            cv2.fillConvexPoly(canvas, points, colour, cv2.LINE_8, SHIFT)
        ids = cv2.extractChannel(canvas, 3)
        visible, total = self._count(polygons, ids)
        pixels = cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        return Picture(_sensor_noise(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), seed), ids, visible, total)

    def _background(self, camera: Camera, T_world_ego: np.ndarray) -> np.ndarray:
        weight, veil, sky = self._veil(camera)
        image = sky.copy()
        (a, b), (c, d) = T_world_ego[:2, :2]
        x, y = camera.ground_x, camera.ground_y
        ground = np.empty((*x.shape, 3), np.uint8)
        for first, last, level in camera.bands:
            scale = RESOLUTION * 2**level
            tx, ty = self.ground.pixels(T_world_ego[:2, 3], level)
            map_x = x[first:last] * np.float32(a / scale) + y[first:last] * np.float32(b / scale) + np.float32(tx)
            map_y = x[first:last] * np.float32(c / scale) + y[first:last] * np.float32(d / scale) + np.float32(ty)
            ground[first:last] = cv2.remap(
                self.ground.levels[level],
                map_x,
                map_y,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self.ground.border,
            )
        cv2.add(cv2.multiply(ground, weight, dst=ground, scale=1 / 128), veil, dst=ground)
        if camera.mask is None:
            image[camera.top :] = ground
        else:
            cv2.copyTo(ground, camera.mask, image[camera.top :])
        return image

    def _veil(self, camera: Camera) -> tuple[np.ndarray, ...]:
        """Sunlight and haze on the ground as weight / 128 and offset, (h, W, 3), and the sky (H, W, 3); uint8.

        Made once per camera.
        """
        if camera not in self._veils:
            gain = self.scene.exposure * self.scene.warmth * _light(self.sun[2], 1.0)
            clear = np.exp(-self.scene.haze * camera.ground_range)[..., None]
            layers = 128 * clear * gain, (1 - clear) * self.haze_colour, self.sky[camera.sky_index]
            self._veils[camera] = tuple(np.clip(np.round(v), 0, 255).astype(np.uint8) for v in layers)
        return self._veils[camera]

    def _project(self, camera: Camera, posed: PosedMesh, T_world_ego: np.ndarray, shade: np.ndarray) -> list[tuple]:
        """Visible polygons from far to near: (corners int32, RGB + id, owner, whether it is part of the outline)."""
        mesh = self.mesh
        T_camera_world = np.linalg.inv(T_world_ego @ camera.T)
        R, t = T_camera_world[:3, :3], T_camera_world[:3, 3]
        eye = (T_world_ego @ camera.T)[:3, 3]
        rank = self._order(camera, posed, R, t, eye)

        # polygons that face the camera and are not too small, from far to near
        piece = mesh.polygon_piece
        near = np.flatnonzero(rank[piece] >= 0)
        towards = eye - posed.vertices[mesh.starts[near]]  # from one corner of each polygon
        distance = np.sqrt(np.einsum("ij,ij->i", towards, towards))
        facing = ((towards * posed.normals[near]).sum(1) > 0) | mesh.two_sided[near]
        fine = mesh.details[near] * camera.focal * _SCALE > 1.6 * distance
        visible = np.flatnonzero(facing & (fine | (mesh.details[near] == 0)))
        if not len(visible):
            return []
        visible = visible[np.argsort(rank[piece[near[visible]]], kind="stable")]
        polygons = near[visible]
        clear = np.exp(-self.scene.haze * distance[visible])[:, None]
        colours = np.round(shade[polygons] * clear + self.haze_colour * (1 - clear)).tolist()

        # their vertices in the picture, all in one array
        lengths = np.diff(mesh.starts)[polygons]
        ends = np.cumsum(lengths)
        index = np.arange(ends[-1]) + np.repeat(mesh.starts[polygons] - (ends - lengths), lengths)
        points = posed.vertices[index] @ R.T + t  # (v, 3) camera frame
        nearest = np.minimum.reduceat(points[:, 2], ends - lengths)
        pixels = self._pixels(camera, points)
        owners = mesh.piece_owner[piece[polygons]]
        identity = np.where(owners < mesh.count, owners, FIXTURE_ID).tolist()
        outline, cut = (mesh.details[polygons] == 0).tolist(), (nearest < _NEAR).tolist()

        result = []
        for k, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist())):
            corners = pixels[end - length : end]
            if cut[k]:
                clipped = _clip(points[end - length : end])
                if clipped is None:
                    continue
                corners = self._pixels(camera, clipped)
            result.append((corners, (*colours[k], identity[k]), identity[k], outline[k]))
        return result

    @staticmethod
    def _pixels(camera: Camera, points: np.ndarray) -> np.ndarray:
        """Fixed-point corners on the doubled canvas, centres at 2 u + 0.5, of points (v, 3) in the camera frame."""
        uvw = points @ camera.K.T
        uv = uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6)
        return fixed_point(np.clip(uv * _SCALE + (_SCALE - 1) / 2, -1e6, 1e6))

    def _order(self, camera: Camera, posed: PosedMesh, R, t, eye) -> np.ndarray:
        """(R,) drawing rank of every piece, -1 outside the picture."""
        corners = posed.corners
        flat = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], -1)
        x = flat @ R[0] + t[0]  # (R, 4) of the footprints: cameras look along the horizon, so height is ignored
        z = flat @ R[2] + t[2]
        margin = np.where(self.mesh.sizes[self.mesh.piece_owner, 2] > 2, 3.0, 1.0)  # crowns and signs overhang
        cos, sin = camera.side
        inside = (z.max(1) > -margin) & (z.min(1) < _FAR)
        inside &= ((x * cos - z * sin).min(1) < margin) & ((-x * cos - z * sin).min(1) < margin)
        pieces = np.flatnonzero(inside)
        rank = np.full(len(corners), -1)
        rank[pieces[depth_order(corners[pieces], eye[:2])]] = np.arange(len(pieces))
        return rank

    def _count(self, drawing: list[tuple], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) pixels of every object in the picture, and of every object drawn alone."""
        visible, total = np.zeros((2, self.mesh.count), int)
        by_object: dict[int, list[np.ndarray]] = {}
        for points, _, identity, outline in drawing:
            if identity < self.mesh.count and outline:
                by_object.setdefault(identity, []).append(points)
        height, width = ids.shape
        for identity, polygons in by_object.items():
            stacked = np.concatenate(polygons)
            x0, y0 = np.maximum((stacked.min(0) >> SHIFT) - 1, 0)
            x1, y1 = (stacked.max(0) >> SHIFT) + 3
            x1, y1 = min(int(x1), width), min(int(y1), height)
            if x1 <= x0 or y1 <= y0:
                continue
            mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
            origin = np.array([x0 << SHIFT, y0 << SHIFT], np.int32)
            for points in polygons:
                cv2.fillConvexPoly(mask, points - origin, 1, cv2.LINE_8, SHIFT)
            total[identity] = cv2.countNonZero(mask)
            visible[identity] = cv2.countNonZero(cv2.compare(ids[y0:y1, x0:x1], identity, cv2.CMP_EQ))
        return visible, total


def _light(facing: np.ndarray | float, up: np.ndarray | float) -> np.ndarray | float:
    """Brightness of a face by its cosines to the sun and to the zenith: 0.5 of it from the sky."""
    return 0.5 + 0.62 * facing + 0.06 * up


def _clip(points: np.ndarray) -> np.ndarray | None:
    """The part of a polygon (k, 3) in front of the near plane."""
    corners = []
    for a, b in zip(points, np.roll(points, -1, 0)):
        if a[2] >= _NEAR:
            corners.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            corners.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(corners) if len(corners) >= 3 else None


_NOISE: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}


def _sensor_noise(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Add grain of 2 grey levels from a fixed tile, shifted by the seed."""
    key = pixels.shape[:2]
    if key not in _NOISE:
        noise = np.round(np.random.default_rng(99).normal(0, 2.0, (key[0] + 64, key[1] + 64, 3)))
        _NOISE[key] = np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)
    y, x = np.random.default_rng(seed).integers(0, 65, 2)
    up, down = (n[y : y + key[0], x : x + key[1]] for n in _NOISE[key])
    return cv2.subtract(cv2.add(pixels, up), down)
