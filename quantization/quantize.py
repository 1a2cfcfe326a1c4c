"""Float bundle -> INT8 bundle: choose frames, observe them once, solve the scales, insert Q/DQ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from imkd_edge.bundle import Bundle, check_target, write_bundle
from imkd_edge.bundle.golden import Frame, pack_drive, read_golden
from imkd_edge.bundle.half import store_half
from imkd_edge.calibration.frames import sensors
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.drive import SYNTH, golden_samples, golden_source
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import with_results
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.protocol import classes_of
from imkd_edge.evaluation.run import check_protocol, choose, evaluate_bundle
from imkd_edge.options import EvalOptions, QuantizeOptions, RunOptions
from imkd_edge.progress import Bar
from imkd_edge.quantization.accept import Accepted, HeldOut, accept
from imkd_edge.quantization.calibrate import calibrate, parts_of, usable
from imkd_edge.quantization.graph import resolve_layers
from imkd_edge.quantization.ptq import QuantizedPart, SolvedPart, solve_part
from imkd_edge.quantization.radar_weight import OWN, RadarWeight
from imkd_edge.quantization.state import Calibration, Training
from imkd_edge.quantization.tables import calibration_cache, overrides
from imkd_edge.sources.base import Source
from imkd_edge.view.page import check_page

DEFAULTS = QuantizeOptions()


@dataclass(frozen=True)
class Recipe:
    """How the parts of an INT8 bundle are made from the float ones.

    Args:
        method: of the scales.
        training: after the method; None: post-training quantization only.
        correct: also correct weights and biases, behind the ranges; needs the outputs' sensitivity.
    """

    method: Method
    training: Training | None = None
    correct: bool = False

    @classmethod
    def of(cls, options: QuantizeOptions) -> Recipe:
        """The recipe that the options ask for; raises Error spec_bad_value where two of them exclude each other."""
        if options.qat and options.refine:
            fix = "leave it out, or --qat"
            raise Error(Code.spec_bad_value, "training changes the scales too", "--refine", fix)
        method = Method(
            options.method,
            options.bits,
            options.percentile,
            not options.no_equalise,
            options.radar_share,
            options.weight_bits,
        )
        training = None
        if options.qat or options.refine:
            training = Training(options.steps, seed=options.seed, weights=options.qat)
        return cls(method, training, training is None and not options.no_correct)


def quantize(
    bundle: str | os.PathLike[str] | Bundle,
    data: str | Source,
    out: str | os.PathLike[str],
    options: QuantizeOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Quantizes a float bundle to INT8 by post-training quantization, and trains it further where the options say so.

    Args:
        data: source of the calibration frames, or its name.
        out: folder to write, NAME.imkd. The default files of an interrupted run's state are OUT.collection.npz and
            OUT.qat.pt.
        options: method, frames, float layers and training. Training needs PyTorch.
        source_options: of the source's reader.
        bar: makes progress bars.

    Returns:
        {"bundle", "bytes", "float_bytes", "name", "bits", "percentile", "equalise", "weight_bits", "correct",
        "training", "int8_share", "metrics", "frames", "frames_sha256", "unusable", "collection", "fidelity", "gate",
        "accepted", "returned"}. "fidelity" is `Fidelity.row` on frames not calibrated on, "accepted" that its loss is
        at most the gate; "returned" are the layers that the gate put back to float. It does not change trained parts.

    Raises:
        Error: calibration_*, quantized_already, spec_bad_value, write_failed, those of the source and of the bundle.
    """
    bundle, recipe, float_layers = _checked(bundle, data, out, options, source_options)

    # Observe, then quantize each part and train it.
    target = Path(out).absolute()
    state = options.collection or target.with_suffix(".collection.npz")
    calibration = calibrate(bundle, data, options.split, source_options or {}, options.frames, state, threads, bar)
    recipe = replace(recipe, method=usable(recipe.method, calibration))
    calibration, recipe = _weighted(calibration, recipe, float_layers, Path(state), threads, bar)
    accepted, parts = _make(
        calibration, recipe, float_layers, options.gate, target.with_suffix(".qat.pt"), threads, bar
    )

    # Write the bundle; metrics need a bundle that can be run, and are then written into it.
    quantized = write(calibration, parts, out, recipe, accepted=accepted)
    if options.evaluate is not None:
        forms = {"float": calibration.bundle, "int8": quantized}
        metrics = _metrics(forms, data, options.evaluate, source_options, threads, bar)
        quantized = write(calibration, parts, out, recipe, metrics, accepted)
    if options.html is not None:
        from imkd_edge.quantization.report import write_report

        write_report(calibration, accepted, parts, options.html, threads)
    return {**_summary(calibration, quantized), "collection": str(state), **_verdict(accepted, options.gate)}


