"""Times: late and dying topics, clocks that step, intervals, gaps, poses between messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import ros
from recording.scenes import events, synth
from scipy.spatial.transform import Rotation, Slerp

from helpers import random_spec
from imkd_edge.run.replay import Replay
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording.messages import Transform
from imkd_edge.sources.recording.poses import MAX_GAP, Odometry, PoseLog, Poses, slerp
from imkd_edge.sources.recording.tracks import thinned

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")
S = 1_000_000_000


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth(frames=6))


def test_a_camera_that_starts_late_and_one_that_dies_are_absent(samples: list[Sample], tmp_path: Path) -> None:
    start = samples[0].timestamp_ns
    stored = [
        item
        for item in ros.messages(events(samples))
        if not (item[0] == "/cam_front_right/image_raw" and item[2] < start + 1.2 * S)
        and not (item[0] == "/radar_front/detections" and item[2] > start + 1.1 * S)
    ]
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match=r"no image of cam_front_right within 0.05 s"):
        read = [source[name] for name in source.names]
    assert [sorted(sample.frames) for sample in read[:4]] == [["cam_front"]] * 3 + [["cam_front", "cam_front_right"]]
    front = [sum(sweep.radar == "radar_front" for sweep in sample.radar) for sample in read]
    assert front[:3] == [3, 3, 3] and front[4:] == [0, 0]
    assert source.absent == {"cam_front_right": 3, "radar_front": front.count(0)} and front.count(0) >= 2


def test_frames_in_a_gap_of_the_odometry_are_counted(samples: list[Sample], tmp_path: Path) -> None:
    end = samples[0].timestamp_ns + 1.6 * S
    stored = [item for item in ros.messages(events(samples)) if item[0] != "/odometry" or item[2] < end]
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match="read without pose"):
        egos = [source[name].ego for name in source.names]
    assert 1 <= egos.count(None) < len(egos) and source.absent == {"pose": egos.count(None)}


def without_rotation(stored: list[Any], until_ns: float) -> list[Any]:
    """Odometry whose poses are zeros up to a time, their quaternions too."""
    for topic, content, log_ns in stored:
        if topic == "/odometry" and log_ns < until_ns:
            pose = content.pose.pose
            pose.position = type(pose.position)(x=0.0, y=0.0, z=0.0)
            pose.orientation = type(pose.orientation)(x=0.0, y=0.0, z=0.0, w=0.0)
    return stored


def test_wheel_odometry_that_knows_no_poses_gives_its_twist(samples: list[Sample], tmp_path: Path) -> None:
    stored = without_rotation(ros.messages(events(samples)), np.inf)
    with pytest.warns(UserWarning, match=r"of (\d+) poses \1 have no rotation"):
        source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    for name, sample in zip(source.names, samples, strict=True):
        ego = source[name].ego
        assert ego.T_world_ego is None
        np.testing.assert_allclose(ego.twist, sample.ego.twist, atol=1e-5)


def test_poses_from_before_the_odometry_knew_one_are_unknown(samples: list[Sample], tmp_path: Path) -> None:
    known = samples[2].timestamp_ns
    stored = without_rotation(ros.messages(events(samples)), known)
    with pytest.warns(UserWarning, match="have no rotation"):
        source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    for name, sample in list(zip(source.names, samples, strict=True))[2:]:
        np.testing.assert_allclose(source[name].ego.T_world_ego, sample.ego.T_world_ego, atol=1e-6)
    first = source[source.names[0]].ego
    assert first.T_world_ego is None
    np.testing.assert_allclose(first.twist, samples[0].ego.twist, atol=1e-5)


def test_images_within_the_tolerance_belong_to_a_frame(samples: list[Sample], tmp_path: Path) -> None:
    stored = []
    for topic, content, log_ns in ros.messages(events(samples)):
        if topic == "/cam_front_right/image_raw":
            shift = 20_000_000 if log_ns % S else 70_000_000  # at full seconds too late
            time = log_ns + shift
            content.header.stamp.sec, content.header.stamp.nanosec = divmod(time, S)
        stored.append((topic, content, log_ns))
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    with pytest.warns(UserWarning, match="no image of cam_front_right"):
        read = [source[name] for name in source.names]
    belongs = [sample.timestamp_ns % S != 0 for sample in samples]
    assert ["cam_front_right" in sample.frames for sample in read] == belongs and True in belongs
    late = read[belongs.index(True)]
    assert late.camera_timestamps_ns["cam_front_right"] - late.timestamp_ns == 20_000_000
    assert set(late.camera_T_world_ego) == {"cam_front_right"}
    T = late.camera_T_world_ego["cam_front_right"]
    moved = np.linalg.norm(T[:3, 3] - late.ego.T_world_ego[:3, 3])
    assert moved == pytest.approx(8.0 * 0.02, rel=0.15)  # at some 8 m/s


def test_an_interval_thins_the_frames(samples: list[Sample], tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(samples)))
    source = open_source(path, interval=1.0)
    times = [source.moment(name)[1] for name in source.names]
    assert times == [sample.timestamp_ns for sample in samples[::2]]
    assert [source[name].timestamp_ns for name in source.names] == times
    radar = open_source(path, trigger="radar_front")
    sweeps = sorted({sweep.timestamp_ns for each in samples for sweep in each.radar if sweep.radar == "RADAR_FRONT"})
    assert [radar.moment(name)[1] for name in radar.names] == sweeps


@pytest.mark.parametrize("step", [1, 2, 3, 10, 1000])
def test_a_thinned_recording_has_the_times_nearest_to_the_steps(step: int) -> None:
    for seed in range(50):
        times = np.cumsum(np.random.default_rng(seed).integers(1, 30, 40))
        kept = set()
        for target in range(times[0], times[-1] + 1, step):
            distances = np.abs(times - target)
            if distances.min() <= step // 2:
                kept.add(int(times[distances.argmin()]))
        assert thinned(times, step) == sorted(kept)


def test_a_clock_that_is_set_forward_by_years_leaves_the_frames_of_an_interval(samples: list[Sample], tmp_path) -> None:
    """A camera that starts at 1970, until its clock is set."""
    stored = ros.messages(events(samples))
    early = shifted(ros.messages(events(samples)), -samples[0].timestamp_ns + S, -20 * S)
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", [*early, *stored]), interval=0.5)
    times = [sample.timestamp_ns for sample in samples]
    expected = [time - times[0] + S for time in times] + times
    assert [source.moment(name)[1] for name in source.names] == expected


def shifted(stored: list[Any], by_ns: int, log_by_ns: int) -> list[Any]:
    """The same messages with other stamps, recorded later."""
    for topic, content, _ in stored:
        for header in [content.header] if topic != "/tf_static" else [each.header for each in content.transforms]:
            time = header.stamp.sec * S + header.stamp.nanosec + by_ns
            header.stamp.sec, header.stamp.nanosec = divmod(time, S)
    return [(topic, content, log_ns + log_by_ns) for topic, content, log_ns in stored]


@pytest.mark.parametrize("step", [0, -30 * S])
def test_a_clock_that_steps_back_begins_another_scene(samples: list[Sample], step: int, tmp_path: Path) -> None:
    """A recording in a loop, and a clock that was set."""
    once, again = ros.messages(events(samples)), ros.messages(events(samples))
    path = ros.write_mcap(tmp_path / "drive.mcap", [*once, *shifted(again, step, 10 * S)])
    source = open_source(path)
    assert len(source) == 2 * len(samples)
    assert [source.moment(name)[0] for name in source.names] == ["0"] * 6 + ["1"] * 6
    for i, name in enumerate(source.names):
        read, sample = source[name], samples[i % 6]
        assert read.timestamp_ns == sample.timestamp_ns + (step if i >= 6 else 0)
        np.testing.assert_array_equal(read.frames["cam_front"], sample.frames["CAM_FRONT"])
        assert len(read.radar) == len(sample.radar)
        np.testing.assert_allclose(read.ego.T_world_ego, sample.ego.T_world_ego, atol=1e-9)
    assert source.scenes == {"0": source.names[:6], "1": source.names[6:]}


def test_every_pass_of_a_loop_shorter_than_a_second_is_a_scene(tmp_path: Path) -> None:
    """Shorter than the Synchronizer's max_delay: the loop of a bag that was recorded again."""
    short = list(synth(frames=5, rate_hz=10))
    stored = []
    for number in range(3):
        stored += shifted(ros.messages(events(short)), 0, number * 500_000_000)
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    assert {scene: len(names) for scene, names in source.scenes.items()} == {"0": 5, "1": 5, "2": 5}
    for i, name in enumerate(source.names):
        assert source[name].timestamp_ns == short[i % 5].timestamp_ns
    replay = Replay(source, random_spec(cameras=2), real_time=False)
    assert [sample.name for sample in replay] == source.names
    assert replay.counts.items["restarts"] == replay.counts.items["late"] == 0


