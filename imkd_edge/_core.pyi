"""Types of the C++ core."""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from os import PathLike
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imkd_edge.frames import Ego, RadarSweep

_Item = TypeVar("_Item")
_Vec3 = tuple[float, float, float]

BOX_CHANNELS: int
BOX_SLICES: dict[str, slice]  # offset, above_ground, log_size, heading, velocity
MAX_THREADS: int
MAX_INTENSITY: float
MAX_VELOCITY: float
MIN_RANGE: float
RIGID_TOLERANCE: float
SCORES: tuple[float, float]  # least and largest score threshold

def __getattr__(name: str) -> Any: ...
def dlpack(address: int, shape: Sequence[int], dtype: str, gpu: int, owner: object, versioned: bool) -> object: ...

class Code(IntEnum):
    spec_syntax = 101
    spec_unknown_key = 102
    spec_missing_key = 103
    spec_bad_value = 104
    spec_version = 105
    frame_bad_dtype = 201
    frame_bad_shape = 202
    frame_unknown_sensor = 203
    frame_count = 204
    frame_bad_time = 205
    rig_syntax = 211
    rig_unknown_key = 212
    rig_missing_key = 213
    rig_bad_value = 214
    rig_not_rigid = 215
    rig_duplicate_name = 216
    rig_empty = 217
    rig_mismatch = 218
    source_unknown = 301
    source_missing_file = 302
    source_bad_image = 303
    source_bad_points = 304
    source_bad_label = 305
    source_bad_calibration = 306
    source_unknown_frame = 307
    source_syntax = 308
    source_unknown_key = 309
    source_missing_key = 310
    source_bad_value = 311
    source_bad_path = 312
    source_duplicate = 313
    source_bad_time = 314
    source_bad_split = 315
    bundle_missing = 401
    bundle_manifest = 402
    bundle_unknown_key = 403
    bundle_missing_key = 404
    bundle_version = 405
    bundle_missing_file = 406
    bundle_checksum = 407
    bundle_bad_path = 408
    bundle_tensor_mismatch = 409
    bundle_bad_value = 410
    bundle_unsigned = 411
    signature_malformed = 412
    signature_unknown_key = 413
    signature_wrong = 414
    bundle_rolled_back = 415
    trust_bad_value = 416
    engine_unavailable = 501
    engine_load = 502
    engine_bind = 503
    engine_run = 504
    engine_stale = 505
    detector_busy = 506
    forked = 507
    device_unavailable = 511
    device_failed = 512
    train_config = 601
    train_checkpoint = 602
    train_diverged = 603
    train_no_data = 604
    calibration_few_frames = 611
    calibration_no_radar = 612
    calibration_other_rig = 613
    quantized_already = 614
    missing_extra = 701
    write_failed = 702
    abi_mismatch = 703
    missing_library = 704

class Error(Exception):
    code: str
    what: str
    where: str
    fix: str
    def __init__(self, code: Code | int | str, what: str, where: str = "", fix: str = "") -> None: ...

class BoxChannel(IntEnum):
    offset_x = 0
    offset_y = 1
    above_ground = 2
    log_length = 3
    log_width = 4
    log_height = 5
    sin_yaw = 6
    cos_yaw = 7
    velocity_x = 8
    velocity_y = 9

class _List(Generic[_Item]):  # of fixed length, its items changed in place; for another length assign another list
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> _Item: ...
    def __setitem__(self, index: int, value: _Item) -> None: ...
    def __iter__(self) -> Iterator[_Item]: ...

_Items = Sequence[_Item] | _List[_Item]  # what such a list is assigned from

class ImageSpec:
    width: int
    height: int
    stride: int
    anchor: float
    mean: _Vec3
    std: _Vec3
    def __init__(
        self,
        *,
        width: int = ...,
        height: int = ...,
        stride: int = ...,
        anchor: float = ...,
        mean: ArrayLike = ...,
        std: ArrayLike = ...,
    ) -> None: ...
    def feature_width(self) -> int: ...
    def feature_height(self) -> int: ...
    def check(self) -> None: ...

class DepthSpec:
    min: float
    max: float
    bins: int
    spacing: str
    def __init__(self, *, min: float = ..., max: float = ..., bins: int = ..., spacing: str = ...) -> None: ...
    def edge(self, i: float) -> float: ...

class GridSpec:
    x_min: float
    x_max: float
    y_min: float
    y_max: float
    z_min: float
    z_max: float
    cell: float
    def __init__(
        self,
        *,
        x_min: float = ...,
        x_max: float = ...,
        y_min: float = ...,
        y_max: float = ...,
        z_min: float = ...,
        z_max: float = ...,
        cell: float = ...,
    ) -> None: ...
    def width(self) -> int: ...
    def height(self) -> int: ...
    def check(self) -> None: ...

class RadarFeature:
    statistic: str
    offset: float
    scale: float
    def __init__(self, *, statistic: str = ..., offset: float = ..., scale: float = ...) -> None: ...

