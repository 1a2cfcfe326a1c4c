"""Random streams against a reference model of the synchronizer that stores plain dicts and recomputes everything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

SENSORS = ("A", "B", "R", "S")
TOLERANCE, TIMEOUT, MAX_DELAY, MAX_FUTURE, LOST, MAX_AGE = 40, 100, 1000, 100, 1000, 600
NEVER = -(10**12)
LIMIT = {"A": 8, "B": 8, "R": 32, "S": 32}


class ReferenceModel:
    """Times in ms. Items are dicts from time to arrival."""

    def __init__(self, preferred: str = "A") -> None:
        self.preferred, self.restarts = preferred, 0
        self.reset()

    def reset(self) -> None:
        self.items: dict[str, dict[int, int]] = {sensor: {} for sensor in SENSORS}
        self.ego: list[int] = []
        self.arrivals: dict[str, int] = {}
        self.now: int | None = None
        self.start = 0
        self.done = -(10**12)
        self.active = self.preferred
        self.tails: dict[str, list[int]] = {}  # the newest item of each stream, and what came after it
        self.suspects: dict[str, int] = {}  # the last suspected item of each stream
        self.newest = NEVER

    def restart(self, now: int) -> None:
        self.reset()
        self.restarts += 1
        self.advance(now)

    def advance(self, now: int) -> None:
        if self.now is not None and now < self.now - MAX_DELAY:
            self.restart(now)
        if self.now is None:
            self.now = self.start = now
        self.now = max(self.now, now)
        self.choose_reference()

    def silent(self, sensor: str) -> bool:
        return self.now - self.arrivals.get(sensor, self.start) > LOST

    def choose_reference(self) -> None:
        awake = [sensor for sensor in (self.preferred, *SENSORS) if not self.silent(sensor)]
        if awake and awake[0] != self.active:
            self.active = awake[0]
            if self.active != self.preferred and self.items[self.active]:
                self.done = max(self.done, max(self.items[self.active]) - 1)

    def useless(self, sensor: str, time: int) -> bool:
        if sensor in "RS" or sensor == "ego":
            return time <= self.done - MAX_AGE
        return time <= (self.done if sensor == self.active else self.done - TOLERANCE)

    def clock_step(self, stream: str, time: int, now: int) -> str:
        if not now - MAX_DELAY <= time <= now + MAX_FUTURE:
            return "none"
        tail = self.tails.get(stream, [NEVER])
        suspected = time < (self.newest if tail[0] == NEVER else tail[0]) and now < self.now - MAX_FUTURE
        if time > tail[0] and not suspected:
            self.tails[stream] = [time]
            self.suspects.pop(stream, None)
            if time > self.newest:
                self.newest, self.suspects = time, {}
            return "none"
        self.tails[stream] = [*tail, time]
        if stream != "ego" and self.advances(stream) >= 4 and all(map(self.behind, SENSORS)):
            return "certain"
        if not suspected:
            return "none"
        before = self.suspects.get(stream)
        self.suspects[stream] = time
        return "certain" if before is not None and time > before else "suspected"

    def advances(self, stream: str) -> int:
        tail = self.tails[stream]
        return sum(NEVER < a < b for a, b in pairwise(tail))

    def behind(self, sensor: str) -> bool:
        return sensor not in self.tails or self.silent(sensor) or self.advances(sensor) >= 4

    def push(self, sensor: str, time: int, now: int) -> str:
        self.advance(now)
        step = self.clock_step(sensor, time, now)
        if step == "suspected":
            return "late"
        if step == "certain":
            self.restart(now)
            self.clock_step(sensor, time, now)
        if time > self.now + MAX_FUTURE:
            return "future"
        if time < self.now - MAX_DELAY or self.useless(sensor, time):
            return "late"
        if sensor == "ego":
            if time in self.ego:
                return "duplicate"
            self.ego.append(time)
            self.arrivals["ego"] = self.now
            return "kept"
        items = self.items[sensor]
        if time in items:
            return "duplicate"
        items[time] = self.now
        self.arrivals[sensor] = self.now
        self.choose_reference()
        if len(items) > LIMIT[sensor]:
            del items[min(items)]
        return "kept"

    def near(self, sensor: str, time: int) -> int | None:
        return min(
            (t for t in self.items[sensor] if abs(t - time) <= TOLERANCE),
            key=lambda t: (abs(t - time), t),
            default=None,
        )

    def missing(self, time: int) -> set[str]:
        sensors = {sensor for sensor in SENSORS if self.near(sensor, time) is None}
        return sensors | ({"ego"} if "ego" in self.arrivals and max(self.ego, default=-(10**12)) < time else set())

    def posed(self, time: int) -> bool:
        """Whether the poses give one at a time: between two at most 500 ms apart, or within 100 ms of one of a pair."""
        before = max((t for t in self.ego if t <= time), default=None)
        behind = min((t for t in self.ego if t >= time), default=None)
        if before is not None and behind is not None and behind - before <= 500:
            return True
        near = [t for t in (before, behind) if t is not None and abs(t - time) <= 100]
        return any(10 <= abs(other - t) <= 500 for t in near for other in self.ego)

    def pop(self, now: int) -> str:
        self.advance(now)
        for time in sorted(t for t in self.items[self.active] if t > self.done):
            if self.now - time > MAX_DELAY + TIMEOUT:
                self.done = time
                continue
            waits = {sensor for sensor in self.missing(time) if not self.silent(sensor)}
            if waits and self.now - self.items[self.active][time] < TIMEOUT:
                return "-"
            return self.frame(time)
        return "-"

    def frame(self, time: int) -> str:
        words = [str(time)] + [
            f"{camera}{self.near(camera, time)}" for camera in "AB" if self.near(camera, time) is not None
        ]
        words += [f"{r}{t}" for r in "RS" for t in sorted(self.items[r]) if time - MAX_AGE <= t <= time + TOLERANCE]
        complete = not self.missing(time) and ("ego" not in self.arrivals or self.posed(time))
        words += [] if complete else ["incomplete"]
        self.done = time
        for sensor, items in self.items.items():
            self.items[sensor] = {t: arrival for t, arrival in items.items() if not self.useless(sensor, t)}
        return " ".join(words)


def streams(random: np.random.Generator, seconds: int, wild: bool) -> list[tuple[int, str, int]]:
    """(arrival, sensor, time) of every item; wild ones are repeated, lost, delayed, early or from another clock."""
    events = []
    for sensor, period in zip((*SENSORS, "ego"), random.choice([33, 50, 77, 100], 4).tolist() + [20], strict=True):
        offset = int(random.integers(0, period))
        gap_start, gap_length = int(random.integers(0, seconds * 1000)), int(random.integers(0, 3000))
        for time in range(offset, seconds * 1000, period):
            arrival, draw = time + int(random.exponential(15)), random.random()
            if wild and gap_start <= time < gap_start + gap_length:
                continue
            if wild and draw < 0.05:
                arrival += int(random.integers(0, 1500))
            elif wild and draw < 0.08:
                events.append((arrival + int(random.integers(0, 200)), sensor, time))
            elif wild and draw < 0.11:
                time += int(random.choice([-5000, -900, -60, 60, 99, 101, 5000]))
            events.append((arrival, sensor, time))
    return sorted(events, key=lambda event: event[0])


@pytest.mark.parametrize("reference", ["A", "B", "R"])
@pytest.mark.parametrize("seed", range(60))
def test_random_streams_give_what_the_model_gives(seed: int, reference: str, make_bench, write) -> None:
    random = np.random.default_rng(seed)
    bench, model, shift, frames = make_bench({"reference": reference}), ReferenceModel(reference), 0, 0
    for arrival, sensor, time in streams(random, 8, wild=seed > 5):
        if seed > 5 and random.random() < 0.002:  # the clock jumps
            shift += int(random.choice([-3000, -999, 700, 4000]))
        now = arrival + shift
        item = sensor, time + shift, now
        assert bench.push(*item) == model.push(*item), item
        for _ in range(int(random.integers(0, 3))):
            now += int(random.integers(0, 30))
            expected = model.pop(now)
            assert write(bench.pop(now)) == expected, now
            frames += expected != "-"
    counts = bench.sync.counts()
    assert frames == counts["complete"] + counts["incomplete"] > 30 and counts["restarts"] == model.restarts


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_arrival_does_not_matter_within_the_timeout(seed: int, make_bench, write) -> None:
    """Periods of 100 ms, tolerance 40 ms: the frames do not depend on the items' delays below the timeout."""
    random = np.random.default_rng(seed)
    items = [(sensor, 1000 + 100 * i + int(random.integers(-20, 20))) for i in range(30) for sensor in SENSORS]
    results = []
    for _ in range(3):
        bench, frames = make_bench(), []
        arrivals = sorted((time + int(random.integers(0, 59)), sensor, time) for sensor, time in items)
        for now, sensor, time in arrivals:
            assert bench.push(sensor, time, now) == "kept"
            frames += iter(lambda: write(bench.pop(now)), "-")  # noqa: B023
        results.append([" ".join(w for w in frame.split() if w[0] not in "RS") for frame in frames])
    assert results[0] == results[1] == results[2] and len(results[0]) == 30
    assert not any("incomplete" in frame for frame in results[0])


@pytest.mark.parametrize("seed", range(10))
def test_times_of_frames_increase_for_any_input(seed: int, make_bench) -> None:
    random = np.random.default_rng(seed)
    bench, last, count = make_bench(), -(10**12), 0
    for now in range(0, 20000, 5):
        bench.push(str(random.choice([*SENSORS, "ego"])), now + int(random.normal(0, 200)), now)
        frame = bench.pop(now)
        if frame is not None:
            assert frame.timestamp_ns > last
            last, count = frame.timestamp_ns, count + 1
    assert count > 100
