"""The Astyx reader on real frames of both forms, and on small folders with one defect each."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyquaternion import Quaternion

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.sources.astyx import AstyxSource

SAME_FRAMES = ["000000", "000205", "000283", "000468"]  # published as they are in astyx_original, adapted in astyx
T_CAMERA = [[0.0, 0.0, 1.0, 0.1], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.4], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def adapted(shared_data: Path) -> AstyxSource:
    return AstyxSource(shared_data / "astyx")


@pytest.fixture(scope="module")
def published(shared_data: Path) -> AstyxSource:
    return AstyxSource(shared_data / "astyx_original")


def calibration(K=None, T_camera=None, T_lidar=None) -> dict:
    K = K or [[500.0, 0.0, 31.5], [0.0, 500.0, 15.5], [0.0, 0.0, 1.0]]
    data = {
        "radar_6455": {"T_to_ref_COS": np.eye(4).tolist()},
        "lidar_vlp16": {"T_to_ref_COS": (np.eye(4) if T_lidar is None else T_lidar).tolist()},
        "camera_front": {"K": K, "T_to_ref_COS": T_CAMERA if T_camera is None else T_camera.tolist()},
    }
    return {"sensors": [{"sensor_uid": uid, "calib_data": content} for uid, content in data.items()]}


def labelled(**changes) -> dict:
    content = {
        "center3d": [10.0, 1.0, 0.0],
        "dimension3d": [4.0, 2.0, 1.5],
        "orientation_quat": list(Quaternion(axis=[0, 0, 1], degrees=30)),
        "classname": "Car",
        "occlusion": 1,
    }
    return {"objects": [{**content, **changes}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder of two frames, written by hand."""
    for name in ("000007", "000008"):
        files = {
            f"calibration/{name}.json": json.dumps(calibration()),
            f"groundtruth_obj3d/{name}.json": json.dumps(labelled()),
            f"radar_6455/{name}.txt": "\nX Y Z V_r Mag\n10 1 0 2.5 48\n20 -3 0.5 -1.25 50.5\n",
            f"lidar_vlp16/{name}.txt": "X Y Z Reflectivity LaserID Timestamp\n10 1 0 7 0 123\n5 5 5 255 2 124\n",
        }
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        (tmp_path / "camera_front").mkdir(exist_ok=True)
        pixels = np.zeros((32, 64, 3), np.uint8)
        pixels[:, :32, 2] = 255  # left half red in OpenCV's order
        cv2.imwrite(str(tmp_path / "camera_front" / f"{name}.jpg"), pixels)
    return tmp_path


def code_of(source: AstyxSource | Path, name: str = "000007") -> str:
    with pytest.raises(Error) as caught:
        _ = (AstyxSource(source) if isinstance(source, Path) else source)[name]
    assert caught.value.what and caught.value.where and caught.value.fix
    assert name in caught.value.where or name in caught.value.what
    return str(caught.value.code)


# ---- real frames ----
def test_every_frame_is_found_and_block_splits_do_not_overlap(adapted):
    assert len(adapted) == 470 and adapted.names[0] == "000000" and adapted.names[-1] == "000469"
    sizes = {split: len(names) for split, names in adapted.splits.items()}
    assert sizes == {"train": 325, "val": 110, "random_train": 353, "random_val": 117}
    assert not set(adapted.splits["train"]) & set(adapted.splits["val"])
    assert [len(adapted.subset(adapted.splits[split])) for split in ("train", "val")] == [325, 110]


@pytest.mark.parametrize("name", SAME_FRAMES)
def test_both_forms_of_a_frame_agree(adapted, published, name):
    ours, theirs = adapted[name], published[name]
    points, reference = ours.radar[0].points, theirs.radar[0].points
    assert points.shape == reference.shape and len(points) > 800 and points.dtype == np.float32
    assert np.abs(points - reference)[:, :3].max() < 5.2e-4  # rounded to 1 mm
    assert np.abs(points - reference)[:, 3:].max() < 1e-4
    assert ours.lidar.shape == theirs.lidar.shape and np.array_equal(ours.lidar, theirs.lidar)
    assert np.array_equal(ours.truth.boxes, theirs.truth.boxes, equal_nan=True)
    assert ours.truth.labels == theirs.truth.labels


