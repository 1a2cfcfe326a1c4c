"""The past maps that the BEV network reads: which frames, warped by which motion, and when they are discarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from imkd_edge import Detector, Ego, Error, RadarSweep, ops

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
HALF = SECOND // 2  # the spec's interval; it has 3 past maps of 4 channels on cells of 1.6 m


@pytest.fixture
def past(history_bundle, scene) -> Iterator[Detector]:
    with Detector(history_bundle, scene.rig, threads=1) as detector:
        yield detector


@pytest.fixture
def scenes(make_scene) -> list:
    return [make_scene(seed=seed) for seed in range(5)]


def pose(x: float = 0, y: float = 0, yaw: float = 0) -> np.ndarray:
    T = np.eye(4)
    T[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    T[:3, 3] = x, y, 0.3
    return T


def run(detector: Detector, scene, time_ns: int, ego: Ego | None):
    radar = [RadarSweep(name, points, time_ns) for name, points in scene.points.items()]
    return detector.infer(scene.frames, radar, ego, time_ns)


def standing(detector: Detector, scene, time_ns: int):
    return run(detector, scene, time_ns, Ego(T_world_ego=pose()))


def slots(detector: Detector) -> np.ndarray:
    """(3, 4, H, W): the network's input, newest first."""
    history = detector.tensors()["history"][0]
    return history.reshape(3, 4, *history.shape[1:])


def slot_frames(times: Sequence[int], now: int) -> list[int | None]:
    """Frames at least interval/4 apart are stored; slot k takes the nearest to k intervals, within interval/4."""
    stored: list[int] = []
    for i in range(now):
        if not stored or times[i] - times[stored[-1]] >= HALF / 4:
            stored.append(i)
    frames: list[int | None] = []
    for k in (1, 2, 3):
        ranked = sorted((abs(times[now] - times[i] - k * HALF), times[now] - times[i], i) for i in stored)
        frames.append(ranked[0][2] if ranked and ranked[0][0] <= HALF / 4 else None)
    return frames


def check(
    detector: Detector, maps: list[np.ndarray], poses: Sequence[np.ndarray], frames: list[int | None], past_frames: int
) -> None:
    """Compares the slots with warped maps; the last of `maps` is of the present frame, which no slot holds yet."""
    now = len(maps) - 1
    for slot, i in zip(slots(detector), frames, strict=True):
        if i is None:
            assert not slot.any()
        else:
            expected = ops.warp_bev(detector.spec.grid, maps[i], np.linalg.inv(poses[i]) @ poses[now])
            # A position may round to the next 1/1024 of a cell.
            assert np.abs(slot - expected).max() <= 2e-3 * np.ptp(maps[i]) and slot.any()
    assert past_frames == sum(i is not None for i in frames)


def jittered(count: int) -> list[int]:
    random = np.random.default_rng(0)
    return [round(HALF * i + random.uniform(-0.05, 0.05) * SECOND) for i in range(count)]


