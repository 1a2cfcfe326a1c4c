"""Teacher, label encoder, student: trained in turn, the earlier ones frozen, only the student exported."""

import json
import shutil
from dataclasses import replace

import onnx
import pytest
import torch

from helpers import DISTIL, write_toy_config
from imkd_edge.bundle import Bundle
from imkd_edge.errors import Error
from imkd_edge.evaluation.conditions import no_radar
from imkd_edge.options import ConvertOptions, EvalOptions, TrainOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.convert import convert
from imkd_edge.training.checkpoint import load_checkpoint, load_student, load_teacher
from imkd_edge.training.config import load_config
from imkd_edge.training.evaluate import CheckpointDetector, evaluate_checkpoint
from imkd_edge.training.export import export, to_onnx
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import Teacher
from imkd_edge.training.program import train
from imkd_edge.training.run import Run
from imkd_edge.training.stages import StudentStage

STAGES = ("teacher", "labels", ".")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_toy_config(tmp_path_factory.mktemp("config") / "toy.toml", DISTIL)


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    train(config, TrainOptions(out=folder, seed=5, epochs=2))
    return folder


def test_three_stages_write_three_checkpoints_and_logs(folder):
    for stage, name in zip(STAGES, ("teacher", "labels", "student")):
        assert load_checkpoint(folder / stage / "checkpoint.pt")["stage"] == name
        lines = [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert lines[1]["losses"]["box"] < lines[0]["losses"]["box"]  # the total grows with the ramp
    assert {f"distill_{k}" for k in ("radar", "fused", "label", "response")} <= set(lines[0]["losses"])


def test_the_distillation_ramps_up_over_the_first_epoch(config, tmp_path, folder):
    steps = []

    losses = StudentStage.losses

    def record(stage, batch, epoch):
        terms = losses(stage, batch, epoch)
        steps.append((epoch, {k: v.item() for k, v in terms.items() if k.startswith("distill")}))
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudentStage, "losses", record)
        train(config, TrainOptions(out=tmp_path, seed=5, epochs=1, teacher=folder))
    assert steps[0][0] == 0 and all(value == 0 for value in steps[0][1].values())
    assert all(value > 0 for value in steps[-1][1].values())


def test_later_stages_do_not_change_the_teacher(folder):
    teacher = load_checkpoint(folder / "teacher" / "checkpoint.pt")["ema"]
    for stage, prefix in (("labels", "teacher."), (".", "distiller.teacher.")):
        weights = load_checkpoint(folder / stage / "checkpoint.pt")["trained"]
        for key, value in teacher.items():
            assert torch.equal(weights[prefix + key], value), key


def test_a_student_that_inherits_starts_with_the_teachers_trunk_and_head(config, tmp_path, folder):
    path = write_toy_config(tmp_path / "inherit.toml", DISTIL + "inherit = true\n")
    with pytest.MonkeyPatch.context() as patch:  # no step is taken
        patch.setattr("imkd_edge.training.run.train_one_epoch", lambda *_, **__: {"total": 0.0})
        train(path, TrainOptions(out=tmp_path, seed=5, epochs=1, teacher=folder))
    teacher = load_checkpoint(folder / "teacher" / "checkpoint.pt")["ema"]
    student = load_checkpoint(tmp_path / "checkpoint.pt")
    keys = [key for key in teacher if key.startswith(("trunk.", "heatmap.", "box.", "position_weight."))]
    assert len(keys) > 50
    for key in keys:
        assert torch.equal(student["ema"][f"bev.{key}"], teacher[key])
        assert torch.equal(student["trained"][f"network.bev.{key}"], teacher[key])
    adaptors = [key for key in student["trained"] if key.startswith(("distiller.fused.", "distiller.label."))]
    assert not adaptors


def test_a_teacher_is_not_trained_on_frames_without_lidar(tmp_path):
    path = write_toy_config(tmp_path / "no_lidar.toml", DISTIL.replace("lidar = true", "lidar = false"))
    with pytest.raises(Error, match="no LiDAR return within the grid") as error:
        train(path, TrainOptions(out=tmp_path / "run", seed=5, epochs=1))
    assert error.value.code == "E0604" and not (tmp_path / "run" / "teacher" / "checkpoint.pt").exists()


def test_a_teacher_of_other_frames_or_labels_and_an_unfinished_one_are_refused(config, folder, tmp_path):
    settings = load_config(config)
    for change in ({"split": "val"}, {"classes": {**settings.data.classes, "truck": "car", "van": "truck"}}):
        with pytest.raises(Error, match="no teacher of this model"):
            load_teacher(folder, replace(settings, data=replace(settings.data, **change)))
    shutil.copytree(folder, tmp_path / "unfinished")
    path = tmp_path / "unfinished" / "teacher" / "checkpoint.pt"
    torch.save({**load_checkpoint(path), "epoch": 1, "finished": False}, path)
    with pytest.raises(Error, match="has 1 of 2 epochs") as error:
        load_teacher(tmp_path / "unfinished", settings)
    assert error.value.code == "E0602"


