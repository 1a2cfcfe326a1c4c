"""The synchronizer with regular and irregular times: scripts, worked out by hand.

A step of a script is the current time (ms) and an action. `110 A 100` pushes an item of camera A with time 100, which
is kept; `110 A 100 late` expects that it is refused as late; `110 all 100` pushes one item of each sensor.
`120 pop 100 A100 B103 R90 S95` expects a frame of time 100 with these items, `120 pop -` none.
Cameras A, B; radars R, S; A is the reference. tolerance 40, timeout 100, max_delay 1000, max_future 100,
lost_after 1000, max_age 600 ms.
"""

from __future__ import annotations

import numpy as np
import pytest

from helpers import random_spec
from imkd_edge import Ego, Error, RadarSweep, Synchronizer

MS = 1_000_000

SCRIPTS = {
    # ---- order ----
    "all at once": "100 all 100; 100 pop 100 A100 B100 R100 S100; 100 pop -",
    "nothing at all": "100 pop -",
    "reference last": "100 B 100; 100 R 100; 100 S 100; 100 pop -; 101 A 100; 101 pop 100 A100 B100 R100 S100",
    "reference first": """
        100 A 100; 100 pop -; 110 S 100; 115 R 100; 120 pop -; 130 B 100; 130 pop 100 A100 B100 R100 S100""",
    "no frame without a reference item": "100 B 100; 100 R 100; 100 S 100; 300 pop -",
    "frames come by time, not by arrival": """
        110 A 110; 112 all 60; 113 B 110; 113 R 110; 113 S 110; 113 pop 60 A60 B60 R60 S60;
        113 pop 110 A110 B110 R60 R110 S60 S110""",
    "a ready frame waits for the one before it": """
        100 A 100; 150 all 150; 150 pop -; 200 pop 100 A100 incomplete; 200 pop 150 A150 B150 R150 S150""",
    # ---- tolerance ----
    "on the edge of tolerance": "200 A 100; 200 B 140; 200 R 60; 200 S 140; 200 pop 100 A100 B140 R60 S140",
    "just beyond tolerance": """
        141 A 100; 141 B 141; 141 R 100; 141 S 100; 141 pop -; 241 pop 100 A100 R100 S100 incomplete""",
    "nearest image": "130 A 100; 130 B 70; 130 B 110; 130 R 100; 130 S 100; 130 pop 100 A100 B110 R100 S100",
    "of two at the same distance the older": """
        130 A 100; 130 B 110; 130 B 90; 130 R 100; 130 S 100; 130 pop 100 A100 B90 R100 S100""",
    "one image may serve two frames": """
        100 A 100; 130 A 130; 130 B 115; 130 R 115; 130 S 115; 130 pop 100 A100 B115 R115 S115;
        130 pop 130 A130 B115 R115 S115""",
    # ---- timeout ----
    "a missing camera": "100 A 100; 110 R 100; 110 S 100; 199 pop -; 200 pop 100 A100 R100 S100 incomplete",
    "a missing radar": "100 A 100; 100 B 100; 100 R 100; 200 pop 100 A100 B100 R100 incomplete",
    "reference alone": "100 A 100; 200 pop 100 A100 incomplete",
    "timeout counts from arrival": "150 A 100; 249 pop -; 250 pop 100 A100 incomplete",
    "in the last moment": "100 A 100; 100 R 100; 100 S 100; 199 pop -; 199 B 100; 199 pop 100 A100 B100 R100 S100",
    "two time out together": """
        100 A 100; 150 A 150; 250 pop 100 A100 incomplete; 250 pop 150 A150 incomplete; 250 pop -""",
    # ---- late ----
    "reference older than the last frame": """
        100 A 100; 200 pop 100 A100 incomplete; 201 A 90 late; 201 A 100 late; 201 A 101""",
    "image that no frame can use": "100 A 100; 200 pop 100 A100 incomplete; 201 B 60 late; 201 B 61",
    "late image that the next frame uses": """
        100 A 100; 200 pop 100 A100 incomplete; 205 B 100; 205 A 130; 205 R 130; 205 S 130;
        205 pop 130 A130 B100 R130 S130""",
    "late sweep still counts for later frames": """
        700 A 700; 800 pop 700 A700 incomplete; 810 R 650; 810 A 750; 810 B 750; 810 S 750; 810 R 750;
        810 pop 750 A750 B750 R650 R750 S750""",
    "sweep too old for any frame": "900 A 900; 1000 pop 900 A900 incomplete; 1001 R 300 late; 1001 R 301",
    "delayed by more than max_delay": """
        1101 A 100 late; 1101 B 100 late; 1101 R 100 late; 1101 ego 100 late; 1101 A 101""",
    # ---- duplicates ----
    "the first of two stays": """
        100 A 100; 101 A 100 duplicate; 101 B 100; 101 B 100 duplicate; 101 R 100; 101 R 100 duplicate; 101 S 100""",
    "duplicate of an older one": "100 B 60; 100 B 80; 100 B 100; 100 B 80 duplicate; 100 B 60 duplicate",
    "the same time of another sensor is no duplicate": "100 all 100; 100 ego 100; 100 ego 100 duplicate",
    "duplicate of a used item": """
        100 all 100; 100 pop 100 A100 B100 R100 S100; 101 A 100 late; 101 B 100 duplicate; 101 R 100 duplicate""",
    # ---- future ----
    "as far ahead as allowed": "100 all 200; 100 pop 200 A200 B200 R200 S200",
    "too far ahead": "100 A 201 future; 100 B 201 future; 100 R 201 future; 100 ego 201 future; 300 pop -",
    "a future reference does not advance the frames": """
        100 A 100; 100 A 5000 future; 100 B 100; 100 R 100; 100 S 100; 100 pop 100 A100 B100 R100 S100; 150 all 150;
        150 pop 150 A150 B150 R100 R150 S100 S150""",
    # ---- jumps ----
    "one camera's clock jumps ahead and back": """
        100 A 100; 100 B 9000 future; 100 R 100; 100 S 100; 200 pop 100 A100 R100 S100 incomplete; 200 all 200;
        200 pop 200 A200 B200 R100 R200 S100 S200""",
    "one radar's clock jumps back": """
        5000 R 100 late; 5000 A 5000; 5000 B 5000; 5000 S 5000; 5100 pop 5000 A5000 B5000 S5000 incomplete;
        5100 R 5100; 5100 A 5100; 5100 B 5100; 5100 S 5100; 5100 pop 5100 A5100 B5100 R5100 S5000 S5100""",
    "now jumps back by more than max_delay: everything is discarded": """
        5000 all 5000; 3900 pop -; 3900 all 3900; 3900 pop 3900 A3900 B3900 R3900 S3900""",
    "now jumps back by less: the current time stays": """
        5000 A 5000; 4900 B 5000; 4000 R 5000; 5000 S 5000; 4500 pop 5000 A5000 B5000 R5000 S5000""",
    "a recording shorter than max_delay that starts again: its second moment restarts": """
        100 all 100; 100 pop 100 A100 B100 R100 S100; 500 all 500; 500 pop 500 A500 B500 R100 R500 S100 S500;
        100 A 100 late; 100 B 100 late; 100 R 100 late; 100 S 100 late; 100 pop -; 200 all 200;
        200 pop 200 A200 B200 R200 S200; 250 all 250; 250 pop 250 A250 B250 R200 R250 S200 S250""",
    "single items that arrive late with an old now": """
        500 all 500; 500 pop 500 A500 B500 R500 S500; 300 R 300 late; 600 all 600;
        600 pop 600 A600 B600 R500 R600 S500 S600; 400 R 400 late; 650 all 650;
        650 pop 650 A650 B650 R500 R600 R650 S500 S600 S650""",
    "all sensors' clocks step back while now stays: the fifth item restarts": """
        500 all 500; 500 pop 500 A500 B500 R500 S500;
        500 A 0 late; 500 B 0 late; 500 R 0; 500 S 0; 500 A 50 late; 500 B 50 late; 500 R 50; 500 S 50;
        500 A 100 late; 500 B 100 late; 500 R 100; 500 S 100; 500 A 150 late; 500 B 150 late; 500 R 150; 500 S 150;
        500 A 200 late; 500 B 200 late; 500 R 200; 500 S 200; 500 pop -; 500 all 250 ;
        500 pop 250 A250 B250 R250 S200 S250""",
    "a recording that starts again": """
        5000 all 5000; 5000 pop 5000 A5000 B5000 R5000 S5000; 100 all 100; 100 pop 100 A100 B100 R100 S100""",
    "now jumps ahead: waiting frames expire": "100 all 100; 1201 pop -; 1201 A 1201; 1301 pop 1201 A1201 incomplete",
    "the largest age of a frame": "100 A 100; 1200 pop 100 A100 incomplete",
    # ---- silence ----
    "a frame waits for a sensor that never delivered until lost_after": """
        1000 A 1000; 1000 R 1000; 1000 S 1000; 1100 pop 1000 A1000 R1000 S1000 incomplete; 2001 A 2001; 2001 R 2001;
        2001 S 2001; 2001 pop 2001 A2001 R2001 S2001 incomplete""",
    "a frame waits again for a lost sensor that is back": """
        1000 all 1000; 1000 pop 1000 A1000 B1000 R1000 S1000; 2001 A 2001; 2001 R 2001; 2001 S 2001;
        2001 pop 2001 A2001 R2001 S2001 incomplete; 2050 B 2050; 2100 A 2100; 2100 R 2100; 2100 S 2100; 2100 pop -;
        2110 B 2100; 2110 pop 2100 A2100 B2100 R2001 R2100 S2001 S2100""",
    "another sensor replaces a lost reference": """
        1000 all 1000; 1000 pop 1000 A1000 B1000 R1000 S1000; 1900 B 1900; 1900 R 1900; 1900 S 1900; 2000 B 2000;
        2000 R 2000; 2000 S 2000; 2000 pop -; 2001 pop 2000 B2000 R1900 R2000 S1900 S2000 incomplete; 2001 pop -;
        2100 all 2100; 2100 pop 2100 A2100 B2100 R1900 R2000 R2100 S1900 S2000 S2100""",
    "a radar replaces lost cameras": """
        1000 A 1000; 1000 B 1000; 1900 R 1900; 1900 S 1900; 1900 pop 1000 A1000 B1000 incomplete; 2001 R 2000;
        2001 S 2000; 2001 pop 1900 R1900 S1900 incomplete; 2001 pop 2000 R1900 R2000 S1900 S2000 incomplete""",
    "a reference with a wrong clock counts as lost": """
        1000 all 1000; 1000 pop 1000 A1000 B1000 R1000 S1000; 2100 A 999 late; 2100 B 2100; 2100 R 2100; 2100 S 2100;
        2100 pop 2100 B2100 R2100 S2100 incomplete""",
    # ---- accumulation ----
    "sweeps of max_age": """
        1000 R 400; 1000 R 399; 1000 R 700; 1000 S 1000; 1000 R 1000; 1000 A 1000; 1000 B 1000;
        1000 pop 1000 A1000 B1000 R400 R700 R1000 S1000""",
    "a sweep within max_age but beyond tolerance is not enough": """
        1000 A 1000; 1000 B 1000; 1000 R 950; 1000 S 1000; 1000 pop -;
        1100 pop 1000 A1000 B1000 R950 S1000 incomplete""",
    "sweeps stay for the next frame": """
        100 all 100; 100 pop 100 A100 B100 R100 S100; 600 all 600; 600 pop 600 A600 B600 R100 R600 S100 S600;
        700 all 700; 700 pop 700 A700 B700 R100 R600 R700 S100 S600 S700; 701 A 701;
        701 pop 701 A701 B700 R600 R700 S600 S700""",
    "sweeps after the reference": """
        200 A 100; 200 B 100; 200 R 100; 200 R 140; 200 R 141; 200 S 100; 200 pop 100 A100 B100 R100 R140 S100""",
    # ---- ego motion ----
    "a frame waits for ego motion": "90 ego 90; 100 all 100; 100 pop -; 110 ego 110; 110 pop 100 A100 B100 R100 S100",
    "ego motion that stops": "90 ego 90; 100 all 100; 199 pop -; 200 pop 100 A100 B100 R100 S100 incomplete",
    "no frame waits for silent ego motion": """
        100 ego 100; 1101 all 1101; 1101 pop 1101 A1101 B1101 R1101 S1101 incomplete""",
}

