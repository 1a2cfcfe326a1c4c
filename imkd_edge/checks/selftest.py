"""Self-test of a bundle: runs its golden drive on this machine and compares the results with the exporter's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from imkd_edge.bundle.format import Bundle
from imkd_edge.bundle.golden import (
    Arrays,
    Frame,
    bad_golden,
    golden_arrays,
    pack_drive,
    read_golden,
    tensor_names,
)
from imkd_edge.detector import Detector
from imkd_edge.engines.load import EngineFactory
from imkd_edge.errors import Error
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample

# Largest difference between the CPUs of two machines: our ops are exact, networks are not.
CPU_TOLERANCE = {"images": 1e-5, "radar_grid": 1e-4, "boxes": 0.05, "scores": 0.01, "labels": 0.0}
NETWORK_TOLERANCE = 0.02  # of the other tensors
ROUNDING = {"float32": 0.0, "float16": float(np.finfo(np.float16).eps)}  # dtype -> relative step


def make_golden(detector: Detector, samples: Sequence[Sample], values: int = 8192) -> Arrays:
    """Runs the detector over consecutive samples and returns the arrays of golden.npz.

    Args:
        detector: gets the rigs of the samples and loses its past frames.
        samples: one or more moments of a source, in order of time.
        values: approximate number of values to store of each tensor, over all samples.
    """
    return with_results(pack_drive(samples), detector, values)


def with_results(frames: Sequence[Frame], detector: Detector, values: int = 8192) -> Arrays:
    """The arrays of golden.npz with the sensor data of a golden drive and the results of a detector.

    Args:
        frames: from `read_golden` or `pack_drive`.
        detector: of any number of cameras that is enough for the rigs; as in `make_golden`.
        values: as in `make_golden`.
    """
    detector.reset()
    packed, share = [], -(-values // len(frames))
    for frame in frames:
        result = _infer(detector, frame)
        packed.append(Frame(frame.rig, {**frame.arrays, **_pack_result(detector, result, share)}))
    return golden_arrays(packed)


def replay(bundle: Bundle, detector: Detector) -> Iterator[Result]:
    """Runs the bundle's golden drive in order, frame by frame, through a detector of the same spec.

    The detector gets the rigs of the drive and loses its past frames first.
    """
    frames = read_golden(bundle)
    detector.reset()
    return (_infer_golden(detector, frame, i, bundle) for i, frame in enumerate(frames))


def golden_results(
    bundle: Bundle, engine: str | EngineFactory = "onnxruntime", threads: int = 0, device: str = "auto"
) -> Iterator[tuple[Frame, Result, Detector]]:
    """Each frame of the golden drive, its result, and the detector, whose tensors are those of this frame."""
    frames = read_golden(bundle)
    with Detector(bundle, frames[0].rig, device, engine, threads) as detector:
        for i, frame in enumerate(frames):
            yield frame, _infer_golden(detector, frame, i, bundle), detector


def check_golden(
    bundle: str | os.PathLike[str] | Bundle,
    engine: str | EngineFactory = "onnxruntime",
    threads: int = 0,
    device: str = "auto",
) -> dict[str, float]:
    """Runs the bundle's golden drive in order and compares the results with the exporter's.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        engine, threads, device: of the Detector.

    Returns:
        Name -> over all frames, the largest absolute difference of each tensor beyond rounding to the engine's dtype,
        of boxes (m, rad, m/s) and of scores; "labels": the number of different ones. Infinite where shapes or the
        number of boxes differ, or a value is NaN but a velocity that was not trained.

    Raises:
        Error: bundle_bad_value where golden.npz differs from the table in `bundle.golden`; as Detector.
    """
    rows = [
        {**tensor_differences(frame, detector, detector.tensors()), **_box_differences(frame.arrays, result)}
        for frame, result, detector in golden_results(Bundle.load(bundle), engine, threads, device)
    ]
    differences = {name: max(row[name] for row in rows) for name in rows[0]}
    return {**differences, "labels": sum(row["labels"] for row in rows)}


def beyond_tolerance(differences: Mapping[str, float]) -> dict[str, float]:
    """The differences of `check_golden` that exceed the tolerance between two CPUs."""
    return {k: value for k, value in differences.items() if not value <= CPU_TOLERANCE.get(k, NETWORK_TOLERANCE)}


def _infer(detector: Detector, frame: Frame) -> Result:
    if frame.rig != detector.rig:
        detector.set_rig(frame.rig)
    return detector.infer(*frame.arguments())


def _infer_golden(detector: Detector, frame: Frame, index: int, bundle: Bundle) -> Result:
    """As `_infer`; raises Error bundle_bad_value where the sensor data is refused, since it is the bundle's."""
    try:
        return _infer(detector, frame)
    except Error as error:
        if not error.code.startswith("E02"):  # E02xx is a mistake of the caller
            raise
        raise bad_golden(bundle, f"frame {index}: {error.what} ({error.where})") from error


