"""The C ABI through ctypes gives the boxes of Python's Detector, on a real frame and on synthetic ones."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_abi import (
    HEADER,
    Box,
    Counts,
    F64Array,
    Frames,
    Health,
    Image,
    Map,
    MonitorOptions,
    Options,
    Result,
    Sweep,
    SynchronizerOptions,
    TrackBox,
    TrackerOptions,
    Tracks,
    WatchdogOptions,
    boxes_of,
    image_of,
    infer_frames,
    pointer,
    sweep_of,
    twist_of,
)

from imkd_edge import Bundle, Detector


def infer(library: ctypes.CDLL, handle, sample) -> Result:
    alive: list[np.ndarray] = []
    images = (Image * len(sample.rig.cameras))(
        *[image_of(sample.frames[camera.name], alive) for camera in sample.rig.cameras]
    )
    sweeps = (Sweep * len(sample.radar))(*[sweep_of(sweep, sample.rig, alive) for sweep in sample.radar])
    frames = Frames(ctypes.sizeof(Frames), len(images), sample.timestamp_ns, images, sweeps, len(sweeps), 0, None, None)
    if sample.ego is not None:
        frames.T_world_ego, frames.twist = pointer(sample.ego.T_world_ego, F64Array, alive), twist_of(sample.ego, alive)
    return infer_frames(library, handle, frames)


def compare(library: ctypes.CDLL, handle, bundle: Bundle, sample, debug: bool = False) -> int:
    """Check that C and Python give the same result; return the number of boxes."""
    options = Options(ctypes.sizeof(Options), 1, b"onnxruntime", b"cpu", 0.05, 0, debug, 0)
    rig = sample.rig.to_json().encode()
    code = library.imkd_detector_load(handle, str(bundle.path).encode(), rig, ctypes.byref(options))
    assert code == 0, library.imkd_detector_error(handle)
    c_result = infer(library, handle, sample)
    with Detector(
        bundle, sample.rig, engine="onnxruntime-native", threads=1, score_threshold=0.05, debug=debug
    ) as detector:
        result = detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns)
        why_not_replayed = detector.why_not_replayed
    boxes = boxes_of(c_result)
    assert np.array_equal(boxes[:, :9], result.boxes, equal_nan=True) and np.array_equal(boxes[:, 9], result.scores)
    names = [library.imkd_detector_name(handle, 0, int(label)).decode() for label in boxes[:, 10]]
    assert names == result.names and c_result.radar_points == result.health.radar_points
    assert library.imkd_detector_name(handle, 4, c_result.mode).decode() == result.health.mode
    numbers = c_result.camera_states[: c_result.cameras] + c_result.radar_states[: c_result.radars]
    states = [library.imkd_detector_name(handle, 5, number).decode() for number in numbers]
    assert states == list(result.health.sensors.values())
    assert c_result.timestamp_ns == result.timestamp_ns and c_result.total_us > 0
    assert c_result.replayed == result.replayed and c_result.why_not_replayed.decode() == why_not_replayed != ""
    maps = [Map.from_address(c_result.debug + i * c_result.debug_stride) for i in range(c_result.debug_count)]
    assert [entry.name.decode() for entry in maps] == list(result.debug) == (["i_cam", "i_rad"] if debug else [])
    for entry, expected in zip(maps, result.debug.values(), strict=True):
        assert np.array_equal(np.ctypeslib.as_array(entry.data, (entry.rows, entry.columns)), expected)
    return len(boxes)


@pytest.mark.parametrize("name", ["000105", "000283"])
def test_a_real_frame_gives_the_boxes_of_python(library: ctypes.CDLL, handle, shared_data: Path, name: str) -> None:
    from imkd_edge.sources.astyx import AstyxSource

    assert compare(library, handle, Bundle.load("astyx-lite"), AstyxSource(shared_data / "astyx")[name], debug=True) > 0


def test_a_synthetic_frame_gives_the_boxes_of_python(library: ctypes.CDLL, handle, bundle, scene) -> None:
    assert compare(library, handle, bundle, scene) > 0


def test_a_stream_can_be_waited_for_once_a_model_is_loaded(library: ctypes.CDLL, handle, bundle, scene) -> None:
    """On the CPU nothing is waited for, and the frame is the same."""
    assert library.imkd_detector_wait_for(handle, None) == 501
    assert b"imkd_detector_load" in library.imkd_detector_error(handle)
    assert compare(library, handle, bundle, scene) > 0
    before = boxes_of(infer(library, handle, scene))
    assert library.imkd_detector_wait_for(handle, None) == 0
    assert np.array_equal(boxes_of(infer(library, handle, scene)), before, equal_nan=True)


def test_nv12_gives_the_boxes_of_python(library: ctypes.CDLL, handle, bundle, scene) -> None:
    """Y with padded rows, UV with dense rows."""
    random = np.random.default_rng(5)
    for camera in scene.rig.cameras:
        luma = random.integers(16, 236, (camera.height, camera.width + 24), np.uint8)[:, : camera.width]
        scene.frames[camera.name] = luma, random.integers(16, 241, (camera.height // 2, camera.width // 2, 2), np.uint8)
    assert compare(library, handle, bundle, scene) > 0


# Channels of the memory (H, W, channels), its RGB pixels, and the strides that are not 0, the default.
STRIDES = {
    "RGB": (3, lambda memory: memory, {}),
    "RGB, pixels": (3, lambda memory: memory, {"pixel": 3}),
    "RGB, channels": (3, lambda memory: memory, {"channel": 1}),
    "RGBA": (4, lambda memory: memory[..., :3], {"pixel": 4}),
    "grey": (1, lambda memory: np.repeat(memory, 3, -1), {"pixel": 1}),
}


@pytest.mark.parametrize("name", STRIDES)
def test_each_stride_has_a_default_of_its_own(library: ctypes.CDLL, handle, bundle, scene, name: str) -> None:
    channels, pixels_of, strides = STRIDES[name]
    shapes = {camera.name: (camera.height, camera.width, channels) for camera in scene.rig.cameras}
    memory = {camera: np.random.default_rng(8).integers(0, 256, shape, np.uint8) for camera, shape in shapes.items()}
    alive: list[np.ndarray] = []
    images = (Image * 2)(*[image_of(pixels, alive) for pixels in memory.values()])
    for image in images:
        image.row, image.pixel, image.channel = 0, strides.get("pixel", 0), strides.get("channel", 0)
    options = Options(ctypes.sizeof(Options), 1, b"onnxruntime", b"cpu", 0.05, 0, 0, 0)
    path, rig = str(bundle.path).encode(), scene.rig.to_json().encode()
    assert library.imkd_detector_load(handle, path, rig, ctypes.byref(options)) == 0
    frames = Frames(ctypes.sizeof(Frames), 2, scene.timestamp_ns, images, None, 0, 0, None, None)
    c_result = infer_frames(library, handle, frames)
    with Detector(bundle, scene.rig, engine="onnxruntime-native", threads=1, score_threshold=0.05) as detector:
        rgb = {camera: pixels_of(pixels) for camera, pixels in memory.items()}
        expected = detector.infer(rgb, None, timestamp_ns=scene.timestamp_ns)
    assert len(expected.boxes) > 0 and np.array_equal(boxes_of(c_result)[:, :9], expected.boxes)


def test_the_ctypes_structs_have_the_sizes_of_the_header(tmp_path: Path) -> None:
    """The sizes come from a C compiler."""
    names = {"options": Options, "image": Image, "sweep": Sweep, "frames": Frames, "detection": Box, "map": Map}
    names |= {"result": Result, "synchronizer_options": SynchronizerOptions, "counts": Counts}
    names |= {"monitor_options": MonitorOptions, "health": Health, "watchdog_options": WatchdogOptions}
    names |= {"tracker_options": TrackerOptions, "track": TrackBox, "tracks": Tracks}
    lines = [f'printf("%zu\\n", sizeof(imkd_{name}));' for name in names]
    program = f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {" ".join(lines)} return 0; }}\n'
    (tmp_path / "sizes.c").write_text(program)
    compile_command = "cc -std=c99 -Wall -Wextra -pedantic -Werror sizes.c -o sizes"
    subprocess.run(compile_command.split(), cwd=tmp_path, check=True)
    sizes = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.split()
    assert [int(size) for size in sizes] == [ctypes.sizeof(kind) for kind in names.values()]
    version_7 = [48, 88, 40, 56, 44, 24, 200, 64, 88, 16, 32, 40, 40, 80, 48]  # no struct may become smaller
    assert [int(size) for size in sizes] == version_7


def test_the_option_trust_and_the_environment_refuse_an_unsigned_bundle(
    library: ctypes.CDLL, handle, bundle, scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from signing import FLEET, trust_folder

    keys = trust_folder(tmp_path / "keys", FLEET)
    path, rig = str(bundle.path).encode(), scene.rig.to_json().encode()

    def load(trust: str | None) -> int:
        text = None if trust is None else trust.encode()
        options = Options(ctypes.sizeof(Options), 1, b"onnxruntime", b"cpu", 0.05, 0, 0, 0, text)
        return library.imkd_detector_load(handle, path, rig, ctypes.byref(options))

    assert load(None) == 0 and load("off") == 0
    assert load(f"require:{keys}") == 411 and b"E0411" in library.imkd_detector_error(handle)
    assert load("nowhere") == 416
    assert load(str(keys)) == 0
    alive: list[np.ndarray] = []
    images = (Image * len(scene.rig.cameras))(
        *[image_of(scene.frames[camera.name], alive) for camera in scene.rig.cameras]
    )
    frames = Frames(ctypes.sizeof(Frames), len(images), scene.timestamp_ns, images, None, 0, 0, None, None)
    result = infer_frames(library, handle, frames)
    codes = [
        ctypes.c_int32.from_address(result.warnings + i * result.warning_stride).value
        for i in range(result.warning_count)
    ]
    assert 151 in codes
    monkeypatch.setenv("IMKD_EDGE_TRUST", f"require:{keys}")
    for trust in (None, "off", str(keys)):
        assert load(trust) == 411
    synchronizer, monitor = library.imkd_synchronizer_new, library.imkd_monitor_new
    for kind, make in (("synchronizer", synchronizer), ("monitor", monitor)):  # they read a bundle, too
        live = ctypes.c_void_p(make())
        assert getattr(library, f"imkd_{kind}_load")(live, path, rig, None) == 411
        getattr(library, f"imkd_{kind}_destroy")(live)
