"""The second form of the distillation: terms and weights by hand, what each map learns from, and what is deployed."""

import math
from dataclasses import replace

import pytest
import torch

from helpers import DISTIL, killed_after_the_first_save, write_toy_config
from imkd_edge.errors import Error
from imkd_edge.options import TrainOptions
from imkd_edge.training import distributed
from imkd_edge.training.cell_weights import (
    area_balance,
    fused_weight,
    peak_weight,
    radar_active,
    radar_weight,
    seen_map,
)
from imkd_edge.training.checkpoint import load_checkpoint, load_student
from imkd_edge.training.config import load_config
from imkd_edge.training.distill import Distiller, Standard
from imkd_edge.training.export import to_onnx
from imkd_edge.training.models.bev import BevNet
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.program import train
from imkd_edge.training.terms import box_difference, divergence, mean_divergence, quality_focal, relative_error

SECOND = (
    DISTIL.replace("[teacher]", "[augment]\ndrop_camera = 0.3\ndrop_radar = 0.3\nmix = 0.5\n[teacher]")
    + """levels = ["fused", "trunk", "pre-head"]
normalise = true
balance = true
background = 0.1
false_positives = 0.5
radar_active = true
response_weight = "either"
seen = true
groups = true
"""
)
LN3 = math.log(3)


def row(*values: float) -> torch.Tensor:  # (1,1,1,W)
    return torch.tensor(values).view(1, 1, 1, -1)


# Terms.


