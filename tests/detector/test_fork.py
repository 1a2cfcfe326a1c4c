"""Forked children: what the parent made refuses there with E0507 and can be let go; what the child makes works.

Every script runs in a process of its own: pytest's has threads of other tests.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import os, sys, threading, time
import numpy as np
from imkd_edge import Detector
from imkd_edge.errors import Error
from imkd_edge.sources import open_source

def in_child(body, leave=os._exit, seconds=60, expected=0):
    child = os.fork()
    if child == 0:
        body()
        if leave is os._exit:
            sys.stdout.flush()
        leave(0)
    for _ in range(10 * seconds):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == expected << 8, f"the child ends with status {status}"
            return
        time.sleep(0.1)
    os.kill(child, 9)
    raise AssertionError("the child hangs")

def refused(call):
    try:
        call()
    except Error as error:
        assert error.code == "E0507" and str(os.getppid()) in error.what, error
    else:
        raise AssertionError("the parent's object works in the child")

source = open_source("synth")
sample = source[source.names[0]]
"""


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + script, *arguments], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def has_native_engine() -> bool:
    from imkd_edge.engines import engine_names

    return "onnxruntime-native" in engine_names()


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-native"])
def test_a_child_refuses_the_parents_detector_and_lets_go_of_it(engine: str) -> None:
    if engine == "onnxruntime-native" and not has_native_engine():
        pytest.skip("the native engine was not built: forks with it are NOT tested")
    run(
        """
from imkd_edge.engines import make_engine
engines = []
def factory(threads):
    engines.append(make_engine(sys.argv[1], threads))
    return engines[-1]
for threads in (1, 2, 4):
    detector = Detector("tiny", threads=threads, engine=factory)
    before = detector.infer_sample(sample)

    def child():
        for call in (lambda: detector.infer_sample(sample), lambda: detector.set_rig(sample.rig), detector.reset,
                     detector.tensors, engines[-1].run, lambda: engines[-1].load("other.onnx")):
            refused(call)
        detector.close()
        engines.clear()

    in_child(child)
    in_child(lambda: None)  # it may also forget it
    after = detector.infer_sample(sample)
    assert np.array_equal(before.boxes, after.boxes) and len(after.boxes) > 0
    detector.close()
    engines.clear()
""",
        engine,
    )


def test_a_child_that_exits_like_any_python_program_ends_with_its_status_and_output() -> None:
    output = run("""
detector = Detector("tiny", threads=4)
detector.infer_sample(sample)
in_child(lambda: None, leave=sys.exit)
in_child(lambda: print("said"), leave=lambda _: sys.exit(3), expected=3)
""")
    assert output == "said\n"


def test_a_child_of_a_process_in_the_middle_of_inferring_does_not_hang() -> None:
    run("""
detector, ends = Detector("tiny", threads=2), threading.Event()
def infer():
    while not ends.is_set():
        detector.infer_sample(sample)
thread = threading.Thread(target=infer)
thread.start()
def child():
    refused(lambda: detector.infer_sample(sample))
    detector.close()
for _ in range(6):
    in_child(child)
ends.set()
thread.join()
""")


def test_watchdog_synchronizer_and_monitor_refuse_in_a_child_which_makes_its_own() -> None:
    run("""
from imkd_edge import Bundle
from imkd_edge.live import Monitor, Synchronizer, Watchdog
spec, rig = Bundle.load("tiny").spec, sample.rig
missed = []
watchdog = Watchdog(0.05, missed.append)
synchronizer, monitor = Synchronizer(rig, spec), Monitor(rig, spec)
synchronizer.push_radar(sample.radar[0], sample.timestamp_ns)

def child():
    for call in (watchdog.beat, watchdog.poll, lambda: watchdog.overdue, lambda: watchdog.misses,
                 lambda: synchronizer.push_radar(sample.radar[0], sample.timestamp_ns),
                 lambda: synchronizer.pop(sample.timestamp_ns), synchronizer.reset, synchronizer.counts,
                 lambda: monitor.check(sample.timestamp_ns), monitor.reset):
        refused(call)
    watchdog.close()
    own, before = Watchdog(0.05, missed.append), len(missed)
    for _ in range(100):
        if own.misses:
            break
        time.sleep(0.05)
    assert own.misses == 1 and len(missed) == before + 1
    fresh = Synchronizer(rig, spec)
    assert fresh.push_radar(sample.radar[0], sample.timestamp_ns) == "kept"
    own.close()

in_child(child, leave=sys.exit)
assert synchronizer.counts()["kept"] == 1
watchdog.close()
""")


