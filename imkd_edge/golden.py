"""The golden frame of a bundle: one raw moment of the sensors, and what the model made of it where it was exported.

golden.npz holds, with S sweeps and P points in all (NaN stands for a pose or motion that is not known):

    rig                   (bytes,) uint8    UTF-8 JSON of the SensorRig
    timestamp_ns          () int64
    image_{i}             (H, W, 3) uint8   of camera i in the rig's order; an absent camera has none
    camera_timestamps_ns  (cameras,) int64
    sweep_radar           (S,) int32        index in the rig's order
    sweep_timestamp_ns    (S,) int64
    sweep_count           (S,) int32        points of each sweep; they sum to P
    sweep_points          (P, 5) float32    as in RadarSweep
    sweep_T_world_ego     (S, 4, 4) float64
    ego_T_world_ego       (4, 4) float64
    ego_twist             (3,) float64
    tensor_{name}         (k,) float32      every stride_{name}-th value of the tensor, in C order; names as in Detector.tensors()
    stride_{name}         () int64
    boxes, scores, labels (M, 9) float32, (M,) float32, (M,) int32
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec

if TYPE_CHECKING:
    from imkd_edge.bundle import Bundle
    from imkd_edge.detector import Detector
    from imkd_edge.engines import EngineFactory
    from imkd_edge.result import Result
    from imkd_edge.sources.sample import Sample

# Of every bundle; those whose spec has history or segmentation also keep fused and segmentation.
TENSORS = ("images", "depth", "context", "camera_bev", "radar_grid", "heatmap", "box")


def make_golden(detector: Detector, sample: Sample, values: int = 8192) -> dict[str, np.ndarray]:
    """Runs the detector on a sample and returns the content of golden.npz.

    Args:
        detector: its rig becomes the sample's.
        sample: one moment of a source.
        values: how many values of each tensor to keep, about.
    """
    rig = sample.rig
    times = [sample.camera_timestamps_ns.get(camera.name, sample.timestamp_ns) for camera in rig.cameras]
    detector.set_rig(rig)
    detector.reset()  # the frame is replayed by itself
    result = detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times)
    golden: dict[str, np.ndarray] = {
        "rig": np.frombuffer(rig.to_json().encode(), np.uint8),
        "timestamp_ns": np.array(sample.timestamp_ns, np.int64),
        "camera_timestamps_ns": np.array(times, np.int64),
        **_pack_radar(rig, sample.radar, sample.timestamp_ns),
        **_pack_ego(sample.ego),
    }
    for i, camera in enumerate(rig.cameras):
        if sample.frames.get(camera.name) is not None:
            golden[f"image_{i}"] = np.ascontiguousarray(sample.frames[camera.name])
    return {**golden, **_answers(detector, result, values)}


def remake_golden(bundle: Bundle, detector: Detector, values: int = 8192) -> dict[str, np.ndarray]:
    """The frame of the bundle's golden.npz with what another form of its model, the detector's, makes of it."""
    golden, _ = _read(bundle)
    return {**golden, **_answers(detector, replay(bundle, detector), values)}


def replay(bundle: Bundle, detector: Detector) -> Result:
    """Runs the bundle's golden frame, by itself, through a detector of the same spec; the detector's rig becomes the frame's."""
    golden, rig = _read(bundle)
    detector.set_rig(rig)
    detector.reset()
    return _infer(detector, golden, rig, bundle)


def _infer(detector: Detector, golden: Mapping[str, np.ndarray], rig: SensorRig, bundle: Bundle) -> Result:
    try:
        return detector.infer(*_unpack(golden, rig))
    except Error as fault:
        if not fault.code.startswith("E02"):
            raise
        what = f"golden.npz: {fault.what} ({fault.where})"  # a caller's mistake, but the caller is the bundle
        raise Error(Code.bundle_bad_value, what, str(bundle.file("golden.npz")), "export the bundle anew") from fault


