"""Quantization-aware training: LSQ's gradients, equal graphs in PyTorch and in the export, resumption to the byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from imkd_edge.bundle import PARTS, Bundle
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.selftest import check_golden
from imkd_edge.cli import app
from imkd_edge.errors import Error
from imkd_edge.quantization import qat
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart, quantize_part, solve_part
from imkd_edge.quantization.qat import exact_session
from imkd_edge.quantization.state import Calibration, Training
from imkd_edge.quantization.trainable import FakeQuantize, TrainablePart

SHORT = Training(steps=3, batch=1, rate=1e-3)
REFINEMENT = replace(SHORT, weights=False)
SIX = Method("mse", 6)


@pytest.fixture(scope="module")
def few(calibration: Calibration) -> Calibration:
    """The first four frames, enough to test the machinery."""
    return replace(calibration, frames=replace(calibration.frames, names=calibration.frames.names[:4]))


@pytest.fixture(scope="module", params=[SHORT, REFINEMENT], ids=["qat", "refine"])
def training(request: pytest.FixtureRequest) -> Training:
    """Both kinds."""
    return request.param


@pytest.fixture(scope="module")
def trained(few: Calibration, training: Training, tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizedPart]:
    return qat.train_parts(few, solved(few), training, tmp_path_factory.mktemp("qat") / "s.pt", threads=1)


def trainable(calibration: Calibration, name: str, method: Method = SIX) -> TrainablePart:
    part = solve_part(calibration.parts[name], calibration.collection, method)
    return TrainablePart(part.part, part.groups, part.amax, method)


def solved(calibration: Calibration, method: Method = SIX) -> dict[str, SolvedPart]:
    return {name: solve_part(part, calibration.collection, method) for name, part in calibration.parts.items()}


# ---- gradients ----
def surrogate(x: np.ndarray, step: np.ndarray, levels: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The smooth function whose derivatives LSQ takes: the rounding error at (x, step) is constant."""
    added = np.rint(x / step) - x / step
    low, high = x / step < -levels - 1, x / step > levels
    return lambda x, step: np.select(
        [low, high], [(-levels - 1) * step + 0 * x, levels * step + 0 * x], (x / step + added) * step
    )


@pytest.mark.parametrize("shape", [(), (3, 1, 1)])
@pytest.mark.parametrize("levels", [7, 127])
def test_gradients_are_those_of_finite_differences(shape: tuple[int, ...], levels: int) -> None:
    random = np.random.default_rng(levels)
    step = np.full(shape, 0.1) * (1 + 0.5 * np.arange(max(1, int(np.prod(shape))))).reshape(shape or ())
    x = random.normal(0, 0.9 * levels * 0.1, (3, 5, 7))  # some of it beyond both ends
    assert ((x / step > levels).any() and (x / step < -levels - 1).any()) and ((np.abs(x / step) < levels).sum() > 20)
    outer = random.normal(0, 1, x.shape)
    inputs, steps = torch.tensor(x, requires_grad=True), torch.tensor(step, requires_grad=True)
    (FakeQuantize.apply(inputs, steps, levels) * torch.tensor(outer)).sum().backward()
    smooth, tiny = surrogate(x, step, levels), 1e-6
    by_x = outer * (smooth(x + tiny, step) - smooth(x - tiny, step)) / (2 * tiny)
    assert np.allclose(inputs.grad, by_x, atol=1e-6)
    for index in np.ndindex(shape or (1,)):
        change = np.zeros(shape or (1,))
        change[index] = tiny
        change = change.reshape(shape)
        by_step = (outer * (smooth(x, step + change) - smooth(x, step - change))).sum() / (2 * tiny)
        assert steps.grad.numpy().reshape(shape or (1,))[index] == pytest.approx(by_step, rel=1e-5, abs=1e-5)


def test_its_value_is_what_quantize_and_dequantize_give() -> None:
    # Steps of 1/8: halves round to even.
    x = torch.tensor([-100.0, -0.3125, -0.1875, 0.0, 0.0625, 0.1875, 0.2, 3.875, 4.0, 100.0])
    assert (FakeQuantize.apply(x, torch.tensor(0.125), 31) / 0.125).tolist() == [-32, -2, -2, 0, 0, 2, 2, 31, 31, 31]


# ---- what is exported ----
@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("name", PARTS)
def test_untrained_it_is_what_post_training_quantization_makes(calibration: Calibration, name: str, bits: int) -> None:
    method = Method("mse", bits)
    quantized = trainable(calibration, name, method).quantized()
    expected = quantize_part(calibration.parts[name], calibration.collection, method)
    assert quantized.model.SerializeToString() == expected.model.SerializeToString()
    assert quantized.scales.activations == expected.scales.activations and quantized.shared == expected.shared