LIMITED = {
    "the oldest reference item is dropped": (
        {"max_images": 2},
        "100 A 100; 120 A 120; 140 A 140; 300 pop 120 A120 incomplete; 300 pop 140 A140 incomplete",
    ),
    "the oldest sweep is dropped": (
        {"max_sweeps": 2},
        "100 R 60; 100 R 80; 100 R 100; 100 A 100; 100 B 100; 100 S 100; 100 pop 100 A100 B100 R80 R100 S100",
    ),
    "a radar as reference": (
        {"reference": "S"},
        "100 S 100; 100 A 110; 100 B 90; 100 R 70; 100 pop 100 A110 B90 R70 S100; "
        "110 S 60; 110 S 105; 110 pop 105 A110 B90 R70 S60 S100 S105",
    ),
    "the second camera as reference": (
        {"reference": "B"},
        "100 B 100; 100 A 110; 100 R 100; 100 S 100; 100 pop 100 A110 B100 R100 S100",
    ),
    "no timeout": ({"timeout": 0.0}, "100 A 100; 100 pop 100 A100 incomplete"),
}


def play(bench, script: str, write) -> None:
    for line in script.split(";"):
        now, what, *rest = line.split()
        if what == "pop":
            assert write(bench.pop(int(now))) == " ".join(rest), line
            continue
        for sensor in "ABRS" if what == "all" else [what]:
            assert bench.push(sensor, int(rest[0]), int(now)) == (rest[1] if len(rest) > 1 else "kept"), line


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, bench, write) -> None:
    play(bench, SCRIPTS[name], write)