def _checked(
    bundle: str | os.PathLike[str] | Bundle,
    data: str | Source,
    out: str | os.PathLike[str],
    options: QuantizeOptions,
    source_options: Mapping[str, Any] | None,
) -> tuple[Bundle, Recipe, dict[str, tuple[str, ...]]]:
    """Bundle, recipe and float layers; raises the errors that can be found before minutes of work."""
    check_target(out)
    recipe = Recipe.of(options)
    if options.html is not None:
        check_page(options.html, data=True)
    bundle = Bundle.load(bundle)
    if Path(out).resolve() == bundle.path.resolve():
        what = "the INT8 bundle would replace the float one that it is made of"
        raise Error(Code.write_failed, what, str(out), "choose another folder with --out")
    if options.evaluate is not None:
        check_protocol(choose(data, options.evaluate, source_options).source, classes=classes_of(bundle))
    return bundle, recipe, resolve_layers(options.keep_float, parts_of(bundle))


def _weighted(
    calibration: Calibration,
    recipe: Recipe,
    float_layers: Mapping[str, tuple[str, ...]],
    state: Path,
    threads: int,
    bar: Bar | None,
) -> tuple[Calibration, Recipe]:
    """Both as they are; for riac with the radar's map in the weights, and the share that it has there."""
    if recipe.method.name != "riac":
        return calibration, recipe
    from imkd_edge.quantization.riac import weigh_by_radar  # PyTorch only here

    def solved(weighted: Calibration, method: Method) -> dict[str, SolvedPart]:
        return solve_parts(weighted, replace(recipe, method=method), float_layers, threads, bar)

    calibration, method = weigh_by_radar(calibration, recipe.method, state, solved, threads, bar)
    training = recipe.training and replace(recipe.training, radar=method.share or 0.0)
    return calibration, replace(recipe, method=method, training=training)


def _make(
    calibration: Calibration,
    recipe: Recipe,
    float_layers: Mapping[str, tuple[str, ...]],
    gate: float,
    state: Path,
    threads: int,
    bar: Bar | None,
) -> tuple[Accepted, dict[str, QuantizedPart]]:
    """The parts with their fidelity: put back to float until the gate holds, or trained and only measured."""
    solved = solve_parts(calibration, recipe, float_layers, threads, bar)
    held_out = HeldOut(calibration, threads, bar)
    if recipe.training is None:
        accepted = accept(calibration, solved, gate, held_out.fidelity)
        return accepted, {name: part.quantized() for name, part in accepted.parts.items()}
    from imkd_edge.quantization.qat import train_parts  # PyTorch only here

    parts = train_parts(calibration, solved, recipe.training, state, threads, bar)
    return Accepted(solved, held_out.fidelity(parts), []), parts


def solve_parts(
    calibration: Calibration,
    recipe: Recipe,
    float_layers: Mapping[str, tuple[str, ...]] = {},
    threads: int = 0,
    bar: Bar | None = None,
    kind: str = OWN,
) -> dict[str, SolvedPart]:
    """The parts with their ranges, and with corrected weights and biases where the recipe says so.

    Args:
        float_layers: part -> names of its layers that stay float.
        kind: of the radar's map that weighs the correction of riac, one of radar_weight.KINDS.
    """
    parts, collection, method = calibration.parts, calibration.collection, recipe.method
    solved = {name: solve_part(part, collection, method, float_layers.get(name, ())) for name, part in parts.items()}
    if not recipe.correct or not collection.layers:
        return solved
    from imkd_edge.quantization.correct import correct  # PyTorch only here

    weight = RadarWeight(calibration.bundle.spec, kind, method.share) if method.share else None
    return correct(calibration, solved, threads, bar, weight)


def _metrics(
    forms: Mapping[str, Bundle],
    data: str | Source,
    split: str,
    options: Mapping[str, Any] | None,
    threads: int,
    bar: Bar | None,
) -> dict[str, Any]:
    """Metrics by form; those without a value (NaN: the split has no such object) are left out."""
    metrics = {}
    for form, bundle in forms.items():
        result = evaluate_bundle(
            str(bundle.path),
            data,
            EvalOptions(split=split),
            source_options=options,
            run=RunOptions(threads=threads),
            track=bar and bar(f"evaluate {form}"),
        )
        metrics[form] = {name: value for name, value in result["metrics"].items() if value == value}
    return metrics


