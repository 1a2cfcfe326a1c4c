"""The synthetic world on disk: the official devkit opens, renders and evaluates it, our reader returns the samples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from imkd_edge.errors import Error
from imkd_edge.evaluation.nuscenes import evaluate
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.sources import open_source
from imkd_edge.sources.nuscenes import NuScenesSource
from imkd_edge.sources.nuscenes.labels import CATEGORIES, attribute_of
from imkd_edge.sources.nuscenes.radar import RADAR_POINT, radar_pcd
from imkd_edge.sources.nuscenes.writer import write_nuscenes
from imkd_edge.sources.synth import SynthSource

VERSION = "v1.0-synth"


@pytest.fixture(scope="module")
def source() -> SynthSource:
    return SynthSource(seed=4, scenes=2, frames_per_scene=3, image=(160, 90), lidar=True)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    return write_nuscenes(source, tmp_path_factory.mktemp("set") / "synth", quality=None)


@pytest.fixture(scope="module")
def nusc(folder):
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(folder), verbose=False)


def test_the_devkit_opens_it_and_every_chain_is_whole(nusc, source):
    assert len(nusc.scene) == 2 and len(nusc.sample) == 6 and len(nusc.sensor) == 12
    for scene in nusc.scene:
        token, count = scene["first_sample_token"], 0
        while token:
            sample = nusc.get("sample", token)
            assert set(sample["data"]) == {s["channel"] for s in nusc.sensor}
            last, token, count = token, sample["next"], count + 1
        assert count == scene["nbr_samples"] == 3 and last == scene["last_sample_token"]
    for instance in nusc.instance:
        token, count, times = instance["first_annotation_token"], 0, []
        while token:
            row = nusc.get("sample_annotation", token)
            assert row["instance_token"] == instance["token"]
            times.append(nusc.get("sample", row["sample_token"])["timestamp"])
            last, token, count = token, row["next"], count + 1
        assert count == instance["nbr_annotations"]
        assert last == instance["last_annotation_token"]
        assert times == sorted(times)
    for row in nusc.sample_data:
        assert Path(nusc.dataroot, row["filename"]).is_file()
        if row["next"]:
            after = nusc.get("sample_data", row["next"])
            assert after["prev"] == row["token"]
            assert after["timestamp"] > row["timestamp"]
            assert after["channel"] == row["channel"]
    radars = [row for row in nusc.sample_data if row["channel"] == "RADAR_FRONT"]
    assert len(radars) == 18
    assert sum(r["is_key_frame"] for r in radars) == 6
    assert sum(r["prev"] == "" for r in radars) == 2


@pytest.mark.parametrize("channel", ["CAM_FRONT", "RADAR_FRONT", "LIDAR_TOP"])
def test_the_devkit_renders_it(nusc, channel, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import cv2

    target = tmp_path / "out.png"  # without the map under it, which devkit 1.2.0 cannot cut out with numpy 2.4
    nusc.render_sample_data(
        nusc.sample[1]["data"][channel], out_path=str(target), verbose=False, underlay_map=False, nsweeps=3
    )
    image = cv2.imread(str(target))
    assert image is not None and image.std() > 10


def test_boxes_in_the_devkit_are_those_of_truth(nusc, source):
    by_token = {row["token"]: row for row in nusc.sample}
    for name, token in zip(source.names, by_token):
        sample, rows = source[name], [nusc.get("sample_annotation", a) for a in by_token[token]["anns"]]
        T = sample.ego.T_world_ego
        assert len(rows) == len(sample.truth.labels)
        for i, row in enumerate(rows):
            box = nusc.get_box(row["token"])
            expected = sample.truth.boxes[i]
            centre = T[:3, :3].T @ (np.array(box.center) - T[:3, 3])
            yaw = np.arctan2(*(T[:3, :3].T @ box.rotation_matrix)[[1, 0], 0])
            np.testing.assert_allclose(centre, expected[:3], atol=1e-6)
            np.testing.assert_allclose(np.array(box.wlh)[[1, 0, 2]], expected[3:6], atol=1e-9)
            assert abs((yaw - expected[6] + np.pi) % (2 * np.pi) - np.pi) < 1e-6
            assert row["category_name"] == CATEGORIES[sample.truth.labels[i]]
            assert int(row["visibility_token"]) == 4 - sample.truth.occlusion[i]
            assert (row["num_radar_pts"], row["num_lidar_pts"]) == (
                sample.truth.radar_points[i],
                sample.truth.lidar_points[i],
            )
            attribute = nusc.get("attribute", row["attribute_tokens"][0])["name"]
            assert attribute == attribute_of(sample.truth.labels[i], np.hypot(*expected[7:9]))
            if row["prev"] and row["next"]:
                velocity = T[:3, :3].T @ nusc.box_velocity(row["token"])
                np.testing.assert_allclose(velocity[:2], expected[7:9], atol=0.25)  # a difference over a second


def test_our_reader_gives_the_samples_back(folder, source):
    back = open_source(folder, sweeps=3)
    assert isinstance(back, NuScenesSource) and len(back) == len(source)
    for ours, theirs in zip(source, back):
        assert (ours.timestamp_ns, ours.scene, ours.camera_timestamps_ns) == (
            theirs.timestamp_ns,
            theirs.scene,
            theirs.camera_timestamps_ns,
        )
        for a, b in zip(ours.rig.cameras, theirs.rig.cameras, strict=True):
            assert (a.name, a.width, a.height) == (b.name, b.width, b.height)
            np.testing.assert_allclose(a.K, b.K, atol=1e-12)
            np.testing.assert_allclose(a.T_ego_camera, b.T_ego_camera, atol=1e-12)
            np.testing.assert_array_equal(ours.frames[a.name], theirs.frames[a.name])
        for a, b in zip(ours.rig.radars, theirs.rig.radars, strict=True):
            assert a.name == b.name
            np.testing.assert_allclose(a.T_ego_radar, b.T_ego_radar, atol=1e-12)
        np.testing.assert_allclose(ours.ego.T_world_ego, theirs.ego.T_world_ego, atol=1e-9)
        for a, b in zip(ours.radar, theirs.radar, strict=True):
            assert (a.radar, a.timestamp_ns) == (b.radar, b.timestamp_ns)
            np.testing.assert_allclose(a.points, b.points, atol=2e-6)
            np.testing.assert_allclose(a.T_world_ego, b.T_world_ego, atol=1e-9)
        np.testing.assert_allclose(ours.lidar, theirs.lidar, atol=2e-5)
        assert ours.truth.labels == theirs.truth.labels
        np.testing.assert_allclose(ours.truth.boxes[:, :7], theirs.truth.boxes[:, :7], atol=1e-6)
        for field in ("occlusion", "radar_points", "lidar_points"):
            np.testing.assert_array_equal(getattr(ours.truth, field), getattr(theirs.truth, field))


def test_relative_radar_velocities_contain_the_motion_of_the_ego(nusc, source):
    """Static things approach at the speed of the vehicle's radar along the line of sight."""
    from nuscenes.utils.data_classes import RadarPointCloud

    checked = 0
    for name, row in zip(source.names, nusc.sample):
        twist = source[name].ego.twist
        data = nusc.get("sample_data", row["data"]["RADAR_FRONT"])
        p = RadarPointCloud.from_file(nusc.get_sample_data_path(data["token"])).points
        still = np.hypot(p[8], p[9]) < 0.3
        sight = p[:2] / np.hypot(*p[:2])
        radial = (p[6] * sight[0] + p[7] * sight[1])[still]
        lever = 3.41 * twist[2]
        np.testing.assert_allclose(radial, -(sight[0] * twist[0] + sight[1] * lever)[still], atol=0.31)
        checked += still.sum()
    assert checked > 100


