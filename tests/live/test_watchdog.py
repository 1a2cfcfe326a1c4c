"""The watchdog reports each miss once; its callback, its clock and its destruction do not harm the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from imkd_edge import Error, Watchdog

MS = 1_000_000


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now * MS


@pytest.fixture
def bench() -> Iterator[tuple[Clock, list[float], Watchdog]]:
    clock, missed = Clock(), []
    with Watchdog(0.05, missed.append, clock, timer=False) as dog:
        yield clock, missed, dog


def test_a_miss_is_reported_once_until_the_next_beat(bench) -> None:
    clock, missed, dog = bench
    for clock.now, overdue, misses in ((50, False, 0), (51, True, 1), (90, True, 1), (500, True, 1)):
        dog.poll()
        assert (dog.overdue, dog.misses) == (overdue, misses)
    assert missed == pytest.approx([0.051])
    dog.beat()
    assert not dog.overdue
    for clock.now, misses in ((550, 1), (551, 2)):
        dog.poll()
        assert dog.misses == misses
    assert missed == pytest.approx([0.051, 0.051])


def test_beats_in_time_miss_nothing(bench) -> None:
    clock, missed, dog = bench
    for clock.now in range(0, 5000, 50):
        dog.poll()
        dog.beat()
    assert dog.misses == 0 and not missed


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 600  # s: against a hang
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def test_the_timer_runs_on_its_own_thread() -> None:
    reports: list[tuple[int, float]] = []
    with Watchdog(0.02, lambda seconds: reports.append((threading.get_ident(), seconds))) as dog:
        assert until(lambda: len(reports) == 1)
        dog.beat()
        assert until(lambda: len(reports) == 2) and dog.misses == 2
    assert all(thread != threading.get_ident() and seconds > 0.02 for thread, seconds in reports)


def test_the_timer_reads_a_custom_clock() -> None:
    clock = Clock()
    with Watchdog(5.0, clock=clock) as dog:
        time.sleep(0.15)
        assert not dog.overdue
        clock.now = 5001
        assert until(lambda: dog.overdue)


def test_a_callback_may_beat_and_may_raise(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: errors.append(str(unraisable.exc_value)))

    def missed(seconds: float) -> None:
        dog.beat()
        raise RuntimeError("raised by the callback")

    with Watchdog(0.01, missed) as dog:
        assert until(lambda: dog.misses >= 3)
    assert errors.count("raised by the callback") >= 3


def test_a_callback_may_close_its_watchdog() -> None:
    dog = Watchdog(0.01, lambda seconds: dog.close())

    def closed() -> bool:
        try:
            dog.beat() if dog.misses else None
        except Error:
            return True
        return False

    assert until(closed)


def test_closing_while_others_call_is_safe() -> None:
    for _ in range(50):
        dog = Watchdog(0.0005, lambda seconds: sum(range(999)))

        def beat(dog: Watchdog = dog) -> None:
            with pytest.raises(Error):
                while True:
                    dog.beat()

        threads = [threading.Thread(target=beat) for _ in range(3)]
        for thread in threads:
            thread.start()
        dog.close()
        for thread in threads:
            thread.join(timeout=600)
        assert not any(thread.is_alive() for thread in threads)


def test_a_closed_watchdog_raises_and_an_open_one_does_not_hang_at_exit() -> None:
    dog = Watchdog(1.0)
    dog.close()
    with pytest.raises(Error) as error:
        dog.beat()
    assert error.value.code == "E0511"
    script = "import imkd_edge, time\nd = imkd_edge.Watchdog(0.001, lambda seconds: sum(range(9999)))\n"
    script += "for _ in range(30): time.sleep(0.002); d.beat()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == ""


def test_a_clock_that_raises_is_one_miss() -> None:
    script = """
import itertools, time, imkd_edge
reports, calls = [], itertools.count()
def clock():
    if next(calls) == 3: raise RuntimeError("no time")
    return 0
with imkd_edge.Watchdog(0.5, reports.append, clock) as dog:
    while not reports: time.sleep(0.01)
    print(dog.misses, dog.overdue, reports[0] > 0.5)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split()) == (0, ["1", "True", "True"]), run.stderr


@pytest.mark.parametrize("told", [0.5, "now", None, 2**63])
def test_a_clock_that_returns_no_int_of_ns_is_named(told: object) -> None:
    with pytest.raises(Error, match=r"returned .*, no int of ns.*Watchdog, clock") as error:
        Watchdog(0.5, clock=lambda: told, timer=False)
    assert error.value.code == "E0104" and repr(told) in str(error.value)


def test_a_clock_may_return_an_integer_of_numpy() -> None:
    clock = Clock()
    with Watchdog(0.5, clock=lambda: np.int64(clock()), timer=False) as dog:
        clock.now = 501
        dog.poll()
        assert dog.misses == 1


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("nan"), 1e9])
def test_a_deadline_out_of_range_raises(deadline: float) -> None:
    with pytest.raises(Error) as error:
        Watchdog(deadline)
    assert error.value.code == "E0104"
