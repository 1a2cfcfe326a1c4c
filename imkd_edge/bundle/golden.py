"""The golden frame of a bundle: raw data of one moment, and the model's outputs for it on the exporter's machine.

golden.npz holds these arrays, with S sweeps of P points in total; NaN is an unknown pose or motion:

    rig                   (bytes,) uint8    UTF-8 JSON of the SensorRig
    timestamp_ns          () int64
    image_{i}             (H, W, 3) uint8   of camera i in the rig's order; left out for an absent camera
    camera_timestamps_ns  (cameras,) int64
    camera_T_world_ego    (cameras, 4, 4) float64, optional
    sweep_radar           (S,) int32        index in the rig's order
    sweep_timestamp_ns    (S,) int64
    sweep_count           (S,) int32        points of each sweep; their sum is P
    sweep_points          (P, 5) float32    as in RadarSweep
    sweep_T_world_ego     (S, 4, 4) float64
    ego_T_world_ego       (4, 4) float64
    ego_twist             (3,) float64
    tensor_{name}         (k,) float32      every stride_{name}-th value of the tensor, in C order; names as in
                                            Detector.tensors()
    stride_{name}         () int64
    boxes, scores, labels (M, 9) float32, (M,) float32, (M,) int32
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from imkd_edge.bundle.format import Bundle
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec

if TYPE_CHECKING:
    from imkd_edge.sources.base import Sample

# Of every bundle; with history in the spec also fused, with segmentation also segmentation.
TENSORS = ("images", "depth", "context", "camera_bev", "radar_grid", "heatmap", "box")
READ_ERRORS = (OSError, ValueError, EOFError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error)


def golden_rig(bundle: Bundle) -> SensorRig:
    """The rig of the bundle's golden frame; raises Error bundle_bad_value for a broken golden.npz."""
    return read_golden(bundle)[1]


