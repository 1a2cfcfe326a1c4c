"""Targets of the networks: CenterPoint heat maps and boxes, and the depth of feature pixels."""

from __future__ import annotations

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.base import HIDDEN, Sample, Truth
from imkd_edge.sources.plane import Plane, heights_above
from imkd_edge.spec import BOX_CHANNELS, BOX_SLICES, BoxChannel, ModelSpec

POSITIVE = 0.3  # box losses act where an object's Gaussian exceeds this
UNKNOWN = -1
NEAREST = 0.5  # m, least depth of points and boxes in front of a camera


def head_targets(
    spec: ModelSpec,
    truth: Truth,
    classes: dict[str, str],  # the dataset's label -> the spec's class
    visible: np.ndarray | None = None,  # (M,) bool, objects to detect; by default those that a camera or radar sees
    ground: Plane = (0.0, 0.0, 0.0),  # of the ego frame, see ops.ground_of
) -> dict[str, np.ndarray]:
    """Heat maps of oriented Gaussians and dense box targets.

    A cell regresses the object whose Gaussian is largest there, and above POSITIVE.

    Returns:
        heatmap (K,H,W) float32, exactly 1 at the cell of each centre; box (10,H,W) float32, nan where unknown; weight
        (H,W) float32, the Gaussian of the cell's object, 0 without one; group and label (H,W) int64, its task group and
        class (label -1 without one); unlit (H,W) float32, 1 where that object is known to have no LiDAR return.
    """
    names = [c.name for c in spec.head.classes]
    shape = spec.grid.height(), spec.grid.width()
    out: dict[str, np.ndarray] = {
        "heatmap": np.zeros((len(names), *shape), np.float32),
        "box": np.full((BOX_CHANNELS, *shape), np.nan, np.float32),
        "weight": np.zeros(shape, np.float32),
        "group": np.zeros(shape, np.int64),
        "label": np.full(shape, -1, np.int64),
        "unlit": np.zeros(shape, np.float32),
    }
    if visible is None:
        visible = (truth.occlusion < HIDDEN) | (truth.radar_points != 0)
    cells = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for box, label, detectable, returns in zip(truth.boxes, truth.labels, visible, truth.lidar_points):
        name = classes.get(label)
        if name is not None and detectable:
            above = heights_above(ground, box[None])[0]
            _draw_object(spec, out, cells, box, above, names.index(name), returns == 0)
    return out


