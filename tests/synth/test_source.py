"""The synthetic source: reproducible, consistent in time, with errors for impossible options."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from shapely import Polygon

from imkd_edge.errors import Error
from imkd_edge.rig import SensorRig
from imkd_edge.sources import open_source
from imkd_edge.sources.synth import CACHED_SCENES, SynthSource, default_rig
from imkd_edge.sources.synth.world import Scene

SMALL = {"image": (160, 90), "frames_per_scene": 3}


def digest(sample) -> str:
    h = hashlib.sha256()
    for name, pixels in sample.frames.items():
        h.update(name.encode() + pixels.tobytes())
    for sweep in sample.radar:
        h.update(sweep.points.tobytes() + sweep.T_world_ego.tobytes() + str(sweep.timestamp_ns).encode())
    truth = sample.truth
    for array in (
        truth.boxes,
        truth.occlusion,
        truth.radar_points,
        truth.lidar_points,
        sample.lidar,
        sample.ego.T_world_ego,
    ):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def test_a_sample_is_the_same_bytes_whatever_was_read_before_it():
    names = ["s000-f000", "s001-f002", "s005-f001", "s000-f002"]
    forward, other = SynthSource(seed=3, lidar=True, **SMALL), SynthSource(seed=3, lidar=True, **SMALL)
    first = [digest(forward[n]) for n in names]
    for scene in range(CACHED_SCENES + 1):  # evict everything from the cache
        other[f"s{scene:03d}-f001"]
    assert [digest(other[n]) for n in reversed(names)] == first[::-1]
    assert digest(other.subset(names[1:2])[names[1]]) == first[1]
    assert len(set(first)) == len(names)


def test_another_seed_is_another_world():
    assert digest(SynthSource(seed=1, lidar=True, **SMALL)["s000-f000"]) != digest(
        SynthSource(seed=2, lidar=True, **SMALL)["s000-f000"]
    )


def test_names_order_and_splits():
    source = SynthSource(scenes=17, frames_per_scene=4)
    assert source.names[:2] == ["s000-f000", "s000-f001"] and len(source) == 68 and source.names[-1] == "s016-f003"
    train, val = source.splits["train"], source.splits["val"]
    assert sorted(train + val) == source.names and len(val) == 8
    assert not {n[:4] for n in train} & {n[:4] for n in val}
    assert source.subset(val[:3]).names == val[:3] and source.subset(val[:3]).splits == {"train": [], "val": val[:3]}


def test_the_default_rig_is_valid_and_looks_all_around():
    rig = default_rig((480, 270))
    rig.check()
    assert [c.name for c in rig.cameras][:2] == ["CAM_FRONT", "CAM_FRONT_RIGHT"]
    assert len(rig.cameras) == 6
    assert len(rig.radars) == 5
    for degrees in range(0, 360, 3):  # a point 20 m away at eye level is in some image
        p = np.array([20 * np.cos(np.radians(degrees)), 20 * np.sin(np.radians(degrees)), 1.5, 1])
        visible = 0
        for camera in rig.cameras:
            q = (np.linalg.inv(camera.T_ego_camera) @ p)[:3]
            u, v, w = np.asarray(camera.K) @ q
            visible += w > 0 and -0.5 <= u / w <= camera.width - 0.5 and -0.5 <= v / w <= camera.height - 0.5
        assert visible >= 1, degrees
    wide = [2 * np.degrees(np.arctan(camera.width / 2 / camera.K[0, 0])) for camera in rig.cameras]
    # of nuScenes' focal lengths, 1266 and 809 px
    assert wide == pytest.approx([64.6, 64.6, 64.6, 89.4, 64.6, 64.6], abs=0.1)


def test_a_sample_has_everything_with_the_right_types():
    source = SynthSource(lidar=True, **SMALL)
    sample = source["s002-f001"]
    assert [*sample.frames] == [c.name for c in source.rig.cameras]
    assert all(f.shape == (90, 160, 3) and f.dtype == np.uint8 and f.std() > 5 for f in sample.frames.values())
    assert sample.scene == "s002" and sample.timestamp_ns % 1000 == 0
    assert len(sample.radar) == 15 and all(
        s.points.dtype == np.float32 and s.points.shape[1] == 5 for s in sample.radar
    )
    assert sample.lidar.dtype == np.float32 and sample.lidar.shape[1] == 4
    truth = sample.truth
    assert truth.boxes.shape == (len(truth.labels), 9)
    assert np.isfinite(truth.boxes).all()
    assert set(truth.labels) <= set(source.classes)
    assert truth.occlusion.dtype == np.int8 and set(truth.occlusion.tolist()) <= {0, 1, 2, 3}
    assert (truth.lidar_points >= 0).all() and (SynthSource(**SMALL)["s002-f001"].truth.lidar_points == -1).all()
    for radar in source.rig.radars:
        times = [s.timestamp_ns for s in sample.radar if s.radar == radar.name]
        assert np.diff(times).tolist() == [-75_000_000] * 2 and 0 <= sample.timestamp_ns - times[0] < 75_000_000


def test_neighbouring_samples_share_the_sweeps_they_have_in_common():
    source = SynthSource(rate_hz=10.0, sweeps=4, **SMALL)
    a, b = ({(s.radar, s.timestamp_ns): s.points for s in source[n].radar} for n in ("s000-f001", "s000-f002"))
    common = set(a) & set(b)
    assert len(common) >= 10
    assert all(np.array_equal(a[k], b[k]) for k in common)


def test_velocity_and_twist_are_the_derivatives_of_position():
    for index in range(4):
        scene = Scene(5, index, 10.0, ("car", "truck", "bus", "motorcycle", "bicycle", "pedestrian"))
        for t in (0.3, 4.1, 9.6):
            before, now, after = (scene.state(t + d) for d in (-0.01, 0.0, 0.01))
            np.testing.assert_allclose((after.xy - before.xy) / 0.02, now.velocity, atol=2e-3)
            moving = np.hypot(*now.velocity.T) > 0.1
            heading = np.arctan2(now.velocity[:, 1], now.velocity[:, 0])
            turn = (heading - now.yaw + np.pi) % (2 * np.pi) - np.pi
            np.testing.assert_allclose(turn[moving], 0, atol=1e-9)
            (a, _), (b, twist), (c, _) = (scene.ego_pose(t + d) for d in (-0.01, 0.0, 0.01))
            np.testing.assert_allclose(b[:2, :2].T @ (c[:2, 3] - a[:2, 3]) / 0.02, twist[:2], atol=2e-3)
            rate = np.arctan2(*(a[:3, :3].T @ c[:3, :3])[[1, 0], 0]) / 0.02
            assert rate == pytest.approx(twist[2], abs=1e-4)


def test_truth_moves_as_its_velocities_say():
    source = SynthSource(rate_hz=10.0, scenes=2, **SMALL)
    world = {}
    for name in source.names[3:]:
        sample, T = source[name], source[name].ego.T_world_ego
        for track, box in zip(source.instances(name), sample.truth.boxes):
            world.setdefault(track, []).append((T[:2, :2] @ box[:2] + T[:2, 3], T[:2, :2] @ box[7:9]))
    tracks = [t for t in world.values() if len(t) == 3]
    assert len(tracks) > 15
    for (a, _), (_, v), (b, _) in tracks:
        np.testing.assert_allclose((b - a) / 0.2, v, atol=0.03)


def test_nothing_drives_through_the_ego_and_objects_rarely_touch():
    pairs = touching = 0
    for index in range(3):
        scene = Scene(0, index, 9.5, ("car", "truck", "bicycle", "pedestrian"))
        for t in np.arange(0, 9.5, 1.9):
            state, (pose, _) = scene.state(t), scene.ego_pose(t)
            shapes = [footprint(xy, yaw, size) for xy, yaw, size in zip(state.xy, state.yaw, scene.objects.sizes)]
            ego = footprint(pose[:2, 3] + pose[:2, 0] * 1.4, np.arctan2(pose[1, 0], pose[0, 0]), (4.6, 1.9))
            assert not any(ego.intersects(s) for s in shapes), (index, t)
            near = np.hypot(*(state.xy[:, None] - state.xy[None]).transpose(2, 0, 1)) < 13
            for i, j in zip(*np.nonzero(np.triu(near, 1))):
                pairs += 1
                touching += shapes[i].intersects(shapes[j])
    assert pairs > 300 and touching / pairs < 0.01


def footprint(xy, yaw, size) -> Polygon:
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * np.array(size[:2]) / 2
    return Polygon(local @ np.array([[c, s], [-s, c]]) + xy)


def test_opened_by_name():
    assert open_source("synth:7", scenes=2).seed == 7
    assert open_source("synth").kind == "synth"


@pytest.mark.parametrize("name", ["", "s000", "s000-f003", "s096-f000", "000105", "s0-f0"])
def test_an_unknown_sample_is_refused(name):
    with pytest.raises(Error, match="E0307"):
        SynthSource(**SMALL)[name]


@pytest.mark.parametrize(
    "options",
    [
        {"scenes": 0},
        {"frames_per_scene": 0},
        {"rate_hz": 0},
        {"rate_hz": 40},
        {"sweeps": -1},
        {"image": (0, 10)},
        {"classes": ("tram",)},
        {"classes": ()},
        {"seed": -1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(Error, match="E0104"):
        SynthSource(**options)


def test_without_sweeps_or_with_another_rig_it_still_works():
    assert SynthSource(sweeps=0, **SMALL)["s000-f000"].radar == []
    base = default_rig((200, 120))
    few = SensorRig(cameras=[base.cameras[3]], radars=[base.radars[1]])
    sample = SynthSource(rig=few, frames_per_scene=1)["s000-f000"]
    assert [*sample.frames] == ["CAM_BACK"] and sample.frames["CAM_BACK"].shape == (120, 200, 3)
    assert {s.radar for s in sample.radar} == {"RADAR_FRONT_RIGHT"}
