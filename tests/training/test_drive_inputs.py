"""On a drive, training and Detector have equal tensors: with exposures, turns, past frames and what is discarded."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from drives import Drive, moving_drive
from rigs import three_camera_rig

from imkd_edge import Detector, ops
from imkd_edge.bundle import Bundle
from imkd_edge.checks.limits import with_limits
from imkd_edge.evaluation.conditions import CONDITIONS
from imkd_edge.frames import Ego
from imkd_edge.sources.base import Sample
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.inputs import exposure_rig, network_inputs
from imkd_edge.training.temporal import warp_history

MS = 1_000_000  # ns
FRAMES = 7  # five of one scene, two of the next


@pytest.fixture(scope="module")
def drive() -> list[Sample]:
    return moving_drive(FRAMES)


@pytest.fixture(scope="module")
def detector(drive: list[Sample]):
    with Detector("tiny-t4", drive[0].rig, device="cpu", threads=2) as detector:
        yield detector


def without_poses(sample: Sample) -> Sample:
    radar = [replace(sweep, T_world_ego=None) for sweep in sample.radar]
    return replace(sample, radar=radar, ego=Ego(twist=sample.ego.twist))


def with_exposure_poses(sample: Sample) -> Sample:
    """As from nuScenes; each is 1 cm beside the pose that the frame's other poses imply."""
    motion, beside = sample.motion(), np.eye(4)
    beside[1, 3] = 0.01
    times = sample.camera_timestamps_ns.items()
    poses = {name: sample.ego.T_world_ego @ motion.T_ref_at(time) @ beside for name, time in times}
    return replace(sample, camera_T_world_ego=poses)


def without_motion(drive: list[Sample]) -> list[Sample]:
    return [CONDITIONS["no_motion"](sample) for sample in drive]


def late_by(ms: int, sample: Sample, camera: str) -> Sample:
    times = dict(sample.camera_timestamps_ns)
    times[camera] = sample.timestamp_ns - ms * MS
    return replace(sample, camera_timestamps_ns=times)


def look_at_the_sky(sample: Sample, index: int) -> Sample:
    rig = copy(sample.rig)
    cameras = [copy(camera) for camera in rig.cameras]
    T = np.array(cameras[index].T_ego_camera)
    T[:3, :3] = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]]) @ np.diag([1, -1, -1])  # z of the camera is up
    cameras[index].T_ego_camera = T
    rig.cameras = cameras
    return replace(sample, rig=rig)


def with_faults(drive: list[Sample]) -> list[Sample]:
    """Images that are late, too old and absent, a blind frame, a camera of no use, and an unknown motion."""
    names = [camera.name for camera in drive[0].rig.cameras]
    late = late_by(80, late_by(101, drive[1], names[0]), names[1])
    absent = replace(drive[4], frames={name: drive[4].frames[name] for name in names[1:]})
    blind = replace(drive[2], frames={}, radar=[])
    return [drive[0], late, blind, look_at_the_sky(drive[3], 2), absent, *without_motion(drive[5:])]


DRIVES: dict[str, Callable[[list[Sample]], list[Sample]]] = {
    "poses": lambda drive: drive,
    "twists": lambda drive: [without_poses(sample) for sample in drive],
    "poses of the exposures": lambda drive: [with_exposure_poses(sample) for sample in drive],
    "speed estimated from raw velocities": lambda _: without_motion(moving_drive(FRAMES, rig=three_camera_rig())),
    "faults": with_faults,
}


SOURCES = {  # of the ego motion; a frame with few static returns gives no speed
    "twists": {"twist"},
    "speed estimated from raw velocities": {"estimated", "none"},
    "faults": {"poses", "twist", "none"},  # of the blind frame the twist, as its sweeps are gone
}


def check_inputs(tensors: dict[str, np.ndarray], inputs: dict, what: str) -> None:
    for name in ("images", "radar_grid"):
        assert np.asarray(inputs[name]).tobytes() == np.ascontiguousarray(tensors[name]).tobytes(), f"{what}: {name}"


def check_lift(detector: Detector, sample: Sample, tensors: dict[str, np.ndarray], inputs: dict) -> None:
    """The device's lift is that of training's table, on the device's depth and context."""
    table = ops.lift_table(detector.spec, exposure_rig(detector.spec, sample))
    assert np.array_equal(table.points, inputs["points"]) and np.array_equal(table.pixels, inputs["pixels"])
    expected = ops.lift(detector.spec, table, tensors["depth"], tensors["context"])
    assert tensors["camera_bev"].tobytes() == expected.tobytes(), sample.name


@pytest.mark.parametrize("change", DRIVES)
def test_the_tensors_of_a_drive_are_byte_equal(detector: Detector, drive: list[Sample], change: str) -> None:
    samples, config = DRIVES[change](drive), load_config("tiny-t4")
    assert with_limits(config.spec, Bundle.load("tiny-t4").contract) == detector.spec
    source, fused, tensors = Drive(samples), {}, {}
    dataset = FrameDataset(source, source.names, config, 0, train=False)
    past_frames, sources = [], set()
    detector.reset()
    for index, sample in enumerate(samples):
        result = detector.infer_sample(sample)
        tensors[index] = detector.tensors()
        fused[index] = torch.from_numpy(tensors[index]["fused"][0])
        example = dataset[index]
        check_inputs(tensors[index], example, sample.name)
        check_lift(detector, sample, tensors[index], example)

        past = example["past"]
        for slot, _, inputs in past:
            check_inputs(tensors[index - slot - 1], inputs, f"{sample.name}, slot {slot}")
        maps = [torch.stack([fused[index - slot - 1] for slot, *_ in past])] if past else []
        columns = [torch.tensor([(0, slot) for slot, *_ in past]), torch.stack([T for _, T, _ in past])] if past else []
        history = warp_history(config.spec, 1, *maps, *columns, example["ground"][None]).numpy()
        assert history.tobytes() == tensors[index]["history"].tobytes(), sample.name
        assert len(past) == result.health.past_frames
        past_frames.append(len(past))
        sources.add(result.health.ego_motion)
    assert past_frames == ([0, 1, 2, 2, 2, 0, 0] if change == "faults" else [0, 1, 2, 3, 3, 0, 1])
    assert sources == SOURCES.get(change, {"poses"})


def test_training_discards_the_images_that_the_runtime_discards(detector: Detector, drive: list[Sample]) -> None:
    """Older than 0.1 s, or of a camera that sees too little of the grid."""
    faults, states = with_faults(drive), set()
    for sample in faults:
        health = detector.infer_sample(sample).health
        present = network_inputs(detector.spec, sample)["present"]
        for camera, given in zip(sample.rig.cameras, present, strict=True):
            states.add(health.sensors[camera.name])
            assert (health.sensors[camera.name] in ("ok", "late")) == bool(given), (sample.name, camera.name)
    assert states == {"ok", "late", "stale", "missing", "unusable"}


def test_a_discarded_image_has_no_depth_to_learn(drive: list[Sample]) -> None:
    config = load_config("tiny-t4")
    late = with_faults(drive)[1]
    example = FrameDataset(Drive([late]), [late.name], config, 0, train=False)[0]
    assert not (example["depth_bin"][0] >= 0).any() and (example["depth_bin"][1] >= 0).any()