@pytest.mark.parametrize("name", SAME_FRAMES)
def test_intrinsics_are_halved_about_pixel_centres_at_integers(adapted, published, name):
    half, full = adapted[name], published[name]
    small, large = half.rig.cameras[0], full.rig.cameras[0]
    assert (small.width, small.height, large.width, large.height) == (1024, 309, 2048, 618)
    scale = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])  # u' = (u + 0.5) / 2 - 0.5
    assert np.allclose(small.K, scale @ np.asarray(large.K), atol=1e-6)
    shrunk = full.frames["camera_front"].reshape(309, 2, 1024, 2, 3).mean((1, 3))
    assert np.abs(shrunk - half.frames["camera_front"]).mean() < 3  # grey levels


@pytest.mark.parametrize("name", SAME_FRAMES)
def test_radar_is_the_published_table_with_receding_positive(published, shared_data, name):
    text = (shared_data / "astyx_original" / "radar_6455" / f"{name}.txt").read_text()
    rows = [[float(word) for word in line.split()] for line in text.splitlines()[2:]]
    x, y, z, closing, magnitude = np.array(rows).T
    sweep = published[name].radar[0]
    assert np.array_equal(sweep.points, np.stack([x, y, z, magnitude, -closing], 1).astype(np.float32))
    radar = published[name].rig.radars[0]
    assert sweep.radar == radar.name == "radar_6455" and str(radar.velocity) == "aliased" and radar.period == 10.39
    assert np.allclose(radar.T_ego_radar, np.eye(4))
    assert np.ptp(closing) < radar.period


def test_labels_of_all_frames_are_those_of_the_files(adapted, shared_data):
    fast = AstyxSource(adapted.path, images=False, lidar=False)
    cars = occluded = 0
    for sample in fast.subset(fast.names[::10]):
        text = (shared_data / "astyx" / "groundtruth_obj3d" / f"{sample.name}.json").read_text()
        assert sample.truth.labels.count("car") == len(re.findall(r'"classname": ?"Car"', text))
        assert (sample.truth.occlusion == 2).sum() == len(re.findall(r'"occlusion": ?2', text))
        cars += sample.truth.labels.count("car")
        occluded += (sample.truth.occlusion > 0).sum()
        assert sample.lidar is None and not sample.frames and (sample.truth.lidar_points == -1).all()
    assert cars > 200 and occluded > 50


@pytest.mark.parametrize("name", SAME_FRAMES)
def test_yaw_is_the_heading_of_the_full_rotation(adapted, shared_data, name):
    objects = json.loads((shared_data / "astyx" / "groundtruth_obj3d" / f"{name}.json").read_text())["objects"]
    for item, box in zip(objects, adapted[name].truth.boxes, strict=True):
        forward = Quaternion(item["orientation_quat"]).rotate([1, 0, 0])
        assert np.isclose(box[6], np.arctan2(forward[1], forward[0]))
        assert np.allclose(box[:6], item["center3d"] + item["dimension3d"]) and np.isnan(box[7:]).all()


def test_boxes_hold_their_points_and_stand_in_the_image(adapted):
    """Wrong axes, a wrong yaw or extrinsic calibration would empty the boxes or move them out of the picture."""
    hits = objects = 0
    for name in adapted.names[5::47]:
        sample = adapted[name]
        near = np.hypot(*sample.truth.boxes[:, :2].T) < 30
        hits += (sample.truth.lidar_points[near] > 0).sum()
        objects += near.sum()
        camera = sample.rig.cameras[0]
        T = np.linalg.inv(np.asarray(camera.T_ego_camera))
        # +-22 degrees
        ahead = sample.truth.boxes[np.abs(sample.truth.boxes[:, 1]) < 0.4 * sample.truth.boxes[:, 0], :3]
        pixel = (ahead @ T[:3, :3].T + T[:3, 3]) @ np.asarray(camera.K).T
        u, v = pixel[:, 0] / pixel[:, 2], pixel[:, 1] / pixel[:, 2]
        assert len(ahead) and (pixel[:, 2] > 0).all()
        assert ((u > 0) & (u < 1024) & (v > 100) & (v < 309)).all()
    assert objects > 20 and hits > 0.85 * objects


