"""Times our ops and the usual code for the same task on one frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.bench import race, references
from imkd_edge.bench.frames import environment, usable_cores
from imkd_edge.bench.race import Call, Race
from imkd_edge.bundle import Bundle
from imkd_edge.bundle.format import bundle_name
from imkd_edge.progress import Track
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import select
from imkd_edge.spec import BOX_CHANNELS, ModelSpec

REPEATS = 101


def bench_ops(
    bundle: str,
    source: str = "synth",
    threads: int = 0,
    repeats: int = REPEATS,
    options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Times each op against its references, and compares their outputs and the op's memory traffic.

    Args:
        bundle: folder or shipped name; its spec defines the sizes.
        source: its first sample provides images, radar points and calibration.
        threads: of both sides; 0: first one, then one per core.
        repeats: of each pair, interleaved.
        options: of the source's reader.
        track: wraps the repeats, for a progress bar.

    Returns:
        {"ops": [{"op", "reference", "threads", "ours_ms", "reference_ms", "ratio", "difference", "bytes", "floor_ms",
        "times_floor"}, ...], "copy_gb_per_s": {threads: number}, "others_cores": number or None, ...}.
        "ratio" is of the medians; above 1 ours is faster. "difference" is the largest absolute one, in grey levels
        for images and in the output's unit elsewhere; None where the outputs differ in shape. "bytes" are those that
        must be read or written once, counted from shapes; "floor_ms" is the time in which the fastest plain copy of the
        run transfers as many (half read, half written). "others_cores" is the number of cores that other processes
        kept busy; unless it is near 0, ratios mean little, because torch's threads wait for each other and lose most.
    """
    # 1. the races of this spec and sample
    spec = Bundle.load(bundle).spec
    selection = select(source, options=options)
    sample = selection.source[selection.names[0]]
    races = [*_images(spec, sample), *_radar(spec, sample), *_lift(spec, sample), *_warp(spec), *_decode(spec)]
    # 2. run them with each number of threads
    rows, copies, background = [], {}, race.BackgroundLoad()
    for count in [threads] if threads else sorted({1, usable_cores()}):
        ops.set_threads(count)
        references.set_threads(count)
        results, copies[count] = race.run(races, count, track(range(repeats)) if track else range(repeats))
        rows += results
    return {
        "bundle": bundle_name(bundle),
        "source": source,
        "repeats": repeats,
        "ops": rows,
        "copy_gb_per_s": copies,
        "others_cores": background.cores(),
        "environment": {**environment(), **references.versions()},
    }


def _images(spec: ModelSpec, sample: Sample) -> list[Race]:
    images = [sample.frames[camera.name] for camera in sample.rig.cameras if camera.name in sample.frames]
    exact = [ops.image_crop(spec.image, image.shape[1], image.shape[0]) for image in images]
    # The references crop at whole pixels.
    crops = [ops.ImageCrop(crop.scale, round(crop.left), round(crop.top)) for crop in exact]
    bgr = [np.ascontiguousarray(image[:, :, ::-1]) for image in images]  # as OpenCV's readers return it
    rgb = [image[:, :, ::-1] for image in bgr]  # a view: our op reads strided memory
    dense = [np.ascontiguousarray(image) for image in images]
    calls = {
        "OpenCV chain": lambda: references.preprocess_images(bgr, crops, spec.image),
        "torchvision chain": references.torchvision_images(dense, crops, spec.image),
    }
    height, width = spec.image.height, spec.image.width
    pixels = sum(math.ceil(height / crop.scale) * math.ceil(width / crop.scale) for crop in crops)  # raw, in the crops
    traffic = {"pixels read": 3 * pixels, "tensor written": 4 * 3 * height * width * len(images)}
    unit = float(max(spec.image.std))
    return _races("preprocess_images", lambda: ops.preprocess_images(rgb, crops, spec.image), calls, traffic, unit)


def _races(
    op: str, ours: Call, calls: Mapping[str, Call | None], traffic: Mapping[str, int] | None = None, unit: float = 1.0
) -> list[Race]:
    """One race against each reference whose packages are installed."""
    return [Race(op, name, ours, call, traffic, unit) for name, call in calls.items() if call is not None]


def _radar(spec: ModelSpec, sample: Sample) -> list[Race]:
    if any(str(radar.velocity) != "compensated" for radar in sample.rig.radars):
        return []  # the reference handles only compensated velocities
    arguments = (spec, sample.rig, sample.radar, sample.timestamp_ns, sample.ego)
    calls = {"NumPy reduceat": lambda: references.voxelize_radar(*arguments)}
    return _races("voxelize_radar", lambda: ops.voxelize_radar(*arguments)[0], calls)


def _lift(spec: ModelSpec, sample: Sample) -> list[Race]:
    table = ops.lift_table(spec, sample.rig)
    random = np.random.default_rng(0)
    height, width = spec.image.feature_height(), spec.image.feature_width()
    depth = random.random((spec.cameras, spec.depth.bins, height, width), np.float32)
    depth /= depth.sum(1, keepdims=True)
    context = random.standard_normal((spec.cameras, spec.context_channels, height, width), np.float32)
    calls = {
        "NumPy reduceat": references.numpy_lift(spec, table, depth, context),
        "torch index_add": references.torch_lift(spec, table, depth, context),
    }
    index_arrays = (table.points, table.pixels, table.cells, table.starts)
    traffic = {
        "depth read": 4 * len(table.points),  # of the points in a cell
        "context read": context.nbytes,
        "table read": sum(np.asarray(array).nbytes for array in index_arrays),
        "map written": 4 * (spec.context_channels + 1) * spec.grid.height() * spec.grid.width(),
    }
    return _races("lift", lambda: ops.lift(spec, table, depth, context), calls, traffic)


def _warp(spec: ModelSpec) -> list[Race]:
    channels = spec.history.channels or spec.context_channels
    features = np.random.default_rng(0).standard_normal((channels, spec.grid.height(), spec.grid.width()), np.float32)
    T_then_now = np.eye(4)  # half a second at 14 m/s in a curve
    T_then_now[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    T_then_now[:2, 3] = 7.0, 0.35
    calls = {"torch grid_sample": references.torch_warp(spec.grid, features, T_then_now)}
    return _races("warp_bev", lambda: ops.warp_bev(spec.grid, features, T_then_now), calls)


def _decode(spec: ModelSpec) -> list[Race]:
    spec = ModelSpec.from_json(spec.to_json())
    for entry in spec.head.classes:  # random boxes have no class's size
        entry.min_size = entry.max_size = None
    random = np.random.default_rng(0)
    shape = (spec.grid.height(), spec.grid.width())
    heatmap = random.normal(-4.5, 1.2, (len(spec.head.classes), *shape)).astype(np.float32)
    box = random.normal(0, 0.3, (spec.head.groups() * BOX_CHANNELS, *shape)).astype(np.float32)
    calls = {
        "NumPy": lambda: references.decode(spec, heatmap, box),
        "torch, torchvision nms": references.torch_decode(spec, heatmap, box),
    }
    return _races("decode", lambda: ops.decode(spec, heatmap, box)[0], calls)
