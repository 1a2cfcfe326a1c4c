"""View-of-Delft from the folder to the numbers, with the truth as detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources.vod_folder import NAMES, write_vod

from imkd_edge.errors import Error
from imkd_edge.evaluation.run import choose, evaluate
from imkd_edge.options import EvalOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_vod(tmp_path_factory.mktemp("vod"))


def true_boxes(sample):
    return np.nan_to_num(sample.truth.boxes), np.linspace(0.9, 0.5, len(sample.truth.labels)), sample.truth.labels


def test_the_truth_itself_scores_the_highest_possible_ap(folder):
    """Two to four objects of a class: only the first of the 11 recall points has a threshold."""
    result = evaluate(choose(str(folder), "val"), true_boxes)
    assert result["mAP_entire_area"] == result["mAP_driving_corridor"] == pytest.approx(100 / 11)
    assert all(value == pytest.approx(100 / 11) for value in result.values()) and len(result) == 20


def test_frames_without_published_labels_are_not_evaluated(folder):
    assert len(choose(str(folder), "full")) == len(NAMES)
    frames = []

    def detect(sample):
        frames.append(sample.name)
        return (np.zeros((0, 9)), np.zeros(0), []) if sample.truth is None else true_boxes(sample)

    # eight cars: numbers 0 and 4
    assert evaluate(choose(str(folder), "full"), detect)["car_ap_entire_area"] == pytest.approx(200 / 11)
    assert frames == NAMES
    with pytest.raises(Error, match="E0604"):
        evaluate(choose(str(folder), "test"), detect)


def test_ranges_and_blocks_belong_to_another_protocol(folder):
    with pytest.raises(Error, match="E0104"):
        evaluate(
            choose(str(folder), "val"), lambda sample: pytest.fail("a frame ran first"), EvalOptions(per_range=True)
        )