def test_points_in_boxes_are_those_of_a_plain_loop(adapted):
    sample = adapted["000205"]
    for box, count in zip(sample.truth.boxes, sample.truth.radar_points, strict=True):
        R_box_ego = Quaternion(axis=[0, 0, 1], radians=-box[6]).rotation_matrix
        local = [R_box_ego @ (point[:3].astype(float) - box[:3]) for point in sample.radar[0].points]
        assert count == sum(all(abs(c) <= size / 2 for c, size in zip(point, box[3:6])) for point in local)
    assert sample.truth.radar_points.sum() > 400


# ---- a folder written by hand ----
def test_a_frame_is_read_as_written(folder):
    source = open_source(folder)
    assert isinstance(source, AstyxSource) and source.kind == "astyx" and source.names == ["000007", "000008"]
    sample = source["000007"]
    assert sample.timestamp_ns == 700_000_000 == sample.radar[0].timestamp_ns
    assert source["000008"].timestamp_ns - sample.timestamp_ns == 100_000_000
    assert sample.radar[0].points.tolist() == [[10, 1, 0, 48, -2.5], [20, -3, 0.5, 50.5, 1.25]]  # approaching, receding
    assert sample.lidar.tolist() == [[10, 1, 0, 7], [5, 5, 5, 255]]
    assert np.allclose(sample.truth.boxes[0, :7], [10, 1, 0, 4, 2, 1.5, np.radians(30)])
    assert sample.truth.labels == ["car"] and sample.truth.occlusion.tolist() == [1]
    assert sample.truth.radar_points.tolist() == [1] and sample.truth.lidar_points.tolist() == [1]
    image = sample.frames["camera_front"]
    assert image.shape == (32, 64, 3) and image[:, :24, 0].min() > 230 and image[:, :24, 2].max() < 25  # RGB
    assert (sample.rig.cameras[0].width, sample.rig.cameras[0].height) == (64, 32)
    assert np.allclose(sample.rig.cameras[0].T_ego_camera, T_CAMERA)


def test_each_frame_has_its_own_calibration(folder):
    T_lidar, T_camera = np.eye(4), np.array(T_CAMERA)
    T_lidar[:3, 3] = 1, 2, 3
    T_lidar[:3, :3] = Quaternion(axis=[0, 0, 1], degrees=90).rotation_matrix
    T_camera[:3, :3] = Quaternion(axis=[0, 0, 1], degrees=5).rotation_matrix @ T_camera[:3, :3]
    K = [[480.0, 0.0, 30.0], [0.0, 470.0, 14.0], [0.0, 0.0, 1.0]]
    (folder / "calibration" / "000008.json").write_text(json.dumps(calibration(K, T_camera, T_lidar)))
    source = AstyxSource(folder)
    before, after = source["000007"], source["000008"]
    assert np.allclose(before.rig.cameras[0].T_ego_camera, T_CAMERA)
    assert np.allclose(after.rig.cameras[0].T_ego_camera, T_camera) and np.allclose(after.rig.cameras[0].K, K)
    assert before.lidar[0, :3].tolist() == [10, 1, 0]
    # (x, y) -> (-y, x), shifted
    assert np.allclose(after.lidar[:, :3], [[1 - 1, 2 + 10, 3], [1 - 5, 2 + 5, 8]], atol=1e-5)


