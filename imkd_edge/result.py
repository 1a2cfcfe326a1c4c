"""Result: boxes in the ego frame, the health of the sensors, and the time of each stage."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego

if TYPE_CHECKING:
    from imkd_edge.sources.base import Sample
    from imkd_edge.spec import ModelSpec
    from imkd_edge.tracking import Track


@dataclass(frozen=True)
class Detection:
    """One object, in the ego frame at the frame's reference time."""

    label: str
    score: float  # 0..1
    center: np.ndarray  # (3,) float32 x, y, z m
    size: np.ndarray  # (3,) float32 length, width, height m
    yaw: float  # rad about +z from +x, in [-pi, pi)
    velocity: np.ndarray  # (2,) float32 vx, vy m/s; NaN: the bundle's velocity was not trained

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "label": self.label,
            "score": _short(self.score),
            "center": [_short(value) for value in self.center],
            "size": [_short(value) for value in self.size],
            "yaw": _short(self.yaw),
            "velocity": None if np.isnan(self.velocity).any() else [_short(value) for value in self.velocity],
        }


@dataclass(frozen=True)
class Warning:
    """Something that is unlike the bundle's contract or hurts the boxes; `imkd/result.hpp` lists the codes."""

    code: str  # "W0101"
    text: str


@dataclass(frozen=True)
class Health:
    """State of the sensors in one frame; their faults are reported here and never raised."""

    mode: str  # full, partial, camera_only, radar_only, blind
    sensors: dict[str, str]  # name -> ok, late, stale, invalid, missing, frozen, unusable; from a Monitor also lost
    radar_points: int  # in the grid
    radar_points_invalid: int  # discarded: not finite, nearer than 0.1 m, or beyond 300 dB of intensity or 300 m/s
    radar_points_outside: int  # outside the grid
    radar_points_overflow: int  # beyond the spec's max_points
    boxes_invalid: int  # discarded: the network's output is not finite; above 0 with the warning W0152
    ego_motion: str  # source of the motion within the frame: poses, twist, estimated (by radar) or none
    ego_speed_estimated: bool  # from static radar returns, because there is no odometry
    ego_speed: float  # m/s, forward; nan: unknown
    ego_speed_residual: float  # m/s, median absolute residual of the inliers
    past_frames: int  # past fused maps that the network read, at most the spec's history.frames
    maps_invalid: int = 0  # 1: this frame's fused map has a non-finite value, and was not kept for later frames
    # Those that hold in this frame, by code; an unchanged state keeps the text of the frame where it began.
    warnings: tuple[Warning, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        values = {k: _short_or_null(value) if isinstance(value, float) else value for k, value in vars(self).items()}
        return {**values, "warnings": [vars(warning) for warning in self.warnings]}


def health_of(fields: dict[str, Any]) -> Health:
    """Health from the core's dict, whose warnings are (code, text)."""
    speed = math.nan if math.isnan(fields["ego_speed"]) else fields["ego_speed"]  # one NaN: equal states compare equal
    return Health(**{**fields, "ego_speed": speed, "warnings": tuple(Warning(*pair) for pair in fields["warnings"])})


@dataclass(frozen=True)
class Origin:
    """What `Result.plot` needs beside the boxes. The sample is not kept alive: results of a long drive stay small."""

    spec: ModelSpec
    bundle: str  # name, for the title
    sample: weakref.ref[Sample] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy in another process has no sample


@dataclass(frozen=True)
class Result:
    """The detections of one frame; the arrays belong to this object."""

    timestamp_ns: int
    boxes: np.ndarray  # (M, 9) float32 x, y, z, length, width, height m, yaw rad, vx, vy m/s or NaN; best first
    scores: np.ndarray  # (M,) float32
    labels: np.ndarray  # (M,) int32, index into class_names
    class_names: tuple[str, ...]
    health: Health
    timings_us: dict[str, float]  # stage -> µs
    total_us: float
    # (H, W) float32 probability of a vehicle in each BEV cell, for models that segment.
    segmentation: np.ndarray | None = None
    # With Detector(debug=True): the gates i_cam and i_rad, (H, W) float32 0..1.
    debug: dict[str, np.ndarray] = field(default_factory=dict)
    replayed: bool = False  # on the GPU, as one CUDA graph; `Detector.why_not_replayed` says why not
    # Pose and twist of the vehicle at timestamp_ns, where they are known: what Tracker.update needs.
    ego: Ego | None = None
    # With Detector.stream(track=True), imkd-edge run and Tracker.follow: all tracks of the frame, by id.
    tracks: list[Track] | None = None
    frame: str = ""  # name of the sample it was made from
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __bool__(self) -> bool:
        return True  # a result without boxes is a result

    @property
    def names(self) -> list[str]:
        """The boxes' class names."""
        return [self.class_names[label] for label in self.labels]

    @property
    def track_of(self) -> dict[int, Track]:
        """Index of a box -> its track; empty without tracks."""
        return {track.detection: track for track in self.tracks or [] if track.detection is not None}

    @property
    def confirmed_tracks(self) -> list[Track]:
        """The tracks that were confirmed, also where they coast, by id; empty without tracks."""
        return [track for track in self.tracks or [] if track.state != "tentative"]

    @property
    def detections(self) -> list[Detection]:
        """The boxes one by one, best first."""
        return [
            Detection(name, float(score), box[0:3], box[3:6], float(box[6]), box[7:9])
            for name, score, box in zip(self.names, self.scores, self.boxes, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as `infer --json` prints it; "frame" and "tracks" only where it has them."""
        timings = {stage: round(time, 1) for stage, time in {**self.timings_us, "total": self.total_us}.items()}
        return {
            **({"frame": self.frame} if self.frame else {}),
            "timestamp_ns": self.timestamp_ns,
            "detections": [detection.to_dict() for detection in self.detections],
            **({} if self.tracks is None else {"tracks": [track.to_dict() for track in self.tracks]}),
            "health": self.health.to_dict(),
            "timings_us": timings,
        }

    def plot(self, sample: Sample | None = None, theme: str = "dark") -> np.ndarray:
        """The boxes in the camera images and from above.

        Args:
            sample: the sensor data; None: what `Detector.stream` or `infer_sample` read, while it is in use.
            theme: "dark" or "light".

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            Error: spec_bad_value where the sensor data is gone, or was never a sample, and for another theme.
        """
        from imkd_edge.view import draw

        if sample is None and self.origin is not None and self.origin.sample is not None:
            sample = self.origin.sample()
        if sample is None or self.origin is None:
            fix = "call it before the next frame is taken, or give it the frame's sample: result.plot(sample)"
            raise Error(Code.spec_bad_value, "the frame's sensor data is no longer in memory", "Result.plot", fix)
        return draw.overview(sample, self, self.origin.spec, self.origin.bundle, theme)

    def save(self, path: str | Path, sample: Sample | None = None, theme: str = "dark") -> None:
        """Writes the picture of `plot` (.png) or the JSON form (.json), completely or not at all.

        Raises:
            Error: spec_bad_value for another ending and as `plot`, write_failed.
        """
        from imkd_edge.view.save import save_result

        save_result(Path(path), self, sample, theme)


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor of the last frame without a copy.

    `torch.as_tensor(t, device="cuda")`, `cupy.asarray` and `numpy.asarray` take it, and so does every `from_dlpack`:
    read-only where the reader knows DLPack 1.0. The memory stays valid while this object or an array made from it
    lives, even after the detector is closed.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str  # "float32" or "float16"
    on_cuda: bool
    stream: int = 0  # the CUDA stream that writes it; 0: none
    owner: Any = field(default=None, repr=False, compare=False)  # the core, which owns the memory
    gpu: int = -1  # its number; -1: the host's memory

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device: (2, number of the GPU), or (1, 0) for the host."""
        return (2, self.gpu) if self.on_cuda else (1, 0)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A DLPack capsule of the memory itself.

        Args:
            stream: the reader's; it need not wait, as infer returns when the tensors are written.
            max_version: the newest version that the reader knows; below (1, 0) or None: a capsule without a version.
            dl_device, copy: another device than the tensor's, or True, is refused: nothing is copied.

        Raises:
            BufferError: for a copy, or another device.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(
                f"a DeviceTensor on {self.__dlpack_device__()} is handed out in place: copy it afterwards"
            )
        versioned = max_version is not None and max_version[0] >= 1
        return _core.dlpack(self.address, self.shape, self.dtype, self.gpu, self.owner, versioned)

    def __getattr__(self, name: str) -> dict[str, Any]:
        """Exactly one array interface: CUDA's for device memory, NumPy's for host memory."""
        if name == ("__cuda_array_interface__" if self.on_cuda else "__array_interface__"):
            interface = {
                "shape": self.shape,
                "typestr": np.dtype(self.dtype).str,
                "data": (self.address, False),
                "strides": None,
                "version": 3,
            }
            return {**interface, "stream": self.stream} if self.stream else interface
        raise AttributeError(name)


def _short_or_null(value: float) -> float | None:
    """Null for a number that is unknown: JSON has neither NaN nor infinity."""
    return _short(value) if np.isfinite(value) else None


def _short(value: float) -> float:
    """Rounds to four decimals: a tenth of a millimetre."""
    return round(float(value), 4)
