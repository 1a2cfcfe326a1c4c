"""Quantization-aware training: LSQ's gradients, one meaning in PyTorch and in the exported graph, bytes that no interruption changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from imkd_edge.bundle import Bundle
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.selftest import check_golden
from imkd_edge.cli import app
from imkd_edge.errors import Error
from imkd_edge.quantization import qat
from imkd_edge.quantization.insert import quantized_tensors
from imkd_edge.quantization.learnt import FakeQuantize, LearntPart
from imkd_edge.quantization.ptq import Quantized, quantize_part, solve_all
from imkd_edge.quantization.quantize import Calibrated, Training
from imkd_edge.quantization.sensitivity import exact_session

SHORT = Training(steps=3, batch=1, rate=1e-3)
REFINEMENT = replace(SHORT, weights=False)
SIX = Method("mse", 6)
KEPT: dict[str, tuple[str, ...]] = {"camera": (), "bev": ()}


@pytest.fixture(scope="module")
def few(seen: Calibrated) -> Calibrated:
    """Four frames are enough to see whether the machinery works."""
    return replace(seen, frames=replace(seen.frames, names=seen.frames.names[:4]))


@pytest.fixture(scope="module", params=[SHORT, REFINEMENT], ids=["qat", "refine"])
def training(request: pytest.FixtureRequest) -> Training:
    """Both kinds."""
    return request.param


@pytest.fixture(scope="module")
def trained(few: Calibrated, training: Training, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Quantized]:
    return qat.learn(few, SIX, KEPT, training, tmp_path_factory.mktemp("qat") / "s.pt", threads=1)


def learnt(seen: Calibrated, name: str, method: Method = SIX) -> LearntPart:
    part, groups = seen.parts[name], seen.parts[name].groups()
    return LearntPart(
        part, groups, solve_all(part, quantized_tensors(part, groups), seen.collection, method), method.levels
    )


# ---- gradients ----
def surrogate(x: np.ndarray, step: np.ndarray, levels: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The smooth function whose derivatives LSQ takes: what rounding added at (x, step) stays as it is."""
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
    given, steps = torch.tensor(x, requires_grad=True), torch.tensor(step, requires_grad=True)
    (FakeQuantize.apply(given, steps, levels) * torch.tensor(outer)).sum().backward()
    smooth, tiny = surrogate(x, step, levels), 1e-6
    by_x = outer * (smooth(x + tiny, step) - smooth(x - tiny, step)) / (2 * tiny)
    assert np.allclose(given.grad, by_x, atol=1e-6)
    for place in np.ndindex(shape or (1,)):
        there = np.zeros(shape or (1,))
        there[place] = tiny
        there = there.reshape(shape)
        by_step = (outer * (smooth(x, step + there) - smooth(x, step - there))).sum() / (2 * tiny)
        assert steps.grad.numpy().reshape(shape or (1,))[place] == pytest.approx(by_step, rel=1e-5, abs=1e-5)


def test_its_value_is_what_quantize_and_dequantize_give() -> None:
    x = torch.tensor(
        [-100.0, -0.3125, -0.1875, 0.0, 0.0625, 0.1875, 0.2, 3.875, 4.0, 100.0]
    )  # steps of 1/8: halves go to the even one
    assert (FakeQuantize.apply(x, torch.tensor(0.125), 31) / 0.125).tolist() == [-32, -2, -2, 0, 0, 2, 2, 31, 31, 31]


# ---- what is exported ----
@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("name", ["camera", "bev"])
def test_untrained_it_is_what_post_training_quantization_makes(seen: Calibrated, name: str, bits: int) -> None:
    method = Method("mse", bits)
    made, expected = learnt(seen, name, method).quantized(), quantize_part(seen.parts[name], seen.collection, method)
    assert made.model.SerializeToString() == expected.model.SerializeToString()
    assert made.scales.activations == expected.scales.activations and made.shared == expected.shared