@pytest.mark.parametrize("name", PARTS)
def test_the_exported_graph_computes_what_was_trained(few: Calibration, name: str, tmp_path: Path) -> None:
    """NMSE 1e-4, as between any two engines: sums in another order move a few values over a rounding edge."""
    part = trainable(few, name)
    optimizer = qat.make_optimizer(part)
    data = qat.DistillationData.record(few, name, {}, tmp_path, 1, None)
    for step in range(2):
        qat._advance(part, data, optimizer, SHORT, few.bundle.spec, step)
    inputs = {key: file[0].copy() for key, file in data.inputs.items()}
    with torch.no_grad():
        expected = part.forward({key: torch.from_numpy(value) for key, value in inputs.items()})
    session = exact_session(part.quantized().model, 1)
    for item, values in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        reference = expected[item.name].numpy()
        assert ((values - reference) ** 2).sum() <= 1e-4 * (reference**2).sum(), item.name
        assert np.median(np.abs(values - reference)) <= 1e-4 * np.abs(reference).max(), item.name


def test_what_shares_a_scale_shares_it_after_training(few: Calibration, trained: dict[str, QuantizedPart]) -> None:
    part, quantized = few.parts["bev"], trained["bev"]
    before = quantize_part(part, few.collection, SIX)
    concatenations = [n for n in part.graph.node if n.op_type == "Concat" and n.output[0] in quantized.shared]
    assert len(concatenations) == 2 and set(quantized.shared) == set(before.shared)
    for node in concatenations:
        tensors = [name for name in [*node.input, *node.output] if name in quantized.shared]
        assert len({quantized.shared[name] for name in tensors}) == 1
    inputs = concatenations[0].input
    assert any(quantized.shared[name] != before.shared[name] for name in inputs)  # training changed it


def test_steps_are_float16_numbers_and_integers_keep_to_their_levels(trained: dict[str, QuantizedPart]) -> None:
    for part in trained.values():
        weights = [step for steps in part.scales.weights.values() for step in steps]
        for scale in [*part.scales.activations.values(), *weights]:
            assert scale > 0 and np.float32(scale) == np.float16(scale)
        for item in part.model.graph.initializer:
            if item.name.endswith("_q"):
                integers = np.frombuffer(item.raw_data, np.int8)
                assert integers.min() >= -32 and integers.max() <= 31


@pytest.mark.parametrize("training", [REFINEMENT], ids=["refine"], indirect=True)
def test_refinement_moves_scales_and_nothing_else(few: Calibration, trained: dict[str, QuantizedPart]) -> None:
    """Integers are the float bundle's weights rounded by the exported scales.

    Biases, float layers and the graph are those of post-training quantization.
    """
    for name, part in trained.items():
        before = quantize_part(few.parts[name], few.collection, SIX)
        floats, new, old = (constants(model) for model in (few.parts[name].model, part.model, before.model))
        assert list(part.model.graph.node) == list(before.model.graph.node) and new.keys() == old.keys()
        assert {key for key in new if not np.array_equal(new[key], old[key])} <= {
            *(f"{tensor}_{kind}" for tensor in part.scales.activations for kind in ("scale", "low", "high")),
            *(f"{weight}_{kind}" for weight in part.scales.weights for kind in ("scale", "q")),
        }
        for weight in part.scales.weights:
            steps = new[f"{weight}_scale"].reshape(-1, *[1] * (floats[weight].ndim - 1))
            assert np.array_equal(new[f"{weight}_q"], np.clip(np.rint(floats[weight] / steps), -32, 31))
        for kind in ("activations", "weights"):
            scales = getattr(part.scales, kind)
            assert any(np.any(scales[key] != scale) for key, scale in getattr(before.scales, kind).items())


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


# ---- training ----
def test_it_comes_closer_to_the_float_model(few: Calibration, training: Training, tmp_path: Path) -> None:
    """At four bits, where the error is large; measured on the exported graphs, on the frames of the training."""
    four = Method("mse", 4)
    parts = qat.train_parts(few, solved(few, four), replace(training, steps=12), tmp_path / "s.pt", threads=1)
    data = qat.DistillationData.record(few, "bev", {}, tmp_path, 1, None)
    before = distance(quantize_part(few.parts["bev"], few.collection, four).model, data)
    assert distance(parts["bev"].model, data) < (0.7 if training.weights else 0.9) * before


def distance(model: onnx.ModelProto, data: qat.DistillationData) -> float:
    """Of a graph's outputs from the float part's, as training minimizes it."""
    session, total = exact_session(model, 1), 0.0
    names = [item.name for item in session.get_outputs()]
    for i in range(data.frames):
        values = session.run(names, {key: file[i] for key, file in data.inputs.items()})
        outputs = dict(zip(names, map(torch.from_numpy, values), strict=True))
        targets = {key: torch.from_numpy(file[i].copy()) for key, file in data.targets.items()}
        total += sum(qat.distillation(outputs, targets).values()).item()
    return total