def test_a_teacher_for_a_student_that_does_not_use_it_is_refused(folder, tmp_path):
    with pytest.raises(Error, match="uses none"):
        train(write_toy_config(tmp_path / "plain.toml"), TrainOptions(out=tmp_path / "run", teacher=folder))


def test_a_student_of_one_sensor_is_evaluated_with_it_alone_and_not_exported(folder, tmp_path):
    state = load_checkpoint(folder / "checkpoint.pt")
    config = {**state["config"], "data": {**state["config"]["data"], "sensors": "camera"}}
    torch.save({**state, "config": config}, tmp_path / "one.pt")
    sample = open_source("synth", scenes=2, frames_per_scene=4)["s000-f002"]
    both, camera = (CheckpointDetector(path, 0.01) for path in (folder / "checkpoint.pt", tmp_path / "one.pt"))
    expected = both.run_student(no_radar(sample))["heatmap"]
    assert torch.equal(camera.run_student(sample)["heatmap"], expected)
    assert not torch.equal(both.run_student(sample)["heatmap"], expected)
    with pytest.raises(Error, match="trained with the camera alone") as error:
        export(tmp_path / "one.pt", tmp_path / "one.imkd")
    assert error.value.code == "E0601"


def test_without_a_label_term_no_label_encoder_is_trained(tmp_path):
    text = DISTIL.split("[distill]")[0].replace("epochs = 2", "epochs = 1") + "[distill]\ninherit = true\n"
    train(write_toy_config(tmp_path / "x.toml", text), TrainOptions(out=tmp_path / "run", seed=5, epochs=1))
    assert (tmp_path / "run" / "teacher" / "checkpoint.pt").is_file() and not (tmp_path / "run" / "labels").exists()
    weights = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["trained"]
    assert not any(name.startswith(("distiller.", "initialisers.")) for name in weights)
    losses = json.loads((tmp_path / "run" / "log.jsonl").read_text())["losses"]
    assert not any(name.startswith("distill_") for name in losses)


def test_a_student_of_another_width_cannot_inherit(tmp_path):
    path = write_toy_config(tmp_path / "x.toml", DISTIL.replace("channels = 16", "channels = 24") + "inherit = true\n")
    with pytest.raises(Error, match="a teacher of 24 channels, a fused map of 16") as error:
        load_config(path)
    assert error.value.code == "E0601"


def test_a_distillation_resumed_at_any_stage_is_bit_equal(config, folder, tmp_path):
    save, count = Run.save, 0

    def save_then_die(run):
        nonlocal count
        save(run)
        count += 1
        if count in (1, 3, 5):  # in the middle of each stage
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", save_then_die)
        for attempt in range(3):
            with pytest.raises(KeyboardInterrupt):
                train(config, TrainOptions(out=tmp_path, seed=5, epochs=2, resume=attempt > 0))
        train(config, TrainOptions(out=tmp_path, seed=5, epochs=2, resume=True))
    for stage in STAGES:
        ours, theirs = (load_checkpoint(path / stage / "checkpoint.pt") for path in (tmp_path, folder))
        for part in ("trained", "ema"):
            for key, value in theirs[part].items():
                assert torch.equal(ours[part][key], value), f"{stage} {part} {key}"


def shape(model: bytes):
    """Operators in order, and the sizes of the weights; not of biases, since the exporter drops those that are 0."""
    graph = onnx.load_from_string(model).graph
    return [node.op_type for node in graph.node], {tuple(w.dims) for w in graph.initializer if len(w.dims) > 1}


def test_nothing_of_the_teacher_is_exported(folder):
    student, settings, _ = load_student(folder / "checkpoint.pt")
    plain = Student(settings.spec, settings.model).eval()
    for ours, theirs in zip(to_onnx(student, settings.spec), to_onnx(plain, settings.spec)):
        assert shape(ours) == shape(theirs)


def test_a_teacher_of_another_model_is_refused(config, folder, tmp_path):
    other = write_toy_config(tmp_path / "other.toml", DISTIL.replace("channels = 16", "channels = 8"))
    with pytest.raises(Error, match="teacher of this model") as error:
        load_teacher(folder, load_config(other))
    assert error.value.code == "E0602"
    with pytest.raises(Error, match="'teacher', not 'student'") as error:
        load_student(folder / "teacher" / "checkpoint.pt")
    assert error.value.code == "E0602"