def test_gzipped_and_plain_tables_read_alike(folder):
    path = folder / "radar_6455" / "000007.txt"
    plain = AstyxSource(folder)["000007"].radar[0].points
    (folder / "radar_6455" / "000007.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert np.array_equal(AstyxSource(folder)["000007"].radar[0].points, plain)


def test_nan_points_are_kept_for_the_detector_to_count(folder):
    (folder / "radar_6455" / "000007.txt").write_text("X Y Z V_r Mag\nnan 1 0 2.5 48\n20 -3 0.5 -1.25 50.5\n")
    sample = AstyxSource(folder)["000007"]
    assert np.isnan(sample.radar[0].points[0, 0]) and len(sample.radar[0].points) == 2
    assert sample.truth.radar_points.tolist() == [0]


def test_a_radar_that_saw_nothing_is_no_fault(folder):
    (folder / "radar_6455" / "000007.txt").write_text("X Y Z V_r Mag\n")
    assert AstyxSource(folder)["000007"].radar[0].points.shape == (0, 5)


def test_without_labels_and_lidar_there_is_no_truth(folder):
    for sensor in ("groundtruth_obj3d", "lidar_vlp16"):
        for file in (folder / sensor).iterdir():
            file.unlink()
        (folder / sensor).rmdir()
    sample = AstyxSource(folder)["000007"]
    assert sample.truth is None and sample.lidar is None and len(sample.radar[0].points) == 2


def test_a_frame_without_objects_has_an_empty_truth(folder):
    (folder / "groundtruth_obj3d" / "000007.json").write_text('{"objects": []}')
    truth = AstyxSource(folder)["000007"].truth
    assert truth.boxes.shape == (0, 9) and truth.labels == [] and len(truth.radar_points) == 0


# ---- defects ----
@pytest.mark.parametrize("end", [0, 1, 20, 200, -2])
def test_a_truncated_image_is_refused(folder, end):
    path = folder / "camera_front" / "000007.jpg"
    path.write_bytes(path.read_bytes()[:end])
    assert code_of(folder) == "E0303"


def test_a_truncated_image_with_a_whole_thumbnail_is_refused(folder):
    path = folder / "camera_front" / "000007.jpg"
    data = path.read_bytes()
    thumbnail = b"\xff\xe1" + (2 + len(data)).to_bytes(2, "big") + data  # a segment that holds a whole JPEG
    path.write_bytes(data[:2] + thumbnail + data[2:])
    assert AstyxSource(folder)["000007"].frames["camera_front"].shape == (32, 64, 3)
    path.write_bytes(data[:2] + thumbnail + data[2:-2])
    assert code_of(folder) == "E0303"


def test_png_is_read_too_and_refused_when_truncated(folder):
    path = folder / "camera_front" / "000007.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    path.write_bytes(data)
    sample = AstyxSource(folder)["000007"]
    assert np.array_equal(sample.frames["camera_front"], pixels) and sample.rig.cameras[0].width == 30
    for end in (20, 200, -4):
        path.write_bytes(data[:end])
        assert code_of(folder) == "E0303"


def test_an_image_of_an_impossible_size_is_refused(folder):
    """A PNG header of 60000 x 60000 px, beyond what OpenCV decodes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    (folder / "camera_front" / "000007.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(Error, match=r"E0303.*60000 x 60000"):
        _ = AstyxSource(folder)["000007"]


def test_a_split_file_that_is_not_text_names_unknown_frames(folder):
    (folder / "splits").mkdir()
    (folder / "splits" / "val.txt").write_bytes(b"000008\n\xff\xfe\n")
    name, strange = AstyxSource(folder).splits["val"]
    assert name == "000008" and code_of(AstyxSource(folder), strange) == "E0307"


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(Error, match=r"E0302.*Permission denied.*radar_6455"):
        open_source(folder)


def test_something_else_than_an_image_is_refused(folder):
    (folder / "camera_front" / "000007.jpg").write_bytes(b"\x89PNG not a picture at all")
    assert code_of(folder) == "E0303"


def test_a_missing_calibration_is_named(folder):
    file = next((folder / "calibration").glob("000007*"))
    file.unlink()
    with pytest.raises(Error) as caught:
        _ = AstyxSource(folder)["000007"]
    assert caught.value.code == "E0302" and str(file) in caught.value.where


@pytest.mark.parametrize("sensor", ["radar_6455", "lidar_vlp16"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "\n\n",
        lambda text: text[: text.index("\n", 5) + 1].replace("Z", "Q"),
        lambda text: text.replace("10 1 0", "10 one 0"),
        lambda text: text.replace("10 1 0", "10"),
        lambda text: text.rstrip("\n")[:-3],
        lambda text: "10 1 0 2 3\n",
        lambda text: text + "\x00\x00\x00\n",
    ],
)
def test_a_broken_point_table_is_refused(folder, sensor, damage):
    path = folder / sensor / "000007.txt"
    path.write_text(damage(path.read_text()))
    assert code_of(folder) == "E0304"


@pytest.mark.parametrize("end", [0, 10, -6])
def test_a_truncated_gzip_is_refused(folder, end):
    path = folder / "radar_6455" / "000007.txt"
    path.with_name("000007.txt.gz").write_bytes(gzip.compress(path.read_bytes())[:end])
    path.unlink()
    assert code_of(folder) == "E0304"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"sensors": 3}',
        json.dumps({"sensors": calibration()["sensors"][:2]}),  # no camera
        json.dumps(calibration(K=[[500, 0, 31.5], [0, 500, 15.5]])),
        json.dumps(calibration(K=[[float("nan"), 0, 31.5], [0, 500, 15.5], [0, 0, 1]])),
        json.dumps(calibration(K=[[-500, 0, 31.5], [0, 500, 15.5], [0, 0, 1]])),
        json.dumps(calibration(K=[["a", 0, 31.5], [0, 500, 15.5], [0, 0, 1]])),
        json.dumps(calibration(T_camera=np.diag([2.0, 1, 1, 1]))),  # not rigid
    ],
)
def test_a_bad_calibration_is_refused(folder, content):
    (folder / "calibration" / "000007.json").write_text(content)
    assert code_of(folder) == "E0306"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        '{"objects": [3]}',
        json.dumps(labelled(dimension3d=[4.0, 0.0, 1.5])),
        json.dumps(labelled(center3d=[1.0, 2.0])),
        json.dumps(labelled(center3d=[1.0, 2.0, float("nan")])),
        json.dumps(labelled(orientation_quat=[0, 0, 0, 0])),
        json.dumps(labelled(orientation_quat=[1, 0, 0])),
        json.dumps(labelled(occlusion=7)),
        json.dumps(labelled(occlusion="0")),
        json.dumps(labelled(classname=None)),
    ],
)
def test_a_bad_label_is_refused(folder, content):
    (folder / "groundtruth_obj3d" / "000007.json").write_text(content)
    assert code_of(folder) == "E0305"


def test_an_unknown_frame_is_refused(folder):
    source = AstyxSource(folder)
    assert code_of(source, "000009") == "E0307"
    for use in (lambda: source.subset(["000009"]), lambda: AstyxSource(folder, frames=["000007", "9"])):
        with pytest.raises(Error) as caught:
            use()
        assert caught.value.code == "E0307"
    assert [sample.name for sample in source.subset(["000008"])] == ["000008"]


def test_a_folder_that_no_reader_knows_is_refused(tmp_path):
    for path, code in ((tmp_path, "E0301"), (tmp_path / "absent", "E0302")):
        with pytest.raises(Error) as caught:
            open_source(path)
        assert caught.value.code == code
    with pytest.raises(Error) as caught:
        AstyxSource(tmp_path)
    assert caught.value.code == "E0301"


def test_a_seed_that_is_no_number_is_refused():
    with pytest.raises(Error) as caught:
        open_source("synth:many")
    assert caught.value.code == "E0301"
