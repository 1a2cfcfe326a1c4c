"""Mounting and ground plane moved together: the networks get the same inputs, and boxes move with the ego frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from imkd_edge.detector import Detector
from imkd_edge.frames import RadarSweep
from imkd_edge.result import Result
from imkd_edge.rig import SensorRig
from imkd_edge.sources.astyx import AstyxSource
from imkd_edge.sources.base import Sample
from imkd_edge.sources.plane import heights_above
from imkd_edge.sources.remount import lift, remount, tilt

SCORE = 0.3  # of detections that must be found again
MOUNTINGS = {
    "lifted": lift(0.2),
    "lowered": lift(-0.2),
    "rolled": tilt(2, 0),
    "pitched": tilt(2, 90),
    "tilted": lift(0.2) @ tilt(2, 45),
    "tilted back": lift(-0.2) @ tilt(-2, 45),
}


@dataclass(frozen=True)
class Run:
    """One frame through the detector."""

    sample: Sample
    result: Result
    tensors: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> list[Sample]:
    source = AstyxSource(shared_data / "astyx", lidar=False)
    return [source[name] for name in source.splits["val"][::10]]


@pytest.fixture(scope="module")
def detector(frames: list[Sample]):
    with Detector("astyx-taught", frames[0].rig, device="cpu", score_threshold=0.1) as detector:
        yield detector


def run(detector: Detector, sample: Sample) -> Run:
    result = detector.infer_sample(sample)
    return Run(sample, result, detector.tensors())


@pytest.fixture(scope="module")
def plain(detector, frames) -> list[Run]:
    return [run(detector, sample) for sample in frames]


@pytest.mark.parametrize("mounting", MOUNTINGS)
def test_boxes_move_with_the_frame(detector, plain, mounting):
    T, strong, matched, heights = MOUNTINGS[mounting], 0, 0, []
    for before in plain:
        after = run(detector, remount(before.sample, T)).result
        for box, name, score in zip(before.result.boxes, before.result.names, before.result.scores):
            if score < SCORE:
                continue
            strong += 1
            same = after.boxes[[other == name for other in after.names]]
            centre = T[:3, :3] @ box[:3] + T[:3, 3]
            distance = np.hypot(same[:, 0] - centre[0], same[:, 1] - centre[1]) if len(same) else np.array([np.inf])
            if distance.min() < 1:
                matched += 1
                heights.append(same[distance.argmin(), 2] - centre[2])
    assert strong > 40 and matched >= 0.93 * strong
    assert np.abs(np.median(heights)) < 0.03
    assert np.quantile(np.abs(heights), 0.9) < 0.1


@pytest.mark.parametrize("height", [0.2, -0.2, 1.5])
def test_a_lift_changes_no_input_but_by_rounding(detector, plain, height):
    for before in plain:
        after = run(detector, remount(before.sample, lift(height)))
        np.testing.assert_array_equal(after.tensors["images"], before.tensors["images"])
        np.testing.assert_array_equal(after.tensors["depth"], before.tensors["depth"])
        np.testing.assert_allclose(after.tensors["radar_grid"], before.tensors["radar_grid"], atol=1e-5)
        scale = np.abs(before.tensors["camera_bev"]).max()
        changed = np.abs(after.tensors["camera_bev"] - before.tensors["camera_bev"]).max(0) > 1e-4 * scale
        assert changed.mean() < 1e-3  # a point on the edge of the grid's heights


def dyadic(sample: Sample) -> Sample:
    """The sample with heights that are multiples of 2^-10 m, so that a lift by 0.25 m is exact."""
    step, rig = 2.0**-10, SensorRig.from_json(sample.rig.to_json())
    radar = rig.radars[0]
    radar.T_ego_radar = np.round(np.asarray(radar.T_ego_radar) / step) * step
    a, b, c = np.round(np.asarray(rig.ground_plane) / step) * step
    rig.ground_plane = (a, b, c)
    sweeps = []
    for sweep in sample.radar:
        points = sweep.points.copy()
        points[:, :3] = np.round(points[:, :3] / step) * step
        sweeps.append(RadarSweep(sweep.radar, points, sweep.timestamp_ns, sweep.T_world_ego))
    return replace(sample, rig=rig, radar=sweeps)


def test_where_arithmetic_is_exact_a_lift_changes_no_bit_of_the_radar_grid(detector, frames):
    for frame in frames:
        before = run(detector, dyadic(frame)).tensors["radar_grid"]
        after = run(detector, remount(dyadic(frame), lift(0.25))).tensors["radar_grid"]
        np.testing.assert_array_equal(after, before)


def near_ground(sample: Sample) -> Sample:
    """Without radar points farther than 1.5 m from the ground, which a tilt moves by a cell and more."""
    sweep = sample.radar[0]
    heights = heights_above(sample.rig.ground_plane, sweep.points.astype(float))
    return replace(sample, radar=[replace(sweep, points=sweep.points[np.abs(heights) < 1.5])])


@pytest.mark.parametrize("mounting", ["rolled", "pitched", "tilted"])
def test_a_tilt_changes_inputs_within_interpolation(detector, frames, mounting):
    """Points move by 2 degrees of their height, some into the next cell; so means over 4 x 4 cells are compared.

    Offsets within a cell move by a third of it and are left out.
    """
    for frame in map(near_ground, frames):
        before, after = run(detector, frame), run(detector, remount(frame, MOUNTINGS[mounting]))
        np.testing.assert_array_equal(after.tensors["images"], before.tensors["images"])
        np.testing.assert_array_equal(after.tensors["depth"], before.tensors["depth"])
        assert correlation(before.tensors["camera_bev"], after.tensors["camera_bev"]) > 0.98
        for channel, feature in enumerate(detector.spec.radar.features):
            if not feature.statistic.startswith("offset"):
                grids = [r.tensors["radar_grid"][0, channel] for r in (before, after)]
                assert correlation(*grids) > 0.9, feature.statistic


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of the means over windows of 4 x 4 cells."""
    H, W = a.shape[-2:]
    means = [grid.reshape(-1, H // 4, 4, W // 4, 4).mean((2, 4)).ravel() for grid in (a, b)]
    return float(np.corrcoef(*means)[0, 1])
