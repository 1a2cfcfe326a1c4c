"""The rig of camera_info and TF: lenses of every publisher, optical and body frames, what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import ros
from recording.scenes import EGO, events, synth
from scipy.spatial.transform import Rotation

from imkd_edge import ops
from imkd_edge.errors import Error
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording.calibration import camera_of, lens
from imkd_edge.sources.recording.messages import CalibrationMessage

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth(frames=2))


Z = 0.0
K1, K2, P1, P2, K3, K4, K5, K6 = 0.1, -0.02, 0.001, 0.002, 0.03, 0.04, -0.05, 0.06


@pytest.mark.parametrize(
    ("model", "d", "kind", "coefficients"),
    [
        ("plumb_bob", (K1, K2, P1, P2, K3), "plumb_bob", (K1, K2, P1, P2, K3)),
        ("plumb_bob", (K1, K2, P1, P2), "plumb_bob", (K1, K2, P1, P2, Z)),
        ("plumb_bob", (K1, K2, P1, P2, K3, Z, Z, Z), "plumb_bob", (K1, K2, P1, P2, K3)),  # Isaac ROS pads to 8
        ("radtan", (K1, K2, P1, P2), "plumb_bob", (K1, K2, P1, P2, Z)),  # Kalibr
        ("rational_polynomial", (K1, K2, P1, P2, K3, K4, K5, K6), "rational_polynomial",
         (K1, K2, P1, P2, K3, K4, K5, K6)),
        ("rational_polynomial", (K1, K2, P1, P2, K3, K4, K5, K6, *[Z] * 6), "rational_polynomial",
         (K1, K2, P1, P2, K3, K4, K5, K6)),
        ("equidistant", (K1, K2, K3, K4), "fisheye", (K1, K2, K3, K4)),
        ("equidistant", (K1, K2, K3, K4, Z, Z, Z, Z), "fisheye", (K1, K2, K3, K4)),
        ("kannala_brandt", (K1, K2, K3, K4), "fisheye", (K1, K2, K3, K4)),  # Foxglove
        ("equidistant", (), "fisheye", (Z, Z, Z, Z)),
        ("pinhole", (Z,) * 8, "none", ()),
        ("plumb_bob", (Z,) * 5, "none", ()),
        ("", (), "none", ()),
    ],
)  # fmt: skip
def test_lenses_of_every_publisher(model: str, d: tuple, kind: str, coefficients: tuple) -> None:
    assert lens("front", model, d) == (kind, coefficients)


@pytest.mark.parametrize(("model", "d"), [("thin_prism", (1.0,)), ("rational_polynomial", (*[Z] * 8, 0.5))])
def test_a_lens_that_the_rig_does_not_know_is_refused(model: str, d: tuple) -> None:
    with pytest.raises(Error, match=r"E0306.*'front'"):
        lens("front", model, d)


def test_coefficients_of_no_named_lens_ask_for_its_name() -> None:
    with pytest.raises(Error, match=r"E0306.*'front' has 4 coefficients.*name their model.*equidistant"):
        lens("front", "", (K1, K2, K3, K4))


def info(**fields: Any) -> CalibrationMessage:
    K = np.array([[400.0, 0, 320], [0, 410, 240], [0, 0, 1]])
    P = np.array([[380.0, 0, 318, 0], [0, 381, 242, 0], [0, 0, 1, 0]])
    basis: dict[str, Any] = {"D": (K1, K2, P1, P2, K3), "K": K, "R": np.eye(3), "P": P}
    return CalibrationMessage(0, "cam", 640, 480, "plumb_bob", **{**basis, **fields})


def test_a_rectified_image_has_p_no_distortion_and_turned_axes() -> None:
    R = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    camera = camera_of("front", info(R=R), np.eye(4), rectified=True)
    np.testing.assert_array_equal(camera.K, info().P[:, :3])
    assert camera.distortion == "none"
    # a ray in the unrectified axes is R times it in the rectified ones (sensor_msgs/CameraInfo)
    ray = np.array([0.3, -0.1, 1.0])
    np.testing.assert_allclose(camera.T_ego_camera[:3, :3] @ (R @ ray), ray, atol=1e-12)


def test_a_region_and_binning_move_the_principal_point() -> None:
    camera = camera_of("front", info(binning=(2, 2), offset=(100, 40), roi=(400, 300), D=()), np.eye(4), False)
    assert (camera.width, camera.height) == (200, 150)
    pixel = ops.project(camera, np.array([[0.2, 0.1, 1.0]]))[0]
    full = np.array([400 * 0.2 + 320, 410 * 0.1 + 240])
    np.testing.assert_allclose(pixel, (full - (100, 40)) / 2)


def test_an_uncalibrated_camera_is_refused() -> None:
    with pytest.raises(Error, match=r"E0306.*'front' is not calibrated.*camera_calibration"):
        camera_of("front", info(K=np.zeros((3, 3))), np.eye(4), False)


# ---- frames ----
def with_static(samples: list[Sample], change: Any) -> list[Any]:
    """The scene with another /tf_static: `change` takes and returns (parent, child, T) of each sensor's mounting."""
    result = []
    for topic, content, log_ns in ros.messages(events(samples)):
        if topic == "/tf_static":
            [each] = content.transforms
            t, q = each.transform.translation, each.transform.rotation
            T = np.eye(4)
            T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
            T[:3, 3] = (t.x, t.y, t.z)
            edges = change(each.header.frame_id, each.child_frame_id, T)
            content = ros.tf(*(ros.transform(log_ns, *edge) for edge in edges))
        result.append((topic, content, log_ns))
    return result