def test_the_workers_of_a_preforking_server_serve_with_their_own_detectors() -> None:
    """As gunicorn with preload: the master loads the program and a detector, then forks."""
    output = run("""
master = Detector("tiny", threads=2)
expected = master.infer_sample(sample).boxes

class Service:
    def __init__(self):
        self.detector, self.process = master, os.getpid()
    def __call__(self, sample):
        if self.process != os.getpid():
            self.__init__()
            self.detector = Detector("tiny", threads=2)
        return self.detector.infer_sample(sample)

service = Service()
def worker():
    for _ in range(3):
        assert np.array_equal(service(sample).boxes, expected)
    print("served")
for _ in range(2):
    in_child(worker)
in_child(worker, leave=sys.exit)
assert np.array_equal(service(sample).boxes, expected)
""")
    assert output.count("served") == 3


def test_data_loader_workers_compute_with_the_ops_and_with_their_own_detectors() -> None:
    pytest.importorskip("torch")
    run("""
import torch
from imkd_edge import ops
parents = Detector("tiny", threads=2)
spec, expected = parents.spec, parents.infer_sample(sample).boxes
grid = parents.tensors()["radar_grid"]

class Frames(torch.utils.data.Dataset):
    def __init__(self):
        self.detector = parents
    def __len__(self):
        return 4
    def __getitem__(self, index):
        if not hasattr(self, "own"):
            refused(lambda: self.detector.infer_sample(sample))
            self.own = Detector("tiny", threads=2)
        result = self.own.infer_sample(sample)
        cells, _ = ops.voxelize_radar(spec, sample.rig, sample.radar, sample.timestamp_ns, sample.ego)
        assert np.array_equal(cells.ravel(), grid.ravel())
        return result.boxes

for workers in (1, 2):
    loader = torch.utils.data.DataLoader(Frames(), batch_size=None, num_workers=workers, multiprocessing_context="fork")
    for boxes in loader:
        assert np.array_equal(np.asarray(boxes), expected)
assert np.array_equal(parents.infer_sample(sample).boxes, expected)
""")


def test_c_handles_refuse_in_a_child_and_are_destroyed_there(library) -> None:
    import c_abi

    run(
        """
import ctypes
from imkd_edge import Bundle
from imkd_edge.engines import onnxruntime_library
library = ctypes.CDLL(sys.argv[1])
library.imkd_set_onnxruntime(str(onnxruntime_library()).encode())
kinds = ("detector", "synchronizer", "monitor", "watchdog", "tracker")
of = {kind: {name: getattr(library, f"imkd_{kind}_{name}") for name in ("new", "error", "destroy")} for kind in kinds}
for functions in of.values():
    functions["new"].restype, functions["error"].restype = ctypes.c_void_p, ctypes.c_char_p
    functions["error"].argtypes = functions["destroy"].argtypes = [ctypes.c_void_p]
handles = {kind: ctypes.c_void_p(functions["new"]()) for kind, functions in of.items()}
path, rig = str(Bundle.load("tiny").path).encode(), sample.rig.to_json().encode()
def load(handle):
    return library.imkd_detector_load(handle, path, rig, None)
with_engine = load(handles["detector"]) == 0  # else the library has no engine: an empty handle is tested
assert library.imkd_synchronizer_load(handles["synchronizer"], path, rig, None) == 0

def child():
    assert library.imkd_detector_reset(handles["detector"]) == load(handles["detector"]) == 507
    assert library.imkd_synchronizer_reset(handles["synchronizer"]) == 507
    assert library.imkd_monitor_reset(handles["monitor"]) == library.imkd_watchdog_beat(handles["watchdog"]) == 507
    for kind, functions in of.items():
        assert b"E0507" in functions["error"](handles[kind])
        functions["destroy"](handles[kind])
    own = ctypes.c_void_p(of["detector"]["new"]())
    assert load(own) == (0 if with_engine else 501), of["detector"]["error"](own)
    of["detector"]["destroy"](own)

in_child(child)
assert library.imkd_detector_reset(handles["detector"]) == (0 if with_engine else 501)
for kind, functions in of.items():
    functions["destroy"](handles[kind])
""",
        str(c_abi.LIBRARY),
    )
