"""The nuScenes reader against the official devkit on a folder written by hand, and on a genuine key frame."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pyquaternion import Quaternion
from sources.nuscenes_folder import FIELDS, SENSORS, START_US, pcd, radar_rows, write_nuscenes

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.nuscenes import NuScenesSource, radar_points
from imkd_edge.sources.pcd import read_pcd


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def devkit(folder):
    from nuscenes.nuscenes import NuScenes

    return NuScenes("v1.0-mini", str(folder), verbose=False)


@pytest.fixture(scope="module")
def source(folder) -> NuScenesSource:
    return open_source(folder)


@pytest.fixture(scope="module")
def keyframe(shared_data):
    folder = shared_data / "nuscenes" / "scene-0061_ca9a282c"
    source = open_source(folder)
    return folder, source[source.names[0]]


def matrix(translation, rotation) -> np.ndarray:
    T = Quaternion(rotation).transformation_matrix
    T[:3, 3] = translation
    return T


def through(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    return (np.c_[points, np.ones(len(points))] @ T.T)[:, :3]


# ---- against the devkit ----
def test_samples_and_scenes_are_the_devkits(source, devkit):
    assert source.kind == "nuscenes"
    assert source.names == ["k0", "k1", "k2"]
    assert source.scenes == {"scene-0061": source.names}
    assert source.splits["mini_train"] == source.names
    assert source.splits["train"] == source.names
    assert "val" not in source.splits
    for sample in source:
        assert sample.timestamp_ns == devkit.get("sample", sample.name)["timestamp"] * 1000
        assert sample.scene == "scene-0061"
        for channel, time in sample.camera_timestamps_ns.items():
            assert (
                time
                == devkit.get("sample_data", devkit.get("sample", sample.name)["data"][channel])["timestamp"] * 1000
            )


@pytest.mark.parametrize("name", ["k0", "k1", "k2"])
def test_boxes_are_the_devkits_in_the_ego_frame(source, devkit, name):
    truth = source[name].truth
    lidar = devkit.get("sample_data", devkit.get("sample", name)["data"]["LIDAR_TOP"])
    ego = devkit.get("ego_pose", lidar["ego_pose_token"])
    boxes = [box for box in devkit.get_boxes(lidar["token"]) if box.name != "animal"]
    assert len(boxes) == len(truth.labels) > 0
    for box, ours, label in zip(boxes, truth.boxes, truth.labels, strict=True):
        velocity = Quaternion(ego["rotation"]).inverse.rotate(devkit.box_velocity(box.token))
        box.translate(-np.array(ego["translation"]))
        box.rotate(Quaternion(ego["rotation"]).inverse)
        forward = box.orientation.rotate([1, 0, 0])
        width, length, height = box.wlh
        yaw = np.arctan2(forward[1], forward[0])
        assert np.allclose(ours, [*box.center, length, width, height, yaw, *velocity[:2]], equal_nan=True)
        assert label == {"vehicle.car": "car", "human.pedestrian.adult": "pedestrian"}[box.name]


def test_bicycle_racks_come_beside_the_boxes(source, devkit, tmp_path):
    """Annotations of that category become racks; against the devkit's boxes."""
    write_nuscenes(tmp_path)
    table = tmp_path / "v1.0-mini" / "category.json"
    table.write_text(table.read_text().replace('"animal"', '"static_object.bicycle_rack"'))
    truths = {sample.name: sample.truth for sample in NuScenesSource(tmp_path, images=False)}
    assert {name: len(truth.racks) for name, truth in truths.items()} == {"k0": 0, "k1": 1, "k2": 0}
    assert all(
        truth.labels == source[name].truth.labels and source[name].truth.racks.shape == (0, 9)
        for name, truth in truths.items()
    )
    lidar = devkit.get("sample_data", devkit.get("sample", "k1")["data"]["LIDAR_TOP"])
    ego = devkit.get("ego_pose", lidar["ego_pose_token"])
    box = next(box for box in devkit.get_boxes(lidar["token"]) if box.name == "animal")
    box.translate(-np.array(ego["translation"]))
    box.rotate(Quaternion(ego["rotation"]).inverse)
    x, y, _ = box.orientation.rotate([1, 0, 0])
    width, length, height = box.wlh
    assert np.allclose(truths["k1"].racks[0, :7], [*box.center, length, width, height, np.arctan2(y, x)])