@pytest.mark.parametrize("name", LIMITED)
def test_script_with_options(name: str, make_bench, write) -> None:
    options, script = LIMITED[name]
    play(make_bench(options), script, write)


def test_there_are_forty_scripts() -> None:
    assert len(SCRIPTS) + len(LIMITED) >= 40


def test_everything_is_counted(bench, write) -> None:
    play(bench, SCRIPTS["the first of two stays"], write)
    play(bench, "102 A 300 future; 102 pop 100 A100 B100 R100 S100; 102 A 99 late", write)
    play(bench, "150 A 150; 250 pop 150 A150 R100 S100 incomplete", write)
    play(bench, "300 A 300; 1401 pop -", write)
    assert bench.sync.push_ego(Ego(T_world_ego=np.full((4, 4), np.nan)), 0, 1401 * MS) == "invalid"
    assert bench.sync.counts() == {
        "kept": 6, "late": 1, "duplicate": 3, "future": 1, "invalid": 1,
        "complete": 1, "incomplete": 1, "dropped": 0, "expired": 1, "restarts": 0,
    }  # fmt: skip


def test_reset_discards_the_items_and_the_last_frame(bench, write) -> None:
    play(bench, "100 A 100; 200 pop 100 A100 incomplete; 210 A 210", write)
    bench.sync.reset()
    play(bench, "210 pop -; 210 A 50; 310 pop 50 A50 incomplete", write)


