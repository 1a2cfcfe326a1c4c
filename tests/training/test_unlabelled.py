"""Frames without labels teach by the distillation's terms, without detection losses; the teacher never sees them."""

import numpy as np
import pytest
import torch

from helpers import DISTIL, save_untrained_teacher, write_toy_config
from imkd_edge.errors import Error
from imkd_edge.options import TrainOptions
from imkd_edge.sources import open_source
from imkd_edge.training import program, run
from imkd_edge.training.config import load_config
from imkd_edge.training.data import collate
from imkd_edge.training.losses import detection_losses, gaussian_focal
from imkd_edge.training.mix import mix_batch
from imkd_edge.training.program import open_dataset, train, with_unlabelled
from imkd_edge.training.run import Run
from imkd_edge.training.sampling import epoch_order
from imkd_edge.training.stages import StudentStage
from imkd_edge.training.unlabelled import PREFIX, PartlyLabelled, is_labelled

TERMS = (
    DISTIL.replace("label_epochs = 2", "label_epochs = 1").replace("epochs = 2", "epochs = 1").replace("0.1\n", "0\n")
)


@pytest.fixture
def config(tmp_path):
    return write_toy_config(tmp_path / "toy.toml", TERMS)


def partly(config, changes=()):
    """Eight labelled frames, eight without labels of another world, and the settings."""
    settings = load_config(config, ["data.unlabelled=synth:7", *changes])
    dataset = with_unlabelled(open_dataset(settings, 0))
    dataset.lidar = True
    return dataset, settings


def test_frames_of_the_other_source_come_after_the_labelled_ones_and_without_labels():
    source = open_source("synth", scenes=2, frames_per_scene=2)
    other = open_source("synth:7", scenes=1, frames_per_scene=2)
    joined = PartlyLabelled(source, other, other.names[1:])
    assert joined.names == [*source.names, PREFIX + other.names[1]]
    sample, raw = joined[joined.names[-1]], other[other.names[1]]
    assert sample.truth is None and raw.truth is not None and sample.name == joined.names[-1]
    assert sample.scene == PREFIX + raw.scene and np.array_equal(sample.radar[0].points, raw.radar[0].points)
    assert joined[source.names[0]].truth is not None
    assert joined.moment(joined.names[-1]) == (sample.scene, sample.timestamp_ns)


def test_an_unlabelled_example_has_no_object_and_depths_of_its_lidar(config):
    dataset, _ = partly(config)
    assert len(dataset) == 16
    known, unknown = dataset[0], dataset[8]
    assert known["labelled"].eq(1).all() and unknown["labelled"].eq(0).all()
    assert known["heatmap"].amax() == 1 and unknown["heatmap"].eq(0).all() and unknown["weight"].eq(0).all()
    assert unknown["label"].eq(-1).all() and unknown["depth_bin"].ge(0).any()


def test_a_batch_without_labels_has_no_detection_loss(config):
    dataset, settings = partly(config)
    batch = collate([dataset[8], dataset[9]], settings.spec)
    torch.manual_seed(0)
    out = StudentStage(settings).network(batch)
    terms = detection_losses(out, batch, settings.train, settings.spec.grid.cell)
    assert terms.pop("depth") > 0 and terms.pop("total") > 0
    assert all(value.item() == 0 for value in terms.values()) and len(terms) >= 2


def test_unknown_cells_add_nothing_to_the_focal_loss():
    logits, target = torch.zeros(1, 1, 1, 3), torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
    # hit and miss: 0.25 ln 2 each, one object
    labelled = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert gaussian_focal(logits, target, labelled).item() == pytest.approx(0.5 * np.log(2))
    assert gaussian_focal(logits, target).item() == pytest.approx(0.75 * np.log(2))


def test_sector_mix_keeps_apart_what_is_known(config):
    labelled, sector = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]]), torch.tensor([[[True, False]], [[True, False]]])
    mixed = mix_batch({"labelled": labelled, "sector": sector})["labelled"]
    assert mixed[:, 0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("kind", "teaches"), [("gaussian", False), ("either", True), ("difference", True)])
def test_the_response_of_unlabelled_frames_follows_the_teachers_own_peaks(config, kind, teaches):
    from imkd_edge.training.models.teacher import LabelEncoder, Teacher

    dataset, settings = partly(config, [f"distill.response_weight={kind}", "distill.ramp=0"])
    batch = collate([dataset[8], dataset[9]], settings.spec)
    torch.manual_seed(0)
    teacher = Teacher(settings.spec, settings.teacher)
    torch.nn.init.zeros_(teacher.heatmap[1].bias)  # it finds objects everywhere
    stage = StudentStage(settings, teacher, LabelEncoder(settings.spec, settings.teacher))
    terms = stage.losses(batch, 1.0)
    assert (terms["distill_response"].item() > 0) == teaches
    assert terms["distill_fused"].item() > 0 and terms["distill_label"].item() == 0


