"""Every transition between the states of a sensor, and the modes; max_age is 600 ms and lost_after 2000 ms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge import CameraCalibration, Error, Monitor, RadarCalibration, RadarSweep, SensorRig

MS = 1_000_000
K = np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
STATES = ("ok", "late", "stale", "frozen", "invalid", "lost", "missing")
SENSORS = ("A", "B", "R", "S")
STILL = np.random.default_rng(1).integers(0, 250, (90, 160, 3), np.uint8)


def rig() -> SensorRig:
    return SensorRig(
        cameras=[CameraCalibration(name=name, width=160, height=90, K=K, T_ego_camera=np.eye(4)) for name in "AB"],
        radars=[RadarCalibration(name=name, T_ego_radar=np.eye(4)) for name in "RS"],
    )


class MonitorBench:
    """A monitor, a clock in ms, and for each state the items that lead to it from any other state."""

    def __init__(self) -> None:
        self.monitor = Monitor(rig(), random_spec(cameras=2))
        self.now, self.random = 0, np.random.default_rng(0)
        self.monitor.check(0)

    def item(self, sensor: str, time: int | None = None, content: str = "new") -> None:
        stamp = (self.now if time is None else time) * MS
        if sensor in "AB":
            new = self.random.integers(0, 256, (90, 160, 3), np.uint8) if content == "new" else None
            image = STILL if new is None else new
            self.monitor.observe_camera(sensor, None if content == "bad" else image, stamp, self.now * MS)
        else:
            new = self.random.normal(0, 9, (20, 5)) if content == "new" else None
            points = np.full((20, 5), np.nan if content == "bad" else 3) if new is None else new
            self.monitor.observe_radar(RadarSweep(sensor, points.astype(np.float32), stamp), self.now * MS)

    def state(self, sensor: str) -> str:
        return self.monitor.check(self.now * MS).sensors[sensor]

    def bring(self, sensor: str, state: str) -> None:
        self.now += 100
        if state == "missing":
            self.monitor.reset()
            return
        if state == "frozen":
            for _ in range(3):
                self.now += 100
                self.item(sensor, content="same")
            return
        self.item(sensor, content="bad" if state == "invalid" else "new")
        self.now += {"ok": 300, "late": 301, "stale": 601, "lost": 2001, "invalid": 600}[state]


@pytest.fixture
def bench() -> MonitorBench:
    return MonitorBench()


# ---- states ----
@pytest.mark.parametrize("sensor", ["A", "R"])
@pytest.mark.parametrize(("before", "after"), itertools.product(STATES, STATES))
def test_every_transition(bench: MonitorBench, sensor: str, before: str, after: str) -> None:
    bench.bring(sensor, before)
    assert bench.state(sensor) == before
    bench.bring(sensor, after)
    assert bench.state(sensor) == after


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    ("age", "state"),
    [(0, "ok"), (300, "ok"), (301, "late"), (600, "late"), (601, "stale"), (2000, "stale"), (2001, "lost")],
)
def test_a_silent_sensor_ages(bench: MonitorBench, sensor: str, age: int, state: str) -> None:
    bench.item(sensor)
    bench.now += age
    assert bench.state(sensor) == state
    bench.item(sensor)
    assert bench.state(sensor) == "ok"


@pytest.mark.parametrize(
    ("age", "state"), [(300, "ok"), (301, "late"), (601, "stale"), (5000, "stale"), (-301, "late"), (-601, "stale")]
)
def test_old_and_early_items_of_a_sensor_that_delivers(bench: MonitorBench, age: int, state: str) -> None:
    """A wrong clock, or a long delay: stale, but not lost."""
    for _ in range(30):
        bench.now += 100
        bench.item("R", bench.now - age)
        assert bench.state("R") == state


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_that_never_delivered_is_missing_then_lost(bench: MonitorBench, sensor: str) -> None:
    bench.now = 2000
    assert bench.state(sensor) == "missing"
    bench.now = 2001
    assert bench.state(sensor) == "lost"


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_repeated_item_is_ignored(bench: MonitorBench, sensor: str) -> None:
    for bench.now in (0, 100, 200, 301):
        bench.item(sensor, 0, content="same")
    assert bench.state(sensor) == "late"  # neither fresh nor frozen
    bench.now = 2001
    bench.item(sensor, 0, content="same")
    assert bench.state(sensor) == "lost"


@pytest.mark.parametrize("sensor", SENSORS)
def test_an_older_item_does_not_make_a_sensor_older(bench: MonitorBench, sensor: str) -> None:
    bench.now = 1000
    bench.item(sensor, 1000)
    bench.item(sensor, 500, content="bad")
    assert bench.state(sensor) == "ok"


def test_a_clock_that_jumps_back_is_followed(bench: MonitorBench) -> None:
    bench.now = 5000
    bench.item("R", 60_000)
    assert bench.state("R") == "stale"
    bench.item("R", 5000)
    assert bench.state("R") == "ok"


@pytest.mark.parametrize("sensor", ["A", "R"])
def test_new_contents_end_the_frozen_state_at_once(bench: MonitorBench, sensor: str) -> None:
    for expected in ("ok", "ok", "frozen", "frozen"):
        bench.now += 50
        bench.item(sensor, content="same")
        assert bench.state(sensor) == expected
    bench.now += 50
    bench.item(sensor)
    assert bench.state(sensor) == "ok"
    for expected in ("ok", "ok", "frozen"):
        bench.now += 50
        bench.item(sensor, content="same")
        assert bench.state(sensor) == expected


def test_noise_of_one_grey_level_is_detected(bench: MonitorBench) -> None:
    """One grey level of noise distinguishes a still scene from a frozen image."""
    for _ in range(10):
        bench.now += 50
        image = STILL + bench.random.integers(0, 2, STILL.shape, np.uint8)
        bench.monitor.observe_camera("A", image, bench.now * MS, bench.now * MS)
        assert bench.state("A") == "ok"


@pytest.mark.parametrize(
    "points",
    [np.zeros((0, 5)), np.full((3, 5), np.nan), np.array([[1, 2, 3, np.inf, 0.0]]), np.array([[1, 2, 3, 5, 1e6]])]
    + [np.array([[1, 2, 3, 5, 0], *[[1, 2, 3, np.nan, 0]] * 2])],
)
def test_sweeps_without_a_usable_point_are_invalid(bench: MonitorBench, points: np.ndarray) -> None:
    bench.monitor.observe_radar(RadarSweep("S", points.astype(np.float32), 0), 0)
    assert bench.state("S") == "invalid"


def test_images_of_another_size_are_invalid(bench: MonitorBench) -> None:
    bench.monitor.observe_camera("A", np.zeros((45, 80, 3), np.uint8), 0, 0)
    assert bench.state("A") == "invalid"


@pytest.mark.parametrize("level", [0, 7, 255])
def test_images_that_show_nothing_are_invalid(bench: MonitorBench, level: int) -> None:
    """Dark, covered or saturated, but for two pixels in a hundred."""
    shown = bench.random.random((90, 160, 1)) < 0.02
    bench.monitor.observe_camera("A", np.where(shown, STILL, np.uint8(level)), 0, 0)
    assert bench.state("A") == "invalid"


def test_nv12_is_compared_by_its_luma(bench: MonitorBench) -> None:
    chroma = np.full((45, 80, 2), 128, np.uint8)
    for expected in ("ok", "ok", "frozen", "frozen"):
        bench.now += 50
        bench.monitor.observe_camera("A", (np.ascontiguousarray(STILL[..., 0]), chroma), bench.now * MS, bench.now * MS)
        assert bench.state("A") == expected
    bench.now += 50
    luma = bench.random.integers(0, 256, (90, 160), np.uint8)
    bench.monitor.observe_camera("A", (luma, chroma), bench.now * MS, bench.now * MS)
    assert bench.state("A") == "ok"


# ---- modes ----
@pytest.mark.parametrize("usable", list(itertools.product([False, True], repeat=4)))
def test_the_mode_follows_from_the_sensors(bench: MonitorBench, usable: tuple[bool, ...]) -> None:
    bench.now = 1000
    for sensor, good in zip(SENSORS, usable, strict=True):
        bench.item(sensor, 600 if good else 300)  # late, or stale
    cameras, radars = sum(usable[:2]), sum(usable[2:])
    expected = (
        "full" if cameras == radars == 2 else "partial" if cameras and radars else
        "camera_only" if cameras else "radar_only" if radars else "blind"
    )  # fmt: skip
    assert bench.monitor.check(bench.now * MS).mode == expected


@pytest.mark.parametrize("state", STATES[2:])
def test_only_ok_and_late_sensors_count(bench: MonitorBench, state: str) -> None:
    bench.bring("A", state)
    for sensor in "BRS":
        bench.item(sensor)
    health = bench.monitor.check(bench.now * MS)
    assert (health.sensors["A"], health.mode) == (state, "partial")


# ---- the caller's mistakes ----
@pytest.mark.parametrize("options", [{"lost_after": 0.6}, {"lost_after": float("nan")}, {"frozen_after": 1}])
def test_options_out_of_range_raise(options: dict) -> None:
    with pytest.raises(Error) as error:
        Monitor(rig(), random_spec(cameras=2), **options)
    assert error.value.code == "E0104"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda m: m.observe_camera("Z", np.zeros((90, 160, 3), np.uint8), 0, 0), "E0203"),
        (lambda m: m.observe_camera("A", np.zeros((90, 160), np.uint8), 0, 0), "E0202"),
        (lambda m: m.observe_camera("A", np.broadcast_to(np.zeros(3, np.uint8), (90, 160, 3)), 0, 0), "E0202"),
        (lambda m: m.observe_radar(RadarSweep("Z", np.zeros((1, 5), np.float32), 0), 0), "E0203"),
        (lambda m: m.observe_radar(RadarSweep("R", np.zeros((1, 5), np.float32)), 0), "E0205"),
    ],
)
def test_the_callers_mistakes_raise(bench: MonitorBench, call, code: str) -> None:
    with pytest.raises(Error) as error:
        call(bench.monitor)
    assert error.value.code == code
