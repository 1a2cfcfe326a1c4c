"""The C ABI through ctypes: the boxes of Python's Detector, on a real frame; and nothing but its own names in the library."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imkd_edge import Bundle, Detector
from imkd_edge.engines import engine_names, onnxruntime_library

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("IMKD_C_LIBRARY", ROOT / "build" / "tests" / "libimkd.so"))
HEADER = ROOT / "cpp" / "include" / "imkd" / "imkd.h"
U32, I32, I64, F32, Size = ctypes.c_uint32, ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_ssize_t
F32Array, F64Array, U8Array = ctypes.POINTER(F32), ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_uint8)


def fields(text: str) -> list[tuple[str, type]]:
    """ "u32 a b, f32 c" """
    kinds = {"u32": U32, "i32": I32, "i64": I64, "f32": F32, "size": Size, "text": ctypes.c_char_p, "pointer": ctypes.c_void_p}
    kinds |= {"f32*": F32Array, "f64*": F64Array, "u8*": U8Array}
    return [(name, kinds[kind]) for kind, *names in (part.split() for part in text.split(",")) for name in names]


class Options(ctypes.Structure):
    _fields_ = fields("u32 struct_size, i32 threads, text engine device, f32 score_threshold, u32 reserved debug stage_times")


class Image(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size, i32 width height, u32 has_timestamp, i64 timestamp_ns, u8* data, size row pixel channel, u8* chroma,"
        "size chroma_stride, u32 yuv reserved"
    )


class Sweep(ctypes.Structure):
    _fields_ = fields("u32 struct_size, i32 radar count, u32 has_timestamp, i64 timestamp_ns, f32* points, f64* T_world_ego")


class Frames(ctypes.Structure):
    _fields_ = [
        *fields("u32 struct_size image_count, i64 timestamp_ns"),
        ("images", ctypes.POINTER(Image)),
        ("sweeps", ctypes.POINTER(Sweep)),
        *fields("u32 sweep_count reserved, f64* T_world_ego twist"),
    ]


class Box(ctypes.Structure):
    _fields_ = fields("f32 x y z length width height yaw vx vy score, i32 label")


class Found(ctypes.Structure):
    _fields_ = fields(
        "u32 struct_size count, i64 timestamp_ns, pointer boxes, u32 stride, i32 mode, u32 cameras radars, u8* camera_states radar_states,"
        "i32 radar_points invalid outside overflow, i32 boxes_invalid past_frames estimated, f32 speed residual, u32 stages, f32* timings,"
        "f32 total_us, i32 rows columns, u32 reserved, f32* segmentation, pointer debug, u32 debug_count debug_stride"
    )


class Map(ctypes.Structure):
    _fields_ = fields("text name, i32 rows columns, f32* data")


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if not LIBRARY.is_file():
        pytest.skip("the C library was not built: the C ABI is NOT tested from Python")
    library = ctypes.CDLL(str(LIBRARY))
    library.imkd_detector_new.restype = ctypes.c_void_p
    for name in ("error", "name"):
        getattr(library, f"imkd_detector_{name}").restype = ctypes.c_char_p
    return library


@pytest.fixture
def handle(library: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: the C ABI's infer is NOT tested from Python")
    assert library.imkd_set_onnxruntime(str(onnxruntime_library()).encode()) == 0
    handle = ctypes.c_void_p(library.imkd_detector_new())
    yield handle
    library.imkd_detector_destroy(handle)


def pointer(array: np.ndarray | None, kind, alive: list):
    """To dense rows, which `alive` keeps: a ctypes struct does not."""
    if array is None:
        return None
    alive.append(np.ascontiguousarray(array))
    return alive[-1].ctypes.data_as(kind)


def infer(library: ctypes.CDLL, handle, sample) -> Found:
    alive: list[np.ndarray] = []
    images = (Image * len(sample.rig.cameras))()
    for slot, camera in zip(images, sample.rig.cameras, strict=True):
        pixels = sample.frames[camera.name]
        if isinstance(pixels, tuple):  # NV12
            pixels, uv = pixels
            slot.chroma, slot.chroma_stride = pointer(uv, U8Array, alive), uv.strides[0]
            slot.struct_size, slot.height, slot.width = ctypes.sizeof(Image), *pixels.shape
            slot.data, slot.row, slot.pixel = pixels.ctypes.data_as(U8Array), pixels.strides[0], 1
            continue
        height, width, _ = pixels.shape
        slot.struct_size, slot.width, slot.height, slot.data = ctypes.sizeof(Image), width, height, pixels.ctypes.data_as(U8Array)
        slot.row, slot.pixel, slot.channel = pixels.strides
    sweeps = (Sweep * len(sample.radar))()
    for slot, sweep in zip(sweeps, sample.radar, strict=True):
        slot.struct_size, slot.radar, slot.count = ctypes.sizeof(Sweep), sample.rig.radar_index(sweep.radar), len(sweep.points)
        slot.points = pointer(sweep.points, F32Array, alive)
        if sweep.timestamp_ns is not None:
            slot.has_timestamp, slot.timestamp_ns = 1, sweep.timestamp_ns
        slot.T_world_ego = pointer(sweep.T_world_ego, F64Array, alive)
    frames = Frames(ctypes.sizeof(Frames), len(images), sample.timestamp_ns, images, sweeps, len(sweeps), 0, None, None)
    if sample.ego is not None:
        frames.T_world_ego = pointer(sample.ego.T_world_ego, F64Array, alive)
        frames.twist = pointer(None if sample.ego.twist is None else np.asarray(sample.ego.twist, np.float64), F64Array, alive)
    found = Found(struct_size=ctypes.sizeof(Found))
    assert library.imkd_detector_infer(handle, ctypes.byref(frames), ctypes.byref(found)) == 0, library.imkd_detector_error(handle)
    return found


def boxes_of(found: Found) -> np.ndarray:
    rows = [Box.from_address(found.boxes + i * found.stride) for i in range(found.count)]
    return np.array([[getattr(box, name) for name, _ in Box._fields_] for box in rows], np.float64).reshape(-1, 11)


def compare(library: ctypes.CDLL, handle, bundle: Bundle, sample, debug: bool = False) -> int:
    options = Options(ctypes.sizeof(Options), 1, b"onnxruntime", b"cpu", 0.05, 0, debug, 0)
    rig = sample.rig.to_json().encode()
    code = library.imkd_detector_load(handle, str(bundle.path).encode(), rig, ctypes.byref(options))
    assert code == 0, library.imkd_detector_error(handle)
    found = infer(library, handle, sample)
    with Detector(bundle, sample.rig, engine="onnxruntime-native", threads=1, score_threshold=0.05, debug=debug) as detector:
        result = detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns)
    boxes = boxes_of(found)
    assert np.array_equal(boxes[:, :9], result.boxes) and np.array_equal(boxes[:, 9], result.scores)
    names = [library.imkd_detector_name(handle, 0, int(label)).decode() for label in boxes[:, 10]]
    assert names == result.names and found.radar_points == result.health.radar_points
    assert library.imkd_detector_name(handle, 4, found.mode).decode() == result.health.mode
    states = [library.imkd_detector_name(handle, 5, found.camera_states[i]).decode() for i in range(found.cameras)]
    states += [library.imkd_detector_name(handle, 5, found.radar_states[i]).decode() for i in range(found.radars)]
    assert states == list(result.health.sensors.values())
    assert found.timestamp_ns == result.timestamp_ns and found.total_us > 0
    maps = [Map.from_address(found.debug + i * found.debug_stride) for i in range(found.debug_count)]
    assert [entry.name.decode() for entry in maps] == list(result.debug) == (["i_cam", "i_rad"] if debug else [])
    for entry, expected in zip(maps, result.debug.values(), strict=True):
        assert np.array_equal(np.ctypeslib.as_array(entry.data, (entry.rows, entry.columns)), expected)
    return len(boxes)


@pytest.mark.parametrize("name", ["000105", "000283"])
def test_a_real_frame_gives_the_boxes_that_python_finds(library: ctypes.CDLL, handle, shared_data: Path, name: str) -> None:
    from imkd_edge.sources.astyx import AstyxSource

    assert compare(library, handle, Bundle.load("astyx-lite"), AstyxSource(shared_data / "astyx")[name], debug=True) > 0


def test_a_made_up_frame_does_so_too(library: ctypes.CDLL, handle, bundle, scene) -> None:
    assert compare(library, handle, bundle, scene) > 0


def test_nv12_does_so_too(library: ctypes.CDLL, handle, bundle, scene) -> None:
    """Y with padded rows, UV dense."""
    random = np.random.default_rng(5)
    for camera in scene.rig.cameras:
        luma = random.integers(16, 236, (camera.height, camera.width + 24), np.uint8)[:, : camera.width]
        scene.frames[camera.name] = luma, random.integers(16, 241, (camera.height // 2, camera.width // 2, 2), np.uint8)
    assert compare(library, handle, bundle, scene) > 0


def test_the_structs_here_are_those_of_the_header(tmp_path: Path) -> None:
    """A C compiler's sizes, not our own count."""
    names = {"options": Options, "image": Image, "sweep": Sweep, "frames": Frames, "detection": Box, "map": Map, "result": Found}
    lines = [f'printf("%zu\\n", sizeof(imkd_{name}));' for name in names]
    (tmp_path / "sizes.c").write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {" ".join(lines)} return 0; }}\n')
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "sizes.c", "-o", "sizes"], cwd=tmp_path, check=True)
    sizes = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.split()
    assert [int(size) for size in sizes] == [ctypes.sizeof(kind) for kind in names.values()]
    assert [int(size) for size in sizes] == [40, 80, 40, 56, 44, 24, 144]  # of version 2 where a pointer has 8 bytes: none may shrink