def _pack_result(detector: Detector, result: Result, values: int) -> Arrays:
    golden = {"boxes": result.boxes, "scores": result.scores, "labels": result.labels}
    tensors = detector.tensors()
    for name in tensor_names(detector.spec):
        tensor = tensors[name]
        stride = -(-tensor.size // values) | 1  # odd: samples every column, because most rows have an even length
        golden[f"stride_{name}"] = np.array(stride, np.int64)
        golden[f"tensor_{name}"] = tensor.ravel()[::stride].copy()
    return golden


def tensor_differences(frame: Frame, detector: Detector, tensors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Name -> what `check_golden` returns of each tensor of the frame; tensors: those of the detector, after it."""
    dtypes = {name: tensor.dtype for name, tensor in detector.device_tensors().items()}
    return {
        name: _difference(*stored_values(frame, name, tensors[name]), ROUNDING[dtypes[name]])
        for name in tensor_names(detector.spec)
    }


def stored_values(frame: Frame, name: str, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k,) float32 each: the values of a tensor, of any shape, that golden.npz stores, and the stored ones."""
    return tensor.ravel()[:: int(frame.arrays[f"stride_{name}"])], frame.arrays[f"tensor_{name}"]


def _difference(values: np.ndarray, expected: np.ndarray, rounding: float = 0.0) -> float:
    """The largest absolute difference beyond a relative rounding step; infinite for different shapes or NaN."""
    if values.shape != expected.shape:
        return float("inf")
    reference = expected.astype(np.float64)
    largest = float((np.abs(values - reference) - rounding * np.abs(reference)).max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest


def comparable(boxes: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes whose differences mean something: -pi equals pi, and velocities that were not trained are not compared.

    Args:
        boxes, expected: (..., 9) of shapes that NumPy broadcasts: m, rad, m/s, as Result.boxes.

    Returns:
        Both as float64 of their common shape, each yaw within half a turn of the expected one, and velocities 0 in both
        where those of `boxes` are NaN (a bundle older than its contract has numbers there).
    """
    ours, theirs = (np.array(a, np.float64) for a in np.broadcast_arrays(boxes, expected))
    if np.isnan(ours[..., 7:]).all():
        ours[..., 7:] = theirs[..., 7:] = 0
    ours[..., 6] = theirs[..., 6] + (ours[..., 6] - theirs[..., 6] + np.pi) % (2 * np.pi) - np.pi
    return ours, theirs


def _box_differences(golden: Mapping[str, np.ndarray], result: Result) -> dict[str, float]:
    if result.boxes.shape != golden["boxes"].shape:
        return {"boxes": float("inf"), "scores": float("inf"), "labels": float("inf")}
    return {
        "boxes": _difference(*comparable(result.boxes, golden["boxes"])),
        "scores": _difference(result.scores, golden["scores"]),
        "labels": float(np.count_nonzero(result.labels != golden["labels"])),
    }