def test_a_divergence_is_that_of_two_bernoulli_distributions():
    torch.manual_seed(0)
    logits, t = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    p = torch.distributions.Bernoulli(logits=logits)
    expected = torch.distributions.kl_divergence(torch.distributions.Bernoulli(t), p)
    torch.testing.assert_close(divergence(logits, t), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(divergence(torch.logit(t), t), torch.zeros_like(t), rtol=0, atol=1e-6)


def test_the_response_without_labels_is_the_mean_divergence_over_the_weights():
    logits, t = row(0.0, 0.0, 0.0), row(1.0, 0.0, 0.5)  # divergences ln 2, ln 2, 0
    loss = mean_divergence(logits, t, row(3.0, 1.0, 4.0))
    assert loss.item() == pytest.approx(4 * math.log(2) / 8)


def test_the_radars_heat_map_counts_where_the_weight_is_and_is_divided_by_its_target():
    logits, t, weight = row(0.0, 0.0, 9.0), row(1.0, 1.0, 0.0), row(1.0, 1.0, 0.0)
    loss = quality_focal(logits, t, weight, (weight * t).sum())
    assert loss.item() == pytest.approx(2 * 0.25 * math.log(2) / 2)


TERMS = {
    "features": lambda s, t, w: relative_error(s, t, w[:, :1]),
    "quality": lambda s, t, w: quality_focal(s, t.sigmoid(), w, w.sum()),
    "divergence": lambda s, t, w: mean_divergence(s, t.sigmoid(), w),
    "box": lambda s, t, w: box_difference(s, t, w[:, 0], torch.zeros(w[:, 0].shape, dtype=torch.long)),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_zero_at_equality_and_has_no_gradient_into_target_and_weight(name):
    torch.manual_seed(1)
    student, target = torch.randn(2, 10, 4, 5, requires_grad=True), torch.randn(2, 10, 4, 5, requires_grad=True)
    weight = torch.rand(2, 10, 4, 5, requires_grad=True)
    assert TERMS[name](target, target, weight).item() == pytest.approx(0, abs=1e-6)
    TERMS[name](student, target, weight).backward()
    assert student.grad.abs().sum() > 0 and target.grad is None and weight.grad is None


@pytest.mark.parametrize("name", TERMS)
def test_a_term_does_not_depend_on_the_number_of_cells(name):
    torch.manual_seed(2)
    maps = [torch.randn(2, 10, 4, 5), torch.randn(2, 10, 4, 5), torch.rand(2, 10, 4, 5)]
    twice = [x.repeat(1, 1, 1, 2) for x in maps]
    assert TERMS[name](*twice).item() == pytest.approx(TERMS[name](*maps).item(), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_a_batch_split_over_processes_has_the_loss_of_the_whole(name, monkeypatch):
    torch.manual_seed(3)
    maps = [torch.randn(4, 10, 4, 5), torch.randn(4, 10, 4, 5), torch.rand(4, 10, 4, 5)]
    whole, totals = TERMS[name](*maps).item(), []
    halves = [[x[:1] for x in maps], [x[1:] for x in maps]]
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "_sum", lambda value: totals.append(value) or value)
    for half in halves:
        TERMS[name](*half)
    monkeypatch.setattr(distributed, "_sum", lambda value: sum(totals))
    split = [TERMS[name](*half).item() for half in halves]
    assert sum(split) / 2 == pytest.approx(whole, rel=1e-5)


# Weights of cells.


def objects(label, log_length, log_width):
    box = torch.full((1, 10, 1, len(label)), math.nan)
    box[0, 3, 0], box[0, 4, 0] = torch.tensor(log_length), torch.tensor(log_width)
    return {"label": torch.tensor(label).view(1, 1, -1), "box": box}


def test_small_objects_weigh_more_and_cells_without_one_weigh_one():
    car, nan = (math.log(4.5), math.log(1.8)), math.nan
    batch = objects([0, 1, 2, 0, -1], [car[0], *[car[0] + x for x in (LN3, 2.0, -9.0)], nan], [car[1]] * 4 + [nan])
    expected = [1.0, 3**-0.5, 0.5, 2.0, 1.0]  # a third root of three times the area; limits of 0.5 and 2
    assert area_balance(batch)[0, 0, 0].tolist() == pytest.approx(expected)


def test_the_fused_weight_by_hand():
    batch = objects([0, -1, -1, -1], [math.log(9.0)] * 4, [math.log(3.6)] * 4)  # four times a car: half the weight
    intensity, score = row(0.8, 0.8, 0.0, 0.4), row(0.9, 0.05, 0.5, 0.5)
    weight = fused_weight(intensity, batch, score, True, 0.25, 0.5)
    assert weight[0, 0, 0].tolist() == pytest.approx([0.4, 0.2, 0.5, 0.6])
    first = fused_weight(intensity, batch, score, False, 1.0, 0.0)
    assert torch.equal(first, intensity)


def test_the_radar_is_active_two_cells_around_a_return():
    occupied = torch.zeros(1, 1, 18, 18)
    occupied[0, 0, 8, 9] = 1  # cell 4, 4 of the coarser grid
    active = radar_active(occupied, (9, 9))[0, 0]
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = 1
    assert torch.equal(active, expected)


def test_empty_cells_together_weigh_a_share_of_those_with_lidar():
    intensity, where = row(0.3, 0.0, 0.0, 0.0, 0.0, 0.9), row(1.0, 1.0, 1.0, 1.0, 0.0, 1.0)
    weight = radar_weight(intensity, where, 0.06, balanced=True)[0, 0, 0].tolist()
    assert weight == pytest.approx([1, 0.04, 0.04, 0.04, 0, 1]) and sum(weight[1:4]) == pytest.approx(0.06 * 2)
    assert radar_weight(intensity, where, 0.1, balanced=False)[0, 0, 0].tolist() == pytest.approx([1, *[0.1] * 3, 0, 1])


def test_peaks_weigh_by_the_surer_of_both_or_by_their_difference():
    student, teacher = row(0.0, LN3, 0.0), row(LN3, 0.0, -5.0)  # s 0.5 0.75 0.5, t 0.75 0.5 0.007
    assert peak_weight("either", student, teacher)[0, 0, 0].tolist() == pytest.approx([0.75, 0.75, 0])
    difference = peak_weight("difference", student, teacher)[0, 0, 0].tolist()
    assert difference == pytest.approx([0.25, 0.25, 0.5 - 1 / (1 + math.exp(5))])


def test_a_sensor_that_an_example_lacks_takes_its_side_of_a_mixed_example_out():
    batch = {"seen": torch.tensor([[1.0, 1.0], [0.0, 1.0]])}
    assert seen_map(batch, [0, 1], (1, 2)).flatten().tolist() == [1, 1, 0, 0]
    assert seen_map(batch, [1], (1, 2)).flatten().tolist() == [1, 1, 1, 1]
    batch["sector"] = torch.tensor([[[True, False]], [[True, False]]])
    assert seen_map(batch, [0, 1], (1, 2)).flatten().tolist() == [1, 0, 0, 1]


# Standardised maps.


def test_a_standard_map_has_mean_0_and_deviation_1_whatever_the_teachers_scale():
    torch.manual_seed(4)
    maps = [torch.randn(2, 3, 4, 5) for _ in range(3)]
    maps = [torch.cat([x, torch.full((2, 1, 4, 5), 7.0)], 1) for x in maps]  # and a channel that is constant
    standards = Standard(4), Standard(4)
    for standard, scale in zip(standards, (1.0, 30.0)):
        for x in maps:
            standard.add(scale * x + scale)
        standard.fix()
    ours, scaled = standards[0](torch.cat(maps) + 1), standards[1](30 * torch.cat(maps) + 30)
    torch.testing.assert_close(ours, scaled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    assert ours.var((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-4)


# What learns from what.


def distiller(**changes):
    """A distiller of the ablation's model, outputs of a student that need gradients, and a batch."""
    torch.manual_seed(5)
    config = load_config("astyx-ablation")
    off = {"radar": 0.0, "fused": 0.0, "label": 0.0, "response": 0.0, "ramp": 0.0}
    config = replace(config, distill=replace(config.distill, **(off | changes)))
    spec = config.spec
    height, width, fine = spec.grid.height(), spec.grid.width(), round(spec.grid.cell / spec.radar.cell)
    teacher = Teacher(spec, config.teacher)
    torch.nn.init.zeros_(teacher.heatmap[1].bias)  # scores about 0.5: it finds objects
    result = Distiller(config, teacher, LabelEncoder(spec, config.teacher))
    batch = {
        "lidar_grid": torch.rand(2, 14, fine * height, fine * width),
        "radar_grid": torch.rand(2, len(spec.radar.features), fine * height, fine * width),
        "heatmap": torch.rand(2, len(spec.head.classes), height, width),
        "box": torch.randn(2, 10, height, width),
        "weight": torch.ones(2, height, width),
        "unlit": torch.zeros(2, height, width),
        "label": torch.zeros(2, height, width, dtype=torch.long),
        "group": torch.zeros(2, height, width, dtype=torch.long),
        "seen": torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
    }
    c = config.model.bev_channels
    maps = {"f_fused": (c, 1), "f_middle": (2 * c, 2), "f_coarse": (4 * c, 4), "f_head": (c, 1)}
    maps |= {"f_rad": (config.model.sensor_channels, 1), "heatmap": (len(spec.head.classes), 1)}
    maps |= {"box": (10 * spec.head.groups(), 1)}
    student = {
        name: torch.randn(2, channels, height // stride, width // stride, requires_grad=True)
        for name, (channels, stride) in maps.items()
    }
    return result, student, batch


def slopes(changes):
    """Map of the student -> sum of its gradient's size per example and channel, of those with one."""
    module, student, batch = distiller(**changes)
    module.eval()  # in training, batch norms mix examples
    sum(module(student, batch, 9.0).values()).backward()
    return {name: x.grad.abs().sum((2, 3)) for name, x in student.items() if x.grad is not None}


@pytest.mark.parametrize(
    ("changes", "maps"),
    [
        ({"fused": 1.0}, {"f_fused"}),
        ({"fused": 1.0, "levels": ["trunk"]}, {"f_middle", "f_coarse"}),
        ({"fused": 1.0, "levels": ["pre-head"], "normalise": True}, {"f_head"}),
        ({"radar": 1.0, "radar_active": True}, {"f_rad"}),
        ({"radar": 1.0, "radar_target": "heatmap"}, {"f_rad"}),
        ({"label": 1.0}, {"f_fused"}),
        ({"response": 1.0, "response_weight": "difference"}, {"heatmap", "box"}),
    ],
)
def test_a_term_teaches_the_maps_of_its_level_alone(changes, maps):
    found = slopes(changes)
    assert set(found) == maps and all(slope.sum() > 0 for slope in found.values())


def test_groups_of_channels_have_a_master_each():
    half = load_config("astyx-ablation").model.bev_channels // 2
    lidar = slopes({"fused": 1.0, "groups": True})["f_fused"].sum(0)
    label = slopes({"label": 1.0, "groups": True})["f_fused"].sum(0)
    assert (lidar[:half] > 0).all() and (lidar[half:] == 0).all()
    assert (label[:half] == 0).all() and (label[half:] > 0).all()


def test_an_example_without_a_camera_teaches_the_radar_alone():
    assert all(slope[1].sum() > 0 for slope in slopes({"fused": 1.0, "radar": 1.0, "response": 1.0}).values())
    found = slopes({"fused": 1.0, "radar": 1.0, "response": 1.0, "seen": True})
    assert {name for name, slope in found.items() if slope[1].sum() > 0} == {"f_rad"}
    assert all(slope[0].sum() > 0 for slope in found.values())


@pytest.mark.parametrize("form", [{}, {"normalise": True, "levels": ["fused", "trunk", "pre-head"]}])
def test_a_step_leaves_the_teacher_as_it_is_to_the_bit(form):
    module, student, batch = distiller(radar=1.0, fused=1.0, label=1.0, response=1.0, **form)
    module.measure([batch])
    frozen = {
        name: value.clone()
        for name, value in module.state_dict().items()
        if name.startswith(("teacher.", "labels.", "standard."))
    }
    module.train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)
    sum(module(student, batch, 9.0).values()).backward()
    optimizer.step()
    assert not module.teacher.training and not module.labels.training
    after = module.state_dict()
    assert frozen and all(torch.equal(after[name], value) for name, value in frozen.items())
    assert any("running_mean" in name for name in frozen)


# The student.


def networks(**changes):
    torch.manual_seed(6)
    config = load_config("astyx-taught")
    model = replace(config.model, **changes)
    teacher = Teacher(config.spec, config.teacher).eval()
    for norm in teacher.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.bias, 0, 1)
    bev = BevNet(config.spec, model).eval()
    bev.inherit(teacher)
    return config.spec, teacher, bev


def test_dense_blocks_start_as_the_identity_behind_the_teachers_encoder():
    spec, teacher, bev = networks(densify=2)
    grid = torch.rand(1, len(spec.radar.features), spec.radar_height(), spec.radar_width())
    assert torch.equal(bev.radar(grid), teacher.radar(grid)) and len(bev.radar.densify) == 2


def test_a_gated_sum_adds_the_gated_maps():
    spec, teacher, bev = networks(fusion="sum", gates=True)
    assert torch.equal(bev.fuse[0].weight, teacher.join[0].weight[:, 32:])
    camera = torch.rand(1, spec.context_channels + 1, spec.grid.height(), spec.grid.width())
    grid = torch.rand(1, len(spec.radar.features), spec.radar_height(), spec.radar_width())
    maps = bev.features(camera, grid)
    expected = bev.add_position(bev.fuse(maps["i_cam"] * bev.camera(camera) + maps["i_rad"] * bev.radar(grid)))
    torch.testing.assert_close(maps["f_fused"], expected)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs of the second form."""
    folder = tmp_path_factory.mktemp("second")
    config = write_toy_config(folder / "toy.toml", SECOND)
    config.write_text(config.read_text().replace("label_epochs = 2", "label_epochs = 1"))
    train(config, TrainOptions(out=folder / "run", seed=5, epochs=2))
    return config, folder / "run"


def test_a_resumed_run_is_bit_equal(run, tmp_path):
    config, whole = run
    options = TrainOptions(out=tmp_path, seed=5, epochs=2, teacher=whole)
    with killed_after_the_first_save():
        train(config, options)
    train(config, replace(options, resume=True))
    ours, theirs = (load_checkpoint(folder / "checkpoint.pt") for folder in (tmp_path, whole))
    for part in ("trained", "ema"):
        assert ours[part].keys() == theirs[part].keys()
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), f"{part} {key}"
    measured = [key for key in theirs["trained"] if key.startswith("distiller.standard.")]
    assert len(measured) == 10  # mean and deviation of four maps and of the labels'
    assert all(theirs["trained"][key].unique().numel() > 1 for key in measured)


def test_nothing_of_the_terms_is_exported(run):
    import onnx

    student, settings, _ = load_student(run[1] / "checkpoint.pt")
    plain = Student(settings.spec, settings.model).eval()
    for ours, theirs in zip(to_onnx(student, settings.spec), to_onnx(plain, settings.spec)):
        ours, theirs = (onnx.load_from_string(model).graph for model in (ours, theirs))
        assert [node.op_type for node in ours.node] == [node.op_type for node in theirs.node]
        assert [output.name for output in ours.output] == [output.name for output in theirs.output]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ('levels = ["head"]', "choose one of: fused, trunk, pre-head"),
        ("levels = []", "choose one of"),
        ("levels = [[]]", "choose one of"),
        ('response_weight = "score"', "choose one of: gaussian"),
        ('levels = ["trunk"]\ngroups = true', "groups splits"),
    ],
)
def test_a_bad_choice_is_refused(change, problem, tmp_path):
    path = write_toy_config(tmp_path / "toy.toml", f"[distill]\n{change}\n")
    with pytest.raises(Error, match=problem) as error:
        load_config(path)
    assert error.value.code == "E0601"
