"""Our ops in usual NumPy, OpenCV, torch and torchvision code, each optimised as its library allows.

torch and torchvision are imported only when a benchmark runs; without them their functions return None.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from imkd_edge.frames import Ego, RadarSweep, valid_points
from imkd_edge.rig import SensorRig
from imkd_edge.spec import BOX_CHANNELS, BOX_SLICES, BoxChannel, GridSpec, ModelSpec


def set_threads(threads: int) -> None:
    """Sets the number of threads of OpenCV and, where it is installed, torch."""
    import cv2

    cv2.setNumThreads(threads)
    if _has("torch"):
        import torch

        torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    """Versions of torch and torchvision, where they are installed."""
    return {name: metadata.version(name) for name in ("torch", "torchvision") if _has(name)}


def _has(*packages: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in packages)


def preprocess_images(images: list[np.ndarray], crops: list[Any], spec: Any) -> np.ndarray:
    """(N, 3, H, W) float32 from (h, w, 3) uint8 BGR images by resize, crop, cvtColor, normalise, transpose."""
    import cv2

    out = np.empty((len(images), 3, spec.height, spec.width), np.float32)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    for index, (image, crop) in enumerate(zip(images, crops, strict=True)):
        small = cv2.resize(image, None, fx=crop.scale, fy=crop.scale, interpolation=cv2.INTER_LINEAR)
        left, top = int(crop.left), int(crop.top)
        cut = small[top : top + spec.height, left : left + spec.width]
        rgb = cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).astype(np.float32)
        out[index] = ((rgb - mean) / std).transpose(2, 0, 1)
    return out


def torchvision_images(images: list[np.ndarray], crops: list[Any], spec: Any) -> Callable[[], np.ndarray] | None:
    """(N, 3, H, W) float32 from (h, w, 3) uint8 RGB images by resize, crop, to_dtype and normalize."""
    if not _has("torch", "torchvision"):
        return None
    import torch
    from torchvision.transforms.v2 import functional as chain

    mean, std = list(spec.mean), list(spec.std)

    @torch.inference_mode()
    def one(image: np.ndarray, crop: Any) -> Any:
        size = [round(extent * crop.scale) for extent in image.shape[:2]]
        small = chain.resize(torch.from_numpy(image).permute(2, 0, 1), size, antialias=False)
        cut = chain.crop(small, int(crop.top), int(crop.left), spec.height, spec.width)
        return chain.normalize(chain.to_dtype(cut, torch.float32), mean, std)

    return lambda: torch.stack([one(image, crop) for image, crop in zip(images, crops, strict=True)]).numpy()


def voxelize_radar(
    spec: ModelSpec, rig: SensorRig, sweeps: list[RadarSweep], timestamp_ns: int, ego: Ego | None
) -> np.ndarray:
    """(F, H, W) float32 radar grid from sweeps with compensated velocities.

    Points are sorted by cell, and reduceat computes the statistics of each cell.
    """
    # 1. the cell of each point in the reference frame
    grid, cell = spec.grid, spec.radar.cell
    points = _points_in_reference(spec, rig, sweeps, timestamp_ns, ego)  # x, y, z, intensity, vx, vy, age
    width, height = spec.radar_width(), spec.radar_height()
    column = np.floor((points[:, 0] - grid.x_min) / cell).astype(np.int64)
    row = np.floor((points[:, 1] - grid.y_min) / cell).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    points, flat = points[inside], (row * width + column)[inside]
    out = np.zeros((len(spec.radar.features), height * width), np.float32)
    if not len(flat):
        return out.reshape(-1, height, width)
    # 2. statistics of the occupied cells
    order = np.argsort(flat, kind="stable")
    points = points[order]
    cells, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    statistics = _statistics(spec, points, cells, starts, counts, width)
    for channel, feature in enumerate(spec.radar.features):
        out[channel, cells] = (statistics[str(feature.statistic)]() - feature.offset) * feature.scale
    return out.reshape(-1, height, width)


def _points_in_reference(
    spec: ModelSpec, rig: SensorRig, sweeps: list[RadarSweep], timestamp_ns: int, ego: Ego | None
) -> np.ndarray:
    clouds = [np.zeros((0, 7))]
    radars = {radar.name: radar for radar in rig.radars}
    for sweep in sweeps:
        cloud = np.asarray(sweep.points, np.float64)
        age = 0.0 if sweep.timestamp_ns is None else (timestamp_ns - sweep.timestamp_ns) * 1e-9
        if age > spec.radar.max_age:
            continue
        cloud = cloud[valid_points(cloud)]
        T = np.asarray(radars[sweep.radar].T_ego_radar)
        if sweep.T_world_ego is not None and ego is not None and ego.T_world_ego is not None:
            T = np.linalg.inv(ego.T_world_ego) @ sweep.T_world_ego @ T
        position = cloud[:, :3] @ T[:3, :3].T + T[:3, 3]
        direction = position[:, :2] - T[:2, 3]
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        velocity = direction * cloud[:, 4:5]
        position[:, :2] += velocity * age
        clouds.append(np.column_stack([position, cloud[:, 3], velocity, np.full(len(cloud), age)]))
    return np.concatenate(clouds)[: spec.radar.max_points]


def _statistics(
    spec: ModelSpec, points: np.ndarray, cells: np.ndarray, starts: np.ndarray, counts: np.ndarray, width: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> function that computes the statistic for every occupied cell."""
    height = points[:, 2]  # above the plane z = 0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) / counts

    center_x = spec.grid.x_min + (cells % width + 0.5) * spec.radar.cell
    center_y = spec.grid.y_min + (cells // width + 0.5) * spec.radar.cell
    return {
        "log_count": lambda: np.log1p(counts),
        "intensity_max": lambda: np.maximum.reduceat(points[:, 3], starts),
        "intensity_mean": lambda: mean(points[:, 3]),
        "velocity_x": lambda: mean(points[:, 4]),
        "velocity_y": lambda: mean(points[:, 5]),
        "phase_cos": lambda: np.zeros(len(cells)),
        "phase_sin": lambda: np.zeros(len(cells)),
        "z_mean": lambda: mean(height),
        "z_min": lambda: np.minimum.reduceat(height, starts),
        "z_max": lambda: np.maximum.reduceat(height, starts),
        "offset_x": lambda: mean(points[:, 0]) - center_x,
        "offset_y": lambda: mean(points[:, 1]) - center_y,
        "age_min": lambda: np.minimum.reduceat(points[:, 6], starts),
    }


def numpy_lift(spec: ModelSpec, table: Any, depth: np.ndarray, context: np.ndarray) -> Callable[[], np.ndarray]:
    """The lift: gathers context rows by point, weights them by depth and sums them per cell with reduceat."""
    height, width = spec.grid.height(), spec.grid.width()
    arrays = (table.points, table.pixels, table.cells, table.starts[:-1])
    points, pixels, cells, starts = (np.asarray(array) for array in arrays)

    def run() -> np.ndarray:
        rows = context.transpose(0, 2, 3, 1).reshape(-1, context.shape[1])
        weight = depth.reshape(-1)[points]
        out = np.zeros((context.shape[1] + 1, height * width), np.float32)
        out[:-1, cells] = np.add.reduceat(rows[pixels] * weight[:, None], starts).T
        out[-1, cells] = np.add.reduceat(weight, starts)
        return out.reshape(-1, height, width)

    return run


def torch_lift(spec: ModelSpec, table: Any, depth: np.ndarray, context: np.ndarray) -> Callable[[], np.ndarray] | None:
    """The lift with index_add_; None where torch is not installed."""
    if not _has("torch"):
        return None
    import torch

    height, width = spec.grid.height(), spec.grid.width()
    points, pixels = (torch.from_numpy(np.array(array)).long() for array in (table.points, table.pixels))
    cells = torch.from_numpy(np.repeat(np.asarray(table.cells), np.diff(table.starts))).long()
    depths, contexts = torch.from_numpy(depth), torch.from_numpy(context)

    @torch.inference_mode()
    def run() -> np.ndarray:
        rows = contexts.permute(0, 2, 3, 1).reshape(-1, contexts.shape[1])
        weight = depths.reshape(-1)[points]
        values = torch.cat([rows[pixels] * weight[:, None], weight[:, None]], 1)
        out = torch.zeros(height * width, values.shape[1]).index_add_(0, cells, values)
        return out.T.reshape(-1, height, width).contiguous().numpy()

    return run


def torch_warp(grid: GridSpec, features: np.ndarray, T_then_now: np.ndarray) -> Callable[[], np.ndarray] | None:
    """warp_bev with affine_grid and grid_sample; None where torch is not installed."""
    if not _has("torch"):
        return None
    import torch

    size = np.array([grid.x_max - grid.x_min, grid.y_max - grid.y_min])
    start = np.array([grid.x_min, grid.y_min])
    shift = T_then_now[:2, :2] @ (start + size / 2) + T_then_now[:2, 3] - start - size / 2  # of the map's centre, m
    theta = np.column_stack([T_then_now[:2, :2] * size[None] / size[:, None], 2 * shift / size])
    affine, maps = torch.from_numpy(theta).float()[None], torch.from_numpy(features)[None]

    @torch.inference_mode()
    def run() -> np.ndarray:
        positions = torch.nn.functional.affine_grid(affine, list(maps.shape), align_corners=False)
        return torch.nn.functional.grid_sample(maps, positions, align_corners=False)[0].numpy()

    return run


def decode(spec: ModelSpec, heatmap: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(M, 9) boxes: 3x3 peaks, the best candidates, suppression within and across classes; sizes have no limits."""
    # 1. candidates
    score = 1 / (1 + np.exp(-heatmap))
    padded = np.pad(score, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    peaks = np.flatnonzero((score >= windows.max((3, 4))) & (score >= spec.head.score_threshold))
    peaks = peaks[np.argsort(-score.reshape(-1)[peaks], kind="stable")][: spec.head.max_candidates]
    # 2. boxes
    label, row, column = np.unravel_index(peaks, score.shape)
    groups = np.array([entry.group for entry in spec.head.classes])[label]
    values = box.reshape(-1, BOX_CHANNELS, *score.shape[1:])[groups, :, row, column]
    boxes = _boxes(spec, values, row, column)
    return boxes[_suppress(spec, boxes, label)][: spec.head.max_detections]


def _boxes(spec: ModelSpec, values: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    x = spec.grid.x_min + (column + 0.5 + values[:, BoxChannel.offset_x]) * spec.grid.cell
    y = spec.grid.y_min + (row + 0.5 + values[:, BoxChannel.offset_y]) * spec.grid.cell
    z = values[:, BoxChannel.above_ground]  # of the plane z = 0
    yaw = np.arctan2(values[:, BoxChannel.sin_yaw], values[:, BoxChannel.cos_yaw])
    size, velocity = np.exp(values[:, BOX_SLICES["log_size"]]), values[:, BOX_SLICES["velocity"]]
    return np.column_stack([x, y, z, size, yaw, velocity]).astype(np.float32)


def _suppress(spec: ModelSpec, boxes: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Indices of the boxes, best first, without those nearer than the class's radius to a better box of their class,
    or of an exclusive class and in the footprint of a better box of another one."""
    radius = np.array([entry.nms_radius for entry in spec.head.classes])[label]
    exclusive = np.array([entry.exclusive for entry in spec.head.classes])[label]
    dx, dy = boxes[None, :, 0] - boxes[:, None, 0], boxes[None, :, 1] - boxes[:, None, 1]  # [better, other]
    cos, sin = np.cos(boxes[:, None, 6]), np.sin(boxes[:, None, 6])
    inside = (2 * np.abs(cos * dx + sin * dy) <= boxes[:, None, 3]) & (
        2 * np.abs(cos * dy - sin * dx) <= boxes[:, None, 4]
    )
    same = label[:, None] == label[None, :]
    close = np.where(same, np.hypot(dx, dy) < radius[:, None], inside & exclusive[:, None] & exclusive[None, :])
    is_best = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if is_best[index]:
            is_best[index + 1 :] &= ~close[index, index + 1 :]
    return np.flatnonzero(is_best)


def torch_decode(spec: ModelSpec, heatmap: np.ndarray, box: np.ndarray) -> Callable[[], np.ndarray] | None:
    """(M, 9) boxes: sigmoid, peaks by max_pool2d, topk, gather, torchvision's NMS of footprints without heading.

    None where torch or torchvision is not installed.
    """
    if not _has("torch", "torchvision"):
        return None
    import torch
    from torchvision.ops import batched_nms

    rows, columns = heatmap.shape[1:]
    logits, values = torch.from_numpy(heatmap), torch.from_numpy(box).reshape(-1, BOX_CHANNELS, rows * columns)
    group_of = torch.tensor([entry.group for entry in spec.head.classes])
    grid = spec.grid

    @torch.inference_mode()
    def run() -> np.ndarray:
        # 1. candidates
        score = logits.sigmoid()
        peak = torch.nn.functional.max_pool2d(score[None], 3, 1, 1)[0]
        score, index = torch.where(score == peak, score, 0).flatten().topk(spec.head.max_candidates)
        index = index[score >= spec.head.score_threshold]
        label, cell = index // (rows * columns), index % (rows * columns)
        # 2. boxes
        code = values[group_of[label], :, cell]
        x = grid.x_min + (cell % columns + 0.5 + code[:, BoxChannel.offset_x]) * grid.cell
        y = grid.y_min + (cell // columns + 0.5 + code[:, BoxChannel.offset_y]) * grid.cell
        z = code[:, BoxChannel.above_ground]
        size, velocity = code[:, BOX_SLICES["log_size"]].exp(), code[:, BOX_SLICES["velocity"]]
        yaw = torch.atan2(code[:, BoxChannel.sin_yaw], code[:, BoxChannel.cos_yaw])
        boxes = torch.column_stack([x, y, z, size, yaw, velocity])
        # 3. suppression
        half = size[:, :2] / 2
        corners = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)
        order = batched_nms(corners, score[: len(index)], label, 0.2)
        return boxes[order[: spec.head.max_detections]].numpy()

    return run
