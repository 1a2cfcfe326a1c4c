"""The golden drive through everything that runs frame by frame."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cuda_budget import BUILD, load
from golden_drive import ABSENT, LAST, NO_CAMERA, NO_IMAGE, NO_POSE, WHOLE, ZERO_PACKET, ZEROED, golden_drive

import imkd_edge.detector
from imkd_edge import Detector, Result, _core

DRIVE = golden_drive()
SAMPLES = list(DRIVE)
RIG = SAMPLES[WHOLE].rig
CAMERAS = {camera.name for camera in RIG.cameras}


def run(detector: Detector) -> list[Result]:
    detector.reset()
    return [detector.infer_sample(sample) for sample in SAMPLES]


def assert_equal(a: Result, b: Result) -> None:
    assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
    assert np.array_equal(a.labels, b.labels) and a.health == b.health


@pytest.fixture(scope="module")
def history() -> Detector:
    """A model with three past maps, on the CPU."""
    return Detector("tiny-t4", RIG, "cpu", threads=1)


def test_the_vehicle_moves_and_turns() -> None:
    poses = [sample.ego.T_world_ego for sample in SAMPLES if sample.ego is not None]
    assert len(poses) == len(SAMPLES) - 1  # all but NO_POSE
    steps = [np.linalg.inv(a) @ b for a, b in itertools.pairwise(poses)]
    assert all(np.linalg.norm(step[:2, 3]) > 4 for step in steps)
    assert all(abs(np.arctan2(step[1, 0], step[0, 0])) > np.radians(2) for step in steps)


def test_the_sensors_fail_as_named() -> None:
    assert [CAMERAS - set(sample.frames) for sample in SAMPLES] == [CAMERAS, set(), {ABSENT}, set(), set(), set()]
    posed = [all(s.T_world_ego is not None for s in sample.radar) and sample.ego is not None for sample in SAMPLES]
    assert posed == [index != NO_POSE for index in range(len(SAMPLES))]
    zeros = [{s.radar for s in sample.radar if len(s.points) and not s.points.any()} for sample in SAMPLES]
    assert zeros == [{ZEROED} if index == ZERO_PACKET else set() for index in range(len(SAMPLES))]


def test_health_says_what_is_missing(history: Detector) -> None:
    results = run(history)
    modes = [result.health.mode for result in results]
    assert modes[NO_IMAGE] == "radar_only" and modes[NO_CAMERA] == "partial" and modes[WHOLE] == modes[LAST] == "full"
    for sample, result in zip(SAMPLES, results):
        missing = {name for name, state in result.health.sensors.items() if state == "missing"}
        assert missing == CAMERAS - set(sample.frames)
        assert np.isfinite(result.boxes[:, :7]).all() and result.health.boxes_invalid == 0


def test_health_says_that_a_packet_is_filled_with_zeros(history: Detector) -> None:
    """Its older sweeps serve the radar; where each of its packets holds zeros, it is invalid."""
    result = run(history)[ZERO_PACKET]
    points = sum(len(sweep.points) for sweep in SAMPLES[ZERO_PACKET].radar if not sweep.points.any())
    assert result.health.radar_points_invalid == points > 0
    assert result.health.sensors[ZEROED] == "ok" and result.health.mode == "full"
    sweeps = [replace(s, points=s.points * (s.radar != ZEROED)) for s in SAMPLES[ZERO_PACKET].radar]
    health = history.infer_sample(replace(SAMPLES[ZERO_PACKET], radar=sweeps)).health
    assert health.sensors[ZEROED] == "invalid" and health.mode == "partial"
    beside = [
        replace(s, points=s.points + np.float32([500, 0, 0, 0, 0]) * (s.radar == ZEROED)) for s in SAMPLES[LAST].radar
    ]
    health = history.infer_sample(replace(SAMPLES[LAST], radar=beside)).health
    assert health.sensors[ZEROED] == "unusable" and health.mode == "partial"


def test_past_maps_fill_up_with_the_drive(history: Detector) -> None:
    assert [result.health.past_frames for result in run(history)][:NO_POSE] == [0, 1, 2]


@pytest.mark.parametrize("bundle", ["tiny", "tiny-t4"])
def test_a_replay_is_equal_to_the_bit(bundle: str) -> None:
    with Detector(bundle, RIG, "cpu", threads=1) as detector, Detector(bundle, RIG, "cpu", threads=2) as other:
        first = run(detector)
        for again in (run(detector), run(other)):
            for a, b in zip(first, again):
                assert_equal(a, b)


def test_a_frame_alone_differs_from_the_frame_in_the_drive(history: Detector) -> None:
    in_drive = run(history)[LAST]
    history.reset()
    alone = history.infer_sample(SAMPLES[LAST])
    assert alone.health.past_frames == 0 < in_drive.health.past_frames
    assert not np.array_equal(alone.boxes, in_drive.boxes)


@pytest.mark.parametrize(("change", "kept"), [({"name": "another"}, True), ({"scene": "another"}, False)])
def test_past_maps_belong_to_the_scene(history: Detector, change: dict[str, str], kept: bool) -> None:
    history.reset()
    for sample in SAMPLES[:LAST]:
        history.infer_sample(sample)
    assert (history.infer_sample(replace(SAMPLES[LAST], **change)).health.past_frames > 0) == kept


@pytest.mark.parametrize("order", ["fwd", "shuffle:3"])
def test_the_cuda_loop_gives_the_boxes_of_the_cpu(
    history: Detector, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels run on the CPU, their blocks in two orders; the first frame has no image."""
    cuda = load("cuda_on_host")
    if cuda is None:
        pytest.skip(f"no cuda_on_host in {BUILD}: the frame loop on the GPU is NOT tested (make test builds it)")
    monkeypatch.setenv("GPUHOST_ORDER", order)
    with monkeypatch.context() as patch:
        patch.setattr(_core, "load_for_device", cuda.load_for_device)
        patch.setattr(imkd_edge.detector, "_core", cuda)
        on_cuda = Detector("tiny-t4", RIG, "cuda", "onnxruntime", threads=1)
    with on_cuda:
        for a, b in zip(run(on_cuda), run(history), strict=True):
            assert a.boxes.shape == b.boxes.shape and np.array_equal(a.labels, b.labels) and a.health == b.health
            assert np.allclose(a.boxes, b.boxes, rtol=1e-5, atol=1e-5) and np.allclose(a.scores, b.scores, atol=1e-5)


def test_comparing_a_bundle_with_itself_on_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from imkd_edge.evaluation.compare import compare
    from imkd_edge.options import CompareOptions

    monkeypatch.setattr("imkd_edge.sources.select.open_source", lambda source, **options: golden_drive())
    options = CompareOptions(limit=len(SAMPLES), tolerance=1e-6, engines="onnxruntime,torch")
    result = compare("tiny-t4", "tiny-t4", "drive", options, threads=1)
    assert result["frames"] == 2 * len(SAMPLES)  # the bundle's golden drive too
    assert result["within"]
    boxes = result["engines"]["torch"]["boxes"]
    assert boxes["a"] == boxes["b"] == boxes["matched"] > 0
