"""Live input in the C ABI through ctypes: for random streams the results of Python's classes, item by item."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from c_abi import (
    I32,
    I64,
    U32,
    Clock,
    Counts,
    F64Array,
    Frames,
    Health,
    Missed,
    MonitorOptions,
    Options,
    Release,
    SynchronizerOptions,
    WatchdogOptions,
    boxes_of,
    image_of,
    infer_frames,
    pointer,
    sweep_of,
    twist_of,
)

from helpers import random_spec
from imkd_edge import (
    CameraCalibration,
    Detector,
    Ego,
    Monitor,
    RadarCalibration,
    RadarSweep,
    SensorRig,
    Synchronizer,
    Watchdog,
)

MS = 1_000_000


class LivePair:
    """A synchronizer and a monitor, each in C and in Python."""

    def __init__(self, library: ctypes.CDLL, rig, spec, model: bytes, reference: str = "B") -> None:
        self.library, self.rig, self.released, self.lent = library, rig, 0, 0
        self.sync = Synchronizer(rig, spec, reference, timeout=0.05, max_images=3)
        self.monitor = Monitor(rig, spec, lost_after=0.7)
        options = SynchronizerOptions(ctypes.sizeof(SynchronizerOptions), 3, 0, 0, reference.encode(), 0, 0.05, 0, 0, 0)
        monitor_options = MonitorOptions(ctypes.sizeof(MonitorOptions), 0, 0.7)
        self.s, self.m = ctypes.c_void_p(library.imkd_synchronizer_new()), ctypes.c_void_p(library.imkd_monitor_new())
        for kind, handle, struct in (("synchronizer", self.s, options), ("monitor", self.m, monitor_options)):
            code = getattr(library, f"imkd_{kind}_load")(handle, model, rig.to_json().encode(), ctypes.byref(struct))
            assert code == 0, getattr(library, f"imkd_{kind}_error")(handle)
        self.release, self.alive = Release(self._release), []

    def _release(self, _user) -> None:
        self.released += 1

    def close(self) -> None:
        self.library.imkd_synchronizer_destroy(self.s)
        self.library.imkd_monitor_destroy(self.m)

    def _push(self, push, *arguments, lend: bool = False, has_release: bool = True) -> str:
        pushed = I32(-1)
        release = (self.release if lend else None, None) if has_release else ()
        self.lent += lend
        code = push(self.s, *arguments, *release, ctypes.byref(pushed))
        assert code == 0, self.library.imkd_synchronizer_error(self.s)
        return self.library.imkd_detector_name(None, 6, pushed).decode()

    def camera(self, name: str, pixels, time: int, now: int, lend: bool) -> tuple[str, str]:
        alive: list = self.alive if lend else []
        if isinstance(pixels, tuple):
            copies = tuple(plane.copy() for plane in pixels)
        else:
            copies = pixels[:, ::-1].copy()[:, ::-1]  # negative strides
        alive.append(copies)
        image, index = image_of(copies, alive, time), self.rig.camera_index(name)
        assert self.library.imkd_monitor_observe_camera(self.m, index, ctypes.byref(image), I64(now)) == 0
        self.monitor.observe_camera(name, pixels, time, now)
        result = self._push(self.library.imkd_synchronizer_push_camera, index, ctypes.byref(image), I64(now), lend=lend)
        for plane in () if lend else copies if isinstance(copies, tuple) else (copies,):
            plane[:] = 0  # without a release the pixels were copied
        return result, self.sync.push_camera(name, pixels, time, now)

    def radar(self, sweep: RadarSweep, now: int, lend: bool) -> tuple[str, str]:
        points = sweep.points.copy()
        self.alive.append(points)
        struct = sweep_of(RadarSweep(sweep.radar, points, sweep.timestamp_ns, sweep.T_world_ego), self.rig, self.alive)
        assert self.library.imkd_monitor_observe_radar(self.m, ctypes.byref(struct), I64(now)) == 0
        self.monitor.observe_radar(sweep, now)
        result = self._push(self.library.imkd_synchronizer_push_radar, ctypes.byref(struct), I64(now), lend=lend)
        if not lend:
            self.alive[-1 if sweep.T_world_ego is None else -2][:] = 0
        return result, self.sync.push_radar(sweep, now)

    def ego(self, ego: Ego, time: int, now: int) -> tuple[str, str]:
        alive: list = []
        pose, twist = pointer(ego.T_world_ego, F64Array, alive), twist_of(ego, alive)
        function = self.library.imkd_synchronizer_push_ego
        result = self._push(function, pose, twist, I64(time), I64(now), has_release=False)
        return result, self.sync.push_ego(ego, time, now)

    def pop(self, now: int):
        frames, complete = ctypes.POINTER(Frames)(), U32(7)
        code = self.library.imkd_synchronizer_pop(self.s, I64(now), ctypes.byref(frames), ctypes.byref(complete))
        assert code == 0, self.library.imkd_synchronizer_error(self.s)
        return (frames.contents if frames else None), bool(complete.value), self.sync.pop(now)

    def states(self, now: int) -> tuple[list[str], list[str]]:
        health = Health(struct_size=ctypes.sizeof(Health))
        assert self.library.imkd_monitor_check(self.m, I64(now), ctypes.byref(health)) == 0
        numbers = health.camera_states[: health.cameras] + health.radar_states[: health.radars]
        states = [self.library.imkd_detector_name(None, 5, number).decode() for number in numbers]
        mode = self.library.imkd_detector_name(None, 4, health.mode).decode()
        expected = self.monitor.check(now)
        return [mode, *states], [expected.mode, *expected.sensors.values()]


def plane(data, height: int, width: int, channels: int, strides: tuple[int, int, int]) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(np.ctypeslib.as_array(data, (1,)), (height, width, channels), strides)


def numbers(data, count: int) -> list[float]:
    return data[:count] if data else []


def flat(array) -> list[float]:
    return [] if array is None else np.ravel(array).tolist()


def check_frame(frames: Frames, complete: bool, expected, rig) -> None:
    assert frames.timestamp_ns == expected.timestamp_ns and complete == expected.complete
    for i, camera in enumerate(rig.cameras):
        image, pixels = frames.images[i], expected.frames.get(camera.name)
        assert bool(image.data) == (pixels is not None)
        if pixels is None:
            continue
        assert image.has_timestamp == 1 and image.timestamp_ns == expected.camera_timestamps_ns[camera.name]
        luma, uv = pixels if isinstance(pixels, tuple) else (pixels, None)
        channels, inner = (1, (1, 1)) if uv is not None else (3, (image.pixel, image.channel))
        copy = plane(image.data, camera.height, camera.width, channels, (image.row, *inner))
        assert np.array_equal(copy.reshape(luma.shape), luma) and bool(image.chroma) == (uv is not None)
        if uv is not None:
            chroma = plane(image.chroma, camera.height // 2, camera.width // 2, 2, (image.chroma_stride, 2, 1))
            assert np.array_equal(chroma, uv)
    assert frames.image_count == len(rig.cameras) and frames.sweep_count == len(expected.radar)
    for struct, sweep in zip(frames.sweeps[: frames.sweep_count], expected.radar, strict=True):
        assert rig.radars[struct.radar].name == sweep.radar and struct.count == len(sweep.points)
        assert struct.has_timestamp == 1 and struct.timestamp_ns == sweep.timestamp_ns
        assert np.array_equal(numbers(struct.points, 5 * struct.count), sweep.points.ravel(), equal_nan=True)
        assert numbers(struct.T_world_ego, 16) == flat(sweep.T_world_ego)
    ego = expected.ego or Ego()
    assert numbers(frames.T_world_ego, 16) == flat(ego.T_world_ego)
    assert numbers(frames.twist, 3) == flat(ego.twist)


# ---- random streams ----
def small_rig() -> SensorRig:
    K = np.array([[4.0, 0, 3], [0, 4, 2], [0, 0, 1]])
    cameras = [CameraCalibration(name=name, width=6, height=4, K=K, T_ego_camera=np.eye(4)) for name in "AB"]
    return SensorRig(cameras=cameras, radars=[RadarCalibration(name=name, T_ego_radar=np.eye(4)) for name in "RS"])


def pose_at(ms: float, scale: float = 1.0) -> np.ndarray:
    T = np.eye(4) * [scale, 1, 1, 1]
    T[:2, 3] = ms / 100, ms / 300
    return T


def image_at(random: np.random.Generator):
    """A random RGB image; sometimes NV12, sometimes the image of a frozen camera."""
    kind = random.integers(5)
    if kind == 0:
        return random.integers(16, 236, (4, 6), np.uint8), random.integers(16, 241, (2, 3, 2), np.uint8)
    return np.arange(72, dtype=np.uint8).reshape(4, 6, 3) if kind < 3 else random.integers(0, 256, (4, 6, 3), np.uint8)


def push(live: LivePair, random: np.random.Generator, sensor: str, time: int, now: int) -> tuple[str, str]:
    lend = bool(random.integers(2))
    if sensor in "AB":
        return live.camera(sensor, image_at(random), time * MS, now * MS, lend)
    if sensor == "ego":
        twist = (10.0, 0.0, np.nan if random.random() < 0.1 else 0.01) if random.random() < 0.5 else None
        return live.ego(Ego(pose_at(time, 2.0 if random.random() < 0.1 else 1.0), twist), time * MS, now * MS)
    points = random.normal(0, 9, (int(random.integers(0, 4)), 5)).astype(np.float32)
    if random.random() < 0.2:
        points[:] = np.nan
    pose = pose_at(time, 2.0 if random.random() < 0.1 else 1.0) if random.random() < 0.3 else None
    return live.radar(RadarSweep(sensor, points, time * MS, pose), now * MS, lend)


def drive(live: LivePair, seed: int, steps: int = 600) -> tuple[set[str], set[str], int]:
    """The results of the pushes, the states of the sensors, and the number of frames."""
    random, now, results, states, count = np.random.default_rng(seed), 10_000, set(), set(), 0
    for step in range(steps):
        now += int(random.integers(0, 25))
        if step == steps // 2:
            now -= 3000  # a recording restarts
        elif random.random() < 0.01:
            now += int(random.integers(300, 900))  # all sensors are silent
        sensor = ("A", "B", "B", "R", "S", "ego")[random.integers(6)]
        off = int(random.choice([0, 5, 30, 60, 700, 1500, -99, -200], p=[0.3, 0.2, 0.2, 0.2, 0.02, 0.03, 0.02, 0.03]))
        result, expected = push(live, random, sensor, (now - off) // 20 * 20, now)
        assert result == expected
        results.add(result)
        if step % 3 == 0:
            c_frame, complete, frame = live.pop(now * MS)
            assert (c_frame is None) == (frame is None)
            if c_frame is not None:
                check_frame(c_frame, complete, frame, live.rig)
                count += 1
            c_health, health = live.states(now * MS)
            assert c_health == health
            states |= set(health[1:])
    return results, states, count


@pytest.mark.parametrize("seed", range(4))
def test_random_streams_give_what_python_gives(library: ctypes.CDLL, seed: int) -> None:
    spec = random_spec(cameras=2)
    live = LivePair(library, small_rig(), spec, spec.to_json().encode())
    results, states, count = drive(live, seed)
    counts = Counts(struct_size=ctypes.sizeof(Counts))
    assert library.imkd_synchronizer_counts(live.s, ctypes.byref(counts)) == 0
    assert {name: getattr(counts, name) for name, _ in Counts._fields_[2:]} == live.sync.counts()
    assert results == {"kept", "late", "duplicate", "future", "invalid"} and count > 20 and counts.restarts == 1
    assert states >= {"ok", "late", "stale", "invalid", "frozen", "lost"}
    live.close()
    assert live.released == live.lent > 100


# ---- frames into the detector ----
def test_a_popped_frame_goes_straight_into_the_detector(library: ctypes.CDLL, handle, bundle, scene) -> None:
    rig, path = scene.rig.to_json().encode(), str(bundle.path).encode()
    options = Options(ctypes.sizeof(Options), 1, b"onnxruntime", b"cpu", 0.05, 0, 0, 0)
    code = library.imkd_detector_load(handle, path, rig, ctypes.byref(options))
    assert code == 0, library.imkd_detector_error(handle)
    live, now = LivePair(library, scene.rig, bundle.spec, path, reference="AHEAD"), scene.timestamp_ns
    for i, name in enumerate(("BEHIND", "AHEAD")):
        assert live.camera(name, scene.frames[name], now - 7 * MS * i, now, lend=bool(i)) == ("kept", "kept")
    for i, sweep in enumerate(scene.radar):
        late = RadarSweep(sweep.radar, sweep.points, now - 11 * MS, None)
        assert live.radar(late, now, lend=bool(i)) == ("kept", "kept")
    c_frame, complete, frame = live.pop(now)
    assert c_frame is not None and complete
    boxes = boxes_of(infer_frames(library, handle, c_frame))
    with Detector(bundle, scene.rig, engine="onnxruntime-native", threads=1, score_threshold=0.05) as detector:
        result = detector.infer(frame.frames, frame.radar, frame.ego, frame.timestamp_ns, frame.camera_timestamps_ns)
    assert len(boxes) > 0 and np.array_equal(boxes[:, :9], result.boxes) and np.array_equal(boxes[:, 9], result.scores)
    live.close()


# ---- watchdog ----
def test_the_watchdog_reports_what_pythons_reports(library: ctypes.CDLL) -> None:
    """The same clock for both, polled at the same times; beats in between."""
    now, reports, expected = [5], [], []
    missed, clock = Missed(lambda seconds, _: reports.append(seconds)), Clock(lambda _: now[0])
    options = WatchdogOptions(ctypes.sizeof(WatchdogOptions), 1, 0.1, missed, clock, None)
    handle, overdue, misses = ctypes.c_void_p(library.imkd_watchdog_new()), U32(), I64()
    assert library.imkd_watchdog_start(handle, ctypes.byref(options)) == 0, library.imkd_watchdog_error(handle)
    random = np.random.default_rng(2)
    with Watchdog(0.1, expected.append, lambda: now[0], timer=False) as dog:
        for _ in range(200):
            now[0] += int(random.integers(1, 80)) * MS
            if random.random() < 0.4:
                dog.beat()
                assert library.imkd_watchdog_beat(handle) == 0
            dog.poll()
            assert library.imkd_watchdog_poll(handle) == 0
            assert library.imkd_watchdog_state(handle, ctypes.byref(overdue), ctypes.byref(misses)) == 0
            assert (bool(overdue.value), misses.value) == (dog.overdue, dog.misses)
    library.imkd_watchdog_destroy(handle)
    assert reports == expected and len(reports) > 10
