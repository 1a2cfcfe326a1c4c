"""Correction of weights and biases: near exhaustive rounding, zero where there is no error, of use at few bits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization.accept import HeldOut
from imkd_edge.quantization.correct import _corrected, _Layers, clipped_steps, correct, gptq
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.ptq import SolvedPart, solve_part
from imkd_edge.quantization.qat import exact_session
from imkd_edge.quantization.radar_weight import RadarWeight
from imkd_edge.quantization.state import Calibration


def error(weight: np.ndarray, grid: np.ndarray, second: np.ndarray) -> float:
    return float(np.einsum("ok,kl,ol->", weight - grid, second, weight - grid))


def exhaustive(weight: np.ndarray, second: np.ndarray) -> float:
    """The least error of a weight (1, 2) on a grid of step 1, of all integers within 8 of it."""
    choices = product(*(np.rint(w) + np.arange(-8, 9) for w in weight[0]))
    return min(error(weight, np.array([choice]), second) for choice in choices)


def test_the_error_of_one_weight_is_taken_back_by_its_correlated_neighbour() -> None:
    weight, second = np.array([[0.4, 0.4]]), np.array([[1, 0.95], [0.95, 1]])
    grid = gptq(weight, second, np.ones(1), 7)
    assert grid.tolist() == [[0, 1]]  # (1, 0) is as good; the nearest is (0, 0)
    assert error(weight, grid, second) == pytest.approx(exhaustive(weight, second))


def test_two_weights_are_rounded_nearly_as_well_as_exhaustively() -> None:
    random, totals = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        x = random.normal(0, 1, (50, 2)) @ random.normal(0, 1, (2, 2))
        weight, second = random.uniform(-5, 5, (1, 2)), x.T @ x / 50
        found = gptq(weight, second, np.ones(1), 31)
        totals += [error(weight, np.rint(weight), second), error(weight, found, second), exhaustive(weight, second)]
    nearest, found, best = totals
    assert best <= found < 1.25 * best and found < 0.8 * nearest


def test_without_correlation_it_is_the_nearest() -> None:
    weight = np.random.default_rng(1).normal(0, 3, (4, 6))
    grid = gptq(weight, np.diag(np.arange(1.0, 7)), np.full(4, 0.5), 127)
    assert np.array_equal(grid, np.rint(weight / 0.5) * 0.5)


def solved_part(weights: dict[str, np.ndarray], amax: float, bits: int, group: int = 1) -> SolvedPart:
    """images -> Conv c + images -> Relu -> Conv d of 4 channels: a residual layer, and one behind it."""
    nodes = [
        helper.make_node(
            "Conv", ["images", "c_w", "c_b"], ["c"], name="c", kernel_shape=[3, 3], pads=[1] * 4, group=group
        ),
        helper.make_node("Add", ["c", "images"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["r"], name="r"),
        helper.make_node(
            "Conv", ["r", "d_w", "d_b"], ["d"], name="d", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, s, s]) for n, s in (("images", 8), ("d", 4))]
    initializers = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()]
    graph = helper.make_graph(nodes, "camera", info[:1], info[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    part = Part(model.SerializeToString(), "camera")
    ranges = {"images": amax, "r": 4 * amax}
    return SolvedPart(part, part.groups(), Method("mse", bits), ranges, {}, ranges)


def corrected(solved: SolvedPart, image: np.ndarray) -> SolvedPart:
    """By one frame, with the same weight at every place."""
    session = exact_session(_with(solved.part, ["c", "r"]), 1)
    values = dict(zip(("d", "c", "r"), session.run(["d", "c", "r"], {"images": image}), strict=True))
    layers = _Layers(solved)
    sites = {f"camera/{n}": torch.from_numpy(v) for n, v in (("images", image), ("r", values["r"]))}
    layers.add(sites, {f"camera/{n}": np.ones_like(values[n]) for n in "cd"})
    return _corrected(solved, layers.moments)


def _with(part: Part, names: list[str]) -> onnx.ModelProto:
    return onnx.load_from_string(part.with_outputs(names).data)


@pytest.mark.parametrize("group", [1, 4])
def test_nothing_changes_where_there_is_no_error(group: int) -> None:
    """Values and weights lie on their grids of step 1."""
    random = np.random.default_rng(0)
    weights = {"c_w": random.integers(-2, 3, (4, 4 // group, 3, 3)), "d_w": random.integers(-2, 3, (4, 4, 3, 3))}
    for weight in weights.values():
        weight[:, 0, 0, 0] = 127
    weights |= {name: random.normal(0, 1, 4) for name in ("c_b", "d_b")}
    weights["c_b"] = -np.abs(np.rint(weights["c_b"]))
    solved = solved_part(weights, 127.0, 8, group)
    solved.amax["r"] = 127.0
    image = np.zeros((1, 4, 8, 8), np.float32)
    image[0, 1:, 4, 4] = 1  # no sum is above 127
    found = corrected(solved, image)
    assert set(found.corrections) == {"c", "d"}
    for correction in found.corrections.values():
        for name, values in correction.values.items():
            assert np.array_equal(values, weights[name].astype(np.float32)), name


def test_one_large_weight_is_clipped_where_its_input_is_weak() -> None:
    weight = np.array([[7.0, 1.0, -1.0, 1.0], [1.0, 0.5, -1.0, 0.25]])
    weak, strong = np.array([1e-3, 1, 1, 1]), np.array([1e3, 1, 1, 1])
    # With 3 levels and the whole range a step is 7/3 and rounds the ones to 0; with 0.45 of it they round to 1.05.
    for power, expected in ((weak, 0.45 * 7 / 3), (strong, 7 / 3)):
        assert clipped_steps(weight, power, 3)[0] == pytest.approx(expected, rel=1e-3)
    even = clipped_steps(weight[1:], np.ones(4), 127)[0]
    assert even == pytest.approx(1 / 127, rel=0.02)  # nothing is gained by clipping with many levels


@pytest.mark.parametrize("group", [1, 4])
def test_the_mean_error_of_every_channel_is_taken_back(group: int) -> None:
    random = np.random.default_rng(1)
    shapes = {"c_w": (4, 4 // group, 3, 3), "c_b": (4,), "d_w": (4, 4, 3, 3), "d_b": (4,)}
    solved = solved_part({name: random.normal(0, 0.3, shape) for name, shape in shapes.items()}, 2.5, 4, group)
    image = random.normal(0.3, 1, (1, 4, 8, 8)).astype(np.float32)
    found = corrected(solved, image)
    exact = exact_session(_with(solved.part, ["sum"]), 1).run(["sum"], {"images": image})[0]

    def bias(part: SolvedPart) -> np.ndarray:
        model = part.quantized().model
        model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 4, 8, 8]))
        return (exact_session(model, 1).run(["sum"], {"images": image})[0] - exact).mean((0, 2, 3))

    assert np.abs(bias(solved)).max() > 0.01 and np.abs(bias(found)).max() < 1e-5


def test_a_layer_that_stays_float_keeps_its_weights(calibration: Calibration) -> None:
    solved = solve_part(calibration.parts["bev"], calibration.collection, Method(bits=4))
    found = correct(calibration, {"bev": solved, "camera": solve_camera(calibration)}, 1)["bev"]
    name, correction = next(iter(found.corrections.items()))
    assert all(g.float_because == "" for g in found.groups if g.name in found.corrections)
    groups = [replace(g, float_because=g.float_because or "test") for g in found.groups]
    plain = replace(found, groups=groups).quantized().model
    kept = {item.name: numpy_helper.to_array(item) for item in plain.graph.initializer}
    for key in correction.values:
        assert np.array_equal(kept[key], numpy_helper.to_array(solved.part.weights[key])), (name, key)


def solve_camera(calibration: Calibration) -> SolvedPart:
    return solve_part(calibration.parts["camera"], calibration.collection, Method(bits=4))


def test_at_four_bits_it_lowers_the_loss_on_other_frames(calibration: Calibration) -> None:
    parts = calibration.parts.items()
    solved = {name: solve_part(part, calibration.collection, Method(bits=4)) for name, part in parts}
    held_out = HeldOut(calibration, 1)
    before, after = (
        held_out.fidelity({name: part.quantized() for name, part in form.items()})
        for form in (solved, correct(calibration, solved, 1))
    )
    assert after["loss"] < 0.95 * before["loss"]


def test_the_radar_weighs_the_errors_that_are_corrected(calibration: Calibration) -> None:
    solved = {name: solve_part(p, calibration.collection, Method(bits=4)) for name, p in calibration.parts.items()}
    spec, frames = calibration.bundle.spec, calibration.frames
    few = replace(calibration, frames=replace(frames, names=frames.names[:2]))
    plain, even, radar = (
        correct(few, solved, 1, weight=weight) for weight in (None, RadarWeight(spec, share=0.0), RadarWeight(spec))
    )

    def files(parts: dict[str, SolvedPart]) -> list[bytes]:
        return [part.quantized().model.SerializeToString() for part in parts.values()]

    assert files(even) == files(plain) != files(radar)
