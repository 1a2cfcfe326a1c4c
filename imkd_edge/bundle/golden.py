"""The golden drive of a bundle: raw data of consecutive moments, and the model's outputs on the exporter's machine.

golden.npz holds these arrays, with F frames, in one frame S sweeps of P points in total; NaN is an unknown pose or
motion. Each array of frame f = 0, 1, ... is named "f/NAME"; one that all frames share is named NAME:

    frames                () int64          F
    image_step            () int64          each pixel of an image stands for step x step pixels of the camera
    stride_{name}         () int64
    rig                   (bytes,) uint8    UTF-8 JSON of the SensorRig
    timestamp_ns          () int64
    image_{i}             (h, w, 3) uint8   of camera i in the rig's order; left out for an absent camera
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
    boxes, scores, labels (M, 9) float32, (M,) float32, (M,) int32

Older bundles have neither `frames` nor `image_step`: theirs is a single frame, whose names have no prefix.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imkd_edge.bundle.files import read_npz
from imkd_edge.bundle.format import Bundle
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig, orthonormalised
from imkd_edge.spec import ModelSpec

if TYPE_CHECKING:
    from imkd_edge.sources.base import Sample

# Of every bundle; with history in the spec also fused, with segmentation also segmentation.
TENSORS = ("images", "depth", "context", "camera_bev", "radar_grid", "heatmap", "box")
PIXELS = 150_000  # of all images of a drive, which are most of a small bundle
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Frame:
    """One frame of a golden drive."""

    rig: SensorRig
    arrays: Arrays  # of the table above, without the prefix

    def arguments(self) -> tuple[Any, ...]:
        """The frame as the arguments of Detector.infer."""
        arrays, rig = self.arrays, self.rig
        frames = [self._image(i, camera.width, camera.height) for i, camera in enumerate(rig.cameras)]
        ends = np.cumsum(arrays["sweep_count"])
        points = np.split(arrays["sweep_points"], ends[:-1]) if len(ends) else []
        sweeps = [
            RadarSweep(rig.radars[int(radar)].name, cloud, int(time), _none_if_nan(pose))
            for radar, cloud, time, pose in zip(
                arrays["sweep_radar"], points, arrays["sweep_timestamp_ns"], arrays["sweep_T_world_ego"], strict=True
            )
        ]
        ego = Ego(_none_if_nan(arrays["ego_T_world_ego"]), _none_if_nan(arrays["ego_twist"]))
        times, poses = arrays["camera_timestamps_ns"].tolist(), arrays.get("camera_T_world_ego")
        camera_poses = None if poses is None else [_none_if_nan(pose) for pose in poses]
        return frames, sweeps, ego, int(arrays["timestamp_ns"]), times, camera_poses

    def _image(self, index: int, width: int, height: int) -> np.ndarray | None:
        """The image of a camera, each pixel as a block; one of another size as it is."""
        image, step = self.arrays.get(f"image_{index}"), int(self.arrays.get("image_step", 1))
        if image is None or step == 1 or image.shape != (-(-height // step), -(-width // step), 3):
            return image
        return image.repeat(step, 0).repeat(step, 1)[:height, :width]

    def with_cameras(self, cameras: int) -> Frame:
        """The frame without the cameras beyond the first `cameras`."""
        rig = SensorRig.from_json(self.rig.to_json())
        rig.cameras = list(rig.cameras)[:cameras]
        arrays = {name: array for name, array in self.arrays.items() if not _image_beyond(name, cameras)}
        arrays["rig"] = _pack_rig(rig)
        for name in ("camera_timestamps_ns", "camera_T_world_ego"):
            if name in arrays:
                arrays[name] = arrays[name][:cameras]
        return Frame(rig, arrays)


def pack_drive(samples: Sequence[Sample]) -> list[Frame]:
    """The sensor data of consecutive moments; the images keep every n-th pixel, so that they have at most `PIXELS`."""
    sizes = [image.shape for sample in samples for image in sample.frames.values() if image is not None]
    step = 1
    while sum(-(-height // step) * -(-width // step) for height, width, _ in sizes) > PIXELS:
        step += 1
    return [_pack_frame(sample, step) for sample in samples]


def golden_arrays(frames: Sequence[Frame]) -> Arrays:
    """The content of golden.npz: an array that is equal in all frames stands there once."""
    first = frames[0].arrays
    shared = {name for name in first if all(_equal(frame.arrays.get(name), first[name]) for frame in frames)}
    arrays = {f"{i}/{k}": a for i, frame in enumerate(frames) for k, a in frame.arrays.items() if k not in shared}
    return {**arrays, **{name: first[name] for name in shared}, "frames": np.array(len(frames), np.int64)}


def golden_rig(bundle: Bundle) -> SensorRig:
    """The rig of the bundle's golden drive; raises Error bundle_bad_value for a broken golden.npz."""
    return read_golden(bundle)[0].rig


