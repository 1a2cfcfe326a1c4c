"""Each condition changes the sensors by its name, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import golden_sample
from imkd_edge.errors import Error
from imkd_edge.evaluation.conditions import CONDITIONS, condition


@pytest.fixture(scope="module")
def sample():
    return golden_sample(2)


def test_none_changes_nothing(sample):
    assert condition("none")(sample) is sample


def test_sensors_go_out(sample):
    assert not condition("no_camera")(sample).frames and condition("no_camera")(sample).radar == sample.radar
    assert not condition("no_radar")(sample).radar and condition("no_radar")(sample).frames is sample.frames


@pytest.mark.parametrize(("name", "keep"), [("radar_half", 2), ("radar_quarter", 4)])
def test_thinning_keeps_every_nth_point_of_each_sweep(sample, name, keep):
    thin = condition(name)(sample).radar
    assert len(thin) == len(sample.radar)
    for before, after in zip(sample.radar, thin):
        assert len(after.points) == -(-len(before.points) // keep)
        assert all((before.points[i * keep] == after.points[i]).all() for i in range(len(after.points)))
        assert replace(after, points=before.points) == before


def test_exposure_scales_grey_levels_and_saturates(sample):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    ramped = replace(sample, frames={"CAM_FRONT": ramp})
    assert np.abs(condition("dark")(ramped).frames["CAM_FRONT"].astype(float) - ramp / 4).max() <= 0.5
    assert (condition("bright")(ramped).frames["CAM_FRONT"] == np.minimum(ramp.astype(int) * 4, 255)).all()


@pytest.mark.parametrize(("name", "degrees"), [("camera_0.5deg", 0.5), ("camera_1deg", 1.0), ("camera_2deg", 2.0)])
def test_the_calibration_turns_by_so_much(sample, name, degrees):
    changed = condition(name)(sample)
    changed.rig.check()
    assert changed.frames is sample.frames
    assert changed.rig.radars[0].T_ego_radar.tolist() == sample.rig.radars[0].T_ego_radar.tolist()
    for before, after in zip(sample.rig.cameras, changed.rig.cameras):
        R = np.array(before.T_ego_camera)[:3, :3].T @ np.array(after.T_ego_camera)[:3, :3]
        angle = np.degrees(np.arccos((np.trace(R) - 1) / 2))
        assert angle == pytest.approx(degrees, rel=0.01)
        assert (np.array(before.T_ego_camera)[:3, 3] == np.array(after.T_ego_camera)[:3, 3]).all()


def test_an_unknown_condition_is_refused():
    with pytest.raises(Error, match="fog") as error:
        condition("fog")
    assert "radar_half" in error.value.fix and set(CONDITIONS) >= {"none", "no_camera", "no_radar"}
