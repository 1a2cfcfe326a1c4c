"""Our ops and the usual code for the same task, timed in turns in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imkd_edge import ops
from imkd_edge.bench import references
from imkd_edge.bench.frames import environment, usable_cores
from imkd_edge.bundle import Bundle
from imkd_edge.samples import bundle_label, select
from imkd_edge.sources.sample import Sample
from imkd_edge.spec import ModelSpec

REPEATS = 31
Call = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Race:
    """Two ways to the same numbers."""

    op: str
    reference: str
    ours: Call
    theirs: Call


def bench_ops(
    bundle: str, source: str = "synth", threads: int = 0, repeats: int = REPEATS, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Medians of interleaved repeats, and the largest difference of the two outputs.

    Args:
        bundle: its spec gives the sizes.
        source: its first sample gives images, radar points and calibration.
        threads: of both sides, 0 is one per core.
        repeats: of each pair, in turns.
        options: of the source's reader.

    Returns:
        {"ops": [{"op", "reference", "ours_ms", "reference_ms", "ratio", "difference"}], ...}; ratio > 1: ours is faster.
        The difference is in grey levels for images and in the output's unit elsewhere; None where outputs are lists of boxes.
    """
    spec = Bundle.load(bundle).spec
    chosen = select(source, options=options)
    sample = chosen.source[chosen.names[0]]
    cores = threads or usable_cores()
    ops.set_threads(cores)
    references.set_threads(cores)
    races = [*_images(spec, sample), *_radar(spec, sample), *_lift(spec, sample), *_warp(spec), *_decode(spec)]
    rows = [_run(race, spec, repeats) for race in races]
    return {
        "bundle": bundle_label(bundle),
        "source": source,
        "threads": cores,
        "repeats": repeats,
        "ops": rows,
        "environment": environment(),
    }


def _run(race: Race, spec: ModelSpec, repeats: int) -> dict[str, Any]:
    ours, theirs = race.ours(), race.theirs()  # also the warm-up
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, record in zip((race.ours, race.theirs), times, strict=True):
            started = time.perf_counter_ns()
            call()
            record.append((time.perf_counter_ns() - started) / 1e6)
    mine, reference = (float(np.median(record)) for record in times)
    unit = float(max(spec.image.std)) if race.op == "preprocess_images" else 1.0
    difference = float(np.abs(ours - theirs).max(initial=0)) * unit if ours.shape == theirs.shape else None
    return {
        "op": race.op,
        "reference": race.reference,
        "ours_ms": mine,
        "reference_ms": reference,
        "ratio": reference / mine,
        "difference": difference,
    }


def _images(spec: ModelSpec, sample: Sample) -> list[Race]:
    images = [sample.frames[camera.name] for camera in sample.rig.cameras if camera.name in sample.frames]
    exact = [ops.image_crop(spec.image, image.shape[1], image.shape[0]) for image in images]
    crops = [ops.ImageCrop(crop.scale, round(crop.left), round(crop.top)) for crop in exact]  # the chain cuts at whole pixels
    swapped = [np.ascontiguousarray(image[:, :, ::-1]) for image in images]  # as OpenCV's readers give it
    rgb = [image[:, :, ::-1] for image in swapped]  # a view: our op reads strided memory
    return [
        Race(
            "preprocess_images",
            "OpenCV chain",
            lambda: ops.preprocess_images(rgb, crops, spec.image),
            lambda: references.preprocess_images(swapped, crops, spec.image),
        )
    ]


def _radar(spec: ModelSpec, sample: Sample) -> list[Race]:
    if any(str(radar.velocity) != "compensated" for radar in sample.rig.radars):
        return []  # the reference knows only compensated velocities
    arguments = (spec, sample.rig, sample.radar, sample.timestamp_ns, sample.ego)
    return [
        Race(
            "voxelize_radar",
            "NumPy reduceat",
            lambda: ops.voxelize_radar(*arguments)[0],
            lambda: references.voxelize_radar(*arguments),
        )
    ]


def _lift(spec: ModelSpec, sample: Sample) -> list[Race]:
    table = ops.lift_table(spec, sample.rig)
    random = np.random.default_rng(0)
    height, width = spec.image.feature_height(), spec.image.feature_width()
    depth = random.random((spec.cameras, spec.depth.bins, height, width), np.float32)
    depth /= depth.sum(1, keepdims=True)
    context = random.standard_normal((spec.cameras, spec.context_channels, height, width), np.float32)
    calls: dict[str, Call] = {"NumPy reduceat": references.numpy_lift(spec, table, depth, context)}
    torch_call = references.torch_lift(spec, table, depth, context)
    if torch_call is not None:
        calls["torch index_add"] = torch_call
    return [Race("lift", name, lambda: ops.lift(spec, table, depth, context), call) for name, call in calls.items()]


def _warp(spec: ModelSpec) -> list[Race]:
    channels = spec.history.channels or spec.context_channels
    features = np.random.default_rng(0).standard_normal((channels, spec.grid.height(), spec.grid.width()), np.float32)
    T_then_now = np.eye(4)  # half a second at 14 m/s in a bend
    T_then_now[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    T_then_now[:2, 3] = 7.0, 0.35
    call = references.torch_warp(spec.grid, features, T_then_now)
    if call is None:
        return []
    return [Race("warp_bev", "torch grid_sample", lambda: ops.warp_bev(spec.grid, features, T_then_now), call)]


def _decode(spec: ModelSpec) -> list[Race]:
    random = np.random.default_rng(0)
    shape = (spec.grid.height(), spec.grid.width())
    heatmap = random.normal(-4.5, 1.2, (len(spec.head.classes), *shape)).astype(np.float32)
    box = random.normal(0, 0.3, (spec.head.groups() * 10, *shape)).astype(np.float32)
    return [
        Race(
            "decode",
            "NumPy",
            lambda: ops.decode(spec, heatmap, box)[0],
            lambda: references.decode(spec, heatmap, box),
        )
    ]
