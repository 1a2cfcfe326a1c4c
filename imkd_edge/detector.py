"""Detector: frames in, boxes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle.format import Bundle
from imkd_edge.bundle.golden import golden_rig
from imkd_edge.engines.load import EngineFactory, load_engines
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Detection, Health, Result
from imkd_edge.rig import SensorRig
from imkd_edge.spec import SCORES, ModelSpec

if TYPE_CHECKING:
    from imkd_edge.sources.base import Sample

__all__ = ["Detection", "Detector", "DeviceTensor", "Health", "Result"]

PathLike = str | os.PathLike[str]
Image = Any  # (H, W, 3) uint8 on the host or the GPU, or NV12 on the host as (Y, UV) or (Y, UV, matrix)
Frames = Mapping[str, Image | None] | Sequence[Image | None]
Radar = Mapping[str, np.ndarray | None] | Sequence[RadarSweep]
Times = Mapping[str, int] | Sequence[int]


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor of the last frame, not copied: for `torch.as_tensor(t, device="cuda")`, `cupy.asarray` or `numpy.asarray`.

    Its memory lives as long as it, and as long as what those made of it, closed detector or not."""

    address: int
    shape: tuple[int, ...]
    dtype: str  # "float32" or "float16"
    on_cuda: bool
    owner: Any = field(default=None, repr=False, compare=False)  # the core, whose buffers and engines the memory is

    def __getattr__(self, name: str) -> dict[str, Any]:  # each interface is there only where it holds
        if name == ("__cuda_array_interface__" if self.on_cuda else "__array_interface__"):
            return {
                "shape": self.shape,
                "typestr": np.dtype(self.dtype).str,
                "data": (self.address, False),
                "strides": None,
                "version": 3,
            }
        raise AttributeError(name)


