"""The .mcap file holds the boxes of the .jsonl, for Foxglove and for ROS 2: read back by the formats' own libraries."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rigs import three_camera_rig
from scipy.spatial.transform import Rotation

from imkd_edge import Detector, Error, Result
from imkd_edge.run.sinks import open_sinks
from imkd_edge.sources import open_source
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource

pytest.importorskip("foxglove")
# vision_msgs 4, as its package defines them; ros2msg text of the file is compared with it
FIELDS = {
    "Detection3DArray": ["header", "detections"],
    "Detection3D": ["header", "results", "bbox", "id"],
    "ObjectHypothesisWithPose": ["hypothesis", "pose"],
    "ObjectHypothesis": ["class_id", "score"],
    "BoundingBox3D": ["center", "size"],
}


@pytest.fixture(scope="module")
def frames() -> list[tuple[Sample, Result]]:
    """Four frames of a moving rig with a fisheye."""
    samples = list(SynthSource(scenes=1, frames_per_scene=4, rig=three_camera_rig(), speed=10))
    with Detector("tiny", samples[0].rig, threads=1, score_threshold=0.05) as detector:
        return [(sample, detector.infer_sample(sample)) for sample in samples]


@pytest.fixture(scope="module")
def folder(frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """boxes.mcap, full.mcap with the sensors' data, and boxes.jsonl."""
    folder = tmp_path_factory.mktemp("mcap")
    sinks = open_sinks([folder / "boxes.mcap", folder / "boxes.jsonl"])
    sinks += open_sinks([folder / "full.mcap"], sensors=True)
    for frame in frames:
        for sink in sinks:
            sink.write(*frame)
    for sink in sinks:
        sink.close()
    return folder


def detections(folder: Path) -> list[list[dict[str, Any]]]:
    lines = (folder / "boxes.jsonl").read_text().splitlines()
    return [json.loads(line)["detections"] for line in lines]


def foxglove_messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Topic -> log times and messages, by Foxglove's own reader."""
    from mcap.reader import make_reader
    from mcap_protobuf.decoder import DecoderFactory

    result = defaultdict(list)
    with open(path, "rb") as file:
        topics = [
            channel.topic
            for channel in make_reader(file).get_summary().channels.values()
            if channel.message_encoding == "protobuf"
        ]
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages(topics=topics):
            result[channel.topic].append((message.log_time, decoded))
    return result


def ros_messages(path: Path, topic: str) -> list[tuple[int, Any]]:
    """Log times and messages of a topic, by the definitions in the file alone."""
    from mcap.reader import make_reader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    result = []
    with open(path, "rb") as file:
        for schema, _, message in make_reader(file).iter_messages(topics=[topic]):
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(schema.data.decode(), schema.name))
            result.append((message.log_time, store.deserialize_cdr(message.data, schema.name)))
    return result


def yaw_of(orientation: Any) -> float:
    turn = Rotation.from_quat([orientation.x, orientation.y, orientation.z, orientation.w])
    return float(turn.as_euler("zyx")[0])


def assert_equal_boxes(center: Any, orientation: Any, size: Any, expected: dict[str, Any]) -> None:
    np.testing.assert_allclose([center.x, center.y, center.z], expected["center"], atol=1e-4)
    np.testing.assert_allclose([size.x, size.y, size.z], expected["size"], atol=1e-4)
    turn = (yaw_of(orientation) - expected["yaw"] + np.pi) % (2 * np.pi) - np.pi
    assert abs(turn) < 1e-4


def test_foxglove_shows_the_boxes_of_the_lines(folder: Path, frames) -> None:
    updates, expected = foxglove_messages(folder / "boxes.mcap")["/boxes"], detections(folder)
    assert [time for time, _ in updates] == [sample.timestamp_ns for sample, _ in frames]
    assert sum(map(len, expected)) > 10
    for (_, update), objects in zip(updates, expected, strict=True):
        assert [deletion.type for deletion in update.deletions] == [1]  # ALL: those of the frame before
        for entity, one in zip(update.entities, objects, strict=True):
            [cube], facts = entity.cubes, {pair.key: pair.value for pair in entity.metadata}
            assert_equal_boxes(cube.pose.position, cube.pose.orientation, cube.size, one)
            assert entity.frame_id == "base_link" and entity.texts[0].text.startswith(one["label"])
            assert facts["label"] == one["label"] and float(facts["score"]) == pytest.approx(one["score"], abs=1e-4)
            np.testing.assert_allclose([float(facts["vx"]), float(facts["vy"])], one["velocity"], atol=1e-4)
            for arrow in entity.arrows:
                assert arrow.shaft_length == pytest.approx(np.hypot(*one["velocity"]), abs=1e-3)
                heading = yaw_of(arrow.pose.orientation)
                np.testing.assert_allclose(
                    arrow.shaft_length * np.array([np.cos(heading), np.sin(heading)]), one["velocity"], atol=1e-3
                )
    assert any(entity.arrows for _, update in updates for entity in update.entities)