def test_messages_that_change_places_or_come_twice_begin_no_scene(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    turned = [item for pair in zip(stored[1::2], stored[::2]) for item in (*pair, pair[0])]
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", turned))
    assert list(source.scenes) == ["0"] and len(source) == len(samples)


def test_a_gap_forward_is_no_other_scene(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    later = shifted(ros.messages(events(samples)), 60 * S, 60 * S)
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", [*stored, *later]))
    assert list(source.scenes) == ["0"] and len(source) == 12


def test_messages_without_a_time_have_that_of_the_recording(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples))
    for topic, content, _ in stored:
        if topic != "/tf_static":
            content.header.stamp.sec = content.header.stamp.nanosec = 0
    with pytest.warns(UserWarning, match="have no time in their header"):
        source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    assert [source[name].timestamp_ns for name in source.names] == [sample.timestamp_ns for sample in samples]


def test_the_stream_gives_every_reading_in_the_order_of_arrival(samples: list[Sample], tmp_path: Path) -> None:
    stored = ros.messages(events(samples), latency_ns=30_000_000)
    source = open_source(ros.write_mcap(tmp_path / "drive.mcap", stored))
    items = list(source.stream())
    arrivals = [item.arrival_ns for item in items]
    assert arrivals == sorted(arrivals)
    kinds = {kind: [item for item in items if item.kind == kind] for kind in ("camera", "radar", "ego")}
    count = {topic: sum(item[0] == topic for item in stored) for topic in {item[0] for item in stored}}
    assert len(kinds["camera"]) == count["/cam_front/image_raw"] + count["/cam_front_right/image_raw"]
    assert len(kinds["radar"]) == count["/radar_front/detections"] + count["/radar_front_right/detections"]
    assert len(kinds["ego"]) == count["/odometry"]
    assert {item.arrival_ns - item.timestamp_ns for item in kinds["camera"]} == {30_000_000}
    np.testing.assert_array_equal(kinds["camera"][0].value, samples[0].frames[kinds["camera"][0].sensor.upper()])


# ---- poses between messages, against SciPy ----
def random_poses(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.integers(10_000_000, 90_000_000, count))
    rotations = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (count, 3)), 0))
    quaternions = rotations.as_quat()[:, [3, 0, 1, 2]] * rng.choice([-1, 1], (count, 1))  # both signs are one rotation
    return times, rng.normal(0, 5, (count, 3)), quaternions