def test_an_interrupted_training_resumes_and_ends_in_the_same_bytes(
    few: Calibration,
    training: Training,
    trained: dict[str, QuantizedPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    advance = qat._advance

    def stop_in_the_second_part(*arguments: Any) -> None:
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(arguments[-1])
        advance(*arguments)

    monkeypatch.setattr(qat, "SAVE_EVERY", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(qat, "_advance", stop_in_the_second_part)
        qat.train_parts(few, solved(few), training, tmp_path / "s.pt", threads=1)
    assert steps == [0, 1, 2, 0, 1] and [path.name for path in tmp_path.iterdir()] == ["s.pt"]
    monkeypatch.setattr(qat, "_advance", lambda *arguments: (steps.append(arguments[-1]), advance(*arguments)))
    again = qat.train_parts(few, solved(few), training, tmp_path / "s.pt", threads=1)
    assert steps[5:] == [2]
    for name, part in trained.items():
        assert again[name].model.SerializeToString() == part.model.SerializeToString()


def test_a_state_of_another_training_or_a_broken_one_is_not_resumed(
    few: Calibration, trained: Any, tmp_path: Path
) -> None:
    path = tmp_path / "s.pt"
    path.write_bytes(b"not a checkpoint")
    assert qat._State.open(path, few, solved(few), SHORT)._parts == {}
    torch.save({"key": "another", "parts": {"camera": 1}}, path)
    assert qat._State.open(path, few, solved(few), SHORT)._parts == {}


def test_each_frame_comes_once_before_any_comes_again() -> None:
    training = Training(steps=10, batch=2, seed=3)
    frames = [frame for step in range(10) for frame in qat.order(training, 5, step)]
    assert [sorted(frames[i : i + 5]) for i in range(0, 20, 5)] == [list(range(5))] * 4
    assert frames != [frame for step in range(10) for frame in qat.order(replace(training, seed=4), 5, step)]


def test_only_calibration_frames_are_read(few: Calibration, tmp_path: Path) -> None:
    read: list[str] = []

    class Watching:
        names = few.source.names

        def __getitem__(self, name: str) -> Any:
            read.append(name)
            return few.source[name]

    qat.DistillationData.record(replace(few, source=Watching()), "camera", {}, tmp_path, 1, None)  # type: ignore[arg-type]
    assert set(read) == set(few.frames.names)


def test_the_distance_is_zero_where_both_agree_and_its_minimum() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = {"depth": (2, 4, 3, 3), "context": (2, 3, 3, 3), "heatmap": (1, 2, 4, 4), "box": (1, 10, 4, 4)}
    target = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    target["depth"] = target["depth"].softmax(1)
    outputs = {name: value.clone().requires_grad_() for name, value in target.items()}
    terms = qat.distillation(outputs, target)
    assert list(terms) == list(shapes) and all(term.item() == pytest.approx(0, abs=1e-6) for term in terms.values())
    for _ in range(5):
        other = {name: value + 0.1 * torch.randn(value.shape, generator=random) for name, value in target.items()}
        other["depth"] = (target["depth"].log() + 0.3 * torch.randn(shapes["depth"], generator=random)).softmax(1)
        assert all(term.item() > 1e-5 for term in qat.distillation(other, target).values())


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in ({"steps": 0}, {"batch": 0}, {"rate": 0.0}):
        with pytest.raises(Error) as error:
            Training(**wrong)
        assert error.value.code == "E0104"


# ---- the verb ----
@pytest.mark.parametrize("kind", ["--qat", "--refine"])
def test_the_verb_trains_and_the_manifest_has_the_settings(kind: str, collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.int8.imkd"
    source = ["--data", "synth", "--option", "scenes=2", "--option", "frames_per_scene=9", "--frames", "16"]
    settings = ["--collection", str(collection), kind, "--steps", "1", "--gate", "1e6", "--seed", "5", "--threads", "1"]
    result = CliRunner().invoke(app, ["quantize", "tiny", *source, *settings, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    bundle = Bundle.load(out)
    training = {"steps": 1, "batch": 2, "rate": 2e-4, "seed": 5, "weights": kind == "--qat", "radar": 0.0}
    assert bundle.manifest["provenance"]["quantization"]["training"] == training
    assert max(check_golden(bundle, threads=1).values()) == 0


def test_scales_are_learnt_with_the_weights_or_without_them(tmp_path: Path) -> None:
    command = ["quantize", "tiny", "--data", "synth", "--qat", "--refine", "--out", str(tmp_path / "x.imkd")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "E0104" in result.stderr and not list(tmp_path.iterdir())