class RadarSpec:
    cell: float
    max_points: int
    max_age: float
    @property
    def features(self) -> _List[RadarFeature]: ...
    @features.setter
    def features(self, value: _Items[RadarFeature]) -> None: ...
    def __init__(
        self, *, cell: float = ..., max_points: int = ..., max_age: float = ..., features: _Items[RadarFeature] = ...
    ) -> None: ...

class ClassSpec:
    name: str
    group: int
    nms_radius: float
    exclusive: bool
    @property
    def min_size(self) -> _Vec3 | None: ...
    @min_size.setter
    def min_size(self, value: ArrayLike | None) -> None: ...
    @property
    def max_size(self) -> _Vec3 | None: ...
    @max_size.setter
    def max_size(self, value: ArrayLike | None) -> None: ...
    def __init__(
        self,
        *,
        name: str = ...,
        group: int = ...,
        nms_radius: float = ...,
        exclusive: bool = ...,
        min_size: ArrayLike | None = ...,
        max_size: ArrayLike | None = ...,
    ) -> None: ...

class HeadSpec:
    score_threshold: float
    max_candidates: int
    max_detections: int
    @property
    def classes(self) -> _List[ClassSpec]: ...
    @classes.setter
    def classes(self, value: _Items[ClassSpec]) -> None: ...
    def __init__(
        self,
        *,
        classes: _Items[ClassSpec] = ...,
        score_threshold: float = ...,
        max_candidates: int = ...,
        max_detections: int = ...,
    ) -> None: ...
    def groups(self) -> int: ...

class HistorySpec:
    frames: int
    interval: float
    channels: int
    def __init__(self, *, frames: int = ..., interval: float = ..., channels: int = ...) -> None: ...

class ModelSpec:
    name: str
    cameras: int
    image: ImageSpec
    depth: DepthSpec
    context_channels: int
    grid: GridSpec
    radar: RadarSpec
    head: HeadSpec
    history: HistorySpec
    segmentation: bool
    @property
    def legacy_plane(self) -> _Vec3: ...
    @legacy_plane.setter
    def legacy_plane(self, value: ArrayLike) -> None: ...
    def __init__(
        self,
        *,
        name: str = ...,
        cameras: int = ...,
        image: ImageSpec = ...,
        depth: DepthSpec = ...,
        context_channels: int = ...,
        grid: GridSpec = ...,
        radar: RadarSpec = ...,
        head: HeadSpec = ...,
        history: HistorySpec = ...,
        segmentation: bool = ...,
    ) -> None: ...
    def radar_width(self) -> int: ...
    def radar_height(self) -> int: ...
    def check(self) -> None: ...
    def to_json(self) -> str: ...
    @staticmethod
    def from_json(text: str) -> ModelSpec: ...

class CameraCalibration:
    name: str
    width: int
    height: int
    distortion: str
    coefficients: Sequence[float]
    @property
    def K(self) -> NDArray[np.float64]: ...
    @K.setter
    def K(self, value: ArrayLike) -> None: ...
    @property
    def T_ego_camera(self) -> NDArray[np.float64]: ...
    @T_ego_camera.setter
    def T_ego_camera(self, value: ArrayLike) -> None: ...
    def __init__(
        self,
        *,
        name: str,
        width: int,
        height: int,
        K: ArrayLike,
        T_ego_camera: ArrayLike,
        distortion: str = "none",
        coefficients: Sequence[float] = (),
    ) -> None: ...

class RadarCalibration:
    name: str
    velocity: str
    period: float
    @property
    def T_ego_radar(self) -> NDArray[np.float64]: ...
    @T_ego_radar.setter
    def T_ego_radar(self, value: ArrayLike) -> None: ...
    def __init__(
        self, *, name: str, T_ego_radar: ArrayLike, velocity: str = "compensated", period: float = 0.0
    ) -> None: ...

def orthonormalised(T: ArrayLike, where: str = "T") -> NDArray[np.float64]: ...

class SensorRig:
    @property
    def cameras(self) -> _List[CameraCalibration]: ...
    @cameras.setter
    def cameras(self, value: _Items[CameraCalibration]) -> None: ...
    @property
    def radars(self) -> _List[RadarCalibration]: ...
    @radars.setter
    def radars(self, value: _Items[RadarCalibration]) -> None: ...
    @property
    def ground_plane(self) -> _Vec3 | None: ...
    @ground_plane.setter
    def ground_plane(self, value: ArrayLike | None) -> None: ...
    def __init__(
        self,
        *,
        cameras: _Items[CameraCalibration] = (),
        radars: _Items[RadarCalibration] = (),
        ground_plane: ArrayLike | None = None,
    ) -> None: ...
    def camera_index(self, name: str) -> int: ...
    def radar_index(self, name: str) -> int: ...
    def to_json(self) -> str: ...
    @staticmethod
    def from_json(text: str) -> SensorRig: ...
    @staticmethod
    def load(path: str | PathLike[str]) -> SensorRig: ...
    def check(self) -> None: ...
    def hash(self) -> str: ...

class CameraCoverage:
    @property
    def name(self) -> str: ...
    @property
    def in_grid(self) -> float: ...
    @property
    def across(self) -> float: ...
    @property
    def hint(self) -> str: ...
    @property
    def usable(self) -> bool: ...

