"""Float bundle -> INT8 bundle: choose frames, observe them once, solve the scales, insert Q/DQ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from imkd_edge.bundle import PARTS, Bundle, check_target, check_writable, golden_rig, write_bundle
from imkd_edge.bundle.golden import Frame, pack_drive, read_golden
from imkd_edge.bundle.half import store_half
from imkd_edge.calibration.collect import collect
from imkd_edge.calibration.frames import choose_frames, sensors
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.contract import warn_of_source
from imkd_edge.checks.drive import SYNTH, golden_samples, golden_source
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import with_results
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.protocol import classes_of
from imkd_edge.evaluation.run import check_protocol, choose, evaluate_bundle
from imkd_edge.options import EvalOptions, QuantizeOptions, RunOptions
from imkd_edge.progress import Bar
from imkd_edge.quantization.graph import Part, resolve_layers
from imkd_edge.quantization.half import to_half
from imkd_edge.quantization.ptq import QuantizedPart, quantize_part, tensors_to_observe
from imkd_edge.quantization.sensitivity import calibration_probe, float_layers_for_gate
from imkd_edge.quantization.state import Calibration, Training
from imkd_edge.quantization.tables import calibration_cache, overrides
from imkd_edge.sources.base import Source
from imkd_edge.sources.select import Selection, select

LARGE_ERROR = 0.05  # NMSE of an output above which boxes were lost: quantization/README.md
TYPINGS = ("float32", "float16")
DEFAULTS = QuantizeOptions()


@dataclass(frozen=True)
class Recipe:
    """How the parts of an INT8 bundle are made from the float ones.

    Args:
        method: of the scales.
        training: after the method; None: post-training quantization only.
        typing: of the operators between the integers, float32 (for ONNX Runtime) or float16 (for TensorRT, strongly
            typed).

    Raises:
        Error: spec_bad_value for another typing.
    """

    method: Method
    training: Training | None = None
    typing: str = "float32"

    def __post_init__(self) -> None:
        if self.typing not in TYPINGS:
            fix = f"choose one of: {', '.join(TYPINGS)}"
            raise Error(Code.spec_bad_value, f"no typing {self.typing!r}", "--typing", fix)

    @classmethod
    def of(cls, options: QuantizeOptions) -> Recipe:
        """The recipe that the options ask for; raises Error spec_bad_value where two of them exclude each other."""
        if options.qat and options.refine:
            fix = "leave it out, or --qat"
            raise Error(Code.spec_bad_value, "training changes the scales too", "--refine", fix)
        if options.gate is not None and options.keep_float:
            fix = "leave it out, or --gate"
            raise Error(Code.spec_bad_value, "a gate chooses the float layers itself", "--keep-float", fix)
        method = Method(options.method, options.bits, options.kappa, options.percentile)
        training = None
        if options.qat or options.refine:
            training = Training(options.steps, seed=options.seed, weights=options.qat)
        return cls(method, training, options.typing)


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
        {"bundle", "bytes", "float_bytes", "name", "bits", "kappa", "percentile", "training", "int8_share", "metrics",
        "frames", "frames_sha256", "unusable", "collection", "error"}; "error" is the largest NMSE of an output of each
        part on the first calibration frames.

    Raises:
        Error: calibration_*, quantized_already, spec_bad_value, write_failed, those of the source and of the bundle.
    """
    # Check everything that can be checked, before minutes of work.
    check_target(out)
    recipe = Recipe.of(options)
    if options.html is not None:
        check_writable(options.html)
    bundle = Bundle.load(bundle)
    if options.evaluate is not None:
        check_protocol(choose(data, options.evaluate, source_options).source, classes=classes_of(bundle))
    float_layers = resolve_layers(options.keep_float, _parts(bundle))

    # Observe, then quantize each part and train it.
    target = Path(out).absolute()
    state = options.collection or target.with_suffix(".collection.npz")
    calibration = calibrate(bundle, data, options.split, source_options or {}, options.frames, state, threads, bar)
    if options.gate is not None:
        float_layers = float_layers_for_gate(calibration, recipe.method, options.gate, threads, bar)
    parts = _quantize_parts(calibration, recipe, float_layers, target.with_suffix(".qat.pt"), threads, bar)

    # Write the bundle; metrics need a bundle that can be run, and are then written into it.
    quantized = write(calibration, parts, out, recipe)
    if options.evaluate is not None:
        forms = {"float": calibration.bundle, "int8": quantized}
        metrics = _metrics(forms, data, options.evaluate, source_options, threads, bar)
        quantized = write(calibration, parts, out, recipe, metrics)
    if options.html is not None:
        from imkd_edge.quantization.report import write_report

        write_report(calibration, parts, recipe.method, options.html, threads, bar)
    return {
        **_summary(calibration, quantized),
        "collection": str(state),
        "error": _errors(calibration, parts, threads),
    }