RATES = {
    "nuScenes, 2 Hz": [HALF * i for i in range(7)],
    "nuScenes with its jitter": jittered(12),
    "1 Hz": [SECOND * i for i in range(5)],
    "2.5 Hz": [SECOND * 2 // 5 * i for i in range(9)],
    "3 Hz": [SECOND // 3 * i for i in range(10)],
    "5 Hz": [SECOND // 5 * i for i in range(16)],
    "7.7 Hz": [130_000_000 * i for i in range(20)],
    "10 Hz": [SECOND // 10 * i for i in range(24)],
    "20 Hz": [SECOND // 20 * i for i in range(50)],
    "just above four per interval": [124_000_000 * i for i in range(24)],
}


@pytest.mark.parametrize("name", RATES)
def test_the_slots_hold_the_nearest_frames_warped_to_the_present(past: Detector, scenes: list, name: str) -> None:
    times = RATES[name]
    path = [pose(9 * t / SECOND, 0.4 * (t / SECOND) ** 2, 0.25 * t / SECOND) for t in times]
    maps: list[np.ndarray] = []
    counts = []
    for i, (t, T) in enumerate(zip(times, path, strict=True)):
        result = run(past, scenes[i % 5], START + t, Ego(T_world_ego=T))
        maps.append(past.tensors()["fused"][0])
        check(past, maps, path, slot_frames(times, i), result.health.past_frames)
        counts.append(result.health.past_frames)
        assert result.timings_us["warp"] > 0
    # By hand: at 2.5 Hz the ages 0.4 and 1.6 s serve 0.5 and 1.5 s, none serves 1.0 s; at 3 Hz only 1.0 s has one.
    assert counts[0] == 0 and counts[-1] == {"1 Hz": 1, "2.5 Hz": 2, "3 Hz": 1}.get(name, 3)


def test_at_the_interval_the_slots_are_the_previous_frames_by_hand(past: Detector, scenes: list) -> None:
    """3.2 m per frame are exactly two columns; cells outside the past grid are 0."""
    maps = []
    for i, scene in enumerate(scenes):
        result = run(past, scene, START + i * HALF, Ego(T_world_ego=pose(3.2 * i)))
        maps.append(past.tensors()["fused"][0])
    assert result.health.past_frames == 3
    for k, slot in enumerate(slots(past), 1):
        assert np.array_equal(slot[:, :, : -2 * k], maps[4 - k][:, :, 2 * k :]) and not slot[:, :, -2 * k :].any()


def test_between_two_equally_near_the_newer_is_taken_by_hand(past: Detector, scenes: list) -> None:
    """At 10 Hz every second frame is stored; after one second these are 0.2, 0.4, 0.6, 0.8 and 1.0 s old."""
    maps = []
    for i in range(11):
        result = standing(past, scenes[i % 5], START + i * SECOND // 10)
        maps.append(past.tensors()["fused"][0])
    newest, second, third = slots(past)
    assert np.array_equal(newest, maps[6]) and np.array_equal(second, maps[0])
    assert not third.any() and result.health.past_frames == 2


def test_past_frames_change_the_heatmap(past: Detector, scenes: list) -> None:
    standing(past, scenes[0], START)
    alone = past.tensors()["heatmap"]
    standing(past, scenes[0], START + HALF)
    assert np.abs(past.tensors()["heatmap"] - alone).max() > 0.1


def test_a_frame_is_the_same_whatever_number_of_threads_warped_its_past(history_bundle, scenes: list) -> None:
    histories = []
    for threads in (1, 2, 5):
        with Detector(history_bundle, scenes[0].rig, threads=threads) as detector:
            for i in range(4):
                run(detector, scenes[i], START + i * HALF, Ego(T_world_ego=pose(1.3 * i, 0.2 * i, 0.1 * i)))
            histories.append(slots(detector))
    assert histories[0].any() and all(np.array_equal(histories[0], other) for other in histories[1:])


# ---- motion ----
def integrate(twists: Sequence[Sequence[float]], seconds: float) -> list[np.ndarray]:
    """Integrates twists, each constant for `seconds`, to poses; the steps make the order of rotation irrelevant."""
    poses, (x, y, yaw), steps = [pose()], (0.0, 0.0, 0.0), 20_000
    for vx, vy, rate in twists:
        for _ in range(steps):
            middle = yaw + rate * seconds / steps / 2
            x += (vx * np.cos(middle) - vy * np.sin(middle)) * seconds / steps
            y += (vx * np.sin(middle) + vy * np.cos(middle)) * seconds / steps
            yaw += rate * seconds / steps
        poses.append(pose(x, y, yaw))
    return poses


def test_without_poses_the_twist_is_integrated_along_its_arc(past: Detector, scenes: list) -> None:
    """The motion between two frames is the mean of their twists."""
    twists = [(8.0, 0.0, 0.0), (8.0, 0.4, 0.3), (6.0, 0.0, 0.5), (5.0, -0.2, -0.2)]
    path = integrate([np.add(a, b) / 2 for a, b in pairwise(twists)], 0.5)
    maps: list[np.ndarray] = []
    for i, twist in enumerate(twists):
        result = run(past, scenes[i], START + i * HALF, Ego(twist=twist))
        maps.append(past.tensors()["fused"][0])
        check(past, maps, path, slot_frames([HALF * j for j in range(4)], i), result.health.past_frames)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_pose_is_bridged_by_the_twist(past: Detector, scenes: list, missing: int) -> None:
    twist = (7.0, 0.0, 0.35)
    path = integrate([twist] * 3, 0.5)
    maps: list[np.ndarray] = []
    for i in range(4):
        ego = Ego(twist=twist) if i == missing else Ego(T_world_ego=path[i])
        result = run(past, scenes[i], START + i * HALF, ego)
        maps.append(past.tensors()["fused"][0])
        check(past, maps, path, slot_frames([HALF * j for j in range(4)], i), result.health.past_frames)


def test_poses_precede_the_twist(past: Detector, scenes: list) -> None:
    for i in range(2):
        run(past, scenes[i], START + i * HALF, Ego(T_world_ego=pose(3.2 * i), twist=(50.0, 0.0, 1.0)))
    fused = slots(past)[0]
    standing(past, scenes[0], START)
    assert np.array_equal(fused[:, :, :-2], past.tensors()["fused"][0][:, :, 2:])


def test_a_speed_estimated_from_raw_radar_velocities_warps_the_past(history_bundle, scene) -> None:
    """6.4 m/s for half a second are two columns."""
    rig = scene.rig
    for radar in rig.radars:
        radar.velocity = "raw"
    for name, turn in (("FRONT", 1.0), ("REAR", -1.0)):
        points = scene.points[name]
        points[:, 4] = -6.4 * turn * points[:, 0] / np.linalg.norm(points[:, :3], axis=1)
    with Detector(history_bundle, rig, threads=1) as detector:
        for i in range(2):
            result = run(detector, scene, START + i * HALF, None)
        newest, fused = slots(detector)[0], detector.tensors()["fused"][0]  # both of the same images
    assert result.health.ego_speed_estimated and result.health.ego_speed == pytest.approx(6.4, abs=0.02)
    assert result.health.past_frames == 1
    assert np.abs(newest[:, :, :-2] - fused[:, :, 2:]).max() < 0.02 * np.ptp(fused)


# ---- what ends a history ----
def other_rig(detector: Detector) -> None:
    rig = detector.rig
    rig.cameras[0].T_ego_camera = pose(0.1) @ rig.cameras[0].T_ego_camera
    detector.set_rig(rig)


ENDS: dict[str, tuple[Callable[[Detector], None] | None, int, Ego | None]] = {
    "reset": (Detector.reset, HALF, Ego(pose())),
    "the same time": (None, 0, Ego(pose())),
    "time runs backwards": (None, -HALF, Ego(pose())),
    "time overflows": (None, -2 * START - HALF, Ego(pose())),
    "a gap of more than four intervals": (None, 4 * HALF + 1, Ego(pose())),
    "a jump of 120 m/s": (None, HALF, Ego(pose(60))),
    "unknown motion": (None, HALF, None),
}
KEEPS: dict[str, tuple[Callable[[Detector], None] | None, int, Ego | None]] = {
    "another calibration, as in every sample of nuScenes": (other_rig, HALF, Ego(pose())),
    "the same rig again": (lambda detector: detector.set_rig(detector.rig), HALF, Ego(pose())),
    "a gap of three intervals": (None, 3 * HALF, Ego(pose())),
    "a drive of 80 m/s": (None, HALF, Ego(pose(40))),
    "a turn on the spot": (None, HALF, Ego(pose(0, 0, 3.1))),
}


@pytest.mark.parametrize("name", [*ENDS, *KEEPS])
def test_when_the_past_is_discarded_and_when_not(past: Detector, scenes: list, name: str) -> None:
    act, step, ego = {**ENDS, **KEEPS}[name]
    for i in range(3):
        standing(past, scenes[i], START + (i - 2) * HALF)
    if act:
        act(past)
    result = run(past, scenes[3], START + step, ego)
    assert (result.health.past_frames > 0) == slots(past).any() == (name in KEEPS)
    fused = past.tensors()["fused"][0]
    if name not in KEEPS and ego is not None:  # a new past begins with this frame
        result = run(past, scenes[4], START + step + HALF, ego)
        newest, *older = slots(past)
        assert result.health.past_frames == 1 and np.array_equal(newest, fused) and not np.any(older)


def test_frames_before_unknown_motion_are_not_restored(past: Detector, scenes: list) -> None:
    """Poses before and after it are of one track, but the motion between them is unknown."""
    standing(past, scenes[0], START)
    run(past, scenes[1], START + HALF, None)
    assert standing(past, scenes[2], START + 2 * HALF).health.past_frames == 0
    assert standing(past, scenes[3], START + 3 * HALF).health.past_frames == 1


def test_a_blind_frame_is_not_stored_but_its_motion_counts(past: Detector, scenes: list) -> None:
    run(past, scenes[0], START, Ego(T_world_ego=pose()))
    fused = past.tensors()["fused"][0]
    blind = past.infer({}, {}, Ego(T_world_ego=pose(3.2)), START + HALF)
    assert blind.health.mode == "blind" and len(blind.boxes) == 0 and not blind.segmentation.any()
    result = run(past, scenes[1], START + 2 * HALF, Ego(T_world_ego=pose(6.4)))
    newest, second, _ = slots(past)
    assert result.health.past_frames == 1 and not newest.any() and np.array_equal(second[:, :, :-4], fused[:, :, 4:])


def test_a_callers_mistake_does_not_change_the_past(past: Detector, scenes: list) -> None:
    standing(past, scenes[0], START)
    fused = past.tensors()["fused"][0]
    with pytest.raises(Error):
        past.infer({"AHEAD": np.zeros((3, 3, 3), np.float32)}, {}, Ego(T_world_ego=pose(1000)), START + HALF // 2)
    assert standing(past, scenes[1], START + HALF).health.past_frames == 1 and np.array_equal(slots(past)[0], fused)


def test_another_scene_of_a_recording_starts_without_past_frames(past: Detector, scenes: list) -> None:
    counts = []
    for i, name in enumerate(["night", "night", "rain", "rain", "rain"]):
        sample = replace(scenes[0], scene=name, timestamp_ns=START + i * HALF, ego=Ego(T_world_ego=pose()))
        counts.append(past.infer_sample(sample).health.past_frames)
    assert counts == [0, 1, 0, 1, 2]


def test_a_model_without_history_has_none(detector: Detector, scenes: list) -> None:
    for i in range(3):
        result = standing(detector, scenes[i], START + i * HALF)
    assert result.health.past_frames == 0 and result.timings_us["warp"] == 0
    assert not {"history", "fused"} & set(detector.tensors())
    detector.reset()
