"""Damaged recordings: what is whole is read, what is not is counted and told."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType
from recording import ros
from recording.scenes import events, synth
from rosbags.rosbag2 import StoragePlugin

from imkd_edge.errors import Error
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording.open import open_container

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth(frames=6))


def chunks(path: Path) -> list[tuple[int, int]]:
    """Offset and length of every chunk, by the library."""
    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    return [(index.chunk_start_offset, index.chunk_length) for index in summary.chunk_indexes]


def count(path: Path) -> int:
    return sum(1 for _ in open_container(path).scan())


@pytest.fixture
def drive(samples: list[Sample], tmp_path: Path) -> Path:
    return ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)), 20_000)


def spoil(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4])
def test_a_damaged_chunk_is_skipped_and_counted(
    compression: CompressionType, samples: list[Sample], tmp_path: Path
) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)), 20_000, compression=compression)
    whole, parts = count(path), chunks(path)
    assert len(parts) > 5
    offset, length = parts[len(parts) // 2]
    spoil(path, offset + length // 2, b"damaged!" * 4)
    container = open_container(path)
    left = sum(1 for _ in container.scan())
    assert 0 < whole - left < whole / 2
    assert (container.damage.chunks, container.damage.cut) == (1, False)
    assert str(container.damage).startswith("1 damaged parts skipped")
    with pytest.warns(UserWarning, match="1 damaged parts skipped.*what is left is read"):
        source = open_source(path)
    assert source.damage["chunks"] == 1 and len(source) >= len(samples) - 2
    for name in source.names:
        assert source[name].radar


def test_a_damaged_length_costs_only_its_chunk(drive: Path) -> None:
    whole, parts = count(drive), chunks(drive)
    spoil(drive, parts[3][0] + 1, b"\xff" * 8)
    container = open_container(drive)
    left = sum(1 for _ in container.scan())
    assert container.damage.chunks == 1 and not container.damage.cut
    assert container.damage.bytes >= parts[3][1]
    assert 0 < whole - left < whole / 2


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_breaks_off_is_read_up_to_there(drive: Path, samples: list[Sample], share: float) -> None:
    whole, data = count(drive), drive.read_bytes()
    end = chunks(drive)[-1]
    drive.write_bytes(data[: int(share * sum(end))])
    container = open_container(drive)
    left = sum(1 for _ in container.scan())
    assert container.damage.cut and 0.5 * share * whole < left < whole
    with pytest.warns(UserWarning, match="the file breaks off"):
        source = open_source(drive)
    assert 1 <= len(source) <= len(samples)
    first = source["000000"]
    np.testing.assert_array_equal(first.frames["cam_front"], samples[0].frames["CAM_FRONT"])


def test_the_channels_of_a_damaged_first_chunk_come_from_the_summary(drive: Path) -> None:
    offset, length = chunks(drive)[0]
    spoil(drive, offset + length // 2, b"damaged!" * 4)
    container = open_container(drive)
    topics = {entry.channel.topic for entry in container.scan()}
    assert {"/cam_front/image_raw", "/radar_front/detections", "/odometry"} <= topics
    assert container.damage.chunks == 1


def test_an_mcap_file_without_chunks_is_read(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)), use_chunking=False)
    source = open_source(path)
    np.testing.assert_array_equal(source["000003"].frames["cam_front"], samples[3].frames["CAM_FRONT"])
    assert count(path) == sum(1 for _ in ros.messages(events(samples)))


def test_a_cut_sqlite_bag_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    bag = ros.write_bag(tmp_path / "bag", ros.messages(events(samples)), StoragePlugin.SQLITE3)
    file = bag / "bag.db3"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(Error, match=r"E0302.*cannot be opened.*reindex"):
        open_source(bag)


def alter(bag: Path, statement: str) -> None:
    connection = sqlite3.connect(bag / "bag.db3")
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("column", ["name", "type", "serialization_format"])
def test_a_bag_whose_topic_has_no_text_is_refused(column: str, samples: list[Sample], tmp_path: Path) -> None:
    bag = ros.write_bag(tmp_path / "bag", ros.messages(events(samples)), StoragePlugin.SQLITE3)
    alter(bag, f"UPDATE topics SET {column} = x'00ff'")
    with pytest.raises(Error, match=r"E0302.*is no text"):
        open_source(bag / "bag.db3")


@pytest.mark.parametrize("change", ["timestamp = 'noon'", "data = 'text'", "timestamp = -1"])
def test_a_message_of_a_bag_that_is_no_message_is_counted(change: str, samples: list[Sample], tmp_path: Path) -> None:
    bag = ros.write_bag(tmp_path / "bag", ros.messages(events(samples)), StoragePlugin.SQLITE3)
    alter(bag, f"UPDATE messages SET {change} WHERE id = 20")
    with pytest.warns(UserWarning, match="1 messages cannot be decoded"):
        source = open_source(bag)
    assert source.damage["messages"] == 1 and len(source) >= len(samples) - 1


def test_a_message_without_a_head_is_counted_in_a_file_without_chunks(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)), use_chunking=False)
    whole, data = count(path), path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<BQ", 5, 21) + bytes(21) + data[8:])
    container = open_container(path)
    assert sum(1 for _ in container.scan()) == whole and container.damage.chunks == 1


def test_a_time_that_no_clock_has_is_damage(samples: list[Sample], tmp_path: Path) -> None:
    stored = list(ros.messages(events(samples)))
    images = [i for i, (topic, _, _) in enumerate(stored) if topic == "/cam_front/image_raw"]
    topic, content, _ = stored[images[2]]
    stored[images[2]] = (topic, content, 2**63)
    path = ros.write_mcap(tmp_path / "drive.mcap", stored)
    with pytest.warns(UserWarning, match="1 messages cannot be decoded"):
        source = open_source(path)
    assert source.damage["messages"] == 1 and len(source) == len(samples) - 1
    for i in (1, 3, 5):  # each image keeps its own time
        sample = source[source.names[i - (i > 2)]]
        np.testing.assert_array_equal(sample.frames["cam_front"], samples[i].frames["CAM_FRONT"])
        assert sample.camera_timestamps_ns["cam_front"] == samples[i].camera_timestamps_ns["CAM_FRONT"]


def test_a_file_that_is_no_mcap_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"something else entirely")
    with pytest.raises(Error, match=r"E0301.*does not begin as an MCAP file"):
        open_source(tmp_path / "a.mcap")


def test_a_broken_image_is_an_absent_camera(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples), ros.png_image)
    broken = [content for topic, content, _ in stored if topic == "/cam_front/image_raw/compressed"][2]
    broken.data = broken.data[:40]
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match=r"breaks off.*read without cam_front"):
        frames = [set(source[name].frames) for name in source.names]
    assert frames[2] == {"cam_front_right"} and frames[3] == {"cam_front", "cam_front_right"}
    assert source.absent == {"cam_front": 1}


def test_a_broken_sweep_is_left_out_and_counted(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    sweeps = [content for topic, content, _ in stored if topic == "/radar_front/detections"]
    sweeps[4].data = sweeps[4].data[:40]
    time = sweeps[4].header.stamp.sec * 10**9 + sweeps[4].header.stamp.nanosec
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match=r"cannot be decoded.*read without radar_front"):
        read = {sweep.timestamp_ns for name in source.names for sweep in source[name].radar}
    recorded = {sweep.timestamp_ns for sample in samples for sweep in sample.radar}
    assert recorded - read == {time}
    assert source.absent == {"radar_front": 1}


def test_a_message_that_cannot_be_decoded_is_counted(samples: list[Sample], tmp_path: Path) -> None:
    from mcap.writer import Writer

    path = tmp_path / "drive.mcap"
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        schema = writer.register_schema("nav_msgs/msg/Odometry", "ros2msg", b"std_msgs/Header header\n")
        channel = writer.register_channel("/odometry", "cdr", schema)
        writer.add_message(channel, 1, b"\x00\x01\x00\x00short", 1)
        writer.finish()
    with pytest.warns(UserWarning, match="1 messages cannot be decoded"), pytest.raises(Error, match="E0311"):
        open_source(path)
