"""View-of-Delft from the folder to the numbers, with the truth as detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sources.vod_folder import NAMES, write_vod

from imkd_edge.errors import Error
from imkd_edge.evaluation.run import choose, evaluate, evaluate_bundle, measure, predict, summary
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


def test_one_frame_without_labels_is_run_counted_and_reported(tmp_path):
    """The other frames' numbers are those of the folder without that frame."""
    folder, options = write_vod(tmp_path), EvalOptions(split="train_val")
    (folder / "lidar" / "training" / "label_2" / f"{NAMES[0]}.txt").unlink()
    names = []

    def detect(sample):
        names.append(sample.name)
        return (np.zeros((0, 9)), np.zeros(0), []) if sample.truth is None else true_boxes(sample)

    with pytest.warns(UserWarning, match="1 of 4 frames have no labels"):
        predictions = predict(choose(str(folder), "train_val"), detect, options)
    assert names == NAMES[:4] and predictions.names == NAMES[1:4] and predictions.unlabelled == 1
    result = summary(predictions, options, measure(predictions, options))
    assert (result["frames"], result["unlabelled"], result["split"]) == (3, 1, "train_val")
    rest = folder / "lidar" / "ImageSets" / "rest.txt"
    rest.write_text("\n".join(NAMES[1:4]))
    assert evaluate(choose(str(folder), "rest"), true_boxes) == result["metrics"]


def test_the_result_of_a_bundle_says_how_many_frames_were_not_measured(tmp_path, monkeypatch, random_bundle):
    folder = write_vod(tmp_path)
    (folder / "lidar" / "training" / "label_2" / f"{NAMES[0]}.txt").unlink()

    class Blind:
        """A detector that detects nothing."""

        def __init__(self, *arguments, **options): ...

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

    monkeypatch.setattr("imkd_edge.evaluation.run.Detector", Blind)
    monkeypatch.setattr("imkd_edge.evaluation.run.prediction", lambda *_: (np.zeros((0, 9)), np.zeros(0), []))
    with pytest.warns(UserWarning, match="no labels"):
        result = evaluate_bundle(str(random_bundle), str(folder), EvalOptions(split="full"))
    assert (result["frames"], result["unlabelled"]) == (3, 2)  # the other one is of the test split


def test_ranges_and_blocks_belong_to_another_protocol(folder):
    with pytest.raises(Error, match="E0104"):
        evaluate(
            choose(str(folder), "val"), lambda sample: pytest.fail("a frame ran first"), EvalOptions(per_range=True)
        )