def test_poses_between_messages_are_scipys() -> None:
    times, translations, quaternions = random_poses(40)
    poses = Poses(times.tolist(), translations, quaternions)
    reference = Slerp(times, Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]))
    for time in np.linspace(times[0], times[-1], 301).astype(np.int64):
        T = poses.at(int(time))
        np.testing.assert_allclose(T[:3, :3], reference(time).as_matrix(), atol=1e-7)
        expected = [np.interp(time, times, translations[:, axis]) for axis in range(3)]
        np.testing.assert_allclose(T[:3, 3], expected, atol=1e-9)


def test_no_pose_in_a_gap_or_far_beyond_the_ends() -> None:
    times = [0, 100_000_000, 100_000_000 + MAX_GAP + 1]
    poses = Poses(times, np.zeros((3, 3)), np.tile([1.0, 0, 0, 0], (3, 1)))
    assert poses.at(50_000_000) is not None and poses.at(100_000_000) is not None
    assert poses.at(200_000_000) is None and poses.at(times[2]) is not None
    assert poses.at(-50_000_000) is not None and poses.at(-200_000_000) is None
    assert poses.at(times[2] + 200_000_000) is None


def test_slerp_of_nearly_equal_rotations_is_finite() -> None:
    q = np.array([1.0, 0, 0, 0])
    np.testing.assert_allclose(slerp(q, -q, 0.5), q)


def test_the_twist_of_another_frame_becomes_the_vehicles() -> None:
    """A body that turns about z: the velocity at r is v + w x r; axes turned by 90 degrees."""
    T_child_ego = np.eye(4)
    T_child_ego[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    T_child_ego[:3, 3] = (2.0, 0, 0)
    poses = Poses([0, 100_000_000], np.zeros((2, 3)), np.tile([1.0, 0, 0, 0], (2, 1)))
    twists = np.tile([5.0, 0, 0, 0, 0, 0.5], (2, 1))
    twist = Odometry(poses, poses.times, twists, T_child_ego).twist(50_000_000)
    # at (2, 0, 0): (5, 1, 0) in the child's axes; the ego's x axis is the child's y axis
    np.testing.assert_allclose(twist, [1.0, -5.0, 0.5], atol=1e-12)


@pytest.mark.parametrize("length", [0, 1e-300, 9e-7, 1e200, np.inf, np.nan])
def test_a_pose_whose_quaternion_has_no_rotation_is_left_out(length: float) -> None:
    log = PoseLog("odom")
    for time, scale in ((0, length), (1, 1.0), (2, 1e-5)):
        log.add(Transform(time, "odom", "base", (float(time), 0.0, 0.0), (0.6 * scale, 0.0, 0.0, 0.8 * scale)), time)
    poses = log.poses()
    assert poses.times.tolist() == [1, 2]
    np.testing.assert_allclose(poses.first()[:2, :2], [[-0.28, -0.96], [0.96, -0.28]], rtol=1e-12)