@pytest.mark.parametrize("name", ["camera", "bev"])
def test_the_exported_graph_says_what_training_saw(few: Calibrated, name: str, tmp_path: Path) -> None:
    """NMSE 1e-4, as between any two engines: sums in another order move a value over a rounding edge now and then."""
    own = learnt(few, name)
    optimizer = qat.make_optimizer(own)
    lesson = qat.Lesson.read(few, name, {}, tmp_path, 1, None)
    for step in range(2):
        qat._advance(own, lesson, optimizer, SHORT, step)
    inputs = {key: file[0].copy() for key, file in lesson.inputs.items()}
    with torch.no_grad():
        expected = own.forward({key: torch.from_numpy(value) for key, value in inputs.items()})
    session = exact_session(own.quantized().model, 1)
    for item, values in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        reference = expected[item.name].numpy()
        assert ((values - reference) ** 2).sum() <= 1e-4 * (reference**2).sum(), item.name
        assert np.median(np.abs(values - reference)) <= 1e-4 * np.abs(reference).max(), item.name


def test_what_shares_a_scale_shares_it_after_training(few: Calibrated, trained: dict[str, Quantized]) -> None:
    part, made = few.parts["bev"], trained["bev"]
    before = quantize_part(part, few.collection, SIX)
    joined = [node for node in part.graph.node if node.op_type == "Concat" and node.output[0] in made.shared]
    assert len(joined) == 2 and set(made.shared) == set(before.shared)
    for node in joined:
        assert len({made.shared[tensor] for tensor in [*node.input, *node.output] if tensor in made.shared}) == 1
    assert any(made.shared[name] != before.shared[name] for name in joined[0].input)  # and was learnt


def test_steps_are_float16_numbers_and_integers_keep_to_their_levels(trained: dict[str, Quantized]) -> None:
    for made in trained.values():
        for scale in [*made.scales.activations.values(), *(s for steps in made.scales.weights.values() for s in steps)]:
            assert scale > 0 and np.float32(scale) == np.float16(scale)
        for item in made.model.graph.initializer:
            if item.name.endswith("_q"):
                integers = np.frombuffer(item.raw_data, np.int8)
                assert integers.min() >= -32 and integers.max() <= 31


@pytest.mark.parametrize("training", [REFINEMENT], ids=["refine"], indirect=True)
def test_refinement_moves_scales_and_nothing_else(few: Calibrated, trained: dict[str, Quantized]) -> None:
    """Integers are the float bundle's weights rounded by the exported scales; biases, float layers and the graph are post-training's."""
    for name, made in trained.items():
        before = quantize_part(few.parts[name], few.collection, SIX)
        floats, own, old = (constants(part) for part in (few.parts[name].model, made.model, before.model))
        assert list(made.model.graph.node) == list(before.model.graph.node) and own.keys() == old.keys()
        assert {key for key in own if not np.array_equal(own[key], old[key])} <= {
            *(f"{tensor}_{kind}" for tensor in made.scales.activations for kind in ("scale", "low", "high")),
            *(f"{weight}_{kind}" for weight in made.scales.weights for kind in ("scale", "q")),
        }
        for weight in made.scales.weights:
            steps = own[f"{weight}_scale"].reshape(-1, *[1] * (floats[weight].ndim - 1))
            assert np.array_equal(own[f"{weight}_q"], np.clip(np.rint(floats[weight] / steps), -32, 31))
        for kind in ("activations", "weights"):
            assert any(
                np.any(getattr(made.scales, kind)[key] != scale) for key, scale in getattr(before.scales, kind).items()
            )


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


# ---- training ----
def test_it_comes_closer_to_the_float_model(few: Calibrated, training: Training, tmp_path: Path) -> None:
    """At four bits, where there is much to win; measured on the graphs that are written, on frames that were trained on."""
    four = Method("mse", 4)
    made = qat.learn(few, four, KEPT, replace(training, steps=12), tmp_path / "s.pt", threads=1)
    lesson = qat.Lesson.read(few, "bev", {}, tmp_path, 1, None)
    before = distance(quantize_part(few.parts["bev"], few.collection, four).model, lesson)
    assert distance(made["bev"].model, lesson) < (0.7 if training.weights else 0.9) * before


def distance(model: onnx.ModelProto, lesson: qat.Lesson) -> float:
    """Of a graph's outputs from the float part's: what training minimizes."""
    session, total = exact_session(model, 1), 0.0
    names = [item.name for item in session.get_outputs()]
    for i in range(lesson.frames):
        found = session.run(names, {key: file[i] for key, file in lesson.inputs.items()})
        targets = {key: torch.from_numpy(file[i].copy()) for key, file in lesson.targets.items()}
        total += sum(
            qat.distillation(dict(zip(names, map(torch.from_numpy, found), strict=True)), targets).values()
        ).item()
    return total


