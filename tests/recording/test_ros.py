"""ROS 2 recordings, written by rosbags and mcap: frames, rigs and sweeps equal those that were written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import ros
from recording.drive import jpeg_image
from recording.scenes import events, synth
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin

from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.convert import convert
from imkd_edge.sources.recording import CameraTopic, RadarTopic, TopicMap

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth())


def write_sqlite(path: Path, stored: Any) -> Path:
    return ros.write_bag(path / "bag", stored, StoragePlugin.SQLITE3)


def write_mcap_bag(path: Path, stored: Any) -> Path:
    return ros.write_bag(path / "bag", stored)


def write_file(path: Path, stored: Any) -> Path:
    return ros.write_mcap(path / "drive.mcap", stored)


def write_compressed_messages(path: Path, stored: Any) -> Path:
    compression = (CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    return ros.write_bag(path / "bag", stored, StoragePlugin.SQLITE3, compression=compression)


def write_compressed_file(path: Path, stored: Any) -> Path:
    compression = (CompressionMode.FILE, CompressionFormat.ZSTD)
    return ros.write_bag(path / "bag", stored, StoragePlugin.SQLITE3, compression=compression)


def write_without_metadata(path: Path, stored: Any) -> Path:
    bag = write_sqlite(path, stored)
    (bag / "metadata.yaml").unlink()
    return bag


def write_humble(path: Path, stored: Any) -> Path:
    """As ROS 2 Humble writes: no table of message definitions."""
    bag = write_sqlite(path, stored)
    with sqlite3.connect(bag / "bag.db3") as database:
        for statement in ("DROP TABLE message_definitions", "DROP TABLE schema", "DROP TABLE metadata"):
            database.execute(statement)
    return bag / "bag.db3"


WRITERS = [
    write_file,
    write_mcap_bag,
    write_sqlite,
    write_compressed_messages,
    write_compressed_file,
    write_without_metadata,
    write_humble,
]


def assert_same(a: Sample, b: Sample) -> None:
    """The frame b of a recording has what the sample a had; its sensors' names are in lower case."""
    assert a.timestamp_ns == b.timestamp_ns
    assert {name.lower() for name in a.frames} == set(b.frames)
    for name, image in a.frames.items():
        np.testing.assert_array_equal(image, b.frames[name.lower()])
        assert b.camera_timestamps_ns[name.lower()] == a.camera_timestamps_ns[name]
    ours = {(sweep.radar.lower(), sweep.timestamp_ns): sweep for sweep in a.radar}
    theirs = {(sweep.radar, sweep.timestamp_ns): sweep for sweep in b.radar}
    assert set(ours) == set(theirs)
    for key, sweep in ours.items():
        np.testing.assert_array_equal(sweep.points, theirs[key].points)
        np.testing.assert_allclose(sweep.T_world_ego, theirs[key].T_world_ego, atol=1e-9)
    assert a.ego is not None and b.ego is not None
    np.testing.assert_allclose(a.ego.T_world_ego, b.ego.T_world_ego, atol=1e-9)
    np.testing.assert_allclose(a.ego.twist, b.ego.twist, atol=1e-9)


def assert_same_rig(a: Sample, b: Sample) -> None:
    assert [camera.name.lower() for camera in a.rig.cameras] == [camera.name for camera in b.rig.cameras]
    for ours, theirs in zip(a.rig.cameras, b.rig.cameras):
        np.testing.assert_allclose(ours.T_ego_camera, theirs.T_ego_camera, atol=1e-9)
        np.testing.assert_allclose(ours.K, theirs.K)
        assert (ours.width, ours.height, ours.distortion) == (theirs.width, theirs.height, theirs.distortion)
    for radar, other in zip(a.rig.radars, b.rig.radars):
        assert (radar.name.lower(), radar.velocity) == (other.name, other.velocity)
        np.testing.assert_allclose(radar.T_ego_radar, other.T_ego_radar, atol=1e-9)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_frames_equal_those_that_were_recorded(write: Any, samples: list[Sample], tmp_path: Path) -> None:
    source = open_source(write(tmp_path, ros.messages(events(samples))))
    assert len(source) == len(samples) and source.kind == "recording" and source.intensity == "rcs_dbsm"
    assert_same_rig(samples[0], source["000000"])
    for sample, name in zip(samples, source.names):
        assert_same(sample, source[name])
    assert_same(samples[0], source["000000"])  # again, after later ones
    assert not source.damage["chunks"] and source.absent == {}


def test_compressed_images_are_decoded(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples), ros.png_image)
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    for sample, name in zip(samples, source.names):
        assert_same(sample, source[name])


def test_convert_copies_jpegs_as_they_were_recorded(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples), jpeg_image)
    front = [content for topic, content, _ in stored if topic == "/cam_front/image_raw/compressed"]
    broken = front[1]
    broken.data = broken.data[:400]
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match="breaks off"):
        convert(str(tmp_path / "drive.mcap"), tmp_path / "folder")
        expected = [source[name].frames for name in source.names]
    copy = open_source(tmp_path / "folder")
    files = [copy.image_files(name) for name in copy.names]
    assert [set(each) for each in files] == [set(frames) for frames in expected]
    assert set(files[1]) == {"cam_front_right"} and {path.suffix for path in files[0].values()} == {".jpg"}
    assert files[2]["cam_front"].read_bytes() == front[2].data.tobytes()
    for name, frames in zip(copy.names, expected):
        for camera, pixels in copy[name].frames.items():
            np.testing.assert_array_equal(pixels, frames[camera])


def test_convert_writes_raw_images_as_png(samples: list[Sample], tmp_path: Path) -> None:
    ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)))
    convert(str(tmp_path / "drive.mcap"), tmp_path / "folder")
    copy = open_source(tmp_path / "folder")
    assert {path.suffix for name in copy.names for path in copy.image_files(name).values()} == {".png"}
    for sample, name in zip(samples, copy.names):
        for camera, pixels in copy[name].frames.items():
            np.testing.assert_array_equal(pixels, sample.frames[camera.upper()])


def test_a_map_names_the_sensors_and_their_velocity(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)))
    (tmp_path / "drive.toml").write_text(
        """
ego_frame = "base_link"
odometry = "/odometry"
intensity = "rcs_dbsm"
[cameras.left]
topic = "/cam_front_right/image_raw"
info = "/cam_front_right/camera_info"
[radars.bumper]
topic = "/radar_front/detections"
velocity = "compensated"
sign = -1
"""
    )
    source = open_source(path)
    sample = source["000001"]
    assert [camera.name for camera in sample.rig.cameras] == ["left"] and list(sample.frames) == ["left"]
    assert [(radar.name, radar.velocity) for radar in sample.rig.radars] == [("bumper", "compensated")]
    written = {sweep.timestamp_ns: sweep.points for sweep in samples[1].radar if sweep.radar == "RADAR_FRONT"}
    for sweep in sample.radar:
        np.testing.assert_array_equal(sweep.points[:, 4], -written[sweep.timestamp_ns][:, 4])
        np.testing.assert_array_equal(sweep.points[:, :4], written[sweep.timestamp_ns][:, :4])
    topic_map = TopicMap(
        cameras={"front": CameraTopic("/cam_front/image_raw", info="/cam_front/camera_info")},
        radars={"bumper": RadarTopic("/radar_front/detections")},
    )
    other = open_source(path, map=topic_map)["000000"]
    assert list(other.frames) == ["front"] and other.ego is None