def _draw_object(
    spec: ModelSpec,
    out: dict[str, np.ndarray],
    cells: np.ndarray,  # (2,H,W) float32, row and column of each cell
    box: np.ndarray,  # (9,)
    above: float,  # m, its centre above the ground
    label: int,
    unlit: bool,
) -> None:
    """Draws the Gaussian of an object, and its box at the cells where that Gaussian is the largest so far."""
    grid, (rows, columns) = spec.grid, cells
    x, y, _, length, width, height, yaw, vx, vy = box
    column = ops.cell_index(x, grid.x_min, grid.cell, grid.width())
    row = ops.cell_index(y, grid.y_min, grid.cell, grid.height())
    if column < 0 or row < 0:
        return

    # The Gaussian extends along the heading.
    c, s = np.cos(yaw), np.sin(yaw)
    along = (columns - column) * c + (rows - row) * s
    across = -(columns - column) * s + (rows - row) * c
    sigma = max(0.2 * length / grid.cell, 0.8), max(0.2 * width / grid.cell, 0.8)  # cells
    gaussian = np.exp(-0.5 * ((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2)).astype(np.float32)
    np.maximum(out["heatmap"][label], gaussian, out=out["heatmap"][label])

    mask = (gaussian > POSITIVE) & (gaussian > out["weight"])
    out["weight"][mask] = gaussian[mask]
    out["group"][mask] = spec.head.classes[label].group
    out["label"][mask] = label
    out["unlit"][mask] = unlit
    channels = out["box"]
    channels[BoxChannel.offset_x][mask] = (x - grid.x_min) / grid.cell - 0.5 - columns[mask]
    channels[BoxChannel.offset_y][mask] = (y - grid.y_min) / grid.cell - 0.5 - rows[mask]
    for part, numbers in (
        ("above_ground", [above]),
        ("log_size", [np.log(length), np.log(width), np.log(height)]),
        ("heading", [s, c]),
        ("velocity", [vx, vy]),
    ):
        channels[BOX_SLICES[part], mask] = np.array(numbers, np.float32)[:, None]


def depth_targets(
    spec: ModelSpec,
    sample: Sample,
    crops: list[ops.ImageCrop],
) -> np.ndarray:  # (N,h,w) int64, depth bin or UNKNOWN
    """Depth bin of each feature pixel: nearest labelled box that its ray hits, else nearest LiDAR point in it."""
    shape = (spec.image.feature_height(), spec.image.feature_width())
    out = np.full((spec.cameras, *shape), UNKNOWN, np.int64)
    for index, (camera, crop) in enumerate(zip(sample.rig.cameras, crops)):
        if camera.name not in sample.frames:
            continue
        T_camera_ego = np.linalg.inv(np.array(camera.T_ego_camera))
        rays = ops.image_rays(spec.image, camera, crop)
        depth = _box_depth(rays, sample.truth, T_camera_ego) if sample.truth else np.full(shape, np.inf)
        if sample.lidar is not None:
            lidar = _lidar_depth(spec, sample.lidar, T_camera_ego, camera, crop)
            depth = np.where(np.isfinite(depth), depth, lidar)
        out[index] = depth_bin(spec, depth)
    return out


def depth_bin(spec: ModelSpec, depth: np.ndarray) -> np.ndarray:
    """Index of the bin that holds each depth (m), UNKNOWN outside [min, max)."""
    edges = np.array([spec.depth.edge(i) for i in range(spec.depth.bins + 1)])
    index = np.searchsorted(edges, depth, side="right") - 1
    return np.where((depth >= edges[0]) & (depth < edges[-1]), index, UNKNOWN)


def _box_depth(
    rays: np.ndarray,  # (h,w,3) with unit optical z, nan where the lens has no ray
    truth: Truth,
    T_camera_ego: np.ndarray,
) -> np.ndarray:  # (h,w) m, inf where no box is hit
    """Slab test of every ray against every box that is not fully occluded."""
    depth = np.full(rays.shape[:2], np.inf)
    R_ego_camera = T_camera_ego[:3, :3].T
    origin = -R_ego_camera @ T_camera_ego[:3, 3]
    for values, occlusion in zip(truth.boxes, truth.occlusion):
        centre, size, yaw = values[:3], values[3:6], values[6]
        if occlusion >= HIDDEN or (T_camera_ego[:3, :3] @ centre + T_camera_ego[:3, 3])[2] < NEAREST:
            continue
        c, s = np.cos(yaw), np.sin(yaw)
        R_box_ego = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        start = R_box_ego @ (origin - centre)
        direction = rays @ (R_box_ego @ R_ego_camera).T
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (-size / 2 - start) / direction, (size / 2 - start) / direction
        near, far = np.fmin(a, b).max(-1), np.fmax(a, b).min(-1)
        hit = (near <= far) & (near > 0)
        depth[hit] = np.minimum(depth[hit], near[hit])
    return depth


def _lidar_depth(
    spec: ModelSpec, lidar: np.ndarray, T_camera_ego: np.ndarray, camera: CameraCalibration, crop: ops.ImageCrop
) -> np.ndarray:  # (h,w) m, inf where no point falls
    points = lidar[:, :3] @ T_camera_ego[:3, :3].T + T_camera_ego[:3, 3]
    points = points[points[:, 2] > NEAREST]
    pixels = ops.project(camera, points)
    visible = np.isfinite(pixels).all(1)
    points, (u, v) = points[visible], pixels[visible].T
    column = np.floor(((u + 0.5) * crop.scale - crop.left) / spec.image.stride).astype(np.int64)
    row = np.floor(((v + 0.5) * crop.scale - crop.top) / spec.image.stride).astype(np.int64)
    depth = np.full((spec.image.feature_height(), spec.image.feature_width()), np.inf)
    inside = (column >= 0) & (column < depth.shape[1]) & (row >= 0) & (row < depth.shape[0])
    np.minimum.at(depth, (row[inside], column[inside]), points[inside, 2])
    return depth
