"""A class-balanced epoch shows every class in equally many frames; without balance every frame comes once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import killed_after_the_first_save, write_toy_config
from imkd_edge.options import TrainOptions
from imkd_edge.training.config import load_config
from imkd_edge.training.program import open_dataset, train
from imkd_edge.training.sampling import class_shares, epoch_order, with_labelled_share

LABELS = st.lists(st.sets(st.sampled_from(["car", "bus", "cone"])), min_size=1, max_size=60)


@given(LABELS)
@settings(deadline=None, max_examples=50)
def test_every_class_has_an_equal_part(labels):
    shares = class_shares(labels)
    assert shares.sum() == pytest.approx(1) and (shares > 0).all()
    names = set().union(*(found or {""} for found in labels))
    for name in names:  # its part: the sum of 1 / (classes * frames with it) over these frames
        frames = [i for i, found in enumerate(labels) if name in (found or {""})]
        assert sum(shares[i] for i in frames) >= 1 / len(names) - 1e-9


def test_a_rare_class_comes_as_often_as_a_common_one():
    shares = class_shares([{"car"}] * 98 + [{"bus"}] * 2)
    assert shares[:98].sum() == pytest.approx(0.5) and shares[98] == pytest.approx(0.25)


@given(LABELS, st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_an_epoch_has_each_frame_as_often_as_its_share_says(labels, seed):
    shares = class_shares(labels)
    order = epoch_order(len(labels), np.random.default_rng(seed), shares)
    assert len(order) == len(labels) and order == epoch_order(len(labels), np.random.default_rng(seed), shares)
    times = Counter(order)
    for index, share in enumerate(shares):
        expected = share * len(labels)
        assert np.floor(expected - 1e-6) <= times[index] <= np.ceil(expected + 1e-6)


def test_without_balance_the_order_is_a_permutation():
    assert sorted(epoch_order(50, np.random.default_rng(1))) == list(range(50))
    expected = np.random.default_rng([0, 0, 3]).permutation(50).tolist()  # as runs before this key had it
    assert epoch_order(50, np.random.default_rng([0, 0, 3])) == expected


def test_labelled_frames_have_their_share_of_an_epoch_and_keep_their_proportions():
    labelled = np.array([True] * 3 + [False] * 17)
    shares = with_labelled_share(np.array([0.02, 0.04, 0.04] + [0.9 / 17] * 17), labelled, 0.5)
    assert shares[:3] == pytest.approx([0.1, 0.2, 0.2]) and shares[3:] == pytest.approx([0.5 / 17] * 17)
    times = Counter(epoch_order(20, np.random.default_rng(0), shares))
    assert sum(times[index] for index in range(3)) == 10


def test_a_run_draws_balanced_epochs_and_resumes_them(tmp_path):
    config = write_toy_config(tmp_path / "toy.toml")
    settings = load_config(config, ["data.balance=true"])
    names = open_dataset(settings, 0).class_names()
    assert len(names) == 8 and set().union(*names) <= {"car", "truck", "pedestrian", "bicycle"} and any(names)
    options = TrainOptions(out=tmp_path / "whole", changes=["data.balance=true"], epochs=2)
    whole = train(config, options)
    options = replace(options, out=tmp_path / "killed")
    with killed_after_the_first_save():
        train(config, options)
    again = train(config, replace(options, resume=True))
    assert again["losses"] == whole["losses"]
