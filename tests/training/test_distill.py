"""Each term of the distillation against hand-computed cases; targets have no gradient."""

import math
from dataclasses import replace

import pytest
import torch

from imkd_edge.training import lidar
from imkd_edge.training.cell_weights import intensity_map, labelled_score, log_reflectance, near, radar_weight
from imkd_edge.training.config import load_config
from imkd_edge.training.distill import Distiller
from imkd_edge.training.models.teacher import LabelEncoder, Teacher
from imkd_edge.training.terms import box_difference, quality_focal, relative_error

LN2 = math.log(2)


def response_heatmap(logits, teacher_logits, gaussian, drop):
    """The first form's: t is the teacher's score x the Gaussian, divided by the number of objects."""
    return quality_focal(logits, teacher_logits.sigmoid() * gaussian, 1 - drop[:, None], gaussian.eq(1).sum())


def response_box(box, teacher_box, teacher_logits, batch):
    """The first form's: the weight is the teacher's score of the object's class x the Gaussian, 0 if unlit."""
    weight = labelled_score(teacher_logits, batch) * (1 - batch["unlit"])
    return box_difference(box, teacher_box, weight, batch["group"])


def row(*values: float) -> torch.Tensor:  # (1,1,1,W)
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.fixture
def limited():
    """A distiller with a reach of 40 m, outputs of a student, and a batch with targets in every cell."""
    torch.manual_seed(4)
    config = load_config("astyx-ablation")
    weights = {"radar": 1.0, "fused": 1.0, "label": 1.0, "response": 1.0, "reach": 40.0, "intensity": "uniform"}
    config = replace(config, distill=replace(config.distill, **weights))
    spec = config.spec
    size, fine = (spec.grid.height(), spec.grid.width()), round(spec.grid.cell / spec.radar.cell)
    distiller = Distiller(config, Teacher(spec, config.teacher), LabelEncoder(spec, config.teacher))
    distiller.eval()  # in training, batch norms mix cells
    zeros = torch.zeros(1, *size, dtype=torch.long)
    batch = {
        "lidar_grid": torch.rand(1, lidar.CHANNELS, fine * size[0], fine * size[1]),
        "radar_grid": torch.rand(1, len(spec.radar.features), fine * size[0], fine * size[1]),
        "heatmap": torch.rand(1, len(spec.head.classes), *size),
        "box": torch.randn(1, 10, *size),
        "weight": torch.ones(1, *size),
        "unlit": torch.zeros(1, *size),
        "label": zeros,
        "group": zeros,
    }
    channels = {
        "f_rad": config.model.sensor_channels,
        "f_fused": config.model.bev_channels,
        "heatmap": len(spec.head.classes),
        "box": 10 * spec.head.groups(),
    }
    student = {name: torch.randn(1, c, *size, requires_grad=True) for name, c in channels.items()}
    return distiller, student, batch, distiller.near[0, 0]


def test_radar_guidance_scales_the_target_by_the_intensity():
    student, f_lidar = row(1.0, 2.0, 5.0).repeat(1, 2, 1, 1), row(4.0, 4.0, 4.0).repeat(1, 2, 1, 1)
    intensity, everywhere = row(0.5, 1.0, 0.0), torch.ones(1, 1, 1, 3)
    # targets 2, 4, 0 of energies 4, 16, 0; errors 1, 4, 25; the empty cell counts with 0 or 0.1
    for empty, error in ((0.0, 1 + 4), (0.1, 1 + 4 + 2.5)):
        weight = radar_weight(intensity, everywhere, empty, balanced=False)
        assert relative_error(student, intensity * f_lidar, weight).item() == pytest.approx(error / 20)


def test_fused_features_are_weighted_by_the_intensity_and_not_scaled():
    student, f_lidar = row(1.0, 2.0, 5.0).repeat(1, 2, 1, 1), row(4.0, 4.0, 4.0).repeat(1, 2, 1, 1)
    # errors 9, 4, 1; energy 16 each
    assert relative_error(student, f_lidar, row(0.5, 1.0, 0.0)).item() == pytest.approx((4.5 + 4) / 24)
    assert relative_error(student, f_lidar, row(0.5, 0.0, 0.0)).item() == pytest.approx(4.5 / 8)
    assert relative_error(student, f_lidar, row(0.05, 0.0, 0.0)).item() == pytest.approx(0.45)  # divided by 1 at least


