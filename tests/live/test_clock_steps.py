"""Recordings in a loop and clocks that step back, of any length: the frames go on, and none mixes two passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import pytest

from imkd_edge import Ego, LiveFrame, RadarSweep

MS = 1_000_000
CAMERAS, RADARS = ("A", "B"), ("R", "S")
MAX_FUTURE = 100  # ms, the default
Event = tuple[int, str, int]  # arrival, stream, time; ms


def recording(random: np.random.Generator, frames: int, period: int, delay: int, ego: bool) -> list[Event]:
    """Items of all sensors in the order of arrival; a delay above the period reorders a sensor's items."""
    events = []
    for sensor in (*CAMERAS, *RADARS):
        times = [1000 + i * period + int(random.integers(-15, 16)) for i in range(frames)]
        events += [(time + int(random.integers(0, delay + 1)), sensor, time) for time in times]
    if ego:
        events += [(time, "ego", time) for time in range(980, 1020 + frames * period, 20)]
    return sorted(events, key=lambda event: event[0])


@dataclass
class Player:
    """Plays recordings into a synchronizer. The contents of an item are the number of its pass."""

    sync: Any
    frames: list[list[LiveFrame]] = field(default_factory=list)  # of each pass
    nows: list[int] = field(default_factory=list)  # ms, of each frame

    def play(self, events: list[Event]) -> None:
        self.frames.append([])
        for now, sensor, time in events:
            self.push(sensor, time, now)
            while (frame := self.sync.pop(now * MS)) is not None:
                self.frames[-1].append(frame)
                self.nows.append(now)

    def push(self, sensor: str, time: int, now: int) -> None:
        number = len(self.frames)
        if sensor == "ego":
            T = np.eye(4)
            T[:2, 3] = time / 100, number  # 10 m/s
            self.sync.push_ego(Ego(T_world_ego=T), time * MS, now * MS)
        elif sensor in CAMERAS:
            self.sync.push_camera(sensor, np.full((2, 4, 3), number, np.uint8), time * MS, now * MS)
        else:
            self.sync.push_radar(RadarSweep(sensor, np.full((1, 5), number, np.float32), time * MS), now * MS)

    @property
    def counts(self) -> list[int]:
        return [len(frames) for frames in self.frames]

    @property
    def restarts(self) -> int:
        return self.sync.counts()["restarts"]


def passes(frame: LiveFrame) -> set[int]:
    """The passes that the frame's images, sweeps and pose come from."""
    poses = [sweep.T_world_ego for sweep in frame.radar]
    poses += [frame.ego.T_world_ego] if frame.ego is not None else []
    y = {round(float(T[1, 3]), 3) for T in poses if T is not None}
    return {int(i.flat[0]) for i in frame.frames.values()} | {int(s.points[0, 0]) for s in frame.radar} | y


def assert_pure(player: Player) -> None:
    for frames in player.frames:
        assert all(len(passes(frame)) == 1 for frame in frames)
        times = [frame.timestamp_ns for frame in frames if passes(frame) == passes(frames[-1])]
        assert times == sorted(set(times))