def test_a_mounting_without_a_rotation_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    turned = next(content for topic, content, _ in stored if topic == "/tf_static").transforms[0].transform.rotation
    turned.x = turned.y = turned.z = turned.w = 0.0
    with pytest.raises(Error, match=r"E0306.*'cam_front_optical' in 'base_link' has no rotation"):
        open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))


BODY_OPTICAL = np.eye(4)
BODY_OPTICAL[:3, :3] = Rotation.from_euler("xyz", [-90, 0, -90], degrees=True).as_matrix()  # REP 103


def through_a_chain(parent: str, child: str, T: np.ndarray) -> list[Any]:
    """Over a mount in between, as URDFs have it."""
    mount = np.eye(4)
    mount[:3, 3] = (1.0, 0, 1.0)
    return [(parent, f"{child}_mount", mount), (f"{child}_mount", child, np.linalg.inv(mount) @ T)]


def with_body(parent: str, child: str, T: np.ndarray) -> list[Any]:
    """The images name the optical frame, whose parent is the body."""
    if not child.endswith("_optical"):
        return [(parent, child, T)]
    body = child.replace("_optical", "_link")
    return [(parent, body, T @ np.linalg.inv(BODY_OPTICAL)), (body, child, BODY_OPTICAL)]


def body_alone(parent: str, child: str, T: np.ndarray) -> list[Any]:
    """The frame that the images name is the body's, and TF has no other."""
    return [(parent, child, T @ np.linalg.inv(BODY_OPTICAL) if child.endswith("_optical") else T)]


@pytest.mark.parametrize("change", [through_a_chain, with_body, body_alone])
def test_the_mounting_is_resolved_by_tf(samples: list[Sample], change: Any, tmp_path: Path) -> None:
    stored = with_static(samples, change)
    if change is body_alone:  # a frame called optical is one, so its name must not say so
        for _, content, _ in stored:
            for each in getattr(content, "transforms", []):
                each.child_frame_id = each.child_frame_id.replace("_optical", "_link")
            if hasattr(content, "header"):
                content.header.frame_id = content.header.frame_id.replace("_optical", "_link")
    rig = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))["000000"].rig
    for ours, theirs in zip(samples[0].rig.cameras, rig.cameras):
        np.testing.assert_allclose(theirs.T_ego_camera, ours.T_ego_camera, atol=1e-9)
    for radar, other in zip(samples[0].rig.radars, rig.radars):
        np.testing.assert_allclose(other.T_ego_radar, radar.T_ego_radar, atol=1e-9)


def test_a_body_frame_whose_child_is_optical_gives_that(samples: list[Sample], tmp_path: Path) -> None:
    """Drivers that stamp images with the body's frame although TF knows the optical one."""
    stored = with_static(samples, with_body)
    for topic, content, _ in stored:
        if "/image_raw" in topic or "/camera_info" in topic:
            content.header.frame_id = content.header.frame_id.replace("_optical", "_link")
    rig = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))["000000"].rig
    for ours, theirs in zip(samples[0].rig.cameras, rig.cameras):
        np.testing.assert_allclose(theirs.T_ego_camera, ours.T_ego_camera, atol=1e-9)


def test_poses_come_from_tf_that_moves(samples: list[Sample], tmp_path: Path) -> None:
    stored = []
    for topic, content, log_ns in ros.messages(events(samples)):
        if topic == "/odometry":
            pose = np.eye(4)
            p, q = content.pose.pose.position, content.pose.pose.orientation
            pose[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
            pose[:3, 3] = (p.x, p.y, p.z)
            topic, content = "/tf", ros.tf(ros.transform(log_ns, "odom", EGO, pose))
        stored.append((topic, content, log_ns))
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    assert source.topic_map.odometry == "tf"
    for sample, name in zip(samples, source.names):
        np.testing.assert_allclose(source[name].ego.T_world_ego, sample.ego.T_world_ego, atol=1e-9)


# ---- what is missing ----
def without(samples: list[Sample], pattern: str) -> list[Any]:
    return [item for item in ros.messages(events(samples)) if not re.search(pattern, item[0])]


def test_a_missing_transform_names_both_frames(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", without(samples, "tf_static"))
    with pytest.raises(Error, match=r"E0306.*'cam_front_optical' to 'base_link'.*no TF.*T_ego_camera"):
        open_source(path)
    (tmp_path / "rig.json").write_text(rig_for(samples).to_json())
    source = open_source(path, rig=str(tmp_path / "rig.json"))
    assert set(source["000000"].frames) == {"cam_front", "cam_front_right"}


def rig_for(samples: list[Sample]) -> Any:
    from copy import copy

    from imkd_edge import SensorRig

    cameras, radars = [copy(each) for each in samples[0].rig.cameras], [copy(each) for each in samples[0].rig.radars]
    for sensor in (*cameras, *radars):
        sensor.name = sensor.name.lower()
    return SensorRig(cameras=cameras, radars=radars)


def test_a_missing_camera_info_is_named(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", without(samples, "cam_front/camera_info"))
    with pytest.raises(Error, match=r"E0306.*'cam_front' has no camera_info.*/cam_front_right/camera_info"):
        open_source(path)


def test_images_of_another_size_than_their_calibration_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    for topic, content, _ in stored:
        if topic == "/cam_front/camera_info":
            content.width = 640
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.raises(Error, match=r"E0306.*96 x 54.*640 x 54"):
        source["000000"]


def test_a_mounting_that_moves_is_told(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    moved = np.array(samples[0].rig.radars[0].T_ego_radar)
    moved[0, 3] += 0.2
    stored.append(("/tf", ros.tf(ros.transform(stored[-1][2], EGO, "radar_front", moved)), stored[-1][2]))
    with pytest.warns(UserWarning, match=r"'radar_front'.*moves"):
        open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
