"""The .rrd file holds what the viewer shows: read back by Rerun's own reader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rigs import three_camera_rig

from imkd_edge import Detector, Result, Tracker
from imkd_edge.run.sinks import open_sink
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource

pytest.importorskip("rerun")
Columns = dict[str, list[Any]]


def read_back(path: Path) -> dict[str, Columns]:
    """Entity -> column -> values, by time; "sensor" is the time itself, ns."""
    from rerun.chunk import RrdReader

    rows: dict[str, Columns] = defaultdict(lambda: defaultdict(list))
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        if "sensor" not in batch.schema.names:
            continue
        times = batch.column("sensor").cast("int64").to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            values = times if name == "sensor" else column.to_pylist() if ":" in name else []
            rows[chunk.entity_path][name] += zip(times, values)
    first = itemgetter(0)
    return {
        entity: {name: [value for _, value in sorted(pairs, key=first)] for name, pairs in columns.items()}
        for entity, columns in rows.items()
    }


@pytest.fixture(scope="module")
def frames() -> list[tuple[Sample, Result]]:
    """Two frames of a moving rig with a fisheye; in the second a camera is absent."""
    samples = list(SynthSource(scenes=1, frames_per_scene=2, rig=three_camera_rig(), speed=10))
    name = samples[0].rig.cameras[0].name
    rest = {camera: image for camera, image in samples[1].frames.items() if camera != name}
    samples[1] = replace(samples[1], frames=rest)
    with Detector("tiny", samples[0].rig, threads=1, score_threshold=0.05) as detector:
        tracker = Tracker(detector.spec)
        return [(sample, tracker.follow(detector.infer_sample(sample))) for sample in samples]


@pytest.fixture(scope="module")
def entities(frames, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Columns]]:
    path = tmp_path_factory.mktemp("rrd") / "a.rrd"
    sink = open_sink(path)
    for sample, result in frames:
        sink.write(sample, result)
    sink.close()
    assert [file.name for file in path.parent.iterdir()] == ["a.rrd"]
    yield read_back(path)


def test_boxes_are_the_detections(frames, entities: dict[str, Columns]) -> None:
    columns = entities["/world/ego/detections"]
    for index, (_, result) in enumerate(frames):
        assert len(result) > 0
        np.testing.assert_allclose(columns["Boxes3D:centers"][index], result.boxes[:, :3], rtol=1e-6)
        np.testing.assert_allclose(2 * np.array(columns["Boxes3D:half_sizes"][index]), result.boxes[:, 3:6], rtol=1e-6)
        _, _, sine, cosine = np.array(columns["Boxes3D:quaternions"][index]).T
        turn = np.exp(2j * np.arctan2(sine, cosine)) * np.exp(-1j * result.boxes[:, 6])
        np.testing.assert_allclose(turn, 1, atol=1e-5)
        labels = [f"{d.label} {d.score:.2f}" for d in result.detections]
        assert columns["Boxes3D:labels"][index] == labels


def test_tracks_have_their_ids_and_smoothed_velocities(frames, entities: dict[str, Columns]) -> None:
    points, arrows = entities["/world/ego/tracks"], entities["/world/ego/tracks/velocity"]
    for index, (_, result) in enumerate(frames):
        tracks = [track for track in result.tracks if track.state in ("confirmed", "coasting")]
        assert len(tracks) > 3
        assert points["Points3D:labels"][index] == [f"#{track.id} {track.label}" for track in tracks]
        assert entities["/world/ego/detections"]["Boxes3D:show_labels"][index] == [False]
        np.testing.assert_allclose(points["Points3D:positions"][index], [t.center for t in tracks], rtol=1e-6)
        vectors = np.array(arrows["Arrows3D:vectors"][index])
        np.testing.assert_allclose(vectors[:, :2], [t.velocity for t in tracks], rtol=1e-6)


def test_trails_stay_in_the_world_while_the_vehicle_moves(frames, entities: dict[str, Columns]) -> None:
    start = frames[0][0].ego.T_world_ego[:3, 3]
    where: list[dict[int, np.ndarray]] = []  # of each frame: track -> position from the first pose
    for sample, result in frames:
        T = sample.ego.T_world_ego
        confirmed = [track for track in result.tracks if track.state in ("confirmed", "coasting")]
        where.append({track.id: T[:3, :3] @ track.center + T[:3, 3] - start for track in confirmed})
    trails = entities["/world/trails"]["LineStrips3D:strips"][1]
    expected = [[one[id] for one in where if id in one] for id in where[1]]
    assert len(trails) == len(expected) and sum(len(trail) == 2 for trail in expected) > 3
    for trail, positions in zip(trails, expected, strict=True):
        np.testing.assert_allclose(trail, positions, atol=1e-3)


def test_the_timeline_is_the_sensors(frames, entities: dict[str, Columns]) -> None:
    assert entities["/times/total"]["sensor"] == [sample.timestamp_ns for sample, _ in frames]
    totals = [values[0] for values in entities["/times/total"]["Scalars:scalars"]]
    np.testing.assert_allclose(totals, [result.total_us / 1000 for _, result in frames])


def test_an_image_is_the_cameras_and_a_fisheye_has_no_pinhole(frames, entities: dict[str, Columns]) -> None:
    for camera in frames[0][0].rig.cameras:
        entity = f"/world/ego/cameras/{camera.name}"
        data = entities[f"{entity}/image"]["EncodedImage:blob"][0][0]
        image = cv2.imdecode(np.array(bytearray(data), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(image.astype(float) - frames[0][0].frames[camera.name]).mean() < 6
        assert ("Pinhole:image_from_camera" in entities[entity]) == (camera.distortion != "fisheye")


def test_an_absent_image_is_cleared(frames, entities: dict[str, Columns]) -> None:
    name = frames[0][0].rig.cameras[0].name
    assert len(entities[f"/world/ego/cameras/{name}/image"]["EncodedImage:blob"]) == 1
    assert "Clear:is_recursive" in entities[f"/world/ego/cameras/{name}"]


def test_the_pose_starts_at_the_origin_and_moves_as_the_vehicle(frames, entities: dict[str, Columns]) -> None:
    translations = [value[0] for value in entities["/world/ego"]["Transform3D:translation"]]
    poses = [sample.ego.T_world_ego for sample, _ in frames]
    np.testing.assert_allclose(translations, [[0, 0, 0], poses[1][:3, 3] - poses[0][:3, 3]], atol=1e-4)


def test_health_is_text_where_it_changes(frames, entities: dict[str, Columns]) -> None:
    texts = [value[0] for value in entities["/health/mode"]["TextLog:text"]]
    assert [text.split(":")[0] for text in texts] == [f"mode {result.health.mode}" for _, result in frames]
    assert f"{frames[0][0].rig.cameras[0].name} missing" in texts[1]


def test_radar_returns_are_where_the_sweeps_say(frames, entities: dict[str, Columns]) -> None:
    sample = frames[0][0]
    points = np.array(entities["/world/ego/radar"]["Points3D:positions"][0])
    sweep = sample.radar[0]
    T = next(np.asarray(radar.T_ego_radar) for radar in sample.rig.radars if radar.name == sweep.radar)
    T = sample.motion().T_ref_at(sweep.timestamp_ns) @ T
    expected = sweep.points[:, :3] @ T[:3, :3].T + T[:3, 3]
    assert all(np.abs(points - point).sum(1).min() < 1e-3 for point in expected)