@pytest.mark.parametrize("now", [1 - 2**63, -1, 0, 2**63 - 1])
@pytest.mark.parametrize("time", [1 - 2**63, 0, 2**63 - 1])
def test_times_at_the_ends_of_int64_do_not_overflow(bench, now: int, time: int) -> None:
    image, far = np.zeros((2, 4, 3), np.uint8), abs(now - time) > 1000 * MS
    assert bench.sync.push_camera("A", image, time, now) == ("kept" if not far else "future" if time > now else "late")
    sweep = RadarSweep("R", np.zeros((1, 5), np.float32), time)
    assert bench.sync.push_radar(sweep, now) == bench.sync.push_camera("B", image, time, now)
    bench.sync.pop(now)


# ---- ownership ----
def test_points_and_images_live_as_long_as_they_are_needed(bench) -> None:
    import gc
    import weakref

    class Image(np.ndarray):  # unlike its base it supports weak references
        pass

    image = np.zeros((2, 4, 3), np.uint8).view(Image)
    reference = weakref.ref(image)
    bench.sync.push_camera("A", image, 100 * MS, 100 * MS)
    del image
    frame = bench.sync.pop(200 * MS)
    assert reference() is frame.frames["A"]
    bench.sync.push_camera("A", np.zeros((2, 4, 3), np.uint8), 300 * MS, 300 * MS)
    assert bench.sync.pop(400 * MS) is not None
    del frame
    gc.collect()
    assert reference() is None


def test_a_refused_item_is_released(bench) -> None:
    import sys

    image = np.zeros((2, 4, 3), np.uint8)
    before = sys.getrefcount(image)
    assert bench.sync.push_camera("A", image, 100 * MS, 10_000 * MS) == "late"
    assert sys.getrefcount(image) == before


