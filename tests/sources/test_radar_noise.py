"""Each kind of radar noise changes what its name says, by so much, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import golden_sample
from imkd_edge.evaluation.conditions import condition
from imkd_edge.frames import RadarSweep
from imkd_edge.sources.radar_noise import NOISES, disturb
from imkd_edge.training.augment import drop
from imkd_edge.training.sections import AugmentConfig


@pytest.fixture(scope="module")
def sample():
    """A thousand returns in one sweep, all around the radar."""
    rng = np.random.default_rng(0)
    azimuth, range_m = rng.uniform(-np.pi, np.pi, 20_000), rng.uniform(2, 80, 20_000)
    points = np.stack([range_m * np.cos(azimuth), range_m * np.sin(azimuth), rng.normal(0, 1, 20_000),
                       rng.uniform(-10, 30, 20_000), rng.normal(0, 5, 20_000)], 1)  # fmt: skip
    golden = golden_sample(2)
    return replace(golden, radar=[RadarSweep(golden.rig.radars[0].name, points.astype(np.float32), 5)])


def noisy(sample, kind, strength=1.0, seed=0):
    changed = disturb(sample, kind, strength, np.random.default_rng(seed))
    assert changed.frames is sample.frames and changed.rig is sample.rig
    assert replace(changed.radar[0], points=sample.radar[0].points) == sample.radar[0]
    return changed.radar[0].points


@pytest.mark.parametrize("kind", NOISES)
def test_strength_0_is_no_noise_and_equal_draws_are_equal_noise(sample, kind):
    assert np.array_equal(noisy(sample, kind, 0.0), sample.radar[0].points)
    assert np.array_equal(noisy(sample, kind), noisy(sample, kind))
    assert not np.array_equal(noisy(sample, kind, seed=1), noisy(sample, kind, seed=2))
    assert noisy(sample, kind).dtype == np.float32


@pytest.mark.parametrize("kind", NOISES)
def test_a_sweep_without_points_and_one_with_unknown_values_pass(sample, kind):
    empty = replace(sample, radar=[replace(sample.radar[0], points=np.zeros((0, 5), np.float32))])
    assert noisy(empty, kind).shape == (0, 5)
    unknown = replace(sample, radar=[replace(sample.radar[0], points=np.full((3, 5), np.nan, np.float32))])
    assert noisy(unknown, kind).shape[1] == 5


def test_whole_beams_are_missing(sample):
    before, after = sample.radar[0].points, noisy(sample, "radar_missing")
    beams = [set(np.floor(np.degrees(np.arctan2(p[:, 1], p[:, 0])) / 5).astype(int)) for p in (before, after)]
    assert beams[1] < beams[0] and 0.15 < 1 - len(beams[1]) / len(beams[0]) < 0.45  # 72 beams, 0.3 +- 3 sigma
    kept = {tuple(point) for point in after}
    lost = [point for point in before if tuple(point) not in kept]
    assert {int(np.floor(np.degrees(np.arctan2(p[1], p[0])) / 5)) for p in lost}.isdisjoint(beams[1])


def test_false_returns_come_behind_the_true_ones_and_stay_in_the_radars_reach(sample):
    before, after = sample.radar[0].points, noisy(sample, "radar_spurious")
    false = after[len(before) :]
    assert np.array_equal(after[: len(before)], before) and len(false) == len(before) // 2
    assert set(false[:, 3]) <= set(before[:, 3]) and set(false[:, 4]) <= set(before[:, 4])
    assert np.linalg.norm(false[:, :3], axis=1).max() <= np.linalg.norm(before[:, :3], axis=1).max() * 1.0001
    assert len({tuple(p) for p in false[:, :3]} & {tuple(p) for p in before[:, :3]}) < len(false) / 100


def test_positions_shift_by_half_a_metre(sample):
    change = noisy(sample, "radar_shifted") - sample.radar[0].points
    assert np.allclose(change[:, :3].std(0), 0.5, rtol=0.03) and np.abs(change[:, :3].mean(0)).max() < 0.02
    assert not change[:, 3:].any()


def test_intensity_and_velocity_are_disturbed(sample):
    change = noisy(sample, "radar_disturbed") - sample.radar[0].points
    assert not change[:, :3].any() and np.allclose(change[:, 3:].std(0), [5, 1], rtol=0.03)


@pytest.mark.parametrize("kind", NOISES)
def test_a_condition_depends_on_the_sample_alone(sample, kind):
    first, second = (condition(kind)(sample).radar[0].points for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, sample.radar[0].points)
    other = condition(kind)(replace(sample, name="another")).radar[0].points
    assert not np.array_equal(first, other)


def test_a_share_of_the_examples_is_noisy_in_training(sample):
    config = AugmentConfig(noisy_radar=0.2)
    changed = [drop(sample, np.random.default_rng(i), config).radar[0].points for i in range(300)]
    noisy_share = np.mean([not np.array_equal(points, sample.radar[0].points) for points in changed])
    assert noisy_share == pytest.approx(0.2, abs=0.07)
    assert all(np.array_equal(drop(sample, np.random.default_rng(i), AugmentConfig()).radar[0].points,
                              sample.radar[0].points) for i in range(3))  # fmt: skip
