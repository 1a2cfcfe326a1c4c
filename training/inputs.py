"""The runtime's ops on a raw sample: the tensors that networks and lift read, equal to the Detector's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec


def network_inputs(
    spec: ModelSpec,
    sample: Sample,
    crops: list[ops.ImageCrop] | None = None,
    images: bool = True,
) -> dict[str, np.ndarray]:
    """Inputs of the two networks and of the lift between them.

    Args:
        spec: of the model.
        sample: raw sample.
        crops: of the cameras in the rig's order; by default those of the runtime.
        images: False omits "images".

    Returns:
        images (N,3,H,W) float32 and present (N,) float32 of the model's N cameras, absent where the rig lacks one,
        radar_grid (F,Hr,Wr) float32, ground (3,) float64, the plane of the ego frame, and the lift's table: points and
        pixels (P,) int32, rows (H*W+1,) int64 with the interval of every cell in them.
    """
    sample = discard_images(spec, sample)
    if crops is None:
        crops = [ops.image_crop(spec.image, c.width, c.height) for c in sample.rig.cameras]
    table = ops.lift_table(spec, exposure_rig(spec, sample), crops)
    frames, crops = pad(spec, [sample.frames.get(c.name) for c in sample.rig.cameras], crops)
    out = {
        "present": np.array([f is not None for f in frames], np.float32),
        "radar_grid": radar_grid(spec, sample),
        "ground": np.array(ops.ground_of(spec, sample.rig)),
        "points": table.points,
        "pixels": table.pixels,
        "rows": interval_rows(table, spec.grid.height() * spec.grid.width()),
    }
    if images:
        out["images"] = ops.preprocess_images(frames, crops, spec.image)
    return {k: np.require(v, requirements="W") for k, v in out.items()}  # torch needs writable memory


def discard_images(spec: ModelSpec, sample: Sample) -> Sample:
    """The sample without the images that the runtime discards: too old, or of a camera that sees too little."""
    cameras, times = sample.rig.cameras, sample.camera_timestamps_ns
    usable = ops.usable_cameras(spec, sample.rig, sample.timestamp_ns, times)
    names = {camera.name for camera, lifted in zip(cameras, usable, strict=True) if lifted}
    return replace(sample, frames={name: image for name, image in sample.frames.items() if name in names})


def pad(
    spec: ModelSpec, frames: list[np.ndarray | None], crops: list[ops.ImageCrop]
) -> tuple[list[np.ndarray | None], list[ops.ImageCrop]]:
    """Images and crops of all cameras of the model: those that the rig lacks are absent."""
    lacking = spec.cameras - len(frames)
    return [*frames, *[None] * lacking], [*crops, *[ops.ImageCrop()] * lacking]


def radar_grid(spec: ModelSpec, sample: Sample) -> np.ndarray:  # (F,Hr,Wr)
    """Statistics of the spec over all sweeps of a sample, in its ego frame, float32."""
    motion = sample.motion(spec.radar.max_age)
    return ops.voxelize_radar(spec, sample.rig, sample.radar, sample.timestamp_ns, motion=motion)[0]


def exposure_rig(spec: ModelSpec, sample: Sample) -> SensorRig:
    """The rig with the cameras at their exposures, as the runtime lifts them."""
    return sample.motion(spec.radar.max_age).exposure_rig(sample.rig, spec.grid)


def interval_rows(table: ops.LiftTable, cells: int) -> np.ndarray:  # (cells+1,) int64
    """Where the points of each cell begin, in the table of a lift."""
    counts = np.zeros(cells + 1, np.int64)
    counts[table.cells + 1] = np.diff(table.starts)
    return counts.cumsum()


def scaled_crop(spec: ModelSpec, width: int, height: int, factor: float, shift: float = 0.0) -> ops.ImageCrop:
    """The runtime's crop, scaled about the centre of the network's input and shifted right by a share of its width."""
    base = ops.image_crop(spec.image, width, height)
    left = (base.left + spec.image.width / 2) * factor - spec.image.width / 2 + shift * spec.image.width
    top = (base.top + spec.image.height / 2) * factor - spec.image.height / 2
    return ops.ImageCrop(base.scale * factor, left, top)
