"""Every transition between the states of a sensor, and the modes; max_age is 600 ms, lost_after 2000 ms."""

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


def rig() -> SensorRig:
    return SensorRig(
        cameras=[CameraCalibration(name=name, width=160, height=90, K=K, T_ego_camera=np.eye(4)) for name in "AB"],
        radars=[RadarCalibration(name=name, T_ego_radar=np.eye(4)) for name in "RS"],
    )


class Stand:
    """A monitor, a clock in ms, and what brings a sensor into each state; every script starts from whatever was before."""

    def __init__(self) -> None:
        self.monitor, self.now, self.random = Monitor(rig(), random_spec(cameras=2)), 0, np.random.default_rng(0)
        self.monitor.check(0)

    def item(self, sensor: str, time: int | None = None, content: str = "new") -> None:
        stamp = (self.now if time is None else time) * MS
        if sensor in "AB":
            image = (
                self.random.integers(0, 256, (90, 160, 3), np.uint8)
                if content == "new"
                else np.full((90, 160, 3), 7, np.uint8)
            )
            self.monitor.observe_camera(sensor, None if content == "bad" else image, stamp, self.now * MS)
        else:
            points = (
                self.random.normal(0, 9, (20, 5))
                if content == "new"
                else np.full((20, 5), np.nan if content == "bad" else 3)
            )
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
def stand() -> Stand:
    return Stand()


# ---- states ----
@pytest.mark.parametrize("sensor", ["A", "R"])
@pytest.mark.parametrize(("before", "after"), itertools.product(STATES, STATES))
def test_every_transition(stand: Stand, sensor: str, before: str, after: str) -> None:
    stand.bring(sensor, before)
    assert stand.state(sensor) == before
    stand.bring(sensor, after)
    assert stand.state(sensor) == after


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    ("age", "state"),
    [(0, "ok"), (300, "ok"), (301, "late"), (600, "late"), (601, "stale"), (2000, "stale"), (2001, "lost")],
)
def test_silence_wears_a_sensor_out(stand: Stand, sensor: str, age: int, state: str) -> None:
    stand.item(sensor)
    stand.now += age
    assert stand.state(sensor) == state
    stand.item(sensor)
    assert stand.state(sensor) == "ok"


@pytest.mark.parametrize(
    ("age", "state"), [(300, "ok"), (301, "late"), (601, "stale"), (5000, "stale"), (-301, "late"), (-601, "stale")]
)
def test_old_and_early_items_of_a_sensor_that_is_heard(stand: Stand, age: int, state: str) -> None:
    """A clock that is off, or a long way: stale, but not lost."""
    for _ in range(30):
        stand.now += 100
        stand.item("R", stand.now - age)
        assert stand.state("R") == state


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_that_never_came_is_missing_then_lost(stand: Stand, sensor: str) -> None:
    stand.now = 2000
    assert stand.state(sensor) == "missing"
    stand.now = 2001
    assert stand.state(sensor) == "lost"


@pytest.mark.parametrize("sensor", SENSORS)
def test_an_item_that_is_delivered_again_is_no_news(stand: Stand, sensor: str) -> None:
    for stand.now in (0, 100, 200, 301):
        stand.item(sensor, 0, content="same")
    assert stand.state(sensor) == "late"  # neither fresh nor frozen
    stand.now = 2001
    stand.item(sensor, 0, content="same")
    assert stand.state(sensor) == "lost"


@pytest.mark.parametrize("sensor", SENSORS)
def test_an_older_item_does_not_make_a_sensor_older(stand: Stand, sensor: str) -> None:
    stand.now = 1000
    stand.item(sensor, 1000)
    stand.item(sensor, 500, content="bad")
    assert stand.state(sensor) == "ok"


def test_a_clock_that_falls_back_is_followed(stand: Stand) -> None:
    stand.now = 5000
    stand.item("R", 60_000)
    assert stand.state("R") == "stale"
    stand.item("R", 5000)
    assert stand.state("R") == "ok"


