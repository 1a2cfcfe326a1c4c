"""The live path gives the networks what a reader gives them: of a drive in motion, with exposures and past frames."""

from __future__ import annotations

import pytest
from drives import Drive, moving_drive

from imkd_edge import Detector, Ego, Synchronizer
from imkd_edge.result import Result
from imkd_edge.sources.base import Sample
from imkd_edge.sources.nuscenes import NuScenesSource
from imkd_edge.sources.nuscenes.writer import write_nuscenes

MS = 1_000_000  # ns
REFERENCE = "RADAR_FRONT"  # its sweeps are 75 ms apart, so that every eighth is of a sample's time
RATE = 1 / 0.6  # Hz


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    drive = Drive(moving_drive(3, rate_hz=RATE))
    source = NuScenesSource(write_nuscenes(drive, tmp_path_factory.mktemp("set") / "drive"))
    return [source[name] for name in source.names]


def push(sync: Synchronizer, sample: Sample) -> None:
    """Every item at its own time, each with the ego pose of that time; all arrive when the sample is complete."""
    now = sample.timestamp_ns + MS
    for name, time in sample.camera_timestamps_ns.items():
        assert sync.push_ego(Ego(sample.camera_T_world_ego[name]), time, now) in ("kept", "duplicate")
        assert sync.push_camera(name, sample.frames[name], time, now) == "kept"
    assert sync.push_ego(sample.ego, sample.timestamp_ns, now) == "kept"
    for sweep in sample.radar:
        assert sync.push_radar(sweep, now) in ("kept", "duplicate", "late")  # the reader repeats earlier sweeps


def live(detector: Detector, sync: Synchronizer, sample: Sample) -> Result:
    push(sync, sample)
    latest = None
    while (frame := sync.pop(sample.timestamp_ns + MS)) is not None:  # one for every sweep of the reference radar
        latest = frame
    assert latest is not None and latest.complete and latest.timestamp_ns == sample.timestamp_ns
    fields = latest.frames, latest.radar, latest.ego, latest.timestamp_ns
    return detector.infer(*fields, latest.camera_timestamps_ns, latest.camera_T_world_ego)


def test_live_and_reader_give_the_networks_the_same_bits(samples: list[Sample]) -> None:
    rig = samples[0].rig
    with Detector("tiny-t4", rig, "cpu", threads=2) as reading, Detector("tiny-t4", rig, "cpu", threads=2) as living:
        sync = Synchronizer(rig, living.spec, reference=REFERENCE, tolerance=0.075, timeout=0)
        past_frames = []
        for sample in samples:
            expected, result = reading.infer_sample(sample), live(living, sync, sample)
            tensors = living.tensors()
            for name, tensor in reading.tensors().items():
                assert tensor.tobytes() == tensors[name].tobytes(), (sample.timestamp_ns, name)
            assert (result.boxes == expected.boxes).all() and result.health == expected.health
            past_frames.append(result.health.past_frames)
            assert {sample.timestamp_ns - t for t in sample.camera_timestamps_ns.values()} > {40 * MS}
        assert past_frames == [0, 1, 1] and len(expected.boxes) > 10