def test_velocity_is_unknown_without_a_near_neighbour(folder, tmp_path):
    write_nuscenes(tmp_path)
    table = tmp_path / "v1.0-mini" / "sample.json"
    rows = json.loads(table.read_text())
    rows[2]["timestamp"] += 3_000_000
    table.write_text(json.dumps(rows))
    far = NuScenesSource(tmp_path, images=False)
    assert np.isnan(far["k2"].truth.boxes[:, 7:]).all()  # its only neighbour is 3.5 s away
    assert np.isfinite(far["k0"].truth.boxes[0, 7:]).all()
    assert np.isfinite(NuScenesSource(folder)["k2"].truth.boxes[:, 7:]).all()


def test_counts_and_visibility_come_with_the_boxes(source):
    truth = source["k2"].truth
    assert truth.lidar_points.tolist() == [7, 7] and truth.radar_points.tolist() == [2, 2]
    assert truth.occlusion.tolist() == [2, 2]  # visibility 2: 40 to 60 percent
    assert source["k0"].truth.occlusion.tolist() == [0, 0]


def exposed(sample):
    """The cameras at their exposures, in the reference ego frame."""
    return sample.motion().exposure_rig(sample.rig).cameras


@pytest.mark.parametrize("channel", ["CAM_FRONT", "CAM_BACK"])
@pytest.mark.parametrize("name", ["k0", "k1", "k2"])
def test_cameras_carry_the_motion_since_their_exposure(source, devkit, name, channel):
    """The devkit transforms a box into each camera at that camera's ego pose; the rig must give the same position."""
    from nuscenes.utils.geometry_utils import BoxVisibility

    sample = source[name]
    camera = exposed(sample)[["CAM_FRONT", "CAM_BACK"].index(channel)]
    assert camera.name == channel and (camera.width, camera.height) == (640, 360)
    T_camera_ego = np.linalg.inv(np.asarray(camera.T_ego_camera))
    token = devkit.get("sample", name)["data"][channel]
    _, boxes, K = devkit.get_sample_data(token, box_vis_level=BoxVisibility.NONE)
    expected = [box.center for box in boxes if box.name != "animal"]
    assert np.allclose(through(T_camera_ego, sample.truth.boxes[:, :3]), expected) and np.allclose(camera.K, K)
    calibrated = matrix(*SENSORS[channel][1:3])
    moved = np.linalg.norm(np.asarray(camera.T_ego_camera)[:3, 3] - calibrated[:3, 3])
    assert 0.05 < moved < 0.4  # 8 m/s for 10 or 35 ms


def test_radar_sweeps_are_the_devkits_in_the_lidar_frame(source, devkit):
    from nuscenes.utils.data_classes import RadarPointCloud

    for name in source.names:
        sample = source[name]
        RadarPointCloud.default_filters()
        cloud, lags = RadarPointCloud.from_file_multisweep(
            devkit, devkit.get("sample", name), "RADAR_FRONT", "LIDAR_TOP", 6, 0.0
        )
        T_ego_radar = np.asarray(sample.rig.radars[0].T_ego_radar)
        T_lidar_world = np.linalg.inv(sample.ego.T_world_ego @ matrix(*SENSORS["LIDAR_TOP"][1:3]))
        # the devkit keeps only valid and stationary or moving returns: open with its filter
        ours = NuScenesSource(source.path, invalid_states=[0], dynamic_properties=range(7), images=False)[name].radar
        points = [through(T_lidar_world @ sweep.T_world_ego @ T_ego_radar, sweep.points[:, :3]) for sweep in ours]
        assert np.allclose(np.concatenate(points), cloud.points[:3].T, atol=1e-4)
        assert np.allclose(np.concatenate([sweep.points[:, 3] for sweep in ours]), cloud.points[5])
        ages = [
            (START_US * 1000 + source.names.index(name) * 500_000_000 - sweep.timestamp_ns) * 1e-9 for sweep in ours
        ]
        assert np.allclose(np.repeat(ages, [len(sweep.points) for sweep in ours]), lags[0], atol=1e-5)


def test_sweeps_go_back_through_prev_newest_first(folder, source):
    assert [len(source[name].radar) for name in source.names] == [3, 5, 6]  # the recording starts two sweeps before k0
    times = [sweep.timestamp_ns for sweep in source["k2"].radar]
    assert np.diff(times).tolist() == [-250_000_000] * 5
    assert len(NuScenesSource(folder, sweeps=1)["k2"].radar) == 1
    assert {sweep.radar for sweep in source["k2"].radar} == {"RADAR_FRONT"}


