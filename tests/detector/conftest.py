"""Two cameras of different sizes, two radars, and a bundle with random weights for them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import Once

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, CameraCalibration, Detector, Ego, RadarCalibration, RadarSweep, SensorRig

LOOK_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float64)
HALF_TURN = np.diag([-1.0, -1, 1, 1])
NOW = 1_700_000_000_000_000_000


def small_rig() -> SensorRig:
    def camera(name: str, width: int, height: int, T: np.ndarray) -> CameraCalibration:
        K = np.array([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
        return CameraCalibration(name=name, width=width, height=height, K=K, T_ego_camera=T)

    radars = [
        RadarCalibration(name="FRONT", T_ego_radar=np.eye(4)),
        RadarCalibration(name="REAR", T_ego_radar=HALF_TURN),
    ]
    return SensorRig(
        cameras=[camera("AHEAD", 320, 180, LOOK_AHEAD), camera("BEHIND", 200, 120, HALF_TURN @ LOOK_AHEAD)],
        radars=radars,
    )


@dataclass
class Scene:
    """A random frame with the fields of `Sample` that a detector reads."""

    rig: SensorRig = field(default_factory=small_rig)
    seed: int = 0
    timestamp_ns: int = NOW
    ego: Ego | None = None
    scene: str = ""
    name: str = "random"

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.frames = {
            c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in self.rig.cameras
        }
        self.points = {r.name: self._cloud(random) for r in self.rig.radars}
        self.radar = [RadarSweep(name, points, NOW) for name, points in self.points.items()]
        self.camera_timestamps_ns: dict[str, int] = {}
        self.camera_T_world_ego: dict[str, np.ndarray] = {}

    @staticmethod
    def _cloud(random: np.random.Generator) -> np.ndarray:
        low, high = [1, -30, -1, -10, -8], [50, 30, 2, 30, 8]
        return random.uniform(low, high, (300, 5)).astype(np.float32)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def bundle(once: Once) -> Bundle:
    spec = random_spec(cameras=2)
    return Bundle.load(once("two", lambda folder: write_random_bundle(folder / "two.imkd", spec)) / "two.imkd")


@pytest.fixture(scope="session")
def history_bundle(once: Once) -> Bundle:
    """Three past maps, segmentation and gate maps."""
    spec = random_spec(cameras=2, past=3, segmentation=True)
    folder = once("past", lambda folder: write_random_bundle(folder / "past.imkd", spec, gates=True))
    return Bundle.load(folder / "past.imkd")


@pytest.fixture
def bundle_path(bundle: Bundle) -> Path:
    return bundle.path


@pytest.fixture
def detector(bundle: Bundle) -> Detector:
    return Detector(bundle, small_rig(), threads=1)


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    return Scene


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    import c_abi

    if not c_abi.LIBRARY.is_file():
        pytest.skip("the C library was not built: the C ABI is NOT tested from Python")
    return c_abi.load()


@pytest.fixture
def handle(library: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    """An empty imkd_detector."""
    from imkd_edge.engines import engine_names, onnxruntime_library

    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: the C ABI's infer is NOT tested from Python")
    assert library.imkd_set_onnxruntime(str(onnxruntime_library()).encode()) == 0
    handle = ctypes.c_void_p(library.imkd_detector_new())
    yield handle
    library.imkd_detector_destroy(handle)