# ---- loops in which now goes back with the recording ----
@pytest.mark.parametrize("max_delay", [0.2, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("seed", range(20))
def test_a_pass_of_a_loop_loses_one_frame(seed: int, max_delay: float, make_bench) -> None:
    """In-order delivery with jitter. The first two items of a sensor must lie more than max_future before the end."""
    random = np.random.default_rng(seed)
    period = int(random.choice([50, 77, 100]))
    frames = int(random.integers(ceil((MAX_FUTURE + 40) / period) + 3, 51))
    events = recording(random, frames, period, 10, ego=seed % 2 == 0)
    player = Player(make_bench({"max_delay": max_delay}).sync)
    for _ in range(4):
        player.play(events)
    assert player.counts[0] == frames and all(count >= frames - 1 for count in player.counts)
    assert player.restarts == 3
    assert_pure(player)


@pytest.mark.parametrize("max_delay", [0.2, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(20))
def test_a_pass_of_a_loop_with_reordering_loses_its_depth_more(seed: int, max_delay: float, make_bench) -> None:
    random = np.random.default_rng(100 + seed)
    period, delay = int(random.choice([33, 50, 77])), 90
    frames = int(random.integers(ceil((MAX_FUTURE + 2 * delay) / period) + 3, 51))
    events = recording(random, frames, period, delay, ego=seed % 2 == 0)
    player = Player(make_bench({"max_delay": max_delay}).sync)
    for _ in range(4):
        player.play(events)
    assert min(player.counts) >= player.counts[0] - 2 - ceil(delay / period)
    assert player.restarts == 3
    assert_pure(player)


@pytest.mark.parametrize("frames", range(2, 51))
@pytest.mark.parametrize("period", [33, 100])
def test_no_loop_stalls(frames: int, period: int, make_bench) -> None:
    """Steps that max_future hides cost more frames, and may mix passes."""
    events = [(1000 + i * period, sensor, 1000 + i * period) for i in range(frames) for sensor in "ABRS"]
    player = Player(make_bench({"max_delay": 20.0}).sync)
    for _ in range(12):
        player.play(events)
    assert all(sum(player.counts[i : i + 5]) > 0 for i in range(8)), player.counts
    if frames > MAX_FUTURE / period + 2:
        assert min(player.counts) >= frames - 1
        assert_pure(player)


def test_a_sensor_that_stops_during_a_pass_does_not_stall_the_loop(make_bench) -> None:
    events = [(1000 + 100 * i, s, 1000 + 100 * i) for i in range(9) for s in "ABRS" if s != "B" or i < 3]
    player = Player(make_bench().sync)
    for _ in range(3):
        player.play(events)
    assert min(player.counts) >= 6 and player.restarts == 2
    assert_pure(player)


# ---- now that stays, or goes on, when the sensors' clocks step back ----
@pytest.mark.parametrize("frames", range(6, 51, 4))
@pytest.mark.parametrize("max_delay", [0.5, 1.0, 20.0])
def test_a_loop_whose_now_is_the_newest_time_loses_five_frames_a_pass(
    frames: int, max_delay: float, make_bench
) -> None:
    period = 10 if max_delay == 0.5 else 20 if max_delay == 1 else 100  # so that max_delay exceeds the loop
    end = 1000 + (frames - 1) * period
    events = [(1000 + i * period, sensor, 1000 + i * period) for i in range(frames) for sensor in "ABRS"]
    player = Player(make_bench({"max_delay": max_delay, "tolerance": 0.004}).sync)
    player.play(events)
    for _ in range(3):
        player.play([(end, sensor, time) for _, sensor, time in events])
    assert player.counts[0] == frames and min(player.counts) >= frames - 5 and player.restarts == 3
    assert_pure(player)


@pytest.mark.parametrize("step", [100, 300, 700, 950, 5000, 15000])
def test_clocks_that_step_back_once_stop_the_frames_for_five_periods(step: int, make_bench) -> None:
    player = Player(make_bench({"max_delay": 20.0}).sync)
    player.play([(1000 + i * 100, sensor, 1000 + i * 100) for i in range(200) for sensor in "ABRS"])
    player.play([(21000 + i * 100, sensor, 21000 + i * 100 - step) for i in range(60) for sensor in "ABRS"])
    assert player.counts[0] == 200 and player.counts[1] >= 55 and player.restarts == (step > 500)


@pytest.mark.parametrize("sensor", ["A", "B", "R", "S"])
@pytest.mark.parametrize("step", [150, 500, 900])
def test_one_sensor_that_steps_back_again_and_again_does_not_stall_the_others(
    sensor: str, step: int, make_bench
) -> None:
    player, events = Player(make_bench().sync), []
    for i in range(200):
        now = 1000 + 100 * i
        events += [(now, s, now - (i // 40 * step if s == sensor else 0)) for s in "ABRS"]
    player.play(events)
    assert player.restarts == 0 and player.counts[0] > 140
    assert max(np.diff(player.nows)) <= 1200  # lost_after, then another sensor replaces the reference; period, timeout


# ---- reordering alone ----
@pytest.mark.parametrize("seed", range(20))
def test_reordering_and_repetition_never_restart(seed: int, make_bench) -> None:
    random = np.random.default_rng(200 + seed)
    delay = int(random.choice([150, 400, 900]))
    events = recording(random, 300, int(random.choice([33, 50, 100])), delay, ego=True)
    events += [(now + int(random.integers(0, 50)), sensor, time) for now, sensor, time in events[::7]]
    player = Player(make_bench().sync)
    player.play(sorted(events, key=lambda event: event[0]))
    assert player.restarts == 0


@pytest.mark.parametrize("seed", range(5))
def test_single_items_with_an_old_now_never_restart(seed: int, make_bench) -> None:
    random = np.random.default_rng(300 + seed)
    events = [(1000 + i * 50, sensor, 1000 + i * 50) for i in range(300) for sensor in "ABRS"]
    for index in sorted(random.choice(range(100, 290), 40, replace=False), reverse=True):
        late = events[4 * index - int(random.integers(12, 70))]
        events.insert(4 * index, late)
    player = Player(make_bench().sync)
    player.play(events)
    assert player.restarts == 0 and player.counts == [300]