FINALIZERS = """
import faulthandler, threading, time, weakref
import numpy as np
from imkd_edge import Synchronizer
from imkd_edge.bundle import Bundle, golden_rig

bundle = Bundle.load("tiny")
rig, released = golden_rig(bundle), []
sync = Synchronizer(rig, bundle.spec)

def release():  # as of a buffer that returns to its pool
    time.sleep(0.0005)  # releases the GIL, as a lock or a queue does
    released.append(sync.counts()["kept"])

def drive(camera):
    for t in range(0, 200 * 50_000_000, 50_000_000):
        image = np.zeros((camera.height, camera.width, 3), np.uint8)
        weakref.finalize(image, release)
        sync.push_camera(camera.name, image, t, t)

faulthandler.dump_traceback_later(1800, exit=True)
threads = [threading.Thread(target=drive, args=(rig.cameras[i],)) for i in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sync.reset()
print(len(released))
"""


def test_finalizers_of_released_items_may_yield_the_gil_and_call_the_synchronizer() -> None:
    import subprocess
    import sys

    run = subprocess.run([sys.executable, "-c", FINALIZERS], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "400\n"), run.stderr


class OnGpu:
    """An image on the GPU as torch or CuPy describe it. The test never reads it."""

    __cuda_array_interface__ = {
        "shape": (2, 4, 3),
        "typestr": "|u1",
        "data": (4096, False),
        "version": 3,
        "strides": None,
    }


@pytest.mark.parametrize(
    "image", [(np.zeros((2, 4), np.uint8), np.zeros((1, 2, 2), np.uint8), "bt709"), OnGpu()], ids=["NV12", "on the GPU"]
)
def test_images_of_every_kind_pass_through(bench, image) -> None:
    assert bench.sync.push_camera("A", image, 100 * MS, 100 * MS) == "kept"
    assert bench.sync.pop(200 * MS).frames == {"A": image}


# ---- the caller's mistakes ----
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"reference": "Z"}, "E0203"),
        ({"tolerance": 0.0}, "E0104"),
        ({"tolerance": 0.61}, "E0104"),
        ({"tolerance": float("nan")}, "E0104"),
        ({"timeout": -1.0}, "E0104"),
        ({"max_delay": float("inf")}, "E0104"),
        ({"max_future": -0.1}, "E0104"),
        ({"lost_after": -0.1}, "E0104"),
        ({"max_images": 0}, "E0104"),
        ({"max_sweeps": 0}, "E0104"),
    ],
)
def test_options_out_of_range_raise(options: dict, code: str, bench) -> None:
    with pytest.raises(Error) as error:
        type(bench)(options)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda s: s.push_camera("Z", np.zeros((2, 4, 3), np.uint8), 0, 0), "E0203"),
        (lambda s: s.push_camera("A", np.zeros((2, 5, 3), np.uint8), 0, 0), "E0202"),
        (lambda s: s.push_camera("A", np.broadcast_to(np.zeros(3, np.uint8), (2, 4, 3)), 0, 0), "E0202"),
        (lambda s: s.push_camera("A", np.zeros((2, 4, 3), np.float32), 0, 0), "E0201"),
        (lambda s: s.push_camera("A", None, 0, 0), "E0201"),
        (lambda s: s.push_camera("A", np.zeros((2, 4, 3), np.uint8), 1.5, 0), "E0205"),
        (lambda s: s.push_camera("A", np.zeros((2, 4, 3), np.uint8), 0, 2**64), "E0205"),
        (lambda s: s.push_radar(RadarSweep("A", np.zeros((1, 5), np.float32), 0), 0), "E0203"),
        (lambda s: s.push_radar(RadarSweep("R", np.zeros((1, 4), np.float32), 0), 0), "E0202"),
        (lambda s: s.push_radar(RadarSweep("R", np.zeros((1, 5), np.float64), 0), 0), "E0201"),
        (lambda s: s.push_radar(RadarSweep("R", np.zeros((1, 5), np.float32)), 0), "E0205"),
        (lambda s: s.push_ego(Ego(T_world_ego=np.eye(3)), 0, 0), "E0202"),
        (lambda s: s.push_ego(Ego(twist=(1, 2)), 0, 0), "E0202"),
    ],
)
def test_the_callers_mistakes_raise_and_change_nothing(call, code: str, bench) -> None:
    with pytest.raises(Error) as error:
        call(bench.sync)
    assert error.value.code == code
    assert not any(bench.sync.counts().values())


def test_the_number_of_the_models_sensors_does_not_matter() -> None:
    """Of the spec it uses max_age only."""
    from imkd_edge import SensorRig

    assert Synchronizer(SensorRig(cameras=[], radars=list(_rig().radars)), random_spec(cameras=6)).pop(0) is None


def _rig():
    from helpers import golden_sample

    return golden_sample(2).rig
