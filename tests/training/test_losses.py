"""Each loss term against hand-computed cases."""

import math

import pytest
import torch
from shapely import affinity, geometry

from imkd_edge.training.losses import box_l1, box_overlap, depth_cross_entropy, gaussian_focal, vehicle_cross_entropy


def test_focal_of_one_object_and_logits_of_zero():
    logits = torch.zeros(1, 1, 1, 3)  # p = 0.5 everywhere
    target = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    # hit: -ln(.5) .5^2; half-way cell: -ln(.5) .5^2 (1-.5)^4; empty cell: -ln(.5) .5^2
    expected = math.log(2) * 0.25 * (1 + 0.5**4 + 1)
    assert gaussian_focal(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_focal_is_divided_by_the_number_of_objects():
    logits, target = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    assert gaussian_focal(logits, target).item() == pytest.approx(math.log(2) * 0.25, rel=1e-6)


def test_focal_is_zero_for_correct_logits_and_finite_for_extreme_ones():
    target = torch.tensor([[[[1.0, 0.0]]]])
    assert gaussian_focal(torch.tensor([[[[40.0, -40.0]]]]), target).item() == pytest.approx(0, abs=1e-12)
    assert math.isfinite(gaussian_focal(torch.tensor([[[[-200.0, 200.0]]]]), target).item())


def test_focal_gradient_raises_the_object_and_lowers_the_rest():
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    gaussian_focal(logits, torch.tensor([[[[1.0, 0.0]]]])).backward()
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 0, 0, 1]


def _box_case(groups: int = 1):
    predicted = torch.zeros(1, groups * 10, 1, 2)
    target = torch.full((1, 10, 1, 2), math.nan)
    weight, group = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long)
    return predicted, target, weight, group


def test_box_loss_ignores_unknown_channels_and_empty_cells():
    predicted, target, weight, group = _box_case()
    target[0, 0, 0, 0] = 3.0  # the other nine channels are unknown
    target[0, :, 0, 1] = 100.0  # a cell without an object
    weight[0, 0, 0] = 1.0
    assert box_l1(predicted, target, weight, group, torch.ones(10)).item() == pytest.approx(3.0)


def test_box_loss_weights_cells_by_their_gaussian_and_channels_by_theirs():
    predicted, target, weight, group = _box_case()
    target[0, 2, 0, 0], target[0, 2, 0, 1] = 1.0, 4.0
    weight[0, 0, 0], weight[0, 0, 1] = 1.0, 0.5
    channels = torch.ones(10)
    channels[2] = 2.0
    assert box_l1(predicted, target, weight, group, channels).item() == pytest.approx((1 * 2 + 4 * 2 * 0.5) / 1.5)


def test_box_loss_reads_the_channels_of_the_cells_group():
    predicted, target, weight, group = _box_case(groups=2)
    predicted[0, 10:] = 7.0
    target[0, :, 0, 0] = 7.0
    weight[0, 0, 0], group[0, 0, 0] = 1.0, 1
    assert box_l1(predicted, target, weight, group, torch.ones(10)).item() == 0
    group[0, 0, 0] = 0
    assert box_l1(predicted, target, weight, group, torch.ones(10)).item() == pytest.approx(70.0)


def test_no_object_gives_no_loss_but_a_gradient_path():
    predicted, target, weight, group = _box_case()
    loss = box_l1(predicted.requires_grad_(), target, weight, group, torch.ones(10))
    loss.backward()
    assert loss.item() == 0 and predicted.grad.abs().sum() == 0


def test_depth_cross_entropy_counts_known_pixels_only():
    depth = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, -1]]])
    expected = -(math.log(0.25) + math.log(0.75)) / 2
    assert depth_cross_entropy(depth, target).item() == pytest.approx(expected, rel=1e-6)
    assert depth_cross_entropy(depth, torch.full((1, 1, 3), -1)).item() == 0


def test_vehicle_cells_weigh_more_and_unknown_cells_nothing():
    logits = torch.tensor([[[[0.0, 0.0, 50.0]]]], requires_grad=True)
    target = torch.tensor([[[1.0, 0.0, math.nan]]])
    loss = vehicle_cross_entropy(logits, target)
    assert loss.item() == pytest.approx(math.log(2) * (2.13 + 1) / 2, rel=1e-6)
    loss.backward()
    assert logits.grad[0, 0, 0].tolist() == pytest.approx([-2.13 / 4, 1 / 4, 0])


def test_vehicle_loss_is_zero_for_correct_logits_and_for_unknown_cells():
    target = torch.tensor([[[1.0, 0.0]]])
    assert vehicle_cross_entropy(torch.tensor([[[[40.0, -40.0]]]]), target).item() == pytest.approx(0, abs=1e-12)
    assert vehicle_cross_entropy(torch.zeros(1, 1, 1, 2), target * math.nan).item() == 0


def _overlap_case(prediction, truth, cell=0.5):
    """Loss of one cell, and its prediction; boxes are x, y, z, length, width, height (m), yaw (rad)."""

    def channels(x, y, z, length, width, height, yaw):
        return [x / cell, y / cell, z, *(math.log(v) for v in (length, width, height)), math.sin(yaw), math.cos(yaw)]

    predicted, target, weight, group = _box_case()
    predicted[0, :8, 0, 0] = torch.tensor(channels(*prediction))
    target[0, :8, 0, 0] = torch.tensor(channels(*truth))
    weight[0, 0, 0] = 1.0
    return box_overlap(predicted.requires_grad_(), target, weight, group, cell), predicted


@pytest.mark.parametrize("yaw", [0.0, 0.4, math.pi / 2, -2.5])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.8, -0.3, 0.2), (-1.5, 0.9, -0.6), (9.0, 0.0, 0.0)])
def test_overlap_loss_is_one_minus_the_iou_of_two_boxes_of_one_heading(yaw, offset):
    size, other = (4.5, 1.8, 1.5), (4.0, 2.0, 1.7)
    loss, _ = _overlap_case((*offset, *other, yaw), (0.0, 0.0, 0.0, *size, yaw))
    first, second = (
        affinity.rotate(geometry.box(x - l / 2, y - w / 2, x + l / 2, y + w / 2), yaw, "center", use_radians=True)
        for x, y, l, w in ((0, 0, *size[:2]), (*offset[:2], *other[:2]))
    )
    high = max(0.0, min(0.75, offset[2] + 0.85) - max(-0.75, offset[2] - 0.85))
    shared = first.intersection(second).area * high
    iou = shared / (math.prod(size) + math.prod(other) - shared)
    assert loss.item() == pytest.approx(1 - iou, abs=1e-5)


def test_overlap_loss_is_zero_at_the_object_and_its_gradient_points_to_it():
    truth = (0.0, 0.0, 0.0, 4.5, 1.8, 1.5, 0.3)
    loss, _ = _overlap_case(truth, truth)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss, predicted = _overlap_case((0.5, 0.5, 0.5, 4.5, 1.8, 1.5, 0.3), truth)
    loss.backward()
    assert (predicted.grad[0, :3, 0, 0] > 0).all() and predicted.grad[0, :, 0, 1].abs().sum() == 0


def test_overlap_loss_is_zero_for_a_box_of_unknown_size_and_without_a_box():
    predicted, target, weight, group = _box_case()
    weight[0, 0, 0] = 1.0
    target[0, :5, 0, 0] = 1.0
    loss = box_overlap(predicted.requires_grad_(), target, weight, group, 0.5)
    loss.backward()
    assert loss.item() == 0 and predicted.grad.abs().sum() == 0
