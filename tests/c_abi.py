"""imkd.h in ctypes: its structs, and their construction from arrays."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

from imkd_edge import Ego, RadarSweep

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = Path(os.environ.get("IMKD_C_LIBRARY", ROOT / "build" / "tests" / "libimkd.so"))
HEADER = ROOT / "cpp" / "include" / "imkd" / "imkd.h"
U32, I32, I64, F32, Size = ctypes.c_uint32, ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_ssize_t
F32Array, F64Array, U8Array = ctypes.POINTER(F32), ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_uint8)


def fields(text: str) -> list[tuple[str, type]]:
    """ "u32 a b, f32 c" -> the fields of a struct."""
    kinds: dict[str, type] = {"u32": U32, "i32": I32, "i64": I64, "f32": F32, "size": Size}
    kinds |= {"text": ctypes.c_char_p, "pointer": ctypes.c_void_p}
    kinds |= {"f32*": F32Array, "f64*": F64Array, "u8*": U8Array}
    return [(name, kinds[kind]) for kind, *names in (part.split() for part in text.split(",")) for name in names]


class Options(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size, i32 threads, text engine device, f32 score_threshold,"
        "u32 reserved debug stage_times, text trust"
    )


class Image(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size, i32 width height, u32 has_timestamp, i64 timestamp_ns, u8* data, size row pixel channel,"
        "u8* chroma, size chroma_stride, u32 yuv reserved, f64* T_world_ego"
    )


class Sweep(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size, i32 radar count, u32 has_timestamp, i64 timestamp_ns, f32* points, f64* T_world_ego"
    )


class Frames(ctypes.Structure):
    _fields_ = [
        *fields("u32 struct_size image_count, i64 timestamp_ns"),
        ("images", ctypes.POINTER(Image)),
        ("sweeps", ctypes.POINTER(Sweep)),
        *fields("u32 sweep_count reserved, f64* T_world_ego twist"),
    ]


class Box(ctypes.Structure):
    _fields_ = fields("f32 x y z length width height yaw vx vy score, i32 label")


class Result(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size count, i64 timestamp_ns, pointer boxes, u32 stride, i32 mode,"
        "u32 cameras radars, u8* camera_states radar_states,"
        "i32 radar_points invalid outside overflow, i32 boxes_invalid past_frames estimated, f32 speed residual,"
        "u32 stages, f32* timings, f32 total_us, i32 rows columns, u32 reserved, f32* segmentation,"
        "pointer debug, u32 debug_count debug_stride, i32 maps_invalid ego_motion, "
        "pointer warnings, u32 warning_count warning_stride, f64* T_world_ego twist,"
        "u32 replayed reserved_2, text why_not_replayed"
    )


class Map(ctypes.Structure):
    _fields_ = fields("text name, i32 rows columns, f32* data")


class SynchronizerOptions(ctypes.Structure):
    _fields_ = [
        *fields("u32 struct_size, i32 max_images max_sweeps, u32 reserved, text reference"),
        *[(name, ctypes.c_double) for name in ("tolerance", "timeout", "max_delay", "max_future", "lost_after")],
    ]


class Counts(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size reserved, i64 kept late duplicate future invalid,"
        "i64 complete incomplete dropped expired, i64 restarts"
    )


class MonitorOptions(ctypes.Structure):
    _fields_ = [*fields("u32 struct_size, i32 frozen_after"), ("lost_after", ctypes.c_double)]


class Health(ctypes.Structure):
    _fields_ = fields("u32 struct_size, i32 mode, u32 cameras radars, u8* camera_states radar_states")


class TrackerOptions(ctypes.Structure):
    _fields_ = [
        *fields("u32 struct_size, i32 max_tracks"),
        *[(name, ctypes.c_double) for name in ("birth_score", "confirm_score", "max_age", "max_gap")],
    ]


class TrackBox(ctypes.Structure):
    _fields_ = [
        *fields("i64 id, i32 state, u32 velocity_measured"),
        ("box", Box),
        *fields("f32 velocity_std age coasting, i32 hits detection"),
    ]


class Tracks(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size count, pointer tracks, u32 stride over_ground, i32 invalid overflow, i64 restarts repeats"
    )


Missed, Clock = ctypes.CFUNCTYPE(None, ctypes.c_double, ctypes.c_void_p), ctypes.CFUNCTYPE(I64, ctypes.c_void_p)
Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class WatchdogOptions(ctypes.Structure):
    _fields_ = [
        *fields("u32 struct_size without_timer"),
        ("deadline", ctypes.c_double),
        ("missed", Missed),
        ("clock", Clock),
        ("user", ctypes.c_void_p),
    ]


def load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    handles = ("detector", "synchronizer", "monitor", "watchdog", "tracker")
    for name in handles:
        getattr(library, f"imkd_{name}_new").restype = ctypes.c_void_p
    for name in ("imkd_detector_name", *(f"imkd_{name}_error" for name in handles)):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def pointer(array: np.ndarray | None, kind, alive: list):
    """A pointer to dense rows. `alive` keeps a reference to them, which a ctypes struct does not."""
    if array is None:
        return None
    alive.append(np.ascontiguousarray(array))
    return alive[-1].ctypes.data_as(kind)


def image_of(pixels, alive: list, timestamp_ns: int | None = None) -> Image:
    """RGB, or Y and UV, with the strides of the arrays."""
    luma = pixels[0] if isinstance(pixels, tuple) else pixels
    image = Image(
        struct_size=ctypes.sizeof(Image), height=luma.shape[0], width=luma.shape[1], data=luma.ctypes.data_as(U8Array)
    )
    if isinstance(pixels, tuple):
        image.row, image.pixel = luma.strides[0], 1
        image.chroma, image.chroma_stride = pointer(pixels[1], U8Array, alive), pixels[1].strides[0]
    else:
        image.row, image.pixel, image.channel = luma.strides
    if timestamp_ns is not None:
        image.has_timestamp, image.timestamp_ns = 1, timestamp_ns
    return image


def sweep_of(sweep: RadarSweep, rig, alive: list) -> Sweep:
    struct = Sweep(struct_size=ctypes.sizeof(Sweep), radar=rig.radar_index(sweep.radar), count=len(sweep.points))
    struct.points = pointer(sweep.points, F32Array, alive)
    struct.T_world_ego = pointer(sweep.T_world_ego, F64Array, alive)
    if sweep.timestamp_ns is not None:
        struct.has_timestamp, struct.timestamp_ns = 1, sweep.timestamp_ns
    return struct


def twist_of(ego: Ego, alive: list):
    return pointer(None if ego.twist is None else np.asarray(ego.twist, np.float64), F64Array, alive)


def infer_frames(library: ctypes.CDLL, handle, frames: Frames) -> Result:
    result = Result(struct_size=ctypes.sizeof(Result))
    code = library.imkd_detector_infer(handle, ctypes.byref(frames), ctypes.byref(result))
    assert code == 0, library.imkd_detector_error(handle)
    return result


def boxes_of(result: Result) -> np.ndarray:
    rows = [Box.from_address(result.boxes + i * result.stride) for i in range(result.count)]
    return np.array([[getattr(box, name) for name, _ in Box._fields_] for box in rows], np.float64).reshape(-1, 11)
