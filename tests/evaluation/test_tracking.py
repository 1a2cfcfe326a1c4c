"""The tracking metrics are the devkit's: perfect tracks, switched ids and missing ones have the known numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imkd_edge import Code, Ego, Error, Tracker
from imkd_edge.bundle import Bundle
from imkd_edge.evaluation.tracking import TrackedFrame, evaluate, tracked_frames
from imkd_edge.sources.base import Truth
from imkd_edge.sources.select import Selection
from imkd_edge.tracking import Track

pytest.importorskip("motmetrics", reason="motmetrics is not installed: the tracking metrics are NOT tested")
FRAMES, OBJECTS = 20, 4


def drive(shift: float = 0.1) -> list[TrackedFrame]:
    """Cars that drive 1 m per 0.5 s; each track lies `shift` m beside its object."""
    frames = []
    for k in range(FRAMES):
        boxes = np.array([[5 + k, 6.0 * i - 9, 0, 4.5, 1.8, 1.5, 0, 2, 0] for i in range(OBJECTS)])
        counts = np.full(OBJECTS, 5, np.int32)
        truth = Truth(boxes, ["car"] * OBJECTS, np.zeros(OBJECTS, np.int8), counts, counts)
        tracks = [
            Track(
                "car", 0.9 - 0.01 * i, box[:3] + [0, shift, 0], box[3:6], 0.0, box[7:9],
                i + 1, "confirmed", True, 0.1, 0.5 * k, 0.0, k + 1, i,
            )
            for i, box in enumerate(boxes)
        ]  # fmt: skip
        frames.append(TrackedFrame("s", 10**18 + k * 500_000_000, np.eye(4), truth, range(OBJECTS), tracks))
    return frames


def test_perfect_tracks_score_one() -> None:
    metrics = evaluate(drive(), ("car",))
    assert metrics["AMOTA"] == pytest.approx(1) and metrics["MOTA"] == pytest.approx(1)
    assert metrics["AMOTP"] == pytest.approx(0.1) and metrics["IDS"] == 0
    assert metrics["GT"] == FRAMES * OBJECTS


def test_each_change_of_an_id_is_counted() -> None:
    frames = drive()
    for k in range(FRAMES // 2, FRAMES):  # the second half: two objects have new ids
        old = frames[k].tracks
        new = [replace(track, id=track.id + 10) if track.id <= 2 else track for track in old]
        frames[k] = replace(frames[k], tracks=new)
    metrics = evaluate(frames, ("car",))
    assert metrics["IDS"] == 2
    # 4 objects, 20 frames of 0.5 s
    assert metrics["IDS_per_100_object_s"] == pytest.approx(100 * 2 / (4 * 20 * 0.5))


def test_a_track_that_is_missing_is_missed() -> None:
    frames = [replace(frame, tracks=frame.tracks[:-1]) for frame in drive()]
    metrics = evaluate(frames, ("car",))
    assert metrics["FN"] == FRAMES and metrics["MOTA"] == pytest.approx(1 - 1 / OBJECTS)


def test_classes_that_nuscenes_does_not_track_are_refused() -> None:
    with pytest.raises(Error, match="none of the classes") as caught:
        evaluate(drive(), ("forklift",))
    assert caught.value.code == f"E{int(Code.spec_bad_value):04}"


def test_a_source_without_identities_is_refused() -> None:
    class Anonymous:
        kind, names = "anonymous", ["a"]

    with pytest.raises(Error, match="which boxes are one object"):
        tracked_frames(Selection(Anonymous(), ["a"]), lambda sample: None, Tracker(Bundle.load("tiny").spec))


def test_another_scene_gets_other_ids() -> None:
    from imkd_edge.result import Health, Result

    tracker = Tracker(Bundle.load("tiny").spec)
    box = np.array([[10, 0, 0, 4, 2, 2, 0, np.nan, np.nan]], np.float32)
    health = Health.__new__(Health)
    results = [
        Result(10**18 + k * 10**8, box, np.array([0.9], np.float32), np.zeros(1, np.int32), ("car",), health, {}, 0.0)
        for k in range(4)
    ]
    scenes = ["a", "a", "b", "b"]
    tracked = [
        tracker.follow(replace(result, ego=Ego(T_world_ego=np.eye(4))), scene) for result, scene in zip(results, scenes)
    ]
    assert [result.tracks[0].id for result in tracked] == [1, 1, 2, 2]
    assert tracked[1].track_of[0].hits == 2 and np.isfinite(tracked[1].tracks[0].velocity).all()
    assert np.isnan(tracked[0].tracks[0].velocity).all() and tracked[0].tracks[0].to_dict()["velocity"] is None
    assert not tracked[1].tracks[0].velocity_measured
