"""Pictures of a scene through any lens: ground by lookup, objects as shaded polygons from far to near, occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from imkd_edge.sources.synth.depth import depth_order
from imkd_edge.sources.synth.ground import RESOLUTION, SHIFT, Ground, fixed_point
from imkd_edge.sources.synth.mesh import FIXTURE_ID, GROUND_ID, PosedMesh, SceneMesh
from imkd_edge.sources.synth.optics import FAR, SCALE, Camera, clip

_SHADOW_RANGE = 70.0  # m, of the shadows of moving objects
_SHADE = 0.56  # brightness in a shadow


@dataclass
class Picture:
    """One rendered image, and how much of each of N objects it shows."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    # (H * 2, W * 2) uint8: object index, 254 fixture, 255 ground or sky; pixel centres at (u - 0.5) / 2
    ids: np.ndarray
    visible: np.ndarray  # (N,) id pixels that show the object
    total: np.ndarray  # (N,) id pixels of the object drawn alone


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
        size = (camera.width * SCALE, camera.height * SCALE)
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_LINEAR)
        canvas[..., 3] = GROUND_ID
        polygons = self._project(camera, posed, T_world_ego, shade)
        for points, colour, _, _ in polygons:
            _fill(canvas, points, colour, camera.straight)
        ids = cv2.extractChannel(canvas, 3)
        if camera.blind is not None:
            ids[cv2.resize(camera.blind.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0] = GROUND_ID
        visible, total = self._count(polygons, ids, camera.straight)
        pixels = cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        if camera.blind is not None:
            pixels[camera.blind] = 0
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
        fine = mesh.details[near] * camera.focal * SCALE > 1.6 * distance
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
        planes, cut = camera.nearest(points, ends - lengths)
        pixels, drawn = camera.outlines(points, lengths)
        drawn_ends = np.cumsum(drawn).tolist()
        owners = mesh.piece_owner[piece[polygons]]
        identity = np.where(owners < mesh.count, owners, FIXTURE_ID).tolist()
        outline = (mesh.details[polygons] == 0).tolist()

        result = []
        for k, (end, length) in enumerate(zip(drawn_ends, drawn.tolist())):
            corners = pixels[end - length : end]
            if cut[k]:
                clipped = clip(points[ends[k] - lengths[k] : ends[k]], planes[k])
                if clipped is None:
                    continue
                corners, _ = camera.outlines(clipped, np.array([len(clipped)]))
            result.append((corners, (*colours[k], identity[k]), identity[k], outline[k]))
        return result

    def _order(self, camera: Camera, posed: PosedMesh, R, t, eye) -> np.ndarray:
        """(R,) drawing rank of every piece, -1 outside the picture."""
        corners = posed.corners
        inside = self._in_view(camera, corners, R, t)
        pieces = np.flatnonzero(inside)
        rank = np.full(len(corners), -1)
        rank[pieces[depth_order(corners[pieces], eye[:2])]] = np.arange(len(pieces))
        return rank

    def _in_view(self, camera: Camera, corners: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
        """(R,) bool: which pieces may be in the picture, by their footprints."""
        heights = self.mesh.sizes[self.mesh.piece_owner, 2]
        if not camera.level:
            middle = np.column_stack([corners.mean(1), heights / 2])
            radius = np.hypot(np.hypot(*np.moveaxis(corners - middle[:, None, :2], -1, 0)).max(1), heights / 2) + 1.0
            return camera.sees(middle @ R.T + t, radius)
        flat = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], -1)
        x = flat @ R[0] + t[0]  # (R, 4) of the footprints: the camera looks along the horizon, so height is ignored
        z = flat @ R[2] + t[2]
        margin = np.where(heights > 2, 3.0, 1.0)  # crowns and signs overhang
        cos, sin = camera.side
        inside = (z.max(1) > -margin) & (z.min(1) < FAR)
        return inside & ((x * cos - z * sin).min(1) < margin) & ((-x * cos - z * sin).min(1) < margin)

    def _count(self, drawing: list[tuple], ids: np.ndarray, straight: bool) -> tuple[np.ndarray, np.ndarray]:
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
                _fill(mask, points - origin, 1, straight)
            total[identity] = cv2.countNonZero(mask)
            visible[identity] = cv2.countNonZero(cv2.compare(ids[y0:y1, x0:x1], identity, cv2.CMP_EQ))
        return visible, total


def _light(facing: np.ndarray | float, up: np.ndarray | float) -> np.ndarray | float:
    """Brightness of a face by its cosines to the sun and to the zenith: 0.5 of it from the sky."""
    return 0.5 + 0.62 * facing + 0.06 * up


def _fill(image: np.ndarray, points: np.ndarray, colour: object, convex: bool) -> None:
    """Fills a polygon of fixed-point corners; a lens bends convex ones into others."""
    if convex:
        cv2.fillConvexPoly(image, points, colour, cv2.LINE_8, SHIFT)
    else:
        cv2.fillPoly(image, [points], colour, cv2.LINE_8, SHIFT)


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