def test_the_official_evaluation_of_the_folder_agrees_with_ours(nusc, folder, tmp_path):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from pyquaternion import Quaternion

    rng, back = np.random.default_rng(1), NuScenesSource(folder, images=False, lidar=False)
    truths, detections, results = [], [], {}
    for sample in back:
        truth = sample.truth
        boxes = truth.boxes + rng.normal(0, [0.4, 0.4, 0.1, 0.1, 0.05, 0.05, 0.2, 0.3, 0.3], truth.boxes.shape)
        boxes = np.nan_to_num(boxes)[rng.random(len(boxes)) < 0.9]
        labels = [truth.labels[int(np.hypot(*(truth.boxes[:, :2] - b[:2]).T).argmin())] for b in boxes]
        scores = rng.uniform(0.1, 0.9, len(boxes))
        truths.append(truth)
        detections.append((boxes, scores, labels))
        T = sample.ego.T_world_ego
        rows = []
        for box, score, label in zip(boxes, scores, labels):
            rotation = Quaternion(matrix=T[:3, :3]) * Quaternion(axis=[0, 0, 1], radians=box[6])
            rows.append(
                {
                    "sample_token": sample.name,
                    "translation": (T[:3, :3] @ box[:3] + T[:3, 3]).tolist(),
                    "size": box[[4, 3, 5]].tolist(),
                    "rotation": rotation.elements.tolist(),
                    "velocity": (T[:2, :2] @ box[7:9]).tolist(),
                    "detection_name": label,
                    "detection_score": float(score),
                    "attribute_name": attribute_of(label, float(np.hypot(*box[7:9]))),
                }
            )
        results[sample.name] = rows
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": results}))
    official = DetectionEval(
        nusc, config_factory("detection_cvpr_2019"), str(path), "all", str(tmp_path / "out"), verbose=False
    )
    metrics, _ = official.evaluate()
    ours = evaluate(truths, detections)
    assert 0.05 < metrics.mean_ap < 0.5
    assert ours["mAP"] == pytest.approx(metrics.mean_ap, abs=1e-9)
    for name, key in {"trans_err": "mATE", "scale_err": "mASE", "orient_err": "mAOE", "vel_err": "mAVE"}.items():
        assert ours[key] == pytest.approx(metrics.tp_errors[name], abs=1e-6)
    # a box seen once has no speed in ours
    assert ours["mAAE"] == pytest.approx(metrics.tp_errors["attr_err"], abs=0.05)
    assert ours["NDS"] == pytest.approx(metrics.nd_score, abs=0.005)


