"""The CUDA ops, with kernels that run on the CPU, against the CPU ops: equal in every order of blocks and threads."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cuda_budget import BUILD, load
from differences import close, equal, nmse
from op_cases import DISTORTIONS, STATISTICS, random_points, random_pose, random_rig, rotation, shift, small_spec

from imkd_edge import ModelSpec, ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ClassSpec, GridSpec, HeadSpec, ImageSpec, RadarFeature, RadarSpec

ORDERS = ("fwd", "rev", "shuffle:1", "shuffle:2")

MODULE = os.environ.get("IMKD_CUDA_MODULE", "cuda_on_host")  # tests/gpu/prove.py: cuda_on_device
cuda = load(MODULE)
if cuda is None:
    pytest.skip(f"no {MODULE} in {BUILD}: the CUDA ops are NOT tested (make test builds it)", allow_module_level=True)


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    """Order in which blocks and threads run."""
    monkeypatch.setenv("GPUHOST_ORDER", request.param)
    return request.param


# ---- preprocess_images ----
IMAGE_CASES = {  # (height, width) of each camera, None for an absent one
    "usual": [(120, 160), (90, 200)],
    "one pixel": [(1, 1)],
    "one row": [(1, 37)],
    "one column": [(41, 1)],
    "odd": [(53, 71), (67, 113), (31, 29)],
    "absent": [(64, 96), None, (48, 48)],
    "twenty": [(30, 40)] * 20,  # more than one launch takes
}


def images_of(case: str, rng) -> list:
    return [None if size is None else rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in IMAGE_CASES[case]]


@pytest.mark.parametrize("size", [(96, 64), (40, 8), (33 * 8, 9 * 8)])
@pytest.mark.parametrize("case", IMAGE_CASES)
def test_images_are_those_of_the_cpu_op_to_the_bit(case, size, order):
    rng, spec = np.random.default_rng(1), ImageSpec(width=size[0], height=size[1], stride=8, anchor=0.7)
    images = images_of(case, rng)
    crops = [
        ops.image_crop(spec, 10, 10) if i is None else ops.image_crop(spec, i.shape[1], i.shape[0]) for i in images
    ]
    expected = ops.preprocess_images(images, crops, spec)
    assert equal(cuda.preprocess_images(images, crops, spec), expected)
    half = cuda.preprocess_images(images, crops, spec, half=True)
    assert equal(half, expected.astype(np.float16))


@pytest.mark.parametrize("view", ["bgr", "pitched", "upside down", "planar", "every second pixel"])
def test_images_of_any_layout(view, order):
    rng, spec = np.random.default_rng(2), ImageSpec(width=96, height=64, stride=8)
    image = rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    image = {
        "bgr": image[..., ::-1],
        "pitched": rng.integers(0, 256, (100, 170, 3), dtype=np.uint8)[:, 7:157],
        "upside down": image[::-1],
        "planar": np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
        "every second pixel": rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)[::2, ::2],
    }[view]
    for crop in (ops.image_crop(spec, 150, 100), ops.ImageCrop(0.31, -20.5, 3.25)):
        assert equal(cuda.preprocess_images([image], [crop], spec), ops.preprocess_images([image], [crop], spec))


@pytest.mark.parametrize("matrix", ["bt601", "bt601_full", "bt709", "bt709_full"])
@pytest.mark.parametrize("size", [(120, 160), (2, 2), (54, 70)])
def test_images_of_nv12(size, matrix, order):
    rng, spec = np.random.default_rng(3), ImageSpec(width=96, height=64, stride=8)
    y, uv = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in (size, (size[0] // 2, size[1] // 2, 2)))
    crop = ops.image_crop(spec, size[1], size[0])
    expected = ops.preprocess_images([(y, uv, matrix)], [crop], spec)
    image = [(y, uv, matrix)]
    assert equal(cuda.preprocess_images(image, [crop], spec), expected)
    assert equal(cuda.preprocess_images(image, [crop], spec, half=True), expected.astype(np.float16))


@pytest.mark.parametrize("scale", [0.5, 1 / 64, 2.6 / 127, 1e-3])
@pytest.mark.parametrize("case", ["usual", "one pixel", "odd", "absent"])
def test_images_in_steps_are_those_of_the_cpu_op_exactly(case, scale, order):
    rng, spec = np.random.default_rng(5), ImageSpec(width=96, height=64, stride=8, anchor=0.7)
    images = images_of(case, rng)
    crops = [
        ops.image_crop(spec, 10, 10) if i is None else ops.image_crop(spec, i.shape[1], i.shape[0]) for i in images
    ]
    assert equal(cuda.quantize_images(images, crops, spec, scale), ops.quantize_images(images, crops, spec, scale))


# ---- lift ----
def crops_of(spec: ModelSpec, rig: SensorRig) -> list[ops.ImageCrop]:
    return [ops.image_crop(spec.image, c.width, c.height) for c in rig.cameras]


def dense_rows(table: ops.LiftTable, cells: int) -> np.ndarray:
    count = np.zeros(cells, np.int64)
    count[table.cells] = np.diff(table.starts)
    return np.concatenate([[0], count.cumsum()])


@pytest.mark.parametrize("distortion", DISTORTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_lifts_table_is_that_of_the_cpu_op(seed, distortion, order):
    spec, rig = small_spec(), random_rig(seed, distortion=distortion)
    expected = ops.lift_table(spec, rig)
    rows, points, pixels = cuda.lift_table(spec, rig, crops_of(spec, rig))
    assert equal(rows, dense_rows(expected, 32 * 24))
    assert equal(points[: rows[-1]], expected.points) and equal(pixels[: rows[-1]], expected.pixels)


@pytest.mark.parametrize("cameras", [0, 1])
def test_the_table_of_a_rig_with_fewer_cameras_is_that_of_the_cpu_op(cameras, order):
    spec, rig = small_spec(), random_rig(0)
    rig.cameras = list(rig.cameras)[:cameras]
    expected = ops.lift_table(spec, rig)
    rows, points, pixels = cuda.lift_table(spec, rig, crops_of(spec, rig))
    assert equal(rows, dense_rows(expected, 32 * 24)) and bool(rows[-1]) == bool(cameras)
    assert equal(points[: rows[-1]], expected.points) and equal(pixels[: rows[-1]], expected.pixels)


def test_a_table_without_a_point():
    spec = small_spec(grid=GridSpec(x_min=-16, x_max=16, y_min=-12, y_max=12, z_min=90, z_max=91, cell=1.0))
    rows, _, _ = cuda.lift_table(spec, random_rig(0), crops_of(spec, random_rig(0)))
    assert not rows.any()


@pytest.mark.parametrize("channels", [1, 5, 32, 33, 80, 128, 131, 300])
def test_the_lift_is_that_of_the_cpu_op(channels, order):
    rng, spec, rig = np.random.default_rng(channels), small_spec(context_channels=channels), random_rig(channels)
    depth = rng.random((2, 24, 8, 12), np.float32)
    context = rng.standard_normal((2, channels, 8, 12)).astype(np.float32)
    table = cuda.lift_table(spec, rig, crops_of(spec, rig))
    expected = ops.lift(spec, ops.lift_table(spec, rig), depth, context)
    assert equal(cuda.lift(spec, table, depth, context), expected)
    half = cuda.lift(spec, table, depth.astype(np.float16), context.astype(np.float16))
    exact = ops.lift(
        spec,
        ops.lift_table(spec, rig),
        depth.astype(np.float16).astype(np.float32),
        context.astype(np.float16).astype(np.float32),
    )
    assert equal(half, exact.astype(np.float16)) and nmse(half, expected) <= 1e-5


@pytest.mark.parametrize("channels", [1, 33, 80, 131])
def test_a_context_with_its_channels_last_gives_the_same_lift(channels, order):
    rng, spec, rig = np.random.default_rng(channels), small_spec(context_channels=channels), random_rig(channels)
    table = cuda.lift_table(spec, rig, crops_of(spec, rig))
    for dtype in (np.float32, np.float16):
        depth = rng.random((2, 24, 8, 12), np.float32).astype(dtype)
        context = rng.standard_normal((2, channels, 8, 12)).astype(dtype)
        channels_last_context = np.ascontiguousarray(np.moveaxis(context, 1, 3))
        expected = ops.lift(spec, ops.lift_table(spec, rig), depth.astype(np.float32), context.astype(np.float32))
        for half, out in ((False, np.float32), (True, np.float16)):  # any input type with either output type
            result = cuda.lift(spec, table, depth, channels_last_context, channels_last=True, half=half)
            assert result.dtype == out and equal(result, expected.astype(out))
            assert equal(cuda.lift(spec, table, depth, context, half=half), result)


def test_a_lift_onto_a_grid_that_is_no_multiple_of_a_block(order):
    spec = small_spec(
        grid=GridSpec(x_min=-9, x_max=14, y_min=-6, y_max=7, z_min=-3, z_max=4, cell=1.0),
        radar=RadarSpec(cell=1.0, features=[RadarFeature()]),
    )
    rng, rig = np.random.default_rng(0), random_rig(3)
    depth, context = rng.random((2, 24, 8, 12), np.float32), rng.standard_normal((2, 5, 8, 12)).astype(np.float32)
    table = cuda.lift_table(spec, rig, crops_of(spec, rig))
    assert equal(cuda.lift(spec, table, depth, context), ops.lift(spec, ops.lift_table(spec, rig), depth, context))


# ---- voxelize_radar ----
def same_radar(spec: ModelSpec, rig: SensorRig, sweeps, ego=None, t=0) -> None:
    expected, stats = ops.voxelize_radar(spec, rig, sweeps, t, ego)
    result, counts = cuda.voxelize_radar(spec, rig, sweeps, t, ego)
    assert counts == (stats.used, stats.invalid, stats.outside, stats.overflow)
    assert equal(result != 0, expected != 0) and close(result, expected)
    half, _ = cuda.voxelize_radar(spec, rig, sweeps, t, ego, half=True)
    assert nmse(half, expected) <= 1e-5


def bad_points(points: np.ndarray) -> np.ndarray:
    points = points.copy()
    points[::7, 0], points[3::11, 4], points[5::13, 3] = np.nan, np.inf, -np.inf
    points[2::17, :3] = 0  # at the radar itself
    points[4::19, 0], points[6::23, 4], points[8::29, 3] = 3e38, 1e6, -301
    return points


RADAR_POINTS = {
    "none": lambda rng: random_points(rng, 0),
    "one": lambda rng: random_points(rng, 1, 1),
    "some": lambda rng: random_points(rng, 333),
    "many": lambda rng: random_points(rng, 3001),
    "in one cell": lambda rng: (
        np.tile(random_points(rng, 1, 1), (1500, 1))
        + np.array([0, 0, 1, 1, 1], np.float32) * rng.random((1500, 1), np.float32)
    ),
    "bad": lambda rng: bad_points(random_points(rng, 800)),
    "all bad": lambda rng: np.full((40, 5), np.nan, np.float32),
    "all outside": lambda rng: random_points(rng, 50) + np.array([500, 0, 0, 0, 0], np.float32),
}


@pytest.mark.parametrize("velocity", ["compensated", "raw", "aliased"])
@pytest.mark.parametrize("kind", RADAR_POINTS)
def test_the_radar_grid_is_that_of_the_cpu_op(kind, velocity, order):
    rng, rig = np.random.default_rng(4), random_rig(5, velocity=velocity)
    sweeps = [RadarSweep(f"r{k % 2}", RADAR_POINTS[kind](rng), -k * 40_000_000) for k in range(3)]
    same_radar(small_spec(), rig, sweeps, Ego(twist=(7, 0.5, 0.2)))


def test_a_radar_grid_without_ego_motion_or_sweeps(order):
    rng, spec = np.random.default_rng(6), small_spec()
    same_radar(spec, random_rig(1, velocity="raw"), {"r0": random_points(rng, 5), "r1": random_points(rng, 0)})
    same_radar(spec, random_rig(1), [])


@pytest.mark.parametrize("most", [60, 999, 1000, 1024, 2500])
def test_points_beyond_the_maximum_are_those_that_the_cpu_op_drops(most, order):
    rng = np.random.default_rng(most)
    radar = RadarSpec(
        cell=0.5,
        max_points=most,
        max_age=1.0,
        features=[RadarFeature(statistic=name, offset=0.5, scale=-2) for name in STATISTICS],
    )
    sweeps = [RadarSweep(f"r{k % 2}", bad_points(random_points(rng, 500, 5)), -k * 10_000_000) for k in range(5)]
    same_radar(small_spec(radar=radar), random_rig(2), sweeps)


# ---- warp_bev ----
WARPS = {
    "identity": np.eye(4),
    "whole cells": shift(3, -2),
    "quarter turn": rotation(np.pi / 2),
    "anything": shift(1.3, -0.7) @ rotation(0.2),
    "off the map": shift(500, 0),
    "beyond all maps": shift(1e9, 0),
}


@pytest.mark.parametrize("channels", [0, 1, 16, 17, 40])
@pytest.mark.parametrize("case", WARPS)
def test_a_warped_map_is_that_of_the_cpu_op_to_the_bit(case, channels, order):
    rng, grid = np.random.default_rng(7), small_spec().grid
    features = rng.standard_normal((channels, 24, 32)).astype(np.float32)
    features[rng.random(features.shape) < 0.02] = np.nan
    features[rng.random(features.shape) < 0.02] = np.inf
    T = WARPS[case]
    with np.errstate(all="ignore"):
        assert equal(cuda.warp_bev(grid, features, T), ops.warp_bev(grid, features, T), equal_nan=True)
        narrow = features.astype(np.float16)
        expected = ops.warp_bev(grid, narrow.astype(np.float32), T).astype(np.float16)
    assert equal(cuda.warp_bev(grid, narrow, T), expected, equal_nan=True)


# ---- decode ----
def same_boxes(spec: ModelSpec, heatmap: np.ndarray, box: np.ndarray) -> int:
    expected = ops.decode(spec, heatmap, box)
    boxes, scores, labels, _ = cuda.decode(spec, heatmap, box)
    assert equal(labels, expected[2]) and equal(boxes[:, :2], expected[0][:, :2])
    assert close(boxes, expected[0]) and close(scores, expected[1])
    return len(labels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["smooth", "ties", "no peak", "one plateau", "bad"])
def test_boxes_are_those_of_the_cpu_op(kind, seed, order):
    rng, spec = np.random.default_rng(seed), small_spec()
    heatmap = rng.normal(-1, 1.5, (3, 24, 32)).astype(np.float32)
    box = rng.normal(0, 0.5, (20, 24, 32)).astype(np.float32)
    if kind == "ties":
        heatmap = np.round(heatmap)
        heatmap[heatmap == 0] = rng.choice([0.0, -0.0], (heatmap == 0).sum())
    elif kind == "no peak":
        heatmap -= 50
    elif kind == "one plateau":
        heatmap[:] = 3
    elif kind == "bad":
        heatmap[rng.random(heatmap.shape) < 0.1] = np.nan
        heatmap[rng.random(heatmap.shape) < 0.05] = np.inf
        box[rng.random(box.shape) < 0.02] = np.nan
        box[rng.random(box.shape) < 0.01] = 1e4  # exp overflows
    count = same_boxes(spec, heatmap, box)
    assert (count == 0) == (kind == "no peak")


@pytest.mark.parametrize("seed", range(2))
def test_limits_of_size_and_exclusive_classes_are_those_of_the_cpu_op(seed, order):
    rng, spec = np.random.default_rng(seed), small_spec()
    spec.head.max_detections = spec.head.max_candidates = 600
    for item in spec.head.classes:
        item.exclusive = bool(rng.random() < 0.8)
        item.min_size = rng.uniform(0, 0.6, 3) if rng.random() < 0.7 else None
        item.max_size = rng.uniform(1.5, 4, 3) if rng.random() < 0.7 else None
    heatmap = rng.normal(-1, 1.5, (3, 24, 32)).astype(np.float32)
    box = rng.normal(0, 0.7, (20, 24, 32)).astype(np.float32)
    count = same_boxes(spec, heatmap, box)
    for item in spec.head.classes:
        item.exclusive, item.min_size, item.max_size = False, None, None
    assert 0 < count < same_boxes(spec, heatmap, box)


@pytest.mark.parametrize(("candidates", "detections"), [(1, 1), (7, 3), (64, 64), (200, 5), (5000, 1000)])
def test_the_best_candidates_are_those_of_the_cpu_op(candidates, detections, order):
    classes = [ClassSpec(name="car", group=0, nms_radius=0.0), ClassSpec(name="truck", group=1, nms_radius=2.0)]
    spec = small_spec(
        head=HeadSpec(classes=classes, score_threshold=0.05, max_candidates=candidates, max_detections=detections)
    )
    rng = np.random.default_rng(candidates)
    heatmap = np.round(rng.normal(0, 1.5, (2, 24, 32)) * 3).astype(np.float32) / 3
    assert same_boxes(spec, heatmap, rng.normal(0, 0.5, (20, 24, 32)).astype(np.float32)) > 0


@pytest.mark.parametrize("detections", [1, 37, 64, 1000])
def test_a_chain_of_suppressions_through_several_tiles_leaves_a_chessboard(detections, order):
    """Each peak is within the radius of its four neighbours, two cells away, and better than the next one."""
    spec = small_spec()
    radius = 2.5 * spec.grid.cell
    classes = [ClassSpec(name="car", group=0, nms_radius=radius)]
    spec.head = HeadSpec(classes=classes, score_threshold=0.05, max_candidates=500, max_detections=detections)
    heatmap = np.full((1, 24, 32), -9, np.float32)
    heatmap[0, ::2, ::2] = np.linspace(3, 1, 12 * 16).reshape(12, 16)  # three tiles of 64
    assert same_boxes(spec, heatmap, np.zeros((10, 24, 32), np.float32)) == min(detections, 12 * 16 // 2)


def test_half_boxes_are_close_to_those_of_the_same_numbers(order):
    rng, spec = np.random.default_rng(9), small_spec()
    heatmap, box = (
        rng.normal(-1, 1.5, (3, 24, 32)).astype(np.float16),
        rng.normal(0, 0.5, (20, 24, 32)).astype(np.float16),
    )
    boxes, scores, labels, _ = cuda.decode(spec, heatmap, box)
    expected = ops.decode(spec, heatmap.astype(np.float32), box.astype(np.float32))
    assert equal(labels, expected[2]) and close(boxes, expected[0]) and close(scores, expected[1])


def test_random_poses_of_everything_agree():
    rng, spec = np.random.default_rng(11), small_spec()
    for seed in range(20):
        T = random_pose(rng)
        features = rng.standard_normal((2, 24, 32)).astype(np.float32)
        assert equal(cuda.warp_bev(spec.grid, features, T), ops.warp_bev(spec.grid, features, T))
        same_radar(spec, random_rig(seed, velocity="raw"), {"r0": random_points(rng, 60), "r1": random_points(rng, 60)})