def test_lidar_is_in_the_ego_frame(source, devkit, folder):
    from nuscenes.utils.data_classes import LidarPointCloud

    row = devkit.get("sample_data", devkit.get("sample", "k1")["data"]["LIDAR_TOP"])
    cloud = LidarPointCloud.from_file(str(folder / row["filename"]))
    cloud.rotate(SENSORS["LIDAR_TOP"][2].rotation_matrix)
    cloud.translate(np.array(SENSORS["LIDAR_TOP"][1]))
    assert np.allclose(source["k1"].lidar, cloud.points.T, atol=1e-5) and source["k1"].lidar.dtype == np.float32


# ---- radar returns ----
def test_radial_velocity_is_the_part_along_the_line_of_sight():
    points = radar_rows(0, 5)
    points["x"], points["y"] = [10, 10, 0, 3, 0], [0, 0, 5, 4, 0]
    points["vx_comp"], points["vy_comp"] = [-5, 2, 9, 1, 4], [7, 0, -2, 2, 4]
    expected = [
        -5,
        2,
        -2,
        (1 * 3 + 2 * 4) / 5,
        0,
    ]  # approaching ahead, receding, approaching on the left, oblique, no direction
    assert radar_points(points)[:, 4].tolist() == pytest.approx(expected)
    assert np.array_equal(radar_points(points)[:, 3], points["rcs"])


def test_filters_keep_what_is_asked_for(folder):
    def count(**filters) -> int:
        return len(NuScenesSource(folder, images=False, sweeps=1, **filters)["k0"].radar[0].points)

    everything = {"invalid_states": None, "dynamic_properties": None, "ambiguity_states": None}
    assert count(**everything) == 12
    assert count() == 10  # one ambiguous, one invalid state 3; states 4 and dynamic property 7 stay
    assert count(**{**everything, "invalid_states": [0]}) == 10
    assert count(**{**everything, "dynamic_properties": range(7)}) == 11
    assert count(**{**everything, "ambiguity_states": [2]}) == 1


@pytest.mark.parametrize("padding", [0, 1, 43, 500])
def test_points_decides_and_not_the_size_of_the_file(tmp_path, padding):
    points = radar_rows(1)
    (tmp_path / "a.pcd").write_bytes(pcd(points, padding))
    assert np.array_equal(read_pcd(tmp_path / "a.pcd", ("x",)), points)


def test_a_genuine_radar_file_reads_like_the_devkit(shared_data):
    from nuscenes.utils.data_classes import RadarPointCloud

    path = next((shared_data / "nuscenes" / "native_radar_pcd").glob("*.pcd"))
    points = read_pcd(path, tuple(FIELDS.split()))
    RadarPointCloud.disable_filters()
    reference = RadarPointCloud.from_file(str(path)).points
    RadarPointCloud.default_filters()
    assert reference.shape == (18, 125) and points.dtype.names == tuple(FIELDS.split())
    assert np.array_equal(
        np.stack([points[name].astype(np.float64) for name in FIELDS.split()]), reference.astype(np.float64)
    )


# ---- the genuine key frame, with four radars missing ----
def test_missing_radars_are_absent_and_the_rest_is_there(keyframe):
    _, sample = keyframe
    assert sorted(sample.frames) == sorted(camera.name for camera in sample.rig.cameras) and len(sample.frames) == 6
    assert all(image.shape == (900, 1600, 3) for image in sample.frames.values())
    assert [sweep.radar for sweep in sample.radar] == [radar.name for radar in sample.rig.radars] == ["RADAR_FRONT"]
    assert sample.lidar.shape == (34688, 4) and sample.lidar[:, 3].min() >= 0 and 200 < sample.lidar[:, 3].max() <= 255
    assert sample.scene == "scene-0061" and sample.timestamp_ns == 1532402927647951000


