"""Mistakes of the caller raise, each with its code; faults of sensors are reported in health and never raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge import Detector, Ego, Error, RadarSweep, SensorRig
from imkd_edge.spec import SCORES

CAMERAS, RADARS = ("AHEAD", "BEHIND"), ("FRONT", "REAR")
NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def run(detector: Detector, scene, **changes):
    return detector.infer(**{"frames": scene.frames, "radar": scene.points, "timestamp_ns": NOW, **changes})


# ---- faults of sensors ----
@pytest.mark.parametrize("absent", CAMERAS)
@pytest.mark.parametrize("way", ["left out", "None", "None in a list"])
def test_a_missing_camera_is_named_and_contributes_nothing(detector: Detector, scene, absent: str, way: str) -> None:
    run(detector, scene)  # fills every buffer with values of a frame
    frames: Any = {name: image for name, image in scene.frames.items() if name != absent}
    if way == "None":
        frames[absent] = None
    if way == "None in a list":
        frames = [frames.get(name) for name in CAMERAS]
    result, tensors, slot = run(detector, scene, frames=frames), detector.tensors(), CAMERAS.index(absent)
    assert result.health.mode == "partial" and len(result.boxes) > 0
    assert result.health.sensors == {**dict.fromkeys(CAMERAS + RADARS, "ok"), absent: "missing"}
    assert not tensors["images"][slot].any() and not tensors["depth"][slot].any()
    assert tensors["images"][1 - slot].any() and tensors["depth"][1 - slot].any()
    # AHEAD looks along +x, BEHIND along -x, and each lifts into its own half of the grid (64 columns) alone.
    half = tensors["camera_bev"][0][:, :, 32:] if absent == "AHEAD" else tensors["camera_bev"][0][:, :, :32]
    assert not half.any() and tensors["camera_bev"].any()


@pytest.mark.parametrize("absent", RADARS)
@pytest.mark.parametrize("way", ["left out", "None", "no sweep"])
def test_a_missing_radar_is_named(detector: Detector, scene, absent: str, way: str) -> None:
    radar: Any = {name: points for name, points in scene.points.items() if name != absent}
    if way == "None":
        radar[absent] = None
    if way == "no sweep":
        radar = [sweep for sweep in scene.radar if sweep.radar != absent]
    result = run(detector, scene, radar=radar)
    assert result.health.mode == "partial" and result.health.sensors[absent] == "missing" and len(result.boxes) > 0
    grid = detector.tensors()["radar_grid"][0, 0]  # FRONT fills x > 0 (columns from 64 on), REAR x < 0
    assert not (grid[:, 64:] if absent == "FRONT" else grid[:, :64]).any() and grid.any()


@pytest.mark.parametrize("frames", [{}, [None, None], None])
def test_without_cameras_boxes_come_from_radar_alone(detector: Detector, scene, frames) -> None:
    run(detector, scene)
    result = run(detector, scene, frames=frames)
    assert result.health.mode == "radar_only" and len(result.boxes) > 0
    for name in ("images", "depth", "context", "camera_bev"):
        assert not detector.tensors()[name].any(), name


@pytest.mark.parametrize("radar", [{}, [], None])
def test_without_radars_boxes_come_from_cameras_alone(detector: Detector, scene, radar) -> None:
    run(detector, scene)
    result = run(detector, scene, radar=radar)
    assert result.health.mode == "camera_only" and result.health.radar_points == 0
    assert not detector.tensors()["radar_grid"].any() and detector.tensors()["camera_bev"].any()


def test_with_nothing_at_all_there_are_no_boxes(detector: Detector, scene) -> None:
    assert len(run(detector, scene).boxes) > 0
    result = run(detector, scene, frames={}, radar={})
    assert result.health.mode == "blind" and len(result.boxes) == 0
    assert set(result.health.sensors.values()) == {"missing"}


@pytest.mark.parametrize(
    ("age", "radar_state", "camera_state"),
    [
        (0.04, "ok", "ok"),
        (0.06, "ok", "late"),
        (0.09, "ok", "late"),
        (0.11, "ok", "stale"),
        (0.29, "ok", "stale"),
        (0.31, "late", "stale"),
        (0.59, "late", "stale"),
        (0.61, "stale", "stale"),
        (-0.06, "ok", "late"),
        (-0.31, "late", "stale"),
        (-0.61, "stale", "stale"),
        (1e6, "stale", "stale"),
    ],
)
def test_age_makes_a_sensor_late_then_stale(
    detector: Detector, scene, age: float, radar_state: str, camera_state: str
) -> None:
    """A radar after max_age, 0.6 s; a camera after one period, 0.1 s."""
    then = NOW - int(age * SECOND)
    radar = [RadarSweep("FRONT", scene.points["FRONT"], then), RadarSweep("REAR", scene.points["REAR"])]
    result = run(detector, scene, radar=radar, camera_timestamps_ns={"BEHIND": then})
    assert result.health.sensors == {"AHEAD": "ok", "BEHIND": camera_state, "FRONT": radar_state, "REAR": "ok"}
    assert detector.tensors()["images"][1].any() == (camera_state != "stale")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", range(5))
def test_points_that_are_no_numbers_are_discarded_and_counted(
    detector: Detector, scene, value: float, column: int
) -> None:
    points = scene.points["FRONT"].copy()
    points[::3, column] = value
    result = run(detector, scene, radar={**scene.points, "FRONT": points})
    assert result.health.radar_points_invalid == 100 and result.health.sensors["FRONT"] == "ok"
    clean = run(detector, scene, radar={**scene.points, "FRONT": np.delete(points, np.s_[::3], axis=0)})
    assert np.array_equal(result.boxes, clean.boxes)


def test_a_radar_of_nothing_but_nan_is_invalid(detector: Detector, scene) -> None:
    result = run(detector, scene, radar={**scene.points, "REAR": np.full((50, 5), np.nan, np.float32)})
    assert result.health.sensors["REAR"] == "invalid" and result.health.mode == "partial"


def test_an_empty_sweep_is_invalid(detector: Detector, scene) -> None:
    result = run(detector, scene, radar={**scene.points, "REAR": np.zeros((0, 5), np.float32)})
    assert result.health.sensors["REAR"] == "invalid" and result.health.radar_points_invalid == 0


def test_points_beyond_the_grid_and_beyond_the_cap_are_counted(detector: Detector, scene) -> None:
    """max_points is 8000; of 9000 points 100 are at 80 m, outside the 51.2 m of the grid."""
    near, far = np.tile(np.float32([20, 3, 0, 5, 0]), (8900, 1)), np.tile(np.float32([80, 0, 0, 5, 0]), (100, 1))
    health = run(detector, scene, radar={"FRONT": np.concatenate([far, near])}).health
    assert health.radar_points == 8000 and health.radar_points_outside == 100
    assert health.radar_points + health.radar_points_outside + health.radar_points_overflow == 9000


def test_a_radar_that_sees_beside_the_grid_is_unusable(detector: Detector, scene) -> None:
    beside = np.float32([[80, 0, 0, 5, 0], [90, 1, 0, 5, 0]])
    health = run(detector, scene, radar={"FRONT": np.float32([[10, 0, 0, 5, 0]]), "REAR": beside}).health
    assert health.sensors["REAR"] == "unusable" and health.mode == "partial"
    assert (health.radar_points, health.radar_points_outside) == (1, 2)


def test_a_packet_filled_with_zeros_is_invalid(detector: Detector, scene) -> None:
    zeros = np.zeros((64, 5), np.float32)
    health = run(detector, scene, radar={"FRONT": np.float32([[10, 0, 0, 5, 0]]), "REAR": zeros}).health
    assert health.sensors["REAR"] == "invalid" and health.mode == "partial" and health.radar_points_invalid == 64


def test_extreme_numbers_do_no_harm(detector: Detector, scene) -> None:
    huge = np.float32(3e38)
    points = np.array(
        [[huge, 0, 0, 0, 0], [0, -huge, 0, 0, 0], [10, 0, 0, huge, 0], [10, 0, 0, 0, -huge], [0.1, 0, 0, 0, 0]],
        np.float32,
    )
    result = run(detector, scene, radar={"FRONT": points})
    assert np.isfinite(result.boxes).all() and np.isfinite(result.scores).all()
    assert (result.health.radar_points_invalid, result.health.radar_points_outside) == (2, 2)


@pytest.mark.parametrize("value", [1e6, -1e6, 301, 3e38])
@pytest.mark.parametrize("column", [3, 4])
def test_a_return_that_no_radar_can_measure_changes_nothing(
    detector: Detector, scene, column: int, value: float
) -> None:
    """A sentinel or a broken packet: an intensity in dB or a velocity in m/s beyond 300."""
    clean, grid = run(detector, scene), detector.tensors()["radar_grid"].copy()
    broken = np.array([[20, 3, 0, 5, 0]], np.float32)
    broken[0, column] = value
    result = run(detector, scene, radar={**scene.points, "FRONT": np.concatenate([scene.points["FRONT"], broken])})
    assert result.health.radar_points_invalid == 1 and clean.health.radar_points_invalid == 0
    assert np.array_equal(detector.tensors()["radar_grid"], grid)
    assert len(clean.boxes) > 0
    assert np.array_equal(result.boxes, clean.boxes) and np.array_equal(result.scores, clean.scores)


# ---- the caller's mistakes ----
IMAGE, CLOUD = np.zeros((180, 320, 3), np.uint8), np.zeros((4, 5), np.float32)
SWEEP = RadarSweep("FRONT", CLOUD, NOW)
SKEWED = np.diag([2.0, 1, 1, 1])

MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "image of floats": ("E0201", {"frames": {"AHEAD": IMAGE.astype(np.float32)}}),
    "image of int8": ("E0201", {"frames": {"AHEAD": IMAGE.astype(np.int8)}}),
    "image that is a nested list": ("E0201", {"frames": {"AHEAD": IMAGE[:2, :2].tolist()}}),
    "image that is a string": ("E0201", {"frames": {"AHEAD": "image.jpg"}}),
    "frames that are one array": ("E0201", {"frames": np.zeros((2, 180, 320, 3), np.uint8)}),
    "frames that are a number": ("E0201", {"frames": 3}),
    "grey image": ("E0202", {"frames": {"AHEAD": IMAGE[..., 0]}}),
    "image with alpha": ("E0202", {"frames": {"AHEAD": np.zeros((180, 320, 4), np.uint8)}}),
    "channels first": ("E0202", {"frames": {"AHEAD": IMAGE.transpose(2, 0, 1)}}),
    "image of one row repeated": ("E0202", {"frames": {"AHEAD": np.broadcast_to(IMAGE[:1], IMAGE.shape)}}),
    "image of one column repeated": ("E0202", {"frames": {"AHEAD": np.broadcast_to(IMAGE[:, :1], IMAGE.shape)}}),
    "unknown camera": ("E0203", {"frames": {"LEFT": IMAGE}}),
    "camera named by a number": ("E0203", {"frames": {0: IMAGE}}),
    "unknown radar": ("E0203", {"radar": {"LEFT": CLOUD}}),
    "unknown radar in a sweep": ("E0203", {"radar": [RadarSweep("LEFT", CLOUD)]}),
    "time of an unknown camera": ("E0203", {"camera_timestamps_ns": {"LEFT": 1}}),
    "too few images": ("E0204", {"frames": [IMAGE]}),
    "too many images": ("E0204", {"frames": [IMAGE, None, None]}),
    "too few camera times": ("E0204", {"camera_timestamps_ns": [1]}),
    "points of float64": ("E0201", {"radar": {"FRONT": CLOUD.astype(np.float64)}}),
    "points that are a list": ("E0201", {"radar": {"FRONT": CLOUD.tolist()}}),
    "sweeps that are arrays": ("E0201", {"radar": [CLOUD]}),
    "radar that is one array": ("E0201", {"radar": CLOUD}),
    "points with four columns": ("E0202", {"radar": {"FRONT": CLOUD[:, :4]}}),
    "points in one dimension": ("E0202", {"radar": {"FRONT": CLOUD[0]}}),
    "points of an image's shape": ("E0202", {"radar": {"FRONT": IMAGE.astype(np.float32)}}),
    "time in seconds": ("E0205", {"timestamp_ns": 1.5}),
    "time that is text": ("E0205", {"timestamp_ns": "now"}),
    "time beyond 64 bits": ("E0205", {"timestamp_ns": 1 << 63}),
    "camera time in seconds": ("E0205", {"camera_timestamps_ns": {"AHEAD": 0.1}}),
    "sweep time in seconds": ("E0205", {"radar": [RadarSweep("FRONT", CLOUD, 0.1)]}),
    "pose of the wrong shape": ("E0202", {"ego": Ego(T_world_ego=np.eye(3))}),
    "pose that stretches": ("E0215", {"ego": Ego(T_world_ego=SKEWED)}),
    "pose of NaN": ("E0214", {"ego": Ego(T_world_ego=np.full((4, 4), np.nan))}),
    "sweep's pose that stretches": ("E0215", {"radar": [RadarSweep("FRONT", CLOUD, NOW, SKEWED)]}),
    "twist of two numbers": ("E0202", {"ego": Ego(twist=(1.0, 2.0))}),
    "ego that is a pose": ("E0201", {"ego": np.eye(4)}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_code_and_spoils_nothing(detector: Detector, scene, name: str) -> None:
    code, arguments = MISTAKES[name]
    before = run(detector, scene)
    with pytest.raises(Error) as raised:
        run(detector, scene, **arguments)
    assert raised.value.code == code and str(raised.value).startswith(f"error[{code}] ")
    assert raised.value.what and raised.value.where
    assert np.array_equal(run(detector, scene).boxes, before.boxes)


def one_camera_more(rig: SensorRig) -> SensorRig:
    more = SensorRig.from_json(rig.to_json()).cameras[0]
    more.name = "CAM_ROOF"
    return SensorRig(cameras=[*rig.cameras, more], radars=list(rig.radars))


def skewed(rig: SensorRig) -> SensorRig:
    rig.cameras[0].T_ego_camera = SKEWED
    return rig


@pytest.mark.parametrize(("change", "code"), [(one_camera_more, "E0218"), (skewed, "E0215")])
def test_a_rig_that_does_not_fit_is_refused_and_the_old_one_stays(
    bundle, detector: Detector, scene, change: Callable[[SensorRig], SensorRig], code: str
) -> None:
    before, old = run(detector, scene), detector.rig.to_json()
    for use in (detector.set_rig, lambda rig: Detector(bundle, rig)):
        with pytest.raises(Error) as raised:
            use(change(detector.rig))
        assert raised.value.code == code
    assert detector.rig.to_json() == old and np.array_equal(run(detector, scene).boxes, before.boxes)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"device": "cuda"}, "E0511"),
        ({"device": "tpu:3"}, "E0511"),
        ({"engine": "no such engine"}, "E0501"),
        ({"threads": -1}, "E0511"),
        ({"threads": 1_000_000}, "E0511"),
        ({"threads": 1.5}, "E0511"),
        *(({"score_threshold": value}, "E0104") for value in (-0.5, 0, 1, 1.5)),
        ({"score_threshold": float("nan")}, "E0104"),
    ],
)
def test_a_wrong_option_has_its_code(bundle, scene, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(Error) as raised:
        Detector(bundle, **{"rig": scene.rig, **arguments})
    assert raised.value.code == code and raised.value.fix
    if "score_threshold" in arguments:
        assert raised.value.where == "score_threshold"  # not the spec's head.score_threshold


@pytest.mark.parametrize(("end", "beyond"), [(SCORES[0], 0.9e-6), (SCORES[1], 1 - 0.9e-6)])
def test_the_range_of_score_thresholds_is_the_cores(bundle, scene, end: float, beyond: float) -> None:
    Detector(bundle, scene.rig, score_threshold=end).close()
    spec = random_spec()
    spec.head.score_threshold = beyond
    with pytest.raises(Error, match=r"head\.score_threshold"):
        spec.check()


def test_a_closed_detector_says_so(bundle, scene) -> None:
    with Detector(bundle, scene.rig) as detector:
        run(detector, scene)
    for use in (
        lambda: run(detector, scene),
        detector.tensors,
        lambda: detector.set_rig(scene.rig),
        lambda: detector.rig,
    ):
        with pytest.raises(Error, match="closed"):
            use()