def test_an_interrupted_training_goes_on_and_ends_in_the_same_bytes(
    few: Calibrated, training: Training, trained: dict[str, Quantized], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    advance = qat._advance

    def stop_in_the_second_part(*arguments: Any) -> None:
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(arguments[-1])
        advance(*arguments)

    monkeypatch.setattr(qat, "SAVE_EVERY", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(qat, "_advance", stop_in_the_second_part)
        qat.learn(few, SIX, KEPT, training, tmp_path / "s.pt", threads=1)
    assert taken == [0, 1, 2, 0, 1] and [path.name for path in tmp_path.iterdir()] == ["s.pt"]
    monkeypatch.setattr(qat, "_advance", lambda *arguments: (taken.append(arguments[-1]), advance(*arguments)))
    again = qat.learn(few, SIX, KEPT, training, tmp_path / "s.pt", threads=1)
    assert taken[5:] == [2]
    for name, made in trained.items():
        assert again[name].model.SerializeToString() == made.model.SerializeToString()


def test_a_state_of_another_training_or_a_broken_one_is_not_gone_on_with(
    few: Calibrated, trained: Any, tmp_path: Path
) -> None:
    path = tmp_path / "s.pt"
    path.write_bytes(b"not a checkpoint")
    assert qat._State.open(path, few, SIX, KEPT, SHORT)._parts == {}
    torch.save({"key": "another", "parts": {"camera": 1}}, path)
    assert qat._State.open(path, few, SIX, KEPT, SHORT)._parts == {}


def test_each_frame_comes_once_before_any_comes_again() -> None:
    training = Training(steps=10, batch=2, seed=3)
    drawn = [frame for step in range(10) for frame in qat.order(training, 5, step)]
    assert [sorted(drawn[i : i + 5]) for i in range(0, 20, 5)] == [list(range(5))] * 4
    assert drawn != [frame for step in range(10) for frame in qat.order(replace(training, seed=4), 5, step)]


def test_only_calibration_frames_are_read(few: Calibrated, tmp_path: Path) -> None:
    read: list[str] = []

    class Watching:
        names = few.source.names

        def __getitem__(self, name: str) -> Any:
            read.append(name)
            return few.source[name]

    qat.Lesson.read(replace(few, source=Watching()), "camera", {}, tmp_path, 1, None)  # type: ignore[arg-type]
    assert set(read) == set(few.frames.names)


def test_the_distance_is_zero_where_both_agree_and_its_minimum() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = {"depth": (2, 4, 3, 3), "context": (2, 3, 3, 3), "heatmap": (1, 2, 4, 4), "box": (1, 10, 4, 4)}
    target = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    target["depth"] = target["depth"].softmax(1)
    found = {name: value.clone().requires_grad_() for name, value in target.items()}
    terms = qat.distillation(found, target)
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
def test_the_verb_trains_and_the_bundle_says_so(kind: str, collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.int8.imkd"
    call = [
        "quantize",
        "tiny",
        "--data",
        "synth",
        "--option",
        "scenes=2",
        "--option",
        "frames_per_scene=9",
        "--frames",
        "16",
        "--collection",
        str(collection),
    ]
    result = CliRunner().invoke(
        app, [*call, kind, "--steps", "1", "--seed", "5", "--threads", "1", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.stderr
    made = Bundle.load(out)
    says = {"steps": 1, "batch": 2, "rate": 2e-4, "seed": 5, "weights": kind == "--qat"}
    assert made.manifest["provenance"]["quantization"]["training"] == says
    assert max(check_golden(made, threads=1).values()) == 0
    for part in ("camera.float16.onnx", "bev.float16.onnx"):
        assert ort.InferenceSession(made.file(part).read_bytes(), providers=["CPUExecutionProvider"])


def test_scales_are_learnt_with_the_weights_or_without_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["quantize", "tiny", "--data", "synth", "--qat", "--refine", "--out", str(tmp_path / "x.imkd")]
    )
    assert result.exit_code == 2 and "E0104" in result.stderr and not list(tmp_path.iterdir())