def test_ros_2_reads_the_boxes_of_the_lines(folder: Path, frames) -> None:
    arrays, expected = ros_messages(folder / "boxes.mcap", "/detections"), detections(folder)
    for (time, array), objects, (sample, _) in zip(arrays, expected, frames, strict=True):
        stamp = array.header.stamp
        assert time == sample.timestamp_ns == stamp.sec * 10**9 + stamp.nanosec
        assert array.header.frame_id == "base_link"
        for entry, one in zip(array.detections, objects, strict=True):
            assert_equal_boxes(entry.bbox.center.position, entry.bbox.center.orientation, entry.bbox.size, one)
            [result] = entry.results
            assert result.hypothesis.class_id == one["label"]
            assert result.hypothesis.score == pytest.approx(one["score"], abs=1e-4)
            assert_equal_boxes(result.pose.pose.position, result.pose.pose.orientation, entry.bbox.size, one)


def test_the_definition_in_the_file_is_that_of_vision_msgs(folder: Path) -> None:
    from mcap.reader import make_reader

    with open(folder / "boxes.mcap", "rb") as file:
        schemas = {schema.name: schema for schema in make_reader(file).get_summary().schemas.values()}
    schema = schemas["vision_msgs/msg/Detection3DArray"]
    assert schema.encoding == "ros2msg"
    parts = ("MSG: vision_msgs/msg/Detection3DArray\n" + schema.data.decode()).split("=" * 80 + "\n")
    found = {}
    for part in parts:
        name, *lines = part.strip().splitlines()
        kind = name.removeprefix("MSG: ").split("/")[-1]
        found[kind] = [line.split()[1] for line in lines if line.strip()]
    assert {kind: found[kind] for kind in FIELDS} == FIELDS


def test_diagnostics_tell_the_state_of_every_sensor(frames, tmp_path: Path) -> None:
    from dataclasses import replace

    sample, result = frames[0]
    radar = next(name for name in result.health.sensors if name.lower().startswith("radar"))
    sensors = {**result.health.sensors, radar: "stale"}
    failing = replace(result, health=replace(result.health, mode="partial", sensors=sensors))
    [sink] = open_sinks([tmp_path / "a.mcap"])
    sink.write(sample, failing)
    sink.close()
    [(_, array)] = ros_messages(tmp_path / "a.mcap", "/diagnostics")
    levels = {status.hardware_id: (int(status.level), status.message) for status in array.status}
    assert levels.pop("detector") == (1, "partial") and levels.pop(radar) == (3, "stale")
    assert set(levels) == set(sensors) - {radar}
    assert {name: text for name, (_, text) in levels.items()} == {name: sensors[name] for name in levels}


def test_every_state_of_a_sensor_has_a_level() -> None:
    """The states are those that Health names."""
    import inspect
    import re

    from imkd_edge import result
    from imkd_edge.run.ros import LEVELS

    line = next(line for line in inspect.getsource(result.Health).splitlines() if "sensors:" in line)
    states = set(re.findall(r"[a-z]+", line.partition("name ->")[2])) - {"from", "a", "also", "onitor"}
    assert states == set(LEVELS)


def test_a_file_with_the_sensors_is_a_recording(folder: Path, frames) -> None:
    """Rig, times, poses, points and, but for JPEG, images are those of the samples."""
    source = open_source(folder / "full.mcap")
    assert len(source.names) == len(frames)
    for name, (sample, _) in zip(source.names, frames, strict=True):
        again = source[name]
        assert again.timestamp_ns == sample.timestamp_ns
        cameras = {camera.name: camera for camera in again.rig.cameras}
        for camera in sample.rig.cameras:
            other = cameras[camera.name]
            assert (other.width, other.height, other.distortion) == (camera.width, camera.height, camera.distortion)
            np.testing.assert_allclose(other.K, camera.K)
            np.testing.assert_allclose(other.coefficients, camera.coefficients)
            np.testing.assert_allclose(other.T_ego_camera, camera.T_ego_camera, atol=1e-9)
            difference = again.frames[camera.name].astype(int) - sample.frames[camera.name]
            assert np.abs(difference).mean() < 4
        np.testing.assert_allclose(again.ego.T_world_ego, sample.ego.T_world_ego, atol=1e-9)
        np.testing.assert_allclose(again.ego.twist, sample.ego.twist, atol=1e-9)
        newest = {sweep.radar: sweep for sweep in sorted(sample.radar, key=lambda sweep: sweep.timestamp_ns)}
        for radar, sweep in newest.items():
            other = next(each for each in again.radar if each.radar == radar)
            assert other.timestamp_ns == sweep.timestamp_ns
            np.testing.assert_array_equal(other.points, sweep.points)


def test_boxes_alone_have_no_images(folder: Path) -> None:
    topics = set(foxglove_messages(folder / "boxes.mcap"))
    assert topics == {"/boxes", "/tf"}
    assert (folder / "boxes.mcap").stat().st_size < (folder / "full.mcap").stat().st_size / 4


def test_an_unfinished_file_has_no_name_yet(frames, tmp_path: Path) -> None:
    [sink] = open_sinks([tmp_path / "a.mcap"])
    sink.write(*frames[0])
    assert not (tmp_path / "a.mcap").exists()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mcap"]


def test_a_missing_extra_names_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("foxglove", "imkd_edge.run.recorder", "imkd_edge.run.scene"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "foxglove", None)
    with pytest.raises(Error, match="foxglove") as caught:
        open_sinks([tmp_path / "a.mcap"])
    assert 'pip install "imkd-edge[recordings]"' in str(caught.value) and not list(tmp_path.iterdir())
