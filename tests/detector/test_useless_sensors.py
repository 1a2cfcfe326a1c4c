"""Sensors that deliver, but nothing of use: frozen, flat, broken, of another size; poses that no vehicle has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from imkd_edge import Detector, Ego, Error, RadarSweep

CAMERAS, RADARS = ("AHEAD", "BEHIND"), ("FRONT", "REAR")
NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def run(detector: Detector, scene, **changes):
    return detector.infer(**{"frames": scene.frames, "radar": scene.points, "timestamp_ns": NOW, **changes})


def again(detector: Detector, scene, step: int, **changes):
    """The scene with times of its own."""
    at = NOW + step * SECOND // 10
    radar = [RadarSweep(name, points, at) for name, points in changes.pop("radar", scene.points).items()]
    return run(detector, scene, **{"radar": radar, "timestamp_ns": at, **changes})


def noisy(scene, step: int) -> dict[str, dict[str, np.ndarray]]:
    """Images and points that differ from frame to frame, as those of real sensors do."""
    random = np.random.default_rng(step)
    frames = {name: image ^ random.integers(0, 2, image.shape, np.uint8) for name, image in scene.frames.items()}
    points = {name: p + random.normal(0, 1e-3, p.shape).astype(np.float32) for name, p in scene.points.items()}
    return {"frames": frames, "radar": points}


@pytest.mark.parametrize("sensor", CAMERAS + RADARS)
def test_contents_that_repeat_with_new_times_are_frozen_and_left_out(detector: Detector, scene, sensor: str) -> None:
    kind, values = ("frames", scene.frames) if sensor in CAMERAS else ("radar", scene.points)
    for step in range(6):
        data = noisy(scene, step)
        others = {name: value for name, value in data[kind].items() if name != sensor}
        result = again(detector, scene, step, **{**data, kind: {**others, sensor: values[sensor]}})
        expected = dict.fromkeys(CAMERAS + RADARS, "ok") | {sensor: "ok" if step < 2 else "frozen"}
        assert result.health.sensors == expected and result.health.mode == ("full" if step < 2 else "partial")
    without = again(detector, scene, step, **{**data, kind: others})
    assert len(result.boxes) > 0 and np.array_equal(result.boxes, without.boxes)
    assert again(detector, scene, 7, **noisy(scene, 7)).health.mode == "full"


def test_a_frame_that_is_given_again_is_not_frozen(detector: Detector, scene) -> None:
    assert {again(detector, scene, 0).health.mode for _ in range(5)} == {"full"}
    assert {run(detector, scene, timestamp_ns=0).health.mode for _ in range(5)} == {"full"}


@pytest.mark.parametrize("level", [0, 96, 255])
def test_an_image_that_shows_nothing_is_invalid_and_left_out(detector: Detector, scene, level: int) -> None:
    """Of one grey level but for two pixels in a hundred; with a tenth of them it shows something."""
    random, image = np.random.default_rng(0), scene.frames["AHEAD"]
    for share, state in ((0.02, "invalid"), (0.1, "ok")):
        kept = random.random(image.shape[:2]) < share
        covered = np.where(kept[..., None], image, np.uint8(level))
        result = run(detector, scene, frames={**scene.frames, "AHEAD": covered})
        assert result.health.sensors["AHEAD"] == state
        assert detector.tensors()["images"][0].any() == (state == "ok")


def state_of(detector: Detector, scene, image: np.ndarray) -> str:
    return run(detector, scene, frames={**scene.frames, "AHEAD": image}).health.sensors["AHEAD"]


def test_a_night_with_headlights_shows_something(detector: Detector, scene) -> None:
    """Black but for the lamps of one car, 0.3 % of the image: a light, not as many pixels that are broken."""
    random, night = np.random.default_rng(0), np.zeros_like(scene.frames["AHEAD"])
    assert state_of(detector, scene, night) == "invalid"
    broken = random.random(night.shape[:2]) < 0.003
    assert state_of(detector, scene, np.where(broken[..., None], np.uint8(255), night)) == "invalid"
    night[100:108, 200:212] = night[100:108, 220:232] = 200
    assert state_of(detector, scene, night) == "ok"
    assert state_of(detector, scene, 255 - night) == "invalid"  # saturated: a dark patch is no light


@pytest.mark.parametrize(
    ("gain", "noise", "state"),
    [(1 / 32, 0, "ok"), (1 / 64, 1, "ok"), (1 / 128, 1, "invalid"), (1 / 256, 0, "invalid"), (1 / 128, 2, "ok")],
)
def test_a_real_image_in_the_dark_is_invalid_where_nothing_is_left_of_it(
    detector: Detector, scene, shared_data: Path, gain: float, noise: float, state: str
) -> None:
    """Grey levels times gain with a read noise: flat where white has two levels and the noise is no larger."""
    random, paths = np.random.default_rng(0), sorted(shared_data.glob("nuscenes/scene-0061_*/samples/CAM_*/*.jpg"))
    assert len(paths) == 6
    for path in paths:
        day = cv2.resize(cv2.imread(str(path)), (320, 180), interpolation=cv2.INTER_AREA)
        dark = day * gain + random.normal(0, noise, day.shape)
        night = np.clip(np.round(dark), 0, 255).astype(np.uint8)
        assert state_of(detector, scene, night) == state, path.parent.name
        night[100:108, 200:212] = night[100:108, 220:232] = 200
        assert state_of(detector, scene, night) == "ok"


@pytest.mark.parametrize(("broken", "state", "invalid"), [(149, "ok", 149), (150, "ok", 150), (151, "invalid", 300)])
def test_a_sweep_with_more_invalid_points_than_valid_ones_is_left_out(
    detector: Detector, scene, broken: int, state: str, invalid: int
) -> None:
    points = scene.points["FRONT"].copy()
    points[:broken, 3] = np.nan
    result = run(detector, scene, radar={**scene.points, "FRONT": points})
    assert result.health.sensors["FRONT"] == state and result.health.radar_points_invalid == invalid
    expected = run(
        detector, scene, radar={"REAR": scene.points["REAR"]} | ({"FRONT": points[broken:]} if broken < 151 else {})
    )
    assert np.array_equal(result.boxes, expected.boxes)


def test_a_radar_is_as_old_as_its_newest_sweep_that_is_not_broken(detector: Detector, scene) -> None:
    old = RadarSweep("REAR", scene.points["REAR"], NOW - SECOND * 4 // 10)
    new = RadarSweep("REAR", np.full((50, 5), np.nan, np.float32), NOW)
    result = run(detector, scene, radar=[RadarSweep("FRONT", scene.points["FRONT"], NOW), old, new])
    assert result.health.sensors["REAR"] == "late" and result.health.radar_points_invalid == 50


IMAGE = np.zeros((180, 320, 3), np.uint8)
SIZES = {  # the images of a frame, one of them of another size than its calibration's
    "another size": {"AHEAD": IMAGE[:-1]},
    "that of another camera": {"BEHIND": IMAGE},
    "empty": {"AHEAD": IMAGE[:0]},
}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_was_never_right_is_a_mistake_and_later_a_fault(detector: Detector, scene, name: str) -> None:
    with pytest.raises(Error) as raised:
        run(detector, scene, frames=SIZES[name])
    (camera,) = SIZES[name]
    assert raised.value.code == "E0202" and camera in raised.value.where
    assert run(detector, scene).health.mode == "full"
    result = run(detector, scene, frames={**scene.frames, **SIZES[name]})
    assert result.health.sensors == {**dict.fromkeys(CAMERAS + RADARS, "ok"), camera: "invalid"}
    others = {key: image for key, image in scene.frames.items() if key != camera}
    assert len(result.boxes) > 0 and np.array_equal(result.boxes, run(detector, scene, frames=others).boxes)


@pytest.mark.parametrize(
    ("ego", "code"),
    [
        (Ego(T_world_ego=np.full((4, 4), np.nan)), "E0214"),
        (Ego(T_world_ego=np.diag([2.0, 1, 1, 1])), "E0215"),
        (Ego(twist=(np.nan, 0, 0)), "E0201"),
        (Ego(twist=(655.35, 0, 0)), "E0201"),
    ],
)
def test_a_motion_that_no_vehicle_has_is_a_mistake_and_later_a_fault(detector: Detector, scene, ego, code) -> None:
    with pytest.raises(Error) as raised:
        run(detector, scene, ego=ego)
    assert raised.value.code == code
    assert run(detector, scene, ego=Ego(np.eye(4), (5.0, 0, 0))).health.warnings == ()
    result, unknown = run(detector, scene, ego=ego), run(detector, scene)
    assert [warning.code for warning in result.health.warnings] == ["W0132"] and unknown.health.warnings == ()
    assert result.health.ego_motion == unknown.health.ego_motion and np.array_equal(result.boxes, unknown.boxes)


def at_x(metres: float, yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, metres], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def health_of_poses(detector: Detector, scene, metres: list[float], twist: tuple | None, period: float = 0.1) -> list:
    """Of frames with poses along x, also at the exposures and sweeps, a live heading and one twist: W0132, source."""
    seen = []
    for step, x in enumerate(metres):
        at, data, T = NOW + round(step * period * SECOND), noisy(scene, step), at_x(x, 1e-3 * (step % 3))
        radar = [RadarSweep(name, points, at, T) for name, points in data["radar"].items()]
        poses = dict.fromkeys(CAMERAS, T)
        result = run(
            detector,
            scene,
            **data | {"radar": radar, "timestamp_ns": at, "ego": Ego(T, twist)},
            camera_T_world_ego=poses,
        )
        seen.append(("W0132" in {w.code for w in result.health.warnings}, result.health.ego_motion))
    return seen


def test_a_pose_that_stands_still_while_the_twist_moves_is_left_out(detector: Detector, scene) -> None:
    """At 9 m/s: 2.7 m after three further frames, 3.6 m after four. It moves again in the eighth frame."""
    seen = health_of_poses(detector, scene, [0.0] * 8 + [7.2, 8.1], (9.0, 0.0, 0.0))
    assert [warned for warned, _ in seen] == [False] * 4 + [True] * 4 + [False] * 2
    assert {source for _, source in seen[4:8]} == {"twist"}


@pytest.mark.parametrize(
    ("metres", "twist", "period"),
    [
        ([5.0] * 20, (0.0, 0.0, 0.0), 0.1),  # parked
        ([5.0] * 20, (0.0, 0.0, 0.5), 0.1),
        ([5.0] * 20, None, 0.1),
        ([0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 6.0, 6.0, 6.0], (30.0, 0.0, 0.0), 1 / 30),  # held at 10 Hz
        ([0.9 * i for i in range(20)], (9.0, 0.0, 0.0), 0.1),
    ],
)
def test_a_pose_of_a_vehicle_at_rest_or_of_a_slow_localisation_is_not_frozen(
    detector: Detector, scene, metres: list[float], twist: tuple | None, period: float
) -> None:
    assert not any(warned for warned, _ in health_of_poses(detector, scene, metres, twist, period))


def test_a_frozen_pose_is_forgotten_by_reset(detector: Detector, scene) -> None:
    assert health_of_poses(detector, scene, [0.0] * 6, (9.0, 0.0, 0.0))[-1][0]
    detector.reset()
    assert not health_of_poses(detector, scene, [0.0] * 2, (9.0, 0.0, 0.0))[-1][0]