def _summary(calibration: Calibration, quantized: Bundle) -> dict[str, Any]:
    card = quantized.manifest["provenance"]["quantization"]
    return {
        "bundle": str(quantized.path),
        "bytes": sum(file.stat().st_size for file in quantized.path.iterdir()),
        "float_bytes": sum(file.stat().st_size for file in calibration.bundle.path.iterdir()),
        **card["method"],
        "correct": card["correct"],
        "training": card["training"],
        "int8_share": card["int8_share"],
        "metrics": quantized.manifest["metrics"],
        "frames": len(calibration.frames.names),
        "frames_sha256": card["frames_sha256"],
        "unusable": calibration.frames.unusable,
    }


def _verdict(accepted: Accepted, gate: float) -> dict[str, Any]:
    loss = accepted.fidelity["loss"]
    return {
        "fidelity": accepted.fidelity,
        "gate": gate,
        "accepted": loss is None or loss <= gate,
        "returned": [asdict(item) for item in accepted.returned],
    }


def write(
    calibration: Calibration,
    parts: Mapping[str, QuantizedPart],
    out: str | os.PathLike[str],
    recipe: Recipe,
    metrics: Mapping[str, Any] = {},
    accepted: Accepted | None = None,
) -> Bundle:
    """Writes the INT8 bundle; the tables of scales are further files in it."""
    bundle = calibration.bundle
    files = {name: _file(part.model, calibration.parts[name].stored_half) for name, part in parts.items()}
    extra = {f"{name}.cache": calibration_cache(part.shared) for name, part in parts.items()}
    extra["scales.json"] = overrides({name: _plain(part) for name, part in parts.items()})
    provenance = {**bundle.manifest["provenance"], "quantization": _card(calibration, parts, recipe, accepted)}
    drive, provenance["golden"] = _golden_drive(calibration)
    with open_parts(bundle.spec, drive[0].rig, files) as detector:
        golden = with_results(drive, detector)
    parts_of = files["camera"], files["bev"]
    return write_bundle(out, bundle.spec, *parts_of, golden, metrics, provenance, extra, bundle.contract)


def _golden_drive(calibration: Calibration) -> tuple[list[Frame], str]:
    """The float bundle's golden drive, or a synthetic one where the calibration is of other sensors; and its origin."""
    bundle, rig = calibration.bundle, calibration.source[calibration.frames.names[0]].rig
    frames = read_golden(bundle)
    if sensors(frames[0].rig) == sensors(rig):
        return frames, bundle.manifest["provenance"].get("golden", golden_source(SYNTH))
    return pack_drive(golden_samples(SYNTH, rig, bundle.spec)), golden_source(SYNTH)


def _file(model: onnx.ModelProto, half: bool) -> bytes:
    """The model's bytes; half: with large float weights stored as float16."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    if half:
        store_half(copy.graph)
    return copy.SerializeToString()


def _plain(part: QuantizedPart) -> dict[str, float]:
    """Steps of the quantized tensors of the float part."""
    return {name: part.shared[name] for name in part.scales.activations}


def _factors(part: QuantizedPart) -> list[dict[str, Any]]:
    """[{"tensors": names, "factors": (C,)}], alike ones together; `compare` multiplies with them."""
    alike: dict[bytes, list[str]] = {}
    for name, values in part.factors.items():
        alike.setdefault(values.tobytes(), []).append(name)
    return [{"tensors": names, "factors": np.frombuffer(values).tolist()} for values, names in alike.items()]


def _card(
    calibration: Calibration, parts: Mapping[str, QuantizedPart], recipe: Recipe, accepted: Accepted | None
) -> dict[str, Any]:
    """The bundle's provenance: all that is needed to make it again."""
    groups = [group for part in parts.values() for group in part.groups]
    total = sum(group.multiply_adds for group in groups)
    method, frames = recipe.method, calibration.frames
    return {
        "method": asdict(method),
        "correct": recipe.correct and bool(calibration.collection.layers),
        "fidelity": None if accepted is None else accepted.fidelity,
        "returned": [] if accepted is None else [asdict(item) for item in accepted.returned],
        "training": None if recipe.training is None else asdict(recipe.training),
        "frames": frames.names,
        "frames_sha256": hashlib.sha256("\n".join(frames.names).encode()).hexdigest(),
        "stress": frames.stress,
        "unusable": frames.unusable,
        "int8_share": sum(group.multiply_adds for group in groups if not group.float_because) / total,
        "parts": {
            name: {
                "precision": {
                    group.name: f"float: {group.float_because}" if group.float_because else "int8"
                    for group in part.groups
                },
                "scales": part.scales.activations,
                "equalised": _factors(part),
            }
            for name, part in parts.items()
        },
    }
