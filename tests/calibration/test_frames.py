"""Choosing frames: refused recordings, unusable frames, and herding that represents the recording."""

from __future__ import annotations

import numpy as np
import pytest

from imkd_edge import SensorRig
from imkd_edge.calibration.frames import choose_frames, descriptors, herd
from imkd_edge.errors import Code, Error
from imkd_edge.frames import RadarSweep
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import Selection
from imkd_edge.sources.synth import default_rig

RIG = default_rig((64, 32))


class RadarSource:
    """A source of radar alone; broken frames raise, as a truncated file does."""

    kind = "radar"

    def __init__(self, frames: int, returns: int = 20, rig: SensorRig = RIG, broken: tuple[int, ...] = ()) -> None:
        self.names = [f"{i:03}" for i in range(frames)]
        self._returns, self._rig, self._broken = returns, rig, broken

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Sample:
        if int(name) in self._broken:
            raise Error(Code.source_bad_points, "truncated", name)
        points = np.random.default_rng(int(name)).normal(0, 20, (self._returns, 5)).astype(np.float32)
        sweep = RadarSweep(self._rig.radars[0].name, points, 0, None)
        return Sample(name, 0, self._rig, {}, [sweep])


def selection(source: RadarSource) -> Selection:
    return Selection(source, source.names)  # type: ignore[arg-type]


def error_code(source: RadarSource) -> str:
    with pytest.raises(Error) as error:
        choose_frames(selection(source), RIG, 16)
    return error.value.code


def test_fifteen_frames_are_too_few() -> None:
    assert error_code(RadarSource(15)) == "E0611"
    assert len(choose_frames(selection(RadarSource(16)), RIG, 128).names) == 15  # and one is in the stress set


def test_one_frame_is_too_few() -> None:
    assert error_code(RadarSource(1)) == "E0611"


def test_without_a_rig_the_first_readable_frame_says_which_sensors_count() -> None:
    source = RadarSource(20, broken=(0,))
    chosen = choose_frames(selection(source), None, 16)
    assert len(chosen.names) == 16 and chosen.unusable == {"000": "truncated"}


def test_no_return_at_all_is_refused() -> None:
    assert error_code(RadarSource(20, returns=0)) == "E0612"


def test_other_sensors_are_refused() -> None:
    fewer = SensorRig(cameras=list(RIG.cameras)[:2], radars=list(RIG.radars))
    assert error_code(RadarSource(20, rig=fewer)) == "E0613"


def test_a_corrupt_frame_is_skipped_and_reported() -> None:
    frames = choose_frames(selection(RadarSource(20, broken=(3, 7))), RIG, 16)
    assert set(frames.unusable) == {"003", "007"} and not {"003", "007"} & {*frames.names, *frames.stress}
    assert error_code(RadarSource(17, broken=(3, 7))) == "E0611"


def test_the_choice_is_the_same_every_time_and_leaves_the_stress_set_out() -> None:
    one, two = (choose_frames(selection(RadarSource(60)), RIG, 16) for _ in range(2))
    assert one == two and len(one.names) == 16 and len(one.stress) == 6 and not set(one.names) & set(one.stress)


def test_herding_represents_the_whole_better_than_chance() -> None:
    random = np.random.default_rng(0)
    points = random.normal(0, 1, (300, 10)) ** 3
    distance = np.linalg.norm(points[herd(points, 24)].mean(0) - points.mean(0))
    chance = [np.linalg.norm(points[random.choice(300, 24, False)].mean(0) - points.mean(0)) for _ in range(200)]
    assert distance < np.quantile(chance, 0.01)
    assert len(set(herd(points, 300))) == 300


def test_an_empty_cloud_has_a_descriptor_too() -> None:
    clouds = [np.zeros((0, 3)), np.ones((4, 3)), np.full((9, 3), 2.0)]
    table = descriptors(clouds)
    assert table.shape[0] == 3 and np.isfinite(table).all() and np.unique(table, axis=0).shape[0] == 3