def _quantize_parts(
    calibration: Calibration,
    recipe: Recipe,
    float_layers: Mapping[str, tuple[str, ...]],
    state: Path,
    threads: int,
    bar: Bar | None,
) -> dict[str, QuantizedPart]:
    if recipe.training is None:
        return {
            name: quantize_part(part, calibration.collection, recipe.method, float_layers[name])
            for name, part in calibration.parts.items()
        }
    from imkd_edge.quantization.qat import train_parts  # PyTorch only here

    return train_parts(calibration, recipe.method, float_layers, recipe.training, state, threads, bar)


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


def _errors(calibration: Calibration, parts: Mapping[str, QuantizedPart], threads: int) -> dict[str, float]:
    """The largest NMSE of an output of each part on the first calibration frames."""
    return {
        name: calibration_probe(calibration, part, threads).error(parts[name].model, threads)
        for name, part in calibration.parts.items()
    }


def _summary(calibration: Calibration, quantized: Bundle) -> dict[str, Any]:
    card = quantized.manifest["provenance"]["quantization"]
    return {
        "bundle": str(quantized.path),
        "bytes": sum(file.stat().st_size for file in quantized.path.iterdir()),
        "float_bytes": sum(file.stat().st_size for file in calibration.bundle.path.iterdir()),
        **card["method"],
        "training": card["training"],
        "int8_share": card["int8_share"],
        "metrics": quantized.manifest["metrics"],
        "frames": len(calibration.frames.names),
        "frames_sha256": card["frames_sha256"],
        "unusable": calibration.frames.unusable,
    }


def calibrate(
    bundle: str | os.PathLike[str] | Bundle,
    data: str | Source,
    split: str | None,
    source_options: Mapping[str, Any],
    frames: int,
    state: Path | None,
    threads: int = 0,
    bar: Bar | None = None,
) -> Calibration:
    """Chooses the calibration frames and observes the float bundle on them.

    Args:
        split: of the source; None: "train" where it has one, else every frame; "all": every frame.
        frames: how many to choose.
        state: file of the histograms, written on the way; an interrupted pass resumes from it.
    """
    bundle = Bundle.load(bundle)
    parts = _parts(bundle)
    selection = _select(data, split, source_options)
    warn_of_source(bundle, selection.source)
    # After `export --cameras` the golden drive still has the rig of the training.
    rig = None if "cameras" in bundle.manifest["provenance"] else golden_rig(bundle)
    calibration_frames = choose_frames(selection, rig, frames, bar and bar("choose frames"))
    tensors = [item for part in parts.values() for item in tensors_to_observe(part)]
    observable = {name: part.with_outputs([t.name for t in tensors if t.part == name]) for name, part in parts.items()}
    track = bar and bar("observe")
    collection = collect(
        bundle.spec,
        observable,
        tensors,
        selection.source,
        calibration_frames.names,
        state,
        threads,
        track,
        calibration_frames.unusable,
    )
    return Calibration(bundle, parts, selection.source, calibration_frames, collection)


def _parts(bundle: Bundle) -> dict[str, Part]:
    return {name: Part(bundle.file(f"{name}.onnx").read_bytes(), name) for name in PARTS}


def _select(data: str | Source, split: str | None, options: Mapping[str, Any]) -> Selection:
    if split is None:
        every = select(data, options=options)
        has_train = "train" in (getattr(every.source, "splits", None) or {})
        return select(data, split="train", options=options) if has_train else every
    return select(data, split=None if split == "all" else split, options=options)


def write(
    calibration: Calibration,
    parts: Mapping[str, QuantizedPart],
    out: str | os.PathLike[str],
    recipe: Recipe,
    metrics: Mapping[str, Any] = {},
) -> Bundle:
    """Writes the INT8 bundle; the parts in the other typing and the tables of scales are further files in it."""
    bundle = calibration.bundle
    typed = {
        "float32": {name: _file(part.model, calibration.parts[name].stored_half) for name, part in parts.items()},
        "float16": {name: to_half(part.model).SerializeToString() for name, part in parts.items()},
    }
    files, other = typed[recipe.typing], next(typing for typing in TYPINGS if typing != recipe.typing)
    extra = {f"{name}.{other}.onnx": data for name, data in typed[other].items()}
    extra |= {f"{name}.cache": calibration_cache(part.shared) for name, part in parts.items()}
    extra["scales.json"] = overrides({name: part.scales for name, part in parts.items()})
    provenance = {**bundle.manifest["provenance"], "quantization": _card(calibration, parts, recipe)}
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


def _card(calibration: Calibration, parts: Mapping[str, QuantizedPart], recipe: Recipe) -> dict[str, Any]:
    """The bundle's provenance: all that is needed to make it again."""
    groups = [group for part in parts.values() for group in part.groups]
    total = sum(group.multiply_adds for group in groups)
    method, frames = recipe.method, calibration.frames
    return {
        "method": {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile},
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
            }
            for name, part in parts.items()
        },
    }