def test_splits_are_written_for_the_devkit(folder):
    splits = json.loads((folder / VERSION / "splits.json").read_text())
    assert splits == {"all": ["s000", "s001"], "synth_train": ["s000", "s001"], "synth_val": []}


def test_written_twice_it_is_the_same_bytes(tmp_path):
    source = SynthSource(seed=1, frames_per_scene=2, image=(64, 36), lidar=True).subset(["s003-f000", "s003-f001"])
    sums = []
    for part in "ab":
        root = write_nuscenes(source, tmp_path / part)
        files = sorted(p for p in root.rglob("*") if p.is_file())
        sums.append({str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert sums[0] == sums[1] and len(sums[0]) == 14 + 1 + 2 * (6 + 15 + 1)


class Changed:
    """A source of one sample, some fields of which are replaced."""

    kind = "synth"

    def __init__(self, **changes):
        self.sample = dataclasses.replace(
            SynthSource(frames_per_scene=1, image=(64, 36), sweeps=1)["s000-f000"], **changes
        )
        self.names = ["s000-f000"]

    def __len__(self):
        return 1

    def __getitem__(self, name):
        return self.sample


def test_a_fault_half_way_leaves_nothing_behind(tmp_path):
    with pytest.raises(Error, match="E0306"):
        write_nuscenes(Changed(ego=None), tmp_path / "x")
    with pytest.raises(Error, match="E0306"):
        write_nuscenes(Changed(ego=Ego()), tmp_path / "x")
    truth = Changed().sample.truth
    with pytest.raises(Error, match="E0305"):
        write_nuscenes(Changed(truth=dataclasses.replace(truth, labels=["tram"] * len(truth.labels))), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(Error, match="E0702"):
        write_nuscenes(Changed(), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_missing_sensors_and_jpeg_are_written_too(tmp_path):
    full = Changed().sample
    few = {k: v for k, v in full.frames.items() if k != "CAM_BACK"}
    empty = RadarSweep("RADAR_FRONT", np.zeros((0, 5), np.float32), full.timestamp_ns, full.ego.T_world_ego)
    root = write_nuscenes(Changed(frames=few, radar=[empty], truth=None), tmp_path / "few")
    sample = next(iter(NuScenesSource(root)))
    assert set(sample.frames) == set(few) and [len(s.points) for s in sample.radar] == [0] and sample.truth is None
    assert np.abs(sample.frames["CAM_FRONT"].astype(int) - full.frames["CAM_FRONT"]).mean() < 6


def test_a_sweep_without_a_time_is_the_key_frame(tmp_path):
    """Its time is the reference time, so it is newer than one of 77 ms before, in either order."""
    now = Changed().sample.timestamp_ns
    sweeps = [
        RadarSweep("RADAR_FRONT", np.float32([[5, 0, 0, 1, 0]] * count), time)
        for count, time in ((2, now - 77_000_000), (1, None))
    ]
    for order in (sweeps, sweeps[::-1]):
        root = write_nuscenes(Changed(radar=order), tmp_path / str(len(order[0].points)))
        [sample] = list(NuScenesSource(root, sweeps=2))
        assert [(len(s.points), now - s.timestamp_ns) for s in sample.radar] == [(1, 0), (2, 77_000_000)]


def test_the_point_file_has_the_fields_of_a_genuine_one(shared_data, source):
    genuine = next((shared_data / "nuscenes" / "native_radar_pcd").glob("*.pcd")).read_bytes()
    sweep = source["s000-f000"].radar[0]
    ours = radar_pcd(sweep, source.rig.radars[0], source["s000-f000"].ego.twist)
    keys = (b"VERSION", b"FIELDS", b"SIZE", b"TYPE", b"COUNT", b"HEIGHT", b"VIEWPOINT", b"DATA")
    heads = [[line for line in data.split(b"\n")[:11] if line.startswith(keys)] for data in (genuine, ours)]
    assert heads[0] == heads[1] and len(heads[0]) == 8
    assert RADAR_POINT.itemsize == 43