def test_a_teacher_serves_students_with_history_but_none_on_another_grid(config, folder, tmp_path):
    text = config.read_text()
    history = "[spec.history]\nframes = 1\ninterval = 0.5\nchannels = 16\n"
    spec = "[spec]\nversion = 4\nsegmentation = false\n" + history + "[spec.image]"
    (tmp_path / "past.toml").write_text(text.replace("[spec.image]", spec))
    assert load_teacher(folder, load_config(tmp_path / "past.toml"))[0] is not None
    (tmp_path / "fine.toml").write_text(text.replace("cell = 3.2", "cell = 1.6"))
    with pytest.raises(Error, match="teacher of this model"):
        load_teacher(folder, load_config(tmp_path / "fine.toml"))


def test_a_teacher_that_reads_radar_learns_from_it_and_serves_no_model_with_other_radar(tmp_path):
    config = write_toy_config(tmp_path / "radar.toml", DISTIL.replace("[teacher]", "[teacher]\nradar = true"))
    train(config, TrainOptions(out=tmp_path / "run", epochs=1))
    settings = load_config(config)
    teacher, _ = load_teacher(tmp_path / "run", settings)
    start = Teacher(settings.spec, settings.teacher).state_dict()
    weights = {key: value for key, value in teacher.state_dict().items() if key.startswith("radar.net.0.0")}
    assert any(not torch.equal(value, start[key]) for key, value in weights.items())
    detect = CheckpointDetector(tmp_path / "run" / "teacher" / "checkpoint.pt", 0.01)
    sample = open_source("synth", lidar=True)["s000-f000"]
    heatmap, without_radar = (detect.run_teacher(s, detect.lidar)["heatmap"] for s in (sample, no_radar(sample)))
    assert not torch.equal(heatmap, without_radar)
    (tmp_path / "other.toml").write_text(config.read_text().replace("[spec.radar]", "[spec.radar]\nmax_points = 999"))
    with pytest.raises(Error, match="teacher of this model"):
        load_teacher(tmp_path / "run", load_config(tmp_path / "other.toml"))


def test_a_contract_measured_on_a_folder_at_export_has_its_labels(folder, tmp_path):
    """Readers of folders leave labels out where detection alone is wanted."""
    convert("synth", tmp_path / "drive", ConvertOptions(limit=2))
    export(folder / "checkpoint.pt", tmp_path / "one.imkd", data=str(tmp_path / "drive"))
    bundle = Bundle.load(tmp_path / "one.imkd")
    assert bundle.contract.classes[0].objects > 0 and bundle.spec.head.classes[0].max_size


def test_a_checkpoint_discards_the_boxes_that_its_bundle_discards(folder, tmp_path):
    """Limits of size follow from the training's labels, in the evaluation of a checkpoint too."""
    export(folder / "checkpoint.pt", tmp_path / "one.imkd")
    classes = Bundle.load(tmp_path / "one.imkd").spec.head.classes
    detect = CheckpointDetector(folder / "checkpoint.pt", 0.01)
    limits = [(item.min_size, item.max_size) for item in classes]
    assert all(low and high for low, high in limits)
    assert [(item.min_size, item.max_size) for item in detect.decode_spec.head.classes] == limits


@pytest.mark.parametrize("stage", ["teacher", "."])
def test_a_checkpoint_is_evaluated_without_export(folder, stage):
    pytest.importorskip("nuscenes")
    source = {"scenes": 8, "frames_per_scene": 2, "lidar": True}
    checkpoint = folder / stage / "checkpoint.pt"
    result = evaluate_checkpoint(checkpoint, "synth", EvalOptions(limit=2), source_options=source)
    assert {"mAP", "NDS"} <= set(result["metrics"]) and result["frames"] == 2


@pytest.mark.parametrize("key, value", [("intensity", "brightness"), ("label_mask", "fuzzy")])
def test_an_unknown_choice_is_refused(tmp_path, key, value):
    path = write_toy_config(tmp_path / "x.toml", f'[distill]\n{key} = "{value}"\n')
    with pytest.raises(Error, match="choose one of") as error:
        load_config(path)
    assert error.value.code == "E0601"


def test_a_config_that_is_its_own_base_is_refused(tmp_path):
    path = tmp_path / "loop.toml"
    path.write_text(f'base = "{path}"\n')
    with pytest.raises(Error, match="its own base") as error:
        load_config(path)
    assert error.value.code == "E0601"


def test_a_base_that_is_no_string_is_refused(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text("base = 3\n")
    with pytest.raises(Error, match="base is 3") as error:
        load_config(path)
    assert error.value.code == "E0601"
