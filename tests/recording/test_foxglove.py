"""Recordings of Foxglove's protobuf messages, written by foxglove-sdk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import foxglove_file as fox
from recording.scenes import events, synth

from imkd_edge.sources import Sample, open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth())


@pytest.mark.parametrize("odometry", [False, True])
@pytest.mark.parametrize("make_image", [fox.png_image, fox.raw_image])
def test_frames_equal_those_that_were_recorded(
    samples: list[Sample], make_image: Any, odometry: bool, tmp_path: Path
) -> None:
    source = open_source(fox.write(tmp_path / "drive.mcap", events(samples), make_image, odometry))
    assert len(source) == len(samples)
    for sample, name in zip(samples, source.names):
        read = source[name]
        for camera, image in sample.frames.items():
            np.testing.assert_array_equal(image, read.frames[camera.lower()])
        ours = {(sweep.radar.lower(), sweep.timestamp_ns): sweep for sweep in sample.radar}
        theirs = {(sweep.radar, sweep.timestamp_ns): sweep for sweep in read.radar}
        assert set(ours) == set(theirs)
        for key, sweep in ours.items():
            np.testing.assert_array_equal(sweep.points[:, :4], theirs[key].points[:, :4])
            np.testing.assert_allclose(sweep.points[:, 4], theirs[key].points[:, 4], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(sweep.T_world_ego, theirs[key].T_world_ego, atol=1e-9)
        assert sample.ego is not None and read.ego is not None
        np.testing.assert_allclose(sample.ego.T_world_ego, read.ego.T_world_ego, atol=1e-9)
        if odometry:
            np.testing.assert_allclose(sample.ego.twist, read.ego.twist, atol=1e-9)
        else:
            assert read.ego.twist is None
    ours, theirs = samples[0].rig, read.rig
    for a, b in zip(ours.cameras, theirs.cameras):
        assert a.name.lower() == b.name
        np.testing.assert_allclose(a.T_ego_camera, b.T_ego_camera, atol=1e-9)
        np.testing.assert_allclose(a.K, b.K)
    assert {radar.velocity for radar in theirs.radars} == {"compensated"}  # vx_comp, vy_comp say so
