"""The synthetic world through any rig: lenses, mounting, kinds of velocity, exposure times, turns, a tilted ground."""

from __future__ import annotations

import numpy as np
import pytest
from rigs import three_camera_rig

from imkd_edge import Error, ops
from imkd_edge.rig import SensorRig
from imkd_edge.sources import open_source
from imkd_edge.sources.remount import lift, remount_rig, tilt
from imkd_edge.sources.synth import SynthSource
from imkd_edge.sources.synth.layout import SIZES

ALL = ("car", "truck", "bus", "motorcycle", "bicycle", "pedestrian", "forklift", "pallet")
DRIVE = {"speed": 20.0, "turn_rate": 20.0}


def hits(camera, box: np.ndarray, pixels: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """(n,) bool: which rays of pixels (n, 2) meet a box (x, y, z, l, w, h, yaw), `margin` m larger; slab test."""
    T = np.array(camera.T_ego_camera)
    c, s = np.cos(box[6]), np.sin(box[6])
    R = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    start, direction = R @ (T[:3, 3] - box[:3]), ops.pixel_rays(camera, pixels) @ T[:3, :3].T @ R.T
    half = box[3:6] / 2 + margin
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-half - start) / direction, (half - start) / direction
    return (np.fmin(a, b).max(1) <= np.fmax(a, b).min(1)) & (np.fmax(a, b).min(1) > 0)


@pytest.mark.parametrize("name", ["s000-f001", "s003-f001", "s004-f001"])
def test_objects_are_drawn_where_their_boxes_are_through_any_lens(name: str) -> None:
    source = SynthSource(rig=three_camera_rig(), scenes=8, frames_per_scene=2, classes=ALL)
    sample, ids, tracks = source[name], source.id_images(name), source.instances(name)
    checked = dict.fromkeys(ids, 0)
    for camera in sample.rig.cameras:
        for track, box in zip(tracks, sample.truth.boxes, strict=True):
            rows, columns = np.nonzero(ids[camera.name] == track)
            if len(rows) < 40:
                continue
            pixels = (np.stack([columns, rows], 1) - 0.5) / 2
            assert hits(camera, box, pixels, 0.05 + 0.01 * np.hypot(*box[:2])).mean() > 0.99, (camera.name, track)
            checked[camera.name] += 1
    assert checked["front"] + checked["surround"] + checked["left"] > 10 and checked["surround"] > 3


def test_a_fisheye_sees_beside_it_and_is_black_beyond_its_circle() -> None:
    source = SynthSource(rig=three_camera_rig(), scenes=8, frames_per_scene=2)
    image = source["s003-f000"].frames["surround"]
    camera = source.rig.cameras[1]
    v, u = np.mgrid[:480, :480].astype(float)
    depth = ops.pixel_rays(camera, np.stack([u, v], -1))[..., 2]
    behind = (depth < 0) & (depth > np.cos(np.radians(94.5)))
    beyond = ~(depth > np.cos(np.radians(95.5)))
    assert behind.sum() > 2000 and image[behind].mean() > 40
    assert beyond.sum() > 2000 and image[beyond].max() < 20  # the sensor's noise


def test_images_are_of_the_moment_of_their_exposure() -> None:
    """25 frames/s: what the last camera exposes 40 ms early is what it exposed in the frame before."""
    options = {"rig": three_camera_rig(), "scenes": 1, "frames_per_scene": 3, "rate_hz": 25.0, "sweeps": 1, **DRIVE}
    early, plain = SynthSource(exposure=0.04, **options), SynthSource(**options)
    sample = early["s000-f002"]
    ages = [sample.timestamp_ns - sample.camera_timestamps_ns[c] for c in ("front", "surround", "left")]
    assert ages == [13_333_000, 26_667_000, 40_000_000]
    now, before = early.id_images("s000-f002"), plain.id_images("s000-f001")
    np.testing.assert_array_equal(now["left"], before["left"])
    assert (now["left"] != plain.id_images("s000-f002")["left"]).any()
    np.testing.assert_array_equal(sample.ego.T_world_ego, plain["s000-f002"].ego.T_world_ego)