class Detector:
    """Detects objects in 3D from cameras and radars; a context manager.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        rig: the sensors, or the path of their JSON file; None takes the rig of the bundle's golden frame.
        device: "cpu", "cuda", or "auto": the GPU where nothing is missing for it, else the CPU; `why_not_cuda` says what is missing.
        engine: "onnxruntime" (the wheel), "onnxruntime-native" (C++, where it was built), "tensorrt" (after `imkd-edge build-engine`),
            a callable threads -> Engine, or "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU.
        threads: cores for the ops and for the engine; 0 is one per core.
        score_threshold: replaces the spec's; from 1e-6 to 1 - 1e-6 (`spec.SCORES`).
        debug: also give the gate maps in `Result.debug`; needs a bundle whose network has them, free when off.
        stage_times: on the GPU also time each stage, at some cost; on the CPU that is always done.

    Raises:
        Error: 1xx spec, 21x rig, 4xx bundle, 5xx engine and device.
    """

    _scene: str | None = None  # of the sample that `prepare` was last called with

    def __init__(
        self,
        bundle: PathLike | Bundle,
        rig: SensorRig | PathLike | None = None,
        device: str = "auto",
        engine: str | EngineFactory = "auto",
        threads: int = 0,
        score_threshold: float | None = None,
        debug: bool = False,
        stage_times: bool = False,
    ) -> None:
        bundle = Bundle.load(bundle)
        if rig is None:
            rig = golden_rig(bundle)
        elif not isinstance(rig, SensorRig):
            rig = SensorRig.load(os.fspath(rig))
        parts = bundle.file("camera.onnx"), bundle.file("bev.onnx")
        self._open(bundle.spec, rig, *parts, device, engine, threads, score_threshold, debug, stage_times)

    @classmethod
    def from_onnx(
        cls,
        spec: ModelSpec,
        rig: SensorRig,
        camera_onnx: PathLike,
        bev_onnx: PathLike,
        device: str = "auto",
        engine: str | EngineFactory = "auto",
        threads: int = 0,
        score_threshold: float | None = None,
        debug: bool = False,
    ) -> Detector:
        """A detector on two ONNX files that are not in a bundle yet; an exporter needs it."""
        detector = cls.__new__(cls)
        detector._open(spec, rig, camera_onnx, bev_onnx, device, engine, threads, score_threshold, debug, False)
        return detector

    def _open(
        self,
        spec: ModelSpec,
        rig: SensorRig,
        camera_onnx: PathLike,
        bev_onnx: PathLike,
        device: str,
        engine: str | EngineFactory,
        threads: int,
        score_threshold: float | None,
        debug: bool,
        stage_times: bool,
    ) -> None:
        camera, bev, device, self.why_not_cuda = load_engines(camera_onnx, bev_onnx, device, engine, threads)
        if score_threshold is not None and not SCORES[0] <= score_threshold <= SCORES[1]:
            fix = f"give a number from {SCORES[0]} to {SCORES[1]}"
            raise Error(Code.spec_bad_value, f"{score_threshold} is out of range", "score_threshold", fix)
        threshold = -1.0 if score_threshold is None else score_threshold
        self._core: Any = _core.Detector(spec, rig, camera, bev, device, threads, threshold, debug, stage_times)
        self.device: str = self._core.device  # "cpu" or "cuda"
        self.engine = camera.name()
        self._class_names = tuple(item.name for item in spec.head.classes)

    def infer(
        self,
        frames: Frames,
        radar: Radar,
        ego: Ego | None = None,
        timestamp_ns: int = 0,
        camera_timestamps_ns: Times | None = None,
    ) -> Result:
        """Boxes of one moment. A sensor that is absent, late or broken is told in `health` and never raises.

        Args:
            frames: camera name -> (H, W, 3) uint8 RGB, or a list in the rig's order; None or left out: absent. Any strides. Or NV12 as
                (Y (H, W), UV (H/2, W/2, 2)), with "bt601" (the default), "bt601_full", "bt709" or "bt709_full" as a third element. On
                device "cuda" also RGB on the GPU (DLPack, CUDA array interface), whose data must be ready; pinned arrays are not copied.
            radar: radar name -> (N, 5) float32 x, y, z m in the radar frame, intensity dB, radial velocity m/s; or sweeps.
            ego: pose and motion of the vehicle, where known; a model with past frames needs one of them, or raw radar velocities.
            timestamp_ns: the reference time; boxes are in the ego frame of that time.
            camera_timestamps_ns: camera name -> ns, or a list in the rig's order; left out: the reference time.

        Raises:
            Error: 201 to 205, 215 for what only a mistake in the caller's program can bring.
        """
        found = self._open_core().infer(frames, radar, ego, timestamp_ns, camera_timestamps_ns)
        health = Health(**found.pop("health"))
        return Result(**found, class_names=self._class_names, health=health)

    def infer_sample(self, sample: Sample) -> Result:
        """Boxes of one sample of a source, after `prepare`; raises as `infer`."""
        self.prepare(sample)
        times = sample.camera_timestamps_ns or None
        return self.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns, times)

    def prepare(self, sample: Sample) -> None:
        """Takes the sample's rig where it differs from the present one; discards past frames where its scene does."""
        if sample.rig != self.rig:
            self.set_rig(sample.rig)
        if self._scene not in (None, sample.scene):
            self.reset()
        self._scene = sample.scene

    def set_rig(self, rig: SensorRig) -> None:
        """Takes another calibration: the lookup tables are rebuilt; past frames stay, for their maps are the ego's. Raises Error 21x."""
        self._open_core().set_rig(rig)

    def reset(self) -> None:
        """Forgets past frames: to be called before the first frame of another recording."""
        self._open_core().reset()

    @property
    def spec(self) -> ModelSpec:
        """The model's constants (a copy)."""
        return self._open_core().spec

    @property
    def rig(self) -> SensorRig:
        """The rig in use (a copy)."""
        return self._open_core().rig

    def tensors(self) -> dict[str, np.ndarray]:
        """Copies of the last frame's images, depth, context, camera_bev, radar_grid, heatmap, box; all float32.

        Where the spec has them also history, fused and segmentation (logits); with debug i_cam and i_rad.
        """
        return self._open_core().tensors()

    def device_tensors(self) -> dict[str, DeviceTensor]:
        """The same where the networks read and write them, not copied: on device "cuda" memory of the GPU. Valid until the next infer.

        They have the networks' types and order of axes: float16 where an engine was built so, context perhaps as (N, h, w, C).
        """
        core, on_cuda = self._open_core(), self.device == "cuda"
        found = core.device_tensors().items()
        return {name: DeviceTensor(address, shape, dtype, on_cuda, core) for name, (address, shape, dtype) in found}

    def close(self) -> None:
        """Frees the engines and buffers, as soon as no DeviceTensor needs them."""
        self._core = None

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open_core(self) -> Any:
        if self._core is None:
            raise Error(Code.engine_unavailable, "the detector is closed", "Detector", "use it inside its with block")
        return self._core
