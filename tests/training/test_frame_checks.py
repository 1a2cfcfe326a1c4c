"""Labels that a training would ignore, and sensors without data, are said before it starts."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from helpers import write_toy_config
from imkd_edge.errors import Error
from imkd_edge.evaluation.conditions import no_camera, no_radar
from imkd_edge.options import TrainOptions
from imkd_edge.sources.open import open_source
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.frame_checks import SeenLabels, SeenSensors
from imkd_edge.training.label import found
from imkd_edge.training.program import train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_toy_config(tmp_path_factory.mktemp("config") / "toy.toml")


@pytest.fixture(scope="module")
def settings(config):
    settings = load_config(config)
    data = replace(settings.data, source="drives/yard", classes={"Fork": "forklift", "Box": "pallet"}, vehicles=["Tug"])
    return replace(settings, data=data)


def frame(**at):
    """One object of each label, at x, y m."""
    boxes = [[x, y, 1, 4, 2, 1.5, 0, 0, 0] for x, y in at.values()]
    return found(np.array(boxes), np.ones(len(boxes)), list(at))


def seen(settings, *frames):
    labels = SeenLabels(settings.spec, settings.data)
    for truth in frames:
        labels.add(truth)
    return labels


def said(labels):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels.check_mapped()
        labels.check_learnt()
    return [str(item.message) for item in caught]


def test_labels_of_every_class_say_nothing(settings):
    assert said(seen(settings, frame(Fork=(5, 1)), frame(), frame(Box=(8, -2), Tug=(9, 3)))) == []


def test_a_class_without_an_object_is_named(settings):
    assert said(seen(settings, frame(Fork=(5, 1)))) == [
        "drives/yard: no object on the grid is labelled as pallet: training cannot learn it"
    ]


def test_a_class_whose_objects_are_all_off_the_grid_is_named(settings):
    (text,) = said(seen(settings, frame(Fork=(5, 1), Box=(settings.spec.grid.x_max, 0))))
    assert "labelled as pallet" in text


def test_labels_without_a_class_are_named_as_background(settings):
    (text,) = said(seen(settings, frame(Fork=(5, 1), Box=(8, 0), fork=(7, 2), Tug=(3, 3))))
    assert text == "drives/yard: [data] classes lacks the labels fork: they count as background"


def test_a_frame_without_labels_may_hold_any_class(settings):
    assert said(seen(settings, None)) == []


def test_frames_without_any_object_on_the_grid_are_refused(settings):
    for frames in ([frame()], [frame(Fork=(5000, 1), Box=(0, -5000))]):
        with pytest.raises(Error, match=r"E0604.*no frame has an object of a class on the grid"):
            said(seen(settings, *frames))


def test_labels_of_which_none_has_a_class_are_named_with_a_cure(settings):
    with pytest.raises(Error, match=r"E0604.*none of the labels: FORK.*for example 'FORK' = 'forklift'"):
        said(seen(settings, frame(FORK=(5, 1))))


def test_a_training_on_empty_frames_does_not_begin(config, tmp_path, monkeypatch):
    read = FrameDataset.sample
    monkeypatch.setattr(FrameDataset, "sample", lambda self, index: replace(read(self, index), truth=frame()))
    with pytest.raises(Error, match="no frame has an object"):
        train(config, TrainOptions(out=tmp_path / "run"))
    assert not list((tmp_path / "run").glob("**/*.pt"))


def sensors_said(data, *samples):
    seen = SeenSensors(data)
    for sample in samples:
        seen.add(sample)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen.check()
    return [str(item.message) for item in caught]


def test_a_kind_of_sensor_without_data_in_any_frame_is_named(settings):
    source = open_source("synth")
    first, second = source[source.names[0]], source[source.names[1]]
    assert sensors_said(settings.data, no_radar(first), no_camera(second)) == []
    (text,) = sensors_said(settings.data, no_radar(first), no_radar(second))
    assert text.startswith("drives/yard: no frame has a radar point, though the rig has such sensors")
    (text,) = sensors_said(settings.data, no_camera(first))
    assert "no frame has an image," in text
    assert sensors_said(replace(settings.data, sensors="camera"), no_radar(first)) == []


def test_a_training_whose_sensor_files_are_not_there_does_not_begin(settings):
    source = open_source("synth")
    sample = source[source.names[0]]
    with pytest.raises(Error, match=r"E0604.*no frame has an image or a radar point.*imkd-edge check drives/yard"):
        sensors_said(settings.data, no_radar(no_camera(sample)))
    with pytest.raises(Error, match="no frame has a radar point"):
        sensors_said(replace(settings.data, sensors="radar"), no_radar(sample))