def tensor_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the tensors in the golden drive of a model."""
    return TENSORS + ("fused",) * (spec.history.frames > 0) + ("segmentation",) * spec.segmentation


def read_golden(bundle: Bundle) -> list[Frame]:
    """The frames of golden.npz, in order.

    Raises: Error bundle_bad_value where they differ from the table above, bundle_checksum where the file was changed.
    """
    content = bundle.read("golden.npz")
    try:
        arrays = read_npz(io.BytesIO(content))
        return [_read_frame(frame, where, bundle.spec) for where, frame in _split(arrays)]
    except (ValueError, Error) as error:  # a UnicodeDecodeError is a ValueError
        raise bad_golden(bundle, str(getattr(error, "what", error))) from error


def bad_golden(bundle: Bundle, problem: str) -> Error:
    """The Error for a golden drive that cannot be used."""
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
_OPTIONAL: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "image_step": ("int64", ()),
    "camera_T_world_ego": ("float64", ("cameras", 4, 4)),
}


def _split(arrays: Arrays) -> list[tuple[str, Arrays]]:
    """The arrays of each frame, and what a message calls the frame; raises ValueError for a bad number of frames."""
    if "frames" not in arrays:
        return [("", arrays)]
    _check_form(arrays, {"frames": ("int64", ())}, {})
    count, largest = int(arrays["frames"]), 1 + max((_index(name) for name in arrays), default=0)
    if not 1 <= count <= len(arrays) or count != largest:
        raise ValueError(f"frames is {count}, and the arrays are of {largest} frames")
    shared = {name: array for name, array in arrays.items() if "/" not in name}
    own: list[Arrays] = [{} for _ in range(count)]
    for name, array in arrays.items():
        if "/" in name:
            own[_index(name)][name.partition("/")[2]] = array
    return [(f"frame {i}: ", {**shared, **frame}) for i, frame in enumerate(own)]


def _index(name: str) -> int:
    """The frame of an array, 0 of one that all share; raises ValueError for a prefix that is no number."""
    index, slash, _ = name.partition("/")
    if not slash:
        return 0
    if not index.isdecimal():
        raise ValueError(f"the array {name} belongs to no frame")
    return int(index)


def _read_frame(arrays: Arrays, where: str, spec: ModelSpec) -> Frame:
    """Raises ValueError for missing or contradicting arrays, Error for a bad rig."""
    try:
        return Frame(_check(arrays, spec), arrays)
    except Error as error:
        raise ValueError(f"{where}{error.what}") from error
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _check(golden: Arrays, spec: ModelSpec) -> SensorRig:
    """The rig of a frame; raises ValueError for missing or contradicting arrays, Error for a bad rig."""
    names = tensor_names(spec)
    form = {
        **_FORM,
        **{f"tensor_{name}": ("float32", (name,)) for name in names},
        **{f"stride_{name}": ("int64", ()) for name in names},
        **{name: form for name, form in _OPTIONAL.items() if name in golden},
    }
    if missing := [name for name in form if name not in golden]:
        raise ValueError(f"it has no {', '.join(missing)}")
    _check_form(golden, form, {})
    rig = SensorRig.from_json(golden["rig"].tobytes().decode())
    times = golden["camera_timestamps_ns"]
    radars, counts, points = golden["sweep_radar"], golden["sweep_count"], golden["sweep_points"]
    unknown_radar = (radars < 0) | (radars >= len(rig.radars))
    steps = [name for name in form if name.startswith("stride_") or name == "image_step"]
    faults = {
        f"its rig has {len(rig.cameras)} cameras, the model {spec.cameras}": len(rig.cameras) > spec.cameras,
        f"{len(times)} camera_timestamps_ns for {len(rig.cameras)} cameras": len(times) != len(rig.cameras),
        f"sweep_radar is not one of the rig's {len(rig.radars)} radars": unknown_radar.any(),
        "sweep_count does not sum to the number of points": (counts < 0).any() or counts.sum() != len(points),
        **{f"{name} is below 1": golden[name] < 1 for name in steps},
    }
    if problems := [problem for problem, is_wrong in faults.items() if is_wrong]:
        raise ValueError(", ".join(problems))
    _check_measured(golden, rig)
    return rig


def _check_measured(golden: Arrays, rig: SensorRig) -> None:
    """What the Detector takes for a sensor's fault is damage here; raises as `_check`."""
    step = int(golden.get("image_step", 1))
    for i, camera in enumerate(rig.cameras):
        image, whole = golden.get(f"image_{i}"), (camera.height, camera.width, 3)
        if image is not None and image.shape not in (whole, (-(-whole[0] // step), -(-whole[1] // step), 3)):
            size = "x".join(map(str, image.shape[1::-1]))
            raise ValueError(
                f"image is {size}, of camera {camera.name}, {camera.width}x{camera.height} in steps of {step}"
            )
    for name in ("ego_T_world_ego", "sweep_T_world_ego", "camera_T_world_ego"):
        for pose in golden.get(name, np.zeros((0, 4, 4))).reshape(-1, 4, 4):
            if _none_if_nan(pose) is not None:
                _check_pose(pose, name)


def _check_pose(pose: np.ndarray, name: str) -> None:
    try:
        orthonormalised(pose, name)
    except Error as error:
        raise ValueError(f"{name}: {error.what}") from error


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


def _pack_frame(sample: Sample, step: int) -> Frame:
    rig = sample.rig
    times = [sample.camera_timestamps_ns.get(camera.name, sample.timestamp_ns) for camera in rig.cameras]
    images = [sample.frames.get(camera.name) for camera in rig.cameras]
    arrays = {
        "rig": _pack_rig(rig),
        "timestamp_ns": np.array(sample.timestamp_ns, np.int64),
        "camera_timestamps_ns": np.array(times, np.int64),
        "image_step": np.array(step, np.int64),
        **_pack_radar(rig, sample.radar, sample.timestamp_ns),
        **_pack_ego(sample.ego),
        **_pack_camera_poses(sample),
        **{f"image_{i}": image[::step, ::step].copy() for i, image in enumerate(images) if image is not None},
    }
    return Frame(rig, arrays)


def _pack_rig(rig: SensorRig) -> np.ndarray:
    return np.frombuffer(rig.to_json().encode(), np.uint8)


def _pack_radar(rig: SensorRig, sweeps: list[RadarSweep], reference_ns: int) -> Arrays:
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


def _pack_ego(ego: Ego | None) -> Arrays:
    ego = ego or Ego()
    pose = np.full((4, 4), np.nan) if ego.T_world_ego is None else np.asarray(ego.T_world_ego, np.float64)
    twist = np.full(3, np.nan) if ego.twist is None else np.asarray(ego.twist, np.float64)
    return {"ego_T_world_ego": pose, "ego_twist": twist}


def _pack_camera_poses(sample: Sample) -> Arrays:
    """Nothing where no camera has a pose."""
    if not sample.camera_T_world_ego:
        return {}
    unknown = np.full((4, 4), np.nan)
    poses = [sample.camera_T_world_ego.get(camera.name, unknown) for camera in sample.rig.cameras]
    return {"camera_T_world_ego": np.array(poses, np.float64)}


def _image_beyond(name: str, cameras: int) -> bool:
    index = name.removeprefix("image_")
    return index != name and index.isdecimal() and int(index) >= cameras


def _equal(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _none_if_nan(values: np.ndarray) -> np.ndarray | None:
    return None if np.isnan(values).any() else values
