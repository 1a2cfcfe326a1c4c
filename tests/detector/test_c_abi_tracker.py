"""The tracker of the C ABI gives the tracks of Python's."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
from c_abi import Box, Result, TrackBox, TrackerOptions, Tracks

from helpers import random_spec
from imkd_edge.frames import Ego
from imkd_edge.tracking import Tracker

SPEC = random_spec()
F64 = ctypes.POINTER(ctypes.c_double)


@pytest.fixture
def tracker(library: ctypes.CDLL) -> Iterator[ctypes.c_void_p]:
    handle = ctypes.c_void_p(library.imkd_tracker_new())
    yield handle
    library.imkd_tracker_destroy(handle)


def c_result(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, time: int, ego: Ego, alive: list) -> Result:
    rows = (Box * len(boxes))(*[Box(*box, score, label) for box, score, label in zip(boxes, scores, labels)])
    result = Result(ctypes.sizeof(Result))
    result.timestamp_ns, result.count, result.stride = time, len(boxes), ctypes.sizeof(Box)
    result.boxes = ctypes.cast(rows, ctypes.c_void_p) if len(boxes) else None
    alive.append(rows)
    for name in ("T_world_ego", "twist"):
        if (value := getattr(ego, name)) is not None:
            array = np.ascontiguousarray(value, np.float64)
            alive.append(array)
            setattr(result, name, array.ctypes.data_as(F64))
    return result


def rows_of(tracks: Tracks) -> list[TrackBox]:
    return [TrackBox.from_address(tracks.tracks + i * tracks.stride) for i in range(tracks.count)]


def test_gives_the_tracks_of_python(library: ctypes.CDLL, tracker: ctypes.c_void_p) -> None:
    random, alive = np.random.default_rng(2), []
    options = TrackerOptions(ctypes.sizeof(TrackerOptions), 64, 0.2, 0.6, 0.8, 1.5)
    assert library.imkd_tracker_load(tracker, SPEC.to_json().encode(), ctypes.byref(options)) == 0
    python = Tracker(SPEC, birth_score=0.2, confirm_score=0.6, max_age=0.8, max_gap=1.5, max_tracks=64)
    centres, states = random.uniform(-20, 20, (12, 2)), set()
    for frame in range(60):
        seen = np.flatnonzero(random.uniform(size=12) < 0.8)
        boxes = np.ones((len(seen), 9), np.float32)
        boxes[:, :2] = centres[seen] + 0.1 * frame + random.normal(0, 0.1, (len(seen), 2))
        boxes[:, 7:9] = np.where(random.uniform(size=(len(seen), 1)) < 0.3, np.nan, 1)
        scores = random.uniform(0.1, 0.9, len(seen)).astype(np.float32)
        labels, time = (seen % 2).astype(np.int32), 10**18 + frame * 10**8
        ego = Ego(twist=(0.5, 0, 0.1)) if frame % 3 else Ego(twist=(0.5, 0, 0.1), T_world_ego=np.eye(4))
        tracks = Tracks(ctypes.sizeof(Tracks))
        result = c_result(boxes, scores, labels, time, ego, alive)
        assert library.imkd_tracker_update(tracker, ctypes.byref(result), ctypes.byref(tracks)) == 0
        expected = python.update_boxes(boxes, scores, labels, time, ego)
        for ours, theirs in zip(rows_of(tracks), expected, strict=True):
            state = library.imkd_detector_name(None, 8, ours.state).decode()
            assert (ours.id, state, ours.hits) == (theirs.id, theirs.state, theirs.hits)
            assert (ours.detection if ours.detection >= 0 else None) == theirs.detection
            assert (ours.box.x, ours.box.yaw) == (theirs.center[0], np.float32(theirs.yaw))
            assert np.array_equal([ours.box.vx, ours.box.vy], theirs.velocity, equal_nan=True)
            states.add(state)
        health = python.health
        assert (tracks.over_ground, tracks.invalid, tracks.restarts) == (health.over_ground, 0, health.restarts)
    assert states == {"tentative", "confirmed", "coasting"}


def test_refuses_what_is_wrong(library: ctypes.CDLL, tracker: ctypes.c_void_p) -> None:
    def error() -> str:
        return library.imkd_tracker_error(tracker).decode()

    tracks, result = Tracks(ctypes.sizeof(Tracks)), Result(ctypes.sizeof(Result))
    assert library.imkd_tracker_update(tracker, ctypes.byref(result), ctypes.byref(tracks)) != 0
    assert "call imkd_tracker_load first" in error()
    assert library.imkd_tracker_load(tracker, None, None) != 0 and "NULL" in error()
    bad = TrackerOptions(ctypes.sizeof(TrackerOptions), 5000, 0, 0, 0, 0)
    assert library.imkd_tracker_load(tracker, SPEC.to_json().encode(), ctypes.byref(bad)) != 0
    assert "max_tracks" in error() and "1 to 4096" in error()
    assert library.imkd_tracker_load(tracker, SPEC.to_json().encode(), None) == 0
    result.count = 3
    assert library.imkd_tracker_update(tracker, ctypes.byref(result), ctypes.byref(tracks)) != 0
    assert "3 detections" in error()
    result.count = 0
    assert library.imkd_tracker_update(tracker, ctypes.byref(result), None) != 0
    assert library.imkd_tracker_update(None, ctypes.byref(result), ctypes.byref(tracks)) == -1
    assert library.imkd_tracker_update(tracker, ctypes.byref(result), ctypes.byref(tracks)) == 0 and tracks.count == 0
    assert library.imkd_tracker_reset(tracker) == 0
