"""Each condition changes the sensors by its name, and nothing else."""

import re
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import golden_sample
from imkd_edge.errors import Error
from imkd_edge.evaluation.conditions import CONDITIONS, MOUNTINGS, condition, original_frame


@pytest.fixture(scope="module")
def sample():
    return golden_sample(2)


def test_the_guide_names_every_condition():
    guide = Path(__file__).resolve().parents[2] / "docs" / "guide" / "evaluation.md"
    section = guide.read_text(encoding="utf-8").split("## With faults of the sensors")[1].split("\n## ")[0]
    assert set(re.findall(r"`([\w.]+)`", section)) == set(CONDITIONS) - {"none"}


def test_none_changes_nothing(sample):
    assert condition("none")(sample) is sample


def test_sensors_go_out(sample):
    assert not condition("no_camera")(sample).frames and condition("no_camera")(sample).radar == sample.radar
    assert not condition("no_radar")(sample).radar and condition("no_radar")(sample).frames is sample.frames


@pytest.mark.parametrize(("name", "keep"), [("radar_half", 2), ("radar_quarter", 4)])
def test_thinning_keeps_every_nth_point_of_each_sweep(sample, name, keep):
    thin = condition(name)(sample).radar
    assert len(thin) == len(sample.radar)
    for before, after in zip(sample.radar, thin):
        assert len(after.points) == -(-len(before.points) // keep)
        assert all((before.points[i * keep] == after.points[i]).all() for i in range(len(after.points)))
        assert replace(after, points=before.points) == before


def test_exposure_scales_grey_levels_and_saturates(sample):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    ramped = replace(sample, frames={"CAM_FRONT": ramp})
    assert np.abs(condition("dark")(ramped).frames["CAM_FRONT"].astype(float) - ramp / 4).max() <= 0.5
    assert (condition("bright")(ramped).frames["CAM_FRONT"] == np.minimum(ramp.astype(int) * 4, 255)).all()


@pytest.mark.parametrize(("name", "degrees"), [("camera_0.5deg", 0.5), ("camera_1deg", 1.0), ("camera_2deg", 2.0)])
def test_the_calibration_turns_by_so_much(sample, name, degrees):
    changed = condition(name)(sample)
    changed.rig.check()
    assert changed.frames is sample.frames
    assert changed.rig.radars[0].T_ego_radar.tolist() == sample.rig.radars[0].T_ego_radar.tolist()
    for before, after in zip(sample.rig.cameras, changed.rig.cameras):
        R = np.array(before.T_ego_camera)[:3, :3].T @ np.array(after.T_ego_camera)[:3, :3]
        angle = np.degrees(np.arccos((np.trace(R) - 1) / 2))
        assert angle == pytest.approx(degrees, rel=0.01)
        assert (np.array(before.T_ego_camera)[:3, 3] == np.array(after.T_ego_camera)[:3, 3]).all()


def test_an_unknown_condition_is_refused():
    with pytest.raises(Error, match="fog") as error:
        condition("fog")
    assert "radar_half" in error.value.fix and set(CONDITIONS) >= {"none", "no_camera", "no_radar"}


def with_plane(sample, plane):
    rig = copy(sample.rig)
    rig.ground_plane = plane
    return replace(sample, rig=rig)


@pytest.mark.parametrize(("name", "degrees"), [("tilted_1", 1), ("tilted_2", 2), ("tilted_3", 3)])
def test_the_mounting_tilts_with_its_plane_and_the_cameras_see_the_same(sample, name, degrees):
    before = with_plane(sample, (0.03, -0.02, -1.5))
    after = condition(name)(before)
    R = np.array(after.rig.radars[0].T_ego_radar)[:3, :3] @ np.array(before.rig.radars[0].T_ego_radar)[:3, :3].T
    assert np.degrees(np.arccos((np.trace(R) - 1) / 2)) == pytest.approx(degrees, rel=1e-6)
    assert R[1, 2] == pytest.approx(-np.sin(np.radians(degrees)) / np.sqrt(2))  # roll, as much as pitch:
    assert R[0, 2] == pytest.approx(np.sin(np.radians(degrees)) / np.sqrt(2))
    normals = [np.array([-p[0], -p[1], 1]) / np.hypot(np.hypot(p[0], p[1]), 1) for p in planes(before, after)]
    assert normals[1] == pytest.approx(R @ normals[0])
    assert after.frames is before.frames and after.radar[0].points is before.radar[0].points


def planes(*samples):
    return [sample.rig.ground_plane for sample in samples]


@pytest.mark.parametrize(("name", "height"), [("lifted_0.1", 0.1), ("lifted_0.2", 0.2)])
def test_the_ego_frame_lies_higher(sample, name, height):
    before = with_plane(sample, (0.03, -0.02, -1.5))
    after = condition(name)(before)
    assert after.rig.ground_plane == pytest.approx((0.03, -0.02, -1.5 - height))
    for old, new in zip(before.rig.cameras, after.rig.cameras):
        assert np.array(new.T_ego_camera)[2, 3] == pytest.approx(np.array(old.T_ego_camera)[2, 3] - height)


def test_a_tilted_mounting_may_name_no_plane(sample):
    before = with_plane(sample, (0.03, -0.02, -1.5))
    after = condition("tilted_2_unnamed")(before)
    assert after.rig.ground_plane is None
    assert after.rig.cameras[0] == condition("tilted_2")(before).rig.cameras[0]


def test_times_or_motion_become_unknown_and_the_data_stay(sample):
    poses = {"CAM_FRONT": np.eye(4)}
    before = replace(
        sample, camera_timestamps_ns={"CAM_FRONT": sample.timestamp_ns - 4 * 10**7}, camera_T_world_ego=poses
    )
    at_once = condition("no_exposure_times")(before)
    assert (at_once.camera_timestamps_ns, at_once.camera_T_world_ego) == ({}, {})
    assert at_once.ego is before.ego and at_once.radar is before.radar and at_once.frames is before.frames
    still = condition("no_motion")(before)
    assert still.motion().source == "none" and before.motion().source == "poses"
    assert still.frames is before.frames and still.camera_timestamps_ns == before.camera_timestamps_ns
    assert all(a.points is b.points and a.timestamp_ns == b.timestamp_ns for a, b in zip(still.radar, before.radar))


def test_a_calibration_error_leaves_the_plane(sample):
    before = with_plane(sample, (0.03, -0.02, -1.5))
    assert condition("camera_1deg")(before).rig.ground_plane == before.rig.ground_plane


@pytest.mark.parametrize("name", ["none", "camera_1deg", *MOUNTINGS])
def test_detections_are_measured_in_the_frame_of_the_source(sample, name):
    boxes = original_frame(name, condition(name)(sample).truth.boxes)
    assert len(boxes) > 0 and np.allclose(boxes[:, :6], sample.truth.boxes[:, :6], atol=1e-9)
    assert np.allclose(np.exp(1j * boxes[:, 6]), np.exp(1j * sample.truth.boxes[:, 6]), atol=0.003)