def with_velocity(kind: str, period: float = 0.0) -> SensorRig:
    rig = three_camera_rig()
    radars = list(rig.radars)
    for radar in radars:
        radar.velocity, radar.period = kind, period
    rig.cameras, rig.radars = [], radars
    return rig


def sweeps(rig: SensorRig) -> tuple[SynthSource, list]:
    source = SynthSource(rig=rig, scenes=1, frames_per_scene=2, sweeps=2, **DRIVE)
    return source, source["s000-f001"].radar


def test_a_raw_radar_reports_the_velocity_relative_to_itself() -> None:
    """Its own velocity by differences of the ego's poses over 2 ms."""
    source, raw = sweeps(with_velocity("raw"))
    _, compensated = sweeps(with_velocity("compensated"))
    scene = source._models("s000-f001")[0].scene
    for a, b in zip(raw, compensated, strict=True):
        T = np.array(next(r.T_ego_radar for r in source.rig.radars if r.name == a.radar))
        t = (a.timestamp_ns - source.moment("s000-f000")[1]) * 1e-9
        moved = (scene.ego_pose(t + 1e-3)[0] @ T)[:3, 3] - (scene.ego_pose(t - 1e-3)[0] @ T)[:3, 3]
        xyz = b.points[:, :3] @ (scene.ego_pose(t)[0] @ T)[:3, :3].T
        along = xyz @ (moved / 2e-3) / np.linalg.norm(xyz, axis=1)
        np.testing.assert_array_equal(a.points[:, :4], b.points[:, :4])
        np.testing.assert_allclose(a.points[:, 4] + along, b.points[:, 4], atol=0.01)


def test_the_speed_of_the_ego_is_in_the_returns_of_a_raw_radar() -> None:
    source, raw = sweeps(with_velocity("raw"))
    estimate = ops.estimate_ego_speed(source.rig, raw)
    assert estimate.speed == pytest.approx(source["s000-f001"].ego.twist[0], abs=0.5)


def test_an_aliased_radar_folds_velocities_into_its_period() -> None:
    _, raw = sweeps(with_velocity("raw"))
    _, aliased = sweeps(with_velocity("aliased", 12.0))
    for a, b in zip(aliased, raw, strict=True):
        turns = (b.points[:, 4] - a.points[:, 4]) / 12.0
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-5)
        assert np.abs(a.points[:, 4]).max() <= 6.0 + 1e-5
    assert max(np.abs(b.points[:, 4]).max() for b in raw) > 12.0


def test_the_ego_turns_at_the_rate_and_drives_at_the_speed_that_are_set() -> None:
    source = SynthSource(scenes=3, frames_per_scene=10, **DRIVE)
    for name in ("s000-f000", "s001-f000", "s002-f000"):
        scene = source._models(name)[0].scene
        times = np.arange(0, 4.5, 0.05)
        poses = [scene.ego_pose(t)[0] for t in times]
        yaw = np.unwrap([np.arctan2(pose[1, 0], pose[0, 0]) for pose in poses])
        rates = np.degrees(np.diff(yaw) / 0.05)
        assert np.abs(rates).max() == pytest.approx(20, abs=0.3) and rates.min() < -10 and rates.max() > 10
        speeds = np.linalg.norm(np.diff([pose[:2, 3] for pose in poses], axis=0), axis=1) / 0.05
        assert (np.abs(speeds - 20) < 20 * 0.0175 * 9).all()  # on the inner or outer lane of a turn
        twist = scene.ego_pose(2.0)[1]
        assert twist[2] == pytest.approx((yaw[41] - yaw[39]) / 0.1, abs=0.01)


@pytest.fixture(scope="module")
def tilted() -> SynthSource:
    """The rig on an ego frame that is tilted by 3 degrees and lies 0.4 m below the ground."""
    rig = remount_rig(three_camera_rig(), tilt(3.0) @ lift(-0.4))
    return SynthSource(rig=rig, scenes=2, frames_per_scene=2, lidar=True)


