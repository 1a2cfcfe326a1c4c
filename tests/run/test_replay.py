"""Replay: the frames of a live system are those of the recording, at its pace or as fast as possible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge import CameraCalibration, Code, Ego, Error, RadarCalibration, RadarSweep, SensorRig
from imkd_edge.run.replay import Replay
from imkd_edge.sources.base import Sample

MS = 1_000_000
PERIOD = 50  # ms between frames
LOOK_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float64)
K = np.array([[4.0, 0, 2], [0, 4, 1], [0, 0, 1]])


def rig(height: float = 0.0) -> SensorRig:
    mounting = LOOK_AHEAD.copy()
    mounting[2, 3] += height
    return SensorRig(
        cameras=[CameraCalibration(name=name, width=4, height=2, K=K, T_ego_camera=mounting) for name in "AB"],
        radars=[RadarCalibration(name="R", T_ego_radar=np.eye(4))],
    )


def recording(count: int, scene: str = "a", start: int = 1000, sensors: SensorRig | None = None) -> list[Sample]:
    """Samples PERIOD ms apart; camera B exposes 10 ms earlier, the radar measures every 25 ms, a sample has four."""
    samples = []
    for index in range(count):
        now = start + index * PERIOD
        images = {name: np.full((2, 4, 3), index + 1, np.uint8) for name in "AB"}
        sweeps = [RadarSweep("R", np.full((1, 5), t, np.float32), t * MS) for t in range(now - 75, now + 1, 25)]
        pose = np.eye(4)
        pose[0, 3] = now / 100  # 10 m/s
        times = {"A": now * MS, "B": (now - 10) * MS}
        own = sensors or rig()
        name = f"{scene}{index}"
        samples.append(Sample(name, now * MS, own, images, sweeps, Ego(pose), None, None, times, scene))
    return samples


def frames(samples, real_time: bool) -> list[Sample]:
    return list(Replay(samples, random_spec(cameras=2), real_time))


@pytest.mark.parametrize("real_time", [False, True])
def test_a_frame_has_the_items_and_the_name_of_its_sample(real_time: bool) -> None:
    samples = recording(5)
    assembled = frames(samples, real_time)
    assert [sample.name for sample in assembled] == [sample.name for sample in samples]
    for sample, origin in zip(assembled, samples, strict=True):
        assert sample.timestamp_ns == origin.timestamp_ns and sample.camera_timestamps_ns == origin.camera_timestamps_ns
        assert all(sample.frames[name] is origin.frames[name] for name in "AB")
        assert sample.ego is not None and sample.ego.T_world_ego is not None and origin.ego is not None
        np.testing.assert_allclose(sample.ego.T_world_ego, origin.ego.T_world_ego)
        times = {sweep.timestamp_ns for sweep in sample.radar}
        assert {sweep.timestamp_ns for sweep in origin.radar} <= times and len(times) == len(sample.radar)


@pytest.mark.parametrize("real_time", [False, True])
def test_a_scene_and_a_rig_of_its_own_begin_anew(real_time: bool) -> None:
    """The second scene is older than the first, and its second half has another rig."""
    later = recording(2, "b", 100) + recording(2, "c", 200, rig(0.1))
    assembled = frames(recording(2) + later, real_time)
    assert [sample.name for sample in assembled] == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert [sample.rig == rig() for sample in assembled] == [True] * 4 + [False] * 2
    assert max(sweep.timestamp_ns or 0 for sweep in assembled[2].radar) <= 125 * MS


@pytest.mark.parametrize("real_time", [False, True])
def test_a_pause_of_a_year_is_not_waited_for(real_time: bool) -> None:
    year = 365 * 24 * 3600 * 1000  # ms
    later = [replace(sample, name=f"late{i}") for i, sample in enumerate(recording(3, start=1000 + year))]
    assembled = frames(recording(3) + later, real_time)
    whole = [sample for sample in assembled if len(sample.frames) == 2]  # the radar's first sweeps are frames too
    assert [sample.name for sample in whole] == ["a0", "a1", "a2", "late0", "late1", "late2"]
    assert min(sweep.timestamp_ns or 0 for sweep in whole[3].radar) >= year * MS


@pytest.mark.parametrize("real_time", [False, True])
def test_the_order_of_a_samples_sweeps_does_not_matter(real_time: bool) -> None:
    """Recordings give the newest sweep first; every sweep is pushed once, so no clock seems to step back."""
    turned = [replace(sample, radar=sample.radar[::-1]) for sample in recording(8)]
    replay = Replay(turned, random_spec(cameras=2), real_time)
    assert [sample.name for sample in replay] == [sample.name for sample in turned]
    counts = replay.counts.items
    assert (counts["restarts"], counts["late"], counts["duplicate"]) == (0, 0, 0)


def test_an_absent_sensor_delays_no_frame_for_ever() -> None:
    samples = [replace(sample, frames={"A": sample.frames["A"]}, radar=[]) for sample in recording(4)]
    assert [list(sample.frames) for sample in frames(samples, False)] == [["A"]] * 4


def test_every_frame_is_handed_out_where_the_pace_is_free() -> None:
    replay = Replay(recording(30), random_spec(cameras=2), False)
    for index, _ in enumerate(replay):
        time.sleep(0.005 if index < 5 else 0)
    assert index == 29 and replay.counts.skipped == 0 and replay.counts.items["late"] == 0


def test_in_real_time_a_busy_caller_gets_the_newest_frame_and_the_rest_is_counted() -> None:
    replay = Replay(recording(20), random_spec(cameras=2), True)
    names = []
    for sample in replay:
        names.append(sample.name)
        time.sleep(3.4 * PERIOD / 1000)
    numbers = [int(name[1:]) for name in names]
    assert numbers == sorted(numbers) and len(numbers) < 20
    assert len(names) + replay.counts.skipped == replay.counts.items["complete"] + replay.counts.items["incomplete"]
    assert replay.counts.items["kept"] + replay.counts.items["late"] >= 20 * 5


def test_in_real_time_the_clock_is_the_recordings() -> None:
    began = time.monotonic()
    replay = Replay(recording(11), random_spec(cameras=2), True)
    ages = [(replay.now_ns() - sample.timestamp_ns) / MS for sample in replay]
    assert time.monotonic() - began >= 10 * PERIOD / 1000
    assert min(ages) >= 0  # no frame comes before its time


def test_a_slow_source_stops_the_clock_instead_of_making_its_items_late() -> None:
    def slow() -> Iterator[Sample]:
        for index, sample in enumerate(recording(8)):
            time.sleep(0.5 if index == 6 else 0)
            yield sample

    replay = Replay(slow(), random_spec(cameras=2), True)
    assert len(list(replay)) == 8
    assert replay.counts.stalled_s > 0.05 and replay.counts.items["late"] == 0


@pytest.mark.parametrize("real_time", [False, True])
def test_a_fault_of_the_source_is_raised_after_the_frames_before_it(real_time: bool) -> None:
    def broken() -> Iterator[Sample]:
        yield from recording(3)
        raise Error(Code.source_missing_file, "the image is not there", "a3", "copy it again")

    names = []
    with pytest.raises(Error, match="E0302"):
        for sample in Replay(broken(), random_spec(cameras=2), real_time):
            names.append(sample.name)
    assert names[:2] == ["a0", "a1"]


@pytest.mark.parametrize("real_time", [False, True])
def test_a_loop_that_ends_early_leaves_no_thread(real_time: bool) -> None:
    for _ in Replay(recording(50), random_spec(cameras=2), real_time):
        break
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("imkd-replay")]


@pytest.mark.parametrize("real_time", [False, True])
def test_no_sample_makes_no_frame(real_time: bool) -> None:
    assert frames([], real_time) == []