def tensor_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the tensors in the golden frame of a model."""
    return TENSORS + ("fused",) * (spec.history.frames > 0) + ("segmentation",) * spec.segmentation


def pack_frame(sample: Sample, camera_timestamps_ns: list[int]) -> dict[str, np.ndarray]:
    """The arrays of golden.npz that hold sensor data.

    Args:
        sample: one moment of a source.
        camera_timestamps_ns: one per camera, in the order of the sample's rig.
    """
    rig = sample.rig
    images = [sample.frames.get(camera.name) for camera in rig.cameras]
    return {
        "rig": np.frombuffer(rig.to_json().encode(), np.uint8),
        "timestamp_ns": np.array(sample.timestamp_ns, np.int64),
        "camera_timestamps_ns": np.array(camera_timestamps_ns, np.int64),
        **_pack_radar(rig, sample.radar, sample.timestamp_ns),
        **_pack_ego(sample.ego),
        **_pack_camera_poses(sample),
        **{f"image_{i}": np.ascontiguousarray(image) for i, image in enumerate(images) if image is not None},
    }


def read_golden(bundle: Bundle) -> tuple[dict[str, np.ndarray], SensorRig]:
    """The arrays of golden.npz and its rig; raises Error bundle_bad_value where they differ from the table above."""
    path = bundle.file("golden.npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            golden = {name: np.asarray(archive[name]) for name in archive.files}
        return golden, _check(golden, bundle.spec)
    except (*READ_ERRORS, Error) as error:  # a UnicodeDecodeError is a ValueError
        raise bad_golden(bundle, str(getattr(error, "what", error))) from error


def bad_golden(bundle: Bundle, problem: str) -> Error:
    """The Error for a golden frame that cannot be used."""
    path = str(bundle.file("golden.npz"))
    return Error(Code.bundle_bad_value, f"golden.npz: {problem}", path, "export the bundle again")


# dtype and shape of the table above; equal names stand for equal lengths.
_FORM: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "rig": ("uint8", ("bytes",)),
    "timestamp_ns": ("int64", ()),
    "camera_timestamps_ns": ("int64", ("cameras",)),
    "sweep_radar": ("int32", ("S",)),
    "sweep_timestamp_ns": ("int64", ("S",)),
    "sweep_count": ("int32", ("S",)),
    "sweep_points": ("float32", ("P", 5)),
    "sweep_T_world_ego": ("float64", ("S", 4, 4)),
    "ego_T_world_ego": ("float64", (4, 4)),
    "ego_twist": ("float64", (3,)),
    "boxes": ("float32", ("M", 9)),
    "scores": ("float32", ("M",)),
    "labels": ("int32", ("M",)),
}


def _check(golden: Mapping[str, np.ndarray], spec: ModelSpec) -> SensorRig:
    """The rig of a golden frame; raises ValueError for missing or contradicting arrays, Error for a bad rig."""
    names = tensor_names(spec)
    form = {
        **_FORM,
        **{f"tensor_{name}": ("float32", (name,)) for name in names},
        **{f"stride_{name}": ("int64", ()) for name in names},
    }
    if "camera_T_world_ego" in golden:
        form["camera_T_world_ego"] = ("float64", ("cameras", 4, 4))
    if missing := [name for name in form if name not in golden]:
        raise ValueError(f"it has no {', '.join(missing)}")
    _check_form(golden, form, {})
    rig = SensorRig.from_json(golden["rig"].tobytes().decode())
    times = golden["camera_timestamps_ns"]
    radars, counts, points = golden["sweep_radar"], golden["sweep_count"], golden["sweep_points"]
    unknown_radar = (radars < 0) | (radars >= len(rig.radars))
    faults = {
        f"its rig has {len(rig.cameras)} cameras, the model {spec.cameras}": len(rig.cameras) > spec.cameras,
        f"{len(times)} camera_timestamps_ns for {len(rig.cameras)} cameras": len(times) != len(rig.cameras),
        f"sweep_radar is not one of the rig's {len(rig.radars)} radars": unknown_radar.any(),
        "sweep_count does not sum to the number of points": (counts < 0).any() or counts.sum() != len(points),
        **{f"stride_{name} is below 1": golden[f"stride_{name}"] < 1 for name in names},
    }
    if problems := [problem for problem, is_wrong in faults.items() if is_wrong]:
        raise ValueError(", ".join(problems))
    return rig


def _check_form(
    golden: Mapping[str, np.ndarray], form: Mapping[str, tuple[str, tuple[int | str, ...]]], lengths: dict[str, int]
) -> None:
    """Raises ValueError for another dtype or shape; the first array with a named length defines it in `lengths`."""
    for name, (dtype, shape) in form.items():
        array = golden[name]
        for length, extent in zip(shape, array.shape):
            if isinstance(length, str):
                lengths.setdefault(length, extent)
        expected = tuple(lengths.get(length, length) if isinstance(length, str) else length for length in shape)
        if array.shape != expected or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {expected}")


def _pack_radar(rig: SensorRig, sweeps: list[RadarSweep], reference_ns: int) -> dict[str, np.ndarray]:
    names = [radar.name for radar in rig.radars]
    unknown = np.full((4, 4), np.nan)
    times = [reference_ns if sweep.timestamp_ns is None else sweep.timestamp_ns for sweep in sweeps]
    poses = [unknown if sweep.T_world_ego is None else sweep.T_world_ego for sweep in sweeps]
    return {
        "sweep_radar": np.array([names.index(sweep.radar) for sweep in sweeps], np.int32),
        "sweep_timestamp_ns": np.array(times, np.int64),
        "sweep_count": np.array([len(sweep.points) for sweep in sweeps], np.int32),
        "sweep_points": np.concatenate([np.zeros((0, 5), np.float32), *(sweep.points for sweep in sweeps)]),
        "sweep_T_world_ego": np.array(poses, np.float64).reshape(-1, 4, 4),
    }


def _pack_ego(ego: Ego | None) -> dict[str, np.ndarray]:
    ego = ego or Ego()
    pose = np.full((4, 4), np.nan) if ego.T_world_ego is None else np.asarray(ego.T_world_ego, np.float64)
    twist = np.full(3, np.nan) if ego.twist is None else np.asarray(ego.twist, np.float64)
    return {"ego_T_world_ego": pose, "ego_twist": twist}


def _pack_camera_poses(sample: Sample) -> dict[str, np.ndarray]:
    """Nothing where no camera has a pose, as in bundles that were exported before."""
    if not sample.camera_T_world_ego:
        return {}
    unknown = np.full((4, 4), np.nan)
    poses = [sample.camera_T_world_ego.get(camera.name, unknown) for camera in sample.rig.cameras]
    return {"camera_T_world_ego": np.array(poses, np.float64)}


def infer_arguments(golden: Mapping[str, np.ndarray], rig: SensorRig) -> tuple[Any, ...]:
    """The golden frame as the arguments of Detector.infer."""
    frames = [golden.get(f"image_{i}") for i in range(len(rig.cameras))]
    ends = np.cumsum(golden["sweep_count"])
    points = np.split(golden["sweep_points"], ends[:-1]) if len(ends) else []
    sweeps = [
        RadarSweep(rig.radars[int(radar)].name, cloud, int(time), _none_if_nan(pose))
        for radar, cloud, time, pose in zip(
            golden["sweep_radar"], points, golden["sweep_timestamp_ns"], golden["sweep_T_world_ego"], strict=True
        )
    ]
    ego = Ego(_none_if_nan(golden["ego_T_world_ego"]), _none_if_nan(golden["ego_twist"]))
    times, poses = golden["camera_timestamps_ns"].tolist(), golden.get("camera_T_world_ego")
    camera_poses = None if poses is None else [_none_if_nan(pose) for pose in poses]
    return frames, sweeps, ego, int(golden["timestamp_ns"]), times, camera_poses


def _none_if_nan(values: np.ndarray) -> np.ndarray | None:
    return None if np.isnan(values).any() else values
