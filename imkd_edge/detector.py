"""Detector: frames in, boxes out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle.format import Bundle
from imkd_edge.bundle.golden import golden_rig
from imkd_edge.engines.load import EngineFactory, load_engines
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Detection, DeviceTensor, Health, Origin, Result, Warning, health_of
from imkd_edge.rig import SensorRig
from imkd_edge.spec import SCORES, ModelSpec
from imkd_edge.tracking import Tracker

if TYPE_CHECKING:
    from imkd_edge.sources.base import Sample

__all__ = ["Detection", "Detector", "DeviceTensor", "Health", "Result", "Warning"]

PathLike = str | os.PathLike[str]
Image = Any  # (H, W, 3) uint8 on the host or the GPU, or NV12 on the host as (Y, UV) or (Y, UV, matrix)
Frames = Mapping[str, Image | None] | Sequence[Image | None]
Radar = Mapping[str, np.ndarray | None] | Sequence[RadarSweep]
Times = Mapping[str, int] | Sequence[int]
Poses = Mapping[str, np.ndarray] | Sequence[np.ndarray | None]


@dataclass(frozen=True)
class _Options:
    """The keyword arguments of Detector that bundle and ONNX files have in common."""

    device: str = "auto"
    engine: str | EngineFactory = "auto"
    threads: int = 0
    score_threshold: float | None = None
    debug: bool = False
    stage_times: bool = False

    def __post_init__(self) -> None:
        threshold = self.score_threshold
        if threshold is not None and not SCORES[0] <= threshold <= SCORES[1]:
            fix = f"give a number from {SCORES[0]} to {SCORES[1]}"
            raise Error(Code.spec_bad_value, f"{threshold} is out of range", "score_threshold", fix)


class Detector:
    """Detects objects in 3D from cameras and radars; a context manager.

    It belongs to the process that made it. A forked child can close it; every other call raises `forked` there, and
    the child makes its own. With a GPU, start processes by "spawn", or fork before the first detector.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        rig: the sensors, or the path of their JSON file; None takes the rig of the bundle's golden drive.
        device: "cpu", "cuda", or "auto": the GPU where it is usable, else the CPU; `why_not_cuda` holds the reason.
        engine: "onnxruntime" (the wheel), "onnxruntime-native" (C++, where it was built), "tensorrt" (after
            `imkd-edge build-engine`), "torch" or "onnxruntime-cuda" (on the GPU without TensorRT), a callable
            threads -> Engine, or "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU.
        threads: cores for the ops and for the engine; 0 is one per core.
        score_threshold: replaces the spec's; from 1e-6 to 1 - 1e-6 (`spec.SCORES`).
        debug: also return the gate maps in `Result.debug`; needs a bundle whose network has them.
        stage_times: also time each stage on the GPU, which costs time; the CPU always does.
        trust: whose bundles to load, as in `Bundle.load`; an unsigned one, where that is allowed, has the warning
            W0151 in each result's health.

    Raises:
        Error: 1xx spec, 21x rig, 4xx bundle, 5xx engine and device, 704 no library that verifies signatures.
    """

    _scene: str | None = None  # of the last sample that `prepare` received

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
        trust: PathLike | None = None,
    ) -> None:
        bundle = Bundle.load(bundle, trust)
        if rig is None:
            rig = golden_rig(bundle)
        elif not isinstance(rig, SensorRig):
            rig = SensorRig.load(os.fspath(rig))
        options = _Options(device, engine, threads, score_threshold, debug, stage_times)
        parts = bundle.file("camera.onnx"), bundle.file("bev.onnx")
        self._open(bundle.spec, rig, *parts, options, bundle)

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
        """A detector on two ONNX files outside a bundle, for exporters.

        Args:
            spec: the constants of the model.
            rig: the sensors.
            camera_onnx, bev_onnx: paths of the two parts.
            device, engine, threads, score_threshold, debug: as in Detector.

        Raises:
            Error: as Detector.
        """
        detector = cls.__new__(cls)
        options = _Options(device, engine, threads, score_threshold, debug)
        detector._open(spec, rig, camera_onnx, bev_onnx, options)
        return detector

    def _open(
        self,
        spec: ModelSpec,
        rig: SensorRig,
        camera_onnx: PathLike,
        bev_onnx: PathLike,
        options: _Options,
        bundle: Bundle | None = None,
    ) -> None:
        contents = None if bundle is None else (bundle.read("camera.onnx"), bundle.read("bev.onnx"))
        camera, bev, device, self.why_not_cuda = load_engines(
            camera_onnx, bev_onnx, options.device, options.engine, options.threads, contents
        )
        threshold = -1.0 if options.score_threshold is None else options.score_threshold  # -1: the spec's
        contract = None if bundle is None or bundle.contract is None else bundle.contract.core()
        unsigned = bundle is not None and bundle.signature.checked and not bundle.signature.present
        flags = options.debug, options.stage_times
        self._core: Any = _core.Detector(
            spec, rig, camera, bev, device, options.threads, threshold, *flags, contract, unsigned
        )
        self.device: str = self._core.device  # "cpu" or "cuda"
        self.engine = camera.name()
        self._class_names = tuple(item.name for item in spec.head.classes)
        self._origin = Origin(spec, "" if bundle is None else bundle.path.stem)

    def infer(
        self,
        frames: Frames,
        radar: Radar,
        ego: Ego | None = None,
        timestamp_ns: int = 0,
        camera_timestamps_ns: Times | None = None,
        camera_T_world_ego: Poses | None = None,
    ) -> Result:
        """Detects the objects of one frame; an absent, late or broken sensor is reported in `health` and never raises.

        Args:
            frames: camera name -> (H, W, 3) uint8 RGB, or a list in the rig's order; None or left out: absent. Any
                strides. Or NV12 as (Y (H, W), UV (H/2, W/2, 2)) uint8, with "bt601" (the default), "bt601_full",
                "bt709" or "bt709_full" as a third element. Device "cuda" also takes RGB on the GPU (DLPack, CUDA array
                interface), for whose stream it waits on the GPU; pinned arrays are not copied.
            radar: radar name -> (N, 5) float32 x, y, z m in the radar frame, intensity dB, radial velocity m/s; or
                a list of RadarSweep.
            ego: pose and motion of the vehicle, where known; a model with past frames needs one of them, or raw radar
                velocities.
            timestamp_ns: the reference time; boxes are in the ego frame of that time.
            camera_timestamps_ns: camera name -> ns of the exposure, or a list in the rig's order; left out: the
                reference time. The images are lifted from where the vehicle was then.
            camera_T_world_ego: camera name -> (4, 4) float64 ego pose at the exposure, or a list in the rig's order;
                left out: from ego and the sweeps' poses (`imkd_edge.ops.EgoMotion`).

        Raises:
            Error: 201 to 205, 214, 215 for a mistake of the calling program. An image's size, a pose or a twist that
                was right before and no longer is counts as a fault of its sensor.
        """
        fields = self._open_core().infer(frames, radar, ego, timestamp_ns, camera_timestamps_ns, camera_T_world_ego)
        health = health_of(fields.pop("health"))
        pose, twist = fields.pop("ego")
        ego = None if pose is None and twist is None else Ego(pose, twist)
        return Result(**fields, class_names=self._class_names, health=health, ego=ego, origin=self._origin)

    def stream(self, source: str | os.PathLike[str] | Iterable[Sample], track: bool = False) -> Iterator[Result]:
        """Detects the objects of each sample in turn; a stored source is read ahead in another thread.

        Args:
            source: a Source, any other iterable of samples (also a live one), or a name as for `open_source`.
            track: also give each object an id and a smoothed velocity, in `Result.tracks`.

        Yields:
            Result, with the sample's name in `frame`; `result.plot()` draws it until the next one is taken.

        Raises:
            Error: of the source, and as `infer`.
        """
        if isinstance(source, (str, os.PathLike)):
            from imkd_edge.sources.open import open_source

            source = open_source(os.fspath(source))
        detect = self._tracked(Tracker(self.spec)) if track else self.infer_sample
        samples = iter(source)
        if not hasattr(source, "names"):  # a live source: waiting for its next sample may take for ever
            yield from (detect(sample) for sample in samples)
            return
        with ThreadPoolExecutor(1, "imkd-read-ahead") as reader:
            following = reader.submit(next, samples, None)
            while (sample := following.result()) is not None:
                following = reader.submit(next, samples, None)
                yield detect(sample)

    def _tracked(self, tracker: Tracker) -> Callable[[Sample], Result]:
        return lambda sample: tracker.follow(self.infer_sample(sample), sample.scene)

    def infer_sample(self, sample: Sample) -> Result:
        """Detects the objects of one sample of a source, after `prepare`; raises as `infer`."""
        self.prepare(sample)
        result = self.infer(
            sample.frames,
            sample.radar,
            sample.ego,
            sample.timestamp_ns,
            sample.camera_timestamps_ns,
            sample.camera_T_world_ego,
        )
        origin = replace(self._origin, sample=weakref.ref(sample))
        return replace(result, frame=sample.name, origin=origin)

    def prepare(self, sample: Sample) -> None:
        """Sets the sample's rig if it differs from the present one; discards past frames if its scene differs."""
        if sample.rig != self.rig:
            self.set_rig(sample.rig)
        if self._scene not in (None, sample.scene):
            self.reset()
        self._scene = sample.scene

    def set_rig(self, rig: SensorRig) -> None:
        """Sets another calibration and rebuilds the lookup tables; past maps are in the ego frame and stay.

        Raises:
            Error: 21x for a rig that contradicts itself or the spec.
        """
        self._open_core().set_rig(rig)

    def reset(self) -> None:
        """Discards past frames; call it before the first frame of another recording."""
        self._open_core().reset()

    @property
    def spec(self) -> ModelSpec:
        """The model's constants (a copy)."""
        return self._open_core().spec

    @property
    def rig(self) -> SensorRig:
        """The rig in use (a copy)."""
        return self._open_core().rig

    @property
    def why_not_replayed(self) -> str:
        """Why no frame is replayed as one CUDA graph, which costs time; "" where they are: see `Result.replayed`."""
        return self._open_core().why_not_replayed

    def tensors(self) -> dict[str, np.ndarray]:
        """Float32 copies of the last frame's images, depth, context, camera_bev, radar_grid, heatmap and box.

        Where the spec has them also history, fused and segmentation (logits); with debug also i_cam and i_rad.
        """
        return self._open_core().tensors()

    def device_tensors(self) -> dict[str, DeviceTensor]:
        """The tensors of `tensors()` without a copy, on device "cuda" in GPU memory; the next infer overwrites them.

        They have the networks' dtype and order of axes: float16 where an engine was built so, and context as
        (N, h, w, C) where its channels are last.
        """
        core, on_cuda = self._open_core(), self.device == "cuda"
        tensors = core.device_tensors().items()
        return {
            name: DeviceTensor(address, shape, dtype, on_cuda, core.stream, core, core.gpu)
            for name, (address, shape, dtype) in tensors
        }

    def close(self) -> None:
        """Frees the engines and buffers once no DeviceTensor refers to them."""
        self._core = None

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open_core(self) -> Any:
        if self._core is None:
            raise Error(Code.engine_unavailable, "the detector is closed", "Detector", "use it inside its with block")
        return self._core