def test_radar_points_are_those_published_elsewhere(keyframe):
    """Sensor-frame coordinates and which pass the default filter, and the same returns in CAM_FRONT's frame."""
    folder, sample = keyframe
    with open(next((folder / "radar_partial").glob("*all125_xyz.csv"))) as file:
        rows = [row for row in csv.DictReader(file) if row["kept_by_default_filter"] == "1"]
    points = sample.radar[0].points
    assert np.allclose(points[:, :3], [[float(row[axis]) for axis in "xyz"] for row in rows], atol=1e-5)
    expected = np.loadtxt(folder / "radar_partial" / "source_00000_radar_pc_camframe.txt").T[
        [int(row["id"]) for row in rows]
    ]
    T_ego_ref = np.linalg.inv(sample.ego.T_world_ego)
    T = T_ego_ref @ sample.radar[0].T_world_ego @ np.asarray(sample.rig.radars[0].T_ego_radar)
    in_camera = through(np.linalg.inv(np.asarray(exposed(sample)[0].T_ego_camera)) @ T, points[:, :3])
    assert sample.rig.cameras[0].name == "CAM_FRONT" and np.abs(in_camera - expected).max() < 1e-5


def test_boxes_hold_the_lidar_points_that_their_labels_count(keyframe):
    folder, sample = keyframe
    items = [item for item in json.loads((folder / "annotations.json").read_text()) if item["name"] != "ignored"]
    assert len(items) == len(sample.truth.labels) == 68 and sample.truth.labels.count("pedestrian") == 30
    assert sample.truth.lidar_points.tolist() == [item["num_lidar_pts"] for item in items]
    counts = []
    for box in sample.truth.boxes:
        local = (sample.lidar[:, :3] - box[:3]) @ Quaternion(axis=[0, 0, 1], radians=box[6]).rotation_matrix
        counts.append((np.abs(local) <= box[3:6] / 2).all(1).sum())
    # a ground-plane yaw instead of the full rotation moves a few returns at the rims of the largest boxes
    assert np.isclose(counts, sample.truth.lidar_points, atol=1).sum() >= 62
    assert np.allclose(counts, sample.truth.lidar_points, rtol=0.15, atol=3)


def test_fast_objects_drive_along_their_heading(keyframe):
    boxes = keyframe[1].truth.boxes
    speed = np.hypot(boxes[:, 7], boxes[:, 8])
    fast = speed > 3
    along = (boxes[:, 7] * np.cos(boxes[:, 6]) + boxes[:, 8] * np.sin(boxes[:, 6])) / np.maximum(speed, 1e-9)
    assert fast.sum() >= 5 and (along[fast] > 0.99).all()


def test_lidar_projects_as_through_the_world_frame(keyframe):
    """The devkit's chain LiDAR -> ego -> world -> ego at exposure -> camera, written with pyquaternion."""
    folder, sample = keyframe
    tables = {
        n: json.loads((folder / "tables_as_found" / f"{n}.json").read_text())
        for n in ("sample_data", "calibrated_sensor", "ego_pose")
    }
    row = {name: {item["token"]: item for item in rows} for name, rows in tables.items()}

    def chain(channel: str) -> np.ndarray:
        data = next(item for item in tables["sample_data"] if f"/{channel}/" in item["filename"])
        ego, calibration = (
            row["ego_pose"][data["ego_pose_token"]],
            row["calibrated_sensor"][data["calibrated_sensor_token"]],
        )
        sensor = matrix(calibration["translation"], calibration["rotation"])
        return matrix(ego["translation"], ego["rotation"]) @ sensor

    path = next((folder / "samples" / "LIDAR_TOP").glob("*.bin"))
    raw = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3].astype(np.float64)
    for camera in exposed(sample):
        expected = through(np.linalg.inv(chain(camera.name)) @ chain("LIDAR_TOP"), raw)
        ours = through(np.linalg.inv(np.asarray(camera.T_ego_camera)), sample.lidar[:, :3].astype(np.float64))
        front = (expected[:, 2] > 1) & (np.abs(expected[:, 0]) < expected[:, 2])
        pixels = [p[front] @ np.asarray(camera.K).T / p[front, 2:] for p in (expected, ours)]
        assert front.sum() > 1000 and np.abs(pixels[0] - pixels[1]).max() < 0.02  # float32 points


def test_an_unknown_sample_is_refused(source):
    for use in (
        lambda: source["k9"],
        lambda: source.subset(["k0", "k9"]),
        lambda: NuScenesSource(source.path, frames=["?"]),
    ):
        with pytest.raises(Error) as caught:
            use()
        assert caught.value.code == "E0307"
    assert [sample.name for sample in source.subset(["k2", "k0"])] == ["k2", "k0"] and len(source) == 3