@pytest.mark.parametrize("sensor", ["A", "R"])
def test_the_first_new_contents_thaw_a_sensor(stand: Stand, sensor: str) -> None:
    for expected in ("ok", "ok", "frozen", "frozen"):
        stand.now += 50
        stand.item(sensor, content="same")
        assert stand.state(sensor) == expected
    stand.now += 50
    stand.item(sensor)
    assert stand.state(sensor) == "ok"
    for expected in ("ok", "ok", "frozen"):
        stand.now += 50
        stand.item(sensor, content="same")
        assert stand.state(sensor) == expected


def test_one_pixel_of_noise_everywhere_is_seen(stand: Stand) -> None:
    """Noise of one grey level in a dark picture is enough to tell it from a frozen one."""
    for _ in range(10):
        stand.now += 50
        stand.monitor.observe_camera(
            "A", stand.random.integers(0, 2, (90, 160, 3), np.uint8), stand.now * MS, stand.now * MS
        )
        assert stand.state("A") == "ok"


@pytest.mark.parametrize(
    "points",
    [np.zeros((0, 5)), np.full((3, 5), np.nan), np.array([[1, 2, 3, np.inf, 0.0]]), np.array([[1, 2, 3, 5, 1e6]])],
)
def test_sweeps_without_a_usable_point_are_invalid(stand: Stand, points: np.ndarray) -> None:
    stand.monitor.observe_radar(RadarSweep("S", points.astype(np.float32), 0), 0)
    assert stand.state("S") == "invalid"


def test_images_of_another_size_are_invalid(stand: Stand) -> None:
    stand.monitor.observe_camera("A", np.zeros((45, 80, 3), np.uint8), 0, 0)
    assert stand.state("A") == "invalid"


def test_nv12_is_seen_by_its_luma(stand: Stand) -> None:
    chroma = np.full((45, 80, 2), 128, np.uint8)
    for expected in ("ok", "ok", "frozen", "frozen"):
        stand.now += 50
        stand.monitor.observe_camera("A", (np.full((90, 160), 7, np.uint8), chroma), stand.now * MS, stand.now * MS)
        assert stand.state("A") == expected
    stand.now += 50
    stand.monitor.observe_camera(
        "A", (stand.random.integers(0, 256, (90, 160), np.uint8), chroma), stand.now * MS, stand.now * MS
    )
    assert stand.state("A") == "ok"


# ---- modes ----
@pytest.mark.parametrize("usable", list(itertools.product([False, True], repeat=4)))
def test_the_mode_follows_from_the_sensors(stand: Stand, usable: tuple[bool, ...]) -> None:
    stand.now = 1000
    for sensor, good in zip(SENSORS, usable, strict=True):
        stand.item(sensor, 600 if good else 300)  # late, or stale
    cameras, radars = sum(usable[:2]), sum(usable[2:])
    expected = (
        "full" if cameras == radars == 2 else "partial" if cameras and radars else
        "camera_only" if cameras else "radar_only" if radars else "blind"
    )  # fmt: skip
    assert stand.monitor.check(stand.now * MS).mode == expected


@pytest.mark.parametrize("state", STATES[2:])
def test_only_ok_and_late_sensors_count(stand: Stand, state: str) -> None:
    stand.bring("A", state)
    for sensor in "BRS":
        stand.item(sensor)
    health = stand.monitor.check(stand.now * MS)
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
        (lambda m: m.observe_radar(RadarSweep("Z", np.zeros((1, 5), np.float32), 0), 0), "E0203"),
        (lambda m: m.observe_radar(RadarSweep("R", np.zeros((1, 5), np.float32)), 0), "E0205"),
    ],
)
def test_the_callers_mistakes_raise(stand: Stand, call, code: str) -> None:
    with pytest.raises(Error) as error:
        call(stand.monitor)
    assert error.value.code == code