def test_features_of_another_scale_weigh_the_same():
    torch.manual_seed(3)
    student, target, weight = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    ours = relative_error(student, target, weight).item()
    assert relative_error(10 * student, 10 * target, weight).item() == pytest.approx(ours, rel=1e-5)


def test_a_reach_selects_the_cells_whose_centre_lies_within_it():
    spec = load_config("astyx-ablation").spec
    mask = near(spec, 40.0)[0, 0]
    height, width = mask.shape
    assert (height, width) == (spec.grid.height(), spec.grid.width())
    middle_row, middle = height // 2, width // 2
    for row_index, column in (
        (0, 0), (middle_row, 0), (middle_row, width - 1), (middle_row, middle), (height - 1, middle)
    ):  # fmt: skip
        x = spec.grid.x_min + (column + 0.5) * spec.grid.cell
        y = spec.grid.y_min + (row_index + 0.5) * spec.grid.cell
        assert mask[row_index, column] == (x * x + y * y <= 1600)
    assert 0 < mask.mean() < 1 and near(spec, 0.0).eq(1).all()


def test_no_gradient_comes_from_beyond_the_reach(limited):
    distiller, student, batch, mask = limited
    sum(distiller(student, batch, 9.0).values()).backward()
    for name in ("f_rad", "f_fused", "heatmap", "box"):
        slope = student[name].grad.abs().sum((0, 1))
        assert slope[mask == 1].sum() > 0 and slope[mask == 0].sum() == 0, name


def test_response_of_a_student_with_logits_of_zero():
    teacher = torch.tensor([0.0, 0.0, 0.0]).view(1, 1, 1, 3)  # t = 0.5 x Gaussian
    gaussian, none = row(1.0, 0.0, 1.0), torch.zeros(1, 1, 3)
    logits = torch.zeros(1, 1, 1, 3)
    # agreement at the centres costs nothing; t = 0 against p = 0.5: 0.25 ln 2; two objects
    assert response_heatmap(logits, teacher, gaussian, none).item() == pytest.approx(0.25 * LN2 / 2)


def test_response_drops_objects_that_the_teacher_cannot_see():
    teacher, gaussian, logits = row(-9.0, -9.0), row(1.0, 1.0), row(2.0, 2.0)
    one = response_heatmap(logits, teacher, gaussian, torch.tensor([[[0.0, 1.0]]]))
    assert 2 * one.item() == pytest.approx(response_heatmap(logits, teacher, gaussian, torch.zeros(1, 1, 2)).item())
    assert response_heatmap(logits, teacher, gaussian, torch.ones(1, 1, 2)).item() == 0


def test_response_agrees_with_the_bernoulli_divergence_of_torch():
    torch.manual_seed(0)
    logits, teacher, gaussian = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    gaussian[0, 0, 0, 0] = 1
    t, p = torch.distributions.Bernoulli(teacher.sigmoid() * gaussian), torch.distributions.Bernoulli(logits.sigmoid())
    expected = ((t.probs - p.probs) ** 2 * torch.distributions.kl_divergence(t, p)).sum()
    loss = response_heatmap(logits, teacher, gaussian, torch.zeros(2, 4, 5))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def box_batch(weight, unlit, label=0, group=0):
    weight, unlit = torch.tensor(weight).view(1, 1, -1), torch.tensor(unlit).view(1, 1, -1)
    zeros = torch.zeros_like(weight, dtype=torch.long)
    return {"weight": weight, "unlit": unlit, "label": zeros + label, "group": zeros + group}


def test_box_response_weights_lit_cells_by_the_teachers_score():
    box, teacher = torch.zeros(1, 10, 1, 3), torch.ones(1, 10, 1, 3)
    teacher[..., 1] = 2.0
    logits = row(0.0, math.log(3), 0.0)  # scores 0.5, 0.75
    batch = box_batch([1.0, 0.5, 1.0], [0.0, 0.0, 1.0])
    # eight channels, so errors of 8 and 16; weights 0.5 x 1 and 0.75 x 0.5, their sum is below 1
    assert response_box(box, teacher, logits, batch).item() == pytest.approx(0.5 * 8 + 0.375 * 16)