def _answers(detector: Detector, result: Result, values: int) -> dict[str, np.ndarray]:
    golden = {"boxes": result.boxes, "scores": result.scores, "labels": result.labels}
    tensors = detector.tensors()
    for name in _tensor_names(detector.spec):
        tensor = tensors[name]
        stride = -(-tensor.size // values) | 1  # odd: rows are mostly even, so every column gets its turn
        golden[f"stride_{name}"] = np.array(stride, np.int64)
        golden[f"tensor_{name}"] = tensor.ravel()[::stride].copy()
    return golden


# What TensorRT's arithmetic (TF32, FP16) may change between the exporter's machine and a GPU; our own ops nothing.
GPU_TOLERANCE = {"images": 1e-5, "radar_grid": 1e-4, "boxes": 0.2, "scores": 0.03, "labels": 0.0}


_STEPS = {"float32": 0.0, "float16": float(np.finfo(np.float16).eps)}  # from one number to the next, relative


def check_golden(
    bundle: str | os.PathLike[str] | Bundle,
    engine: str | EngineFactory = "onnxruntime",
    threads: int = 0,
    device: str = "auto",
) -> dict[str, float]:
    """Runs the bundle's golden frame and compares.

    Args:
        engine, threads, device: of the Detector.

    Returns:
        Largest absolute difference of each tensor, of boxes (m, rad, m/s) and scores; labels: how many differ. What rounding to the type
        of the engine's tensor may cost is no difference.
        Infinite where the shapes or the number of boxes differ, or where a value is NaN.

    Raises:
        Error: bundle_bad_value when golden.npz is not of the form that this module describes.
    """
    from imkd_edge.bundle import Bundle
    from imkd_edge.detector import Detector

    bundle = Bundle.load(bundle)
    golden, rig = _read(bundle)
    with Detector(bundle, rig, device, engine, threads) as detector:
        result = _infer(detector, golden, rig, bundle)
        tensors = detector.tensors()
        steps = {name: _STEPS[tensor.dtype] for name, tensor in detector.device_tensors().items()}
    differences = {
        name: _difference(
            tensors[name].ravel()[:: int(golden[f"stride_{name}"])], golden[f"tensor_{name}"], steps[name]
        )
        for name in _tensor_names(bundle.spec)
    }
    return {**differences, **_box_differences(golden, result.boxes, result.scores, result.labels)}


def golden_rig(bundle: Bundle) -> SensorRig:
    """The rig of the bundle's golden frame."""
    return _read(bundle)[1]


def _tensor_names(spec: ModelSpec) -> tuple[str, ...]:
    return TENSORS + ("fused",) * (spec.history.frames > 0) + ("segmentation",) * spec.segmentation


def _read(bundle: Bundle) -> tuple[dict[str, np.ndarray], SensorRig]:
    """golden.npz and its rig, checked; raises Error bundle_bad_value."""
    path = bundle.file("golden.npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            golden = {name: np.asarray(archive[name]) for name in archive.files}
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise Error(
            Code.bundle_bad_value, f"golden.npz cannot be read: {error}", str(path), "export the bundle anew"
        ) from error
    try:
        return golden, _checked(golden, bundle.spec)
    except (ValueError, Error) as fault:  # a UnicodeDecodeError is a ValueError
        what = f"golden.npz: {getattr(fault, 'what', fault)}"
        raise Error(Code.bundle_bad_value, what, str(path), "export the bundle anew") from fault


# Of the table above: dtype and shape; a letter is a length, the same wherever it stands.
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


def _checked(golden: Mapping[str, np.ndarray], spec: ModelSpec) -> SensorRig:
    """The rig of a golden frame that has the form and holds together; else raises ValueError, or Error of the rig."""
    names = _tensor_names(spec)
    form = {
        **_FORM,
        **{f"tensor_{name}": ("float32", (name,)) for name in names},
        **{f"stride_{name}": ("int64", ()) for name in names},
    }
    if missing := [name for name in form if name not in golden]:
        raise ValueError(f"it has no {', '.join(missing)}")
    _check_form(golden, form, {"cameras": spec.cameras})
    rig = SensorRig.from_json(golden["rig"].tobytes().decode())
    radars, counts = golden["sweep_radar"], golden["sweep_count"]
    faults = {
        f"its rig has {len(rig.cameras)} cameras": len(rig.cameras) != spec.cameras,
        f"sweep_radar is not one of the rig's {len(rig.radars)} radars": (
            (radars < 0) | (radars >= len(rig.radars))
        ).any(),
        "sweep_count does not sum to the number of points": (counts < 0).any()
        or counts.sum() != len(golden["sweep_points"]),
        **{f"stride_{name} is below 1": golden[f"stride_{name}"] < 1 for name in names},
    }
    if found := [what for what, is_so in faults.items() if is_so]:
        raise ValueError(", ".join(found))
    return rig


def _check_form(
    golden: Mapping[str, np.ndarray], form: Mapping[str, tuple[str, tuple[int | str, ...]]], known: dict[str, int]
) -> None:
    """Raises ValueError for an array of another form; the first array with an unknown length makes it known."""
    for name, (dtype, shape) in form.items():
        array = golden[name]
        known |= {
            length: found
            for length, found in zip(shape, array.shape)
            if isinstance(length, str) and length not in known
        }
        wanted = tuple(known.get(length, length) if isinstance(length, str) else length for length in shape)
        if array.shape != wanted or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {wanted}")


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


def _unpack(golden: Mapping[str, np.ndarray], rig: SensorRig) -> tuple[Any, ...]:
    """The arguments of Detector.infer."""
    frames = [golden.get(f"image_{i}") for i in range(len(rig.cameras))]
    ends = np.cumsum(golden["sweep_count"])
    points = np.split(golden["sweep_points"], ends[:-1]) if len(ends) else []
    sweeps = [
        RadarSweep(rig.radars[int(radar)].name, cloud, int(time), _known(pose))
        for radar, cloud, time, pose in zip(
            golden["sweep_radar"], points, golden["sweep_timestamp_ns"], golden["sweep_T_world_ego"], strict=True
        )
    ]
    ego = Ego(_known(golden["ego_T_world_ego"]), _known(golden["ego_twist"]))
    return frames, sweeps, ego, int(golden["timestamp_ns"]), golden["camera_timestamps_ns"].tolist()


def _known(values: np.ndarray) -> np.ndarray | None:
    return None if np.isnan(values).any() else values


def _difference(found: np.ndarray, expected: np.ndarray, step: float = 0.0) -> float:
    """The largest absolute difference beyond a relative step."""
    if found.shape != expected.shape:
        return float("inf")
    wanted = expected.astype(np.float64)
    largest = float((np.abs(found - wanted) - step * np.abs(wanted)).max(initial=0.0))
    return largest if largest == largest else float("inf")


def _box_differences(
    golden: Mapping[str, np.ndarray], boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    expected = golden["boxes"].astype(np.float64)
    if boxes.shape != expected.shape:
        return {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}
    turned = boxes.astype(np.float64)
    turned[:, 6] = (
        expected[:, 6] + (turned[:, 6] - expected[:, 6] + np.pi) % (2 * np.pi) - np.pi
    )  # a yaw of -pi is one of pi
    return {
        "boxes": _difference(turned, expected),
        "scores": _difference(scores, golden["scores"]),
        "labels": float(np.count_nonzero(labels != golden["labels"])),
    }