def test_the_world_stands_on_the_ground_plane_of_the_rig(tilted: SynthSource) -> None:
    sample = tilted["s000-f001"]
    a, b, c = sample.rig.ground_plane
    assert c > 0.35 and np.hypot(a, b) > 0.05
    boxes, points = sample.truth.boxes, sample.lidar
    bottoms = boxes[:, 2] - boxes[:, 5] / 2 - (a * boxes[:, 0] + b * boxes[:, 1] + c)
    assert len(boxes) > 5 and np.abs(bottoms).max() < 0.02
    above = points[:, 2] - (a * points[:, 0] + b * points[:, 1] + c)
    assert above.min() > -0.3 and (np.abs(above) < 0.1).mean() > 0.3


def test_a_tilted_rig_sees_what_its_boxes_say(tilted: SynthSource) -> None:
    sample, ids, tracks = tilted["s000-f001"], tilted.id_images("s000-f001"), tilted.instances("s000-f001")
    checked = 0
    for camera in sample.rig.cameras:
        for track, box in zip(tracks, sample.truth.boxes, strict=True):
            rows, columns = np.nonzero(ids[camera.name] == track)
            if len(rows) >= 40:
                pixels = (np.stack([columns, rows], 1) - 0.5) / 2
                assert hits(camera, box, pixels, 0.2 + 0.01 * np.hypot(*box[:2])).mean() > 0.97
                checked += 1
    assert checked > 5


def test_a_rig_file_drives_the_world_from_the_command_line(tmp_path) -> None:
    path = tmp_path / "three.json"
    path.write_text(three_camera_rig().to_json())
    sample = open_source("synth", rig=str(path), scenes=1, frames_per_scene=1)["s000-f000"]
    assert [f.shape for f in sample.frames.values()] == [(360, 640, 3), (480, 480, 3), (400, 300, 3)]
    assert sample.rig.hash() == three_camera_rig().hash()
    with pytest.raises(Error, match="E0302"):
        open_source("synth", rig=str(tmp_path / "none.json"))


def test_classes_of_ones_own_have_their_names_and_sizes() -> None:
    classes = {"lorry": "truck", "person": "pedestrian", "stacker": {"like": "forklift", "size": [3.0, 1.2, 2.2]}}
    source = SynthSource(scenes=4, frames_per_scene=1, image=(64, 36), sweeps=1, classes=classes)
    assert set(source.classes) == set(classes)
    samples = [source[name] for name in source.names]
    labels = [label for sample in samples for label in sample.truth.labels]
    assert set(labels) == set(classes)
    sizes = np.concatenate([s.truth.boxes[np.array(s.truth.labels) == "stacker", 3:6] for s in samples])
    assert len(sizes) > 2 and (np.abs(sizes / [3.0, 1.2, 2.2] - 1) < 0.06).all()


def test_a_yard_has_forklifts_and_pallets_of_their_sizes() -> None:
    source = SynthSource(scenes=4, frames_per_scene=1, image=(64, 36), classes="car,pedestrian,forklift,pallet")
    samples = [source[name] for name in source.names]
    for kind in ("forklift", "pallet"):
        sizes = np.concatenate([s.truth.boxes[np.array(s.truth.labels) == kind, 3:6] for s in samples])
        low, high = np.array(SIZES[kind])
        assert len(sizes) > 4 and (sizes >= low - 1e-3).all() and (sizes <= high + 1e-3).all()


@pytest.mark.parametrize(
    "options",
    [
        {"classes": "car,ufo"},
        {"classes": {"a": "car", "b": "car"}},
        {"classes": {"a": {"like": "car", "size": [1, 2]}}},
        {"classes": {"a": {"like": "car", "size": "big"}}},
        {"classes": ""},
        {"exposure": -0.01},
        {"exposure": float("nan")},
        {"speed": -1.0},
        {"turn_rate": 20.0},
        {"turn_rate": 90.0, "speed": 5.0},
    ],
)
def test_an_option_that_no_world_has_is_refused(options) -> None:
    with pytest.raises(Error) as raised:
        SynthSource(**options)
    assert raised.value.code == "E0104" and raised.value.fix