def test_box_response_reads_the_group_and_class_of_the_cell():
    box, teacher = torch.zeros(1, 20, 1, 1), torch.zeros(1, 20, 1, 1)
    teacher[:, 10:] = 1.0
    logits = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1)
    assert response_box(box, teacher, logits, box_batch([1.0], [0.0], label=1, group=1)).item() == pytest.approx(8)
    other_class = response_box(box, teacher, logits, box_batch([1.0], [0.0], label=0, group=1))
    assert other_class.item() == pytest.approx(0, abs=1e-12)
    assert response_box(box, teacher, logits, box_batch([0.0], [0.0])).item() == 0


def test_box_response_ignores_the_teachers_velocity():
    box, teacher = torch.zeros(1, 10, 1, 1, requires_grad=True), torch.ones(1, 10, 1, 1)
    response_box(box, teacher, row(5.0), box_batch([1.0], [0.0])).backward()
    assert (box.grad[0, :8] != 0).all() and (box.grad[0, 8:] == 0).all()


TERMS = {
    "features": relative_error,
    "heatmap": lambda s, t, w: response_heatmap(s, t, w, torch.zeros(2, 4, 5)),
    "box": lambda s, t, w: response_box(s, t, w, {k: v.expand(2, 4, 5) for k, v in box_batch([1.0], [0.0]).items()}),
}


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_goes_into_the_student_alone(name):
    torch.manual_seed(1)
    student, target = torch.randn(2, 10, 4, 5, requires_grad=True), torch.randn(2, 10, 4, 5, requires_grad=True)
    weight = torch.rand(2, 1 if name == "features" else 10, 4, 5, requires_grad=True)
    TERMS[name](student, target, weight).backward()
    assert student.grad.abs().sum() > 0
    assert target.grad is None and weight.grad is None


def test_every_term_is_zero_for_equal_outputs_of_student_and_teacher():
    torch.manual_seed(2)
    target, ones = torch.randn(2, 10, 4, 5), torch.ones(2, 1, 4, 5)
    assert relative_error(target, target, ones).item() == 0
    heatmap = response_heatmap(target, target, torch.ones_like(target), torch.zeros(2, 4, 5))
    assert heatmap.item() == pytest.approx(0, abs=1e-7)
    batch = {k: v.expand(2, 4, 5) for k, v in box_batch([1.0], [0.0]).items()}
    assert response_box(target, target, target, batch).item() == 0


def intensity(kind, grid, feature, scale=1.0) -> torch.Tensor:  # first row
    return intensity_map(kind, grid, feature, torch.tensor(scale))[0, 0, 0]


def lidar_grid(reflectance, count):  # (1,CHANNELS,2,4)
    grid = torch.zeros(1, lidar.CHANNELS, 2, 4)
    names = list(lidar.STATISTICS)
    for name, values in (("intensity_mean", reflectance), ("log_count", count)):
        grid[0, names.index(name), 0] = torch.tensor(values) * lidar.STATISTICS[name][1]
    return grid


def test_intensity_is_log_reflectance_over_its_scale_clamped_and_0_where_empty():
    grid = lidar_grid([1.0, 15 / 255, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0])
    assert log_reflectance(grid)[0, 0, 0].tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-6)
    feature = torch.ones(1, 3, 2, 4)
    assert intensity("reflectance", grid, feature, 0.8).tolist() == pytest.approx([1, 0.625, 0, 0], abs=1e-6)
    assert intensity("binary", grid, feature).tolist() == [1, 1, 1, 0]
    assert intensity_map("uniform", grid, feature, torch.tensor(1.0)).unique().tolist() == [1]


def test_density_and_energy_are_relative_to_the_frames_maximum():
    grid = lidar_grid([0.1] * 4, [2.0, 1.0, 0.0, 0.5])
    feature = torch.tensor([[1.0, -4.0, 9.0, 2.0], [9.0] * 4]).view(1, 1, 2, 4)
    assert intensity("density", grid, feature).tolist() == pytest.approx([1, 0.5, 0, 0.25])
    assert intensity("energy", grid, feature).tolist() == pytest.approx([0.25, 1, 0, 0.5])


def test_a_finer_grid_is_max_pooled_to_the_feature_grid():
    grid = lidar_grid([1.0, 15 / 255, 0.0, 15 / 255], [1.0, 1.0, 0.0, 1.0])
    assert intensity("reflectance", grid, torch.ones(1, 3, 1, 2)).tolist() == pytest.approx([1, 0.5])


def test_intensity_has_no_gradient():
    feature = torch.ones(1, 3, 2, 4, requires_grad=True)
    assert not intensity("energy", lidar_grid([0.1] * 4, [1.0] * 4), feature).requires_grad