def test_the_teacher_is_trained_on_the_labelled_frames_alone(config, tmp_path, monkeypatch):
    seen = {}
    init = Run.__init__

    def record(run, settings, seed, folder, stage, dataset, **options):
        init(run, settings, seed, folder, stage, dataset, **options)
        seen[stage.name] = [is_labelled(name) for name in dataset.names]

    monkeypatch.setattr(Run, "__init__", record)
    result = train(config, TrainOptions(out=tmp_path / "run", epochs=1, unlabelled="synth:7"))
    assert seen == {"teacher": [True] * 8, "labels": [True] * 8, "student": [True] * 8 + [False] * 8}
    assert result["frames"] == 16
    with pytest.raises(
        Error, match=r"data\.unlabelled is '', and the checkpoint has 'other'"
    ) as error:  # not without them
        train(config, TrainOptions(out=tmp_path / "run", epochs=1, resume=True))
    assert error.value.code == "E0602"


@pytest.fixture
def teacher(config, tmp_path):
    """Its checkpoint."""
    return save_untrained_teacher(config, tmp_path / "teacher")


def test_their_objects_are_none_their_own_or_those_that_the_teacher_finds(config, teacher):
    changes = ["data.unlabelled=synth:7", "data.unlabelled_score=0.45"]
    read = {}
    for truth in ("none", "own", "teacher"):
        settings = load_config(config, [*changes, f"data.unlabelled_truth={truth}"])
        dataset = with_unlabelled(open_dataset(settings, 0), teacher=teacher)
        dataset.lidar = True
        read[truth] = dataset[8], dataset.sample(8).truth
    own = open_source("synth:7", scenes=2, frames_per_scene=4, lidar=True)
    assert read["none"][1] is None and read["none"][0]["labelled"].eq(0).all()
    assert read["own"][1].labels == own[own.splits["train"][0]].truth.labels and read["own"][1].scores is None
    found = read["teacher"][1]
    assert len(found.scores) == len(found.boxes) > 0 and found.scores.min() >= 0.45
    assert set(found.labels) <= set(load_config(config).data.classes)
    for truth in ("own", "teacher"):
        assert read[truth][0]["labelled"].eq(1).all() and read[truth][0]["heatmap"].amax() == 1


def test_another_split_of_the_same_source_takes_part(config):
    settings = load_config(config, ["data.unlabelled_split=val", "data.options.scenes=8"])
    dataset = open_dataset(settings, 0)
    names = with_unlabelled(dataset).names
    assert names == dataset.names + [PREFIX + name for name in dataset.source.splits["val"]] and len(names) == 32
    assert with_unlabelled(dataset)[28]["labelled"].eq(0).all()


def test_a_teachers_objects_need_a_teacher_and_no_term(tmp_path):
    config = write_toy_config(tmp_path / "plain.toml")
    changes = ["data.unlabelled=synth:7", "data.unlabelled_truth=teacher"]
    with pytest.raises(Error, match="no teacher"):
        load_config(config, changes)
    load_config(config, [*changes, "distill.inherit=true", "teacher.channels=16"])
    load_config(config, [changes[0], "data.unlabelled_truth=own"])


def test_unlabelled_frames_without_a_term_are_refused(tmp_path):
    config = write_toy_config(tmp_path / "plain.toml")
    with pytest.raises(Error, match="no term that teaches") as error:
        program.train(config, TrainOptions(out=tmp_path / "run", unlabelled="synth:7"))
    assert error.value.code == "E0601" and not (tmp_path / "run").exists()


def test_a_student_sees_labelled_frames_as_often_as_asked_and_a_teacher_each_once(config, tmp_path, monkeypatch):
    orders = []
    monkeypatch.setattr(run, "epoch_order", lambda *arguments: orders.append(epoch_order(*arguments)) or orders[-1])
    changes = ["data.labelled_share=0.75"]
    train(config, TrainOptions(out=tmp_path / "run", changes=changes, unlabelled="synth:7"))
    teacher, student = orders[0], orders[-1]  # eight labelled frames, then eight others
    assert sorted(teacher) == list(range(8)) and len(student) == 16
    assert all(student.count(index) in (1, 2) for index in range(8))  # 1.5 times: 12 of 16 frames
    assert all(student.count(index) in (0, 1) for index in range(8, 16))


@pytest.mark.parametrize("share", ["1", "-0.1", "nan"])
def test_a_share_of_labelled_frames_is_from_zero_to_below_one(share, config):
    with pytest.raises(Error, match="labelled_share"):
        load_config(config, ["data.unlabelled=synth:7", f"data.labelled_share={share}"])