def camera_coverage(spec: ModelSpec, rig: SensorRig) -> list[CameraCoverage]: ...

class Contract:
    @staticmethod
    def from_json(text: str) -> Contract: ...
    def to_json(self) -> str: ...
    def check(self, spec: ModelSpec) -> None: ...

def rig_warnings(spec: ModelSpec, rig: SensorRig, contract: Contract | None = None) -> list[tuple[str, str]]: ...
def horizontal_view(camera: CameraCalibration) -> float: ...
def mounting_height(T_ego_sensor: ArrayLike, ground: _Vec3) -> float: ...

class ImageCrop:
    @property
    def scale(self) -> float: ...
    @property
    def left(self) -> float: ...
    @property
    def top(self) -> float: ...
    def __init__(self, scale: float = 1.0, left: float = 0.0, top: float = 0.0) -> None: ...

class LiftTable:
    @property
    def cells(self) -> NDArray[np.int32]: ...
    @property
    def starts(self) -> NDArray[np.int32]: ...
    @property
    def points(self) -> NDArray[np.int32]: ...
    @property
    def pixels(self) -> NDArray[np.int32]: ...

class RadarStats:
    @property
    def used(self) -> int: ...
    @property
    def invalid(self) -> int: ...
    @property
    def outside(self) -> int: ...
    @property
    def overflow(self) -> int: ...

class EgoMotion:
    @property
    def source(self) -> str: ...
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def twist(self) -> NDArray[np.float64] | None: ...
    @property
    def T_world_ego(self) -> NDArray[np.float64] | None: ...
    def __init__(
        self,
        rig: SensorRig,
        sweeps: _Sweeps,
        timestamp_ns: int,
        ego: Ego | None = None,
        camera_timestamps_ns: Any = None,
        camera_T_world_ego: Any = None,
        max_age: float = ...,
    ) -> None: ...
    def T_ref_at(self, timestamp_ns: int) -> NDArray[np.float64]: ...
    def exposure_rig(self, rig: SensorRig, grid: GridSpec | None = None) -> SensorRig: ...
    def since(self, then: EgoMotion) -> NDArray[np.float64] | None: ...

class EgoSpeed:
    @property
    def valid(self) -> bool: ...
    @property
    def speed(self) -> float: ...
    @property
    def residual(self) -> float: ...
    @property
    def inliers(self) -> int: ...

_Sweeps = Sequence[RadarSweep] | dict[str, NDArray[np.float32]]

def image_crop(spec: ImageSpec, width: int, height: int) -> ImageCrop: ...
def preprocess_images(
    images: Sequence[NDArray[np.uint8] | None], crops: Sequence[ImageCrop], image_spec: ImageSpec
) -> NDArray[np.float32]: ...
def quantize_images(
    images: Sequence[NDArray[np.uint8] | None], crops: Sequence[ImageCrop], image_spec: ImageSpec, scale: float
) -> NDArray[np.int8]: ...
def image_rays(
    image_spec: ImageSpec, camera: CameraCalibration, crop: ImageCrop | None = None
) -> NDArray[np.float64]: ...
def project(camera: CameraCalibration, points: ArrayLike) -> NDArray[np.float64]: ...
def pixel_rays(camera: CameraCalibration, pixels: ArrayLike) -> NDArray[np.float64]: ...
def usable_cameras(
    spec: ModelSpec,
    rig: SensorRig,
    timestamp_ns: int,
    camera_timestamps_ns: Any = None,
) -> list[bool]: ...
def lift_table(spec: ModelSpec, rig: SensorRig, crops: Sequence[ImageCrop] | None = None) -> LiftTable: ...
def lift(
    spec: ModelSpec, table: LiftTable, depth: NDArray[np.float32], context: NDArray[np.float32]
) -> NDArray[np.float32]: ...
def voxelize_radar(
    spec: ModelSpec,
    rig: SensorRig,
    sweeps: _Sweeps,
    timestamp_ns: int,
    ego: Ego | None = None,
    motion: EgoMotion | None = None,
) -> tuple[NDArray[np.float32], RadarStats]: ...
def estimate_ego_speed(rig: SensorRig, sweeps: _Sweeps) -> EgoSpeed: ...
def ground_of(spec: ModelSpec, rig: SensorRig) -> _Vec3: ...
def warp_bev(
    grid: GridSpec,
    features: NDArray[np.float32],
    T_then_now: NDArray[np.float64],
    ground_plane: ArrayLike = (0.0, 0.0, 0.0),
) -> NDArray[np.float32]: ...
def decode(
    spec: ModelSpec,
    heatmap: NDArray[np.float32],
    box: NDArray[np.float32],
    ground_plane: ArrayLike = (0.0, 0.0, 0.0),
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]: ...
def cell_index(value: float, min: float, cell: float, count: int) -> int: ...
def set_threads(threads: int) -> None: ...
def require_cuda() -> int: ...
def load_for_device(device: str, engine: str, load: Callable[[str], None]) -> tuple[str, str]: ...
