"""Float bundle -> INT8 bundle: choose frames, observe once, solve the scales, write Q/DQ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from imkd_edge.bundle import Bundle, check_target, golden_rig, write_bundle
from imkd_edge.bundle.files import check_writable
from imkd_edge.bundle.format import PARTS
from imkd_edge.bundle.half import store_half
from imkd_edge.calibration.collect import Collection, collect
from imkd_edge.calibration.frames import Frames, choose_frames
from imkd_edge.calibration.solvers import Method
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import remake_golden
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.run import check_protocol, choose, evaluate_bundle
from imkd_edge.options import EvalOptions, RunOptions
from imkd_edge.quantization.graph import Part, layers_called
from imkd_edge.quantization.half import to_half
from imkd_edge.quantization.ptq import Quantized, quantize_part, watch
from imkd_edge.quantization.sensitivity import Probe, mixed_precision, sensitivities
from imkd_edge.quantization.tables import calibration_cache, overrides
from imkd_edge.sources.base import Source
from imkd_edge.sources.select import Selection, select

PROBES = 4  # frames on which layers are compared
LARGE_ERROR = 0.05  # NMSE of an output above which boxes were seen to suffer: quantization/README.md
TYPINGS = ("float32", "float16")
Bar = Callable[[str], Callable[[Any], Any]]  # title -> progress bar


@dataclass(frozen=True)
class Training:
    """Quantization-aware training, or refinement of the scales alone: how long and how fast.

    Args:
        steps: of each part.
        batch: frames to a step.
        rate: Adam's at the start of half a cosine, of the weights; that of the logarithms of quantizers' steps is STEP_RATE times as high.
        seed: of the order of the frames.
        weights: learn weights and biases too; else they stay the float bundle's, and only quantizers' steps are learnt.
    """

    steps: int = 150
    batch: int = 2
    rate: float = 2e-4
    seed: int = 0
    weights: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.rate < 1:
            what = f"steps {self.steps}, batch {self.batch}, rate {self.rate}"
            raise Error(Code.spec_bad_value, what, "training", "steps and batch from 1, rate above 0, below 1")


@dataclass(frozen=True)
class Calibrated:
    """A float bundle and what its calibration saw; every method starts from it."""

    bundle: Bundle
    parts: dict[str, Part]
    source: Source
    frames: Frames
    collection: Collection


def quantize(
    bundle: str | os.PathLike[str] | Bundle,
    data: str,
    out: str | os.PathLike[str],
    method: Method | None = None,
    *,
    split: str | None = None,
    options: Mapping[str, Any] | None = None,
    frames: int = 128,
    keep_float: tuple[str, ...] = (),
    gate: float | None = None,
    collection: Path | None = None,
    evaluate: str | None = None,
    typing: str = "float32",
    training: Training | None = None,
    html: Path | None = None,
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Post-training quantization of a float bundle, and training behind it.

    Args:
        data: source of the calibration frames.
        out: folder to make, NAME.imkd.
        split: of the source; the default is "train" where it has one, else every frame.
        frames: how many to observe, chosen by herding.
        keep_float: layers that stay float beside those that the rules name, LAYER or PART/LAYER; a gate chooses them itself.
        gate: largest NMSE of a part's outputs on the first calibration frames; the layers that suffer most go back to float until it holds.
        collection: file of the observers' counts, written on the way and gone on with; the default is OUT.collection.npz.
        evaluate: split of the source on which to measure both forms, for the model card.
        typing: of the bundle's parts, float32 (for ONNX Runtime) or float16 (for TensorRT, strongly typed).
        training: on the calibration frames, from the method's scales; its state is OUT.qat.pt. It needs PyTorch.
        html: page to write about it, with its data as JSON beside it: histograms and ranges, weights over the ground, each layer's part.
        bar: makes progress bars.

    Returns:
        {"bundle", "bytes", "float_bytes", "name", "bits", "kappa", "percentile", "training", "int8_share", "metrics", "frames",
        "frames_sha256", "unusable", "collection", "error"}, the last one the largest NMSE of an output of each part on a few of the frames.

    Raises:
        Error: calibration_*, quantized_already, spec_bad_value, write_failed, those of the source and of the bundle.
    """
    check_target(out)  # whatever can be refused is refused now, not after the long work
    _check_typing(typing)
    if html is not None:
        check_writable(html)
    if evaluate is not None:
        check_protocol(choose(data, evaluate, options).source)
    bundle = Bundle.load(bundle)
    chosen = layers_called(keep_float, _parts(bundle))
    method = method or Method()
    state = collection or Path(out).absolute().with_suffix(".collection.npz")
    seen = calibrate(bundle, data, split, options or {}, frames, state, threads, bar)
    kept = {
        name: chosen[name] if gate is None else gated(seen, part, method, gate, threads, bar)
        for name, part in seen.parts.items()
    }
    if training is None:
        parts = {name: quantize_part(part, seen.collection, method, kept[name]) for name, part in seen.parts.items()}
    else:
        from imkd_edge.quantization.qat import learn  # PyTorch only here

        parts = learn(seen, method, kept, training, Path(out).absolute().with_suffix(".qat.pt"), threads, bar)
    made = write(seen, parts, out, method, {}, typing, training)
    if evaluate is not None:
        metrics = _metrics({"float": seen.bundle, "int8": made}, data, evaluate, options, threads, bar)
        made = write(seen, parts, out, method, metrics, typing, training)
    if html is not None:
        from imkd_edge.quantization.report import write_report

        write_report(seen, parts, method, html, threads, bar)
    error = {name: probe_of(seen, part, threads).error(parts[name].model, threads) for name, part in seen.parts.items()}
    return {**_summary(seen, made), "collection": str(state), "error": error}


def _metrics(
    forms: Mapping[str, Bundle], data: str, split: str, options: Mapping[str, Any] | None, threads: int, bar: Bar | None
) -> dict[str, Any]:
    """Those of each form, by its name; one without a value (NaN: nothing to find) is left out."""
    found = {
        form: evaluate_bundle(
            str(bundle.path),
            data,
            EvalOptions(split=split),
            source_options=options,
            run=RunOptions(threads=threads),
            track=bar and bar(f"evaluate {form}"),
        )["metrics"]
        for form, bundle in forms.items()
    }
    return {form: {name: value for name, value in metrics.items() if value == value} for form, metrics in found.items()}


def _summary(seen: Calibrated, made: Bundle) -> dict[str, Any]:
    card = made.manifest["provenance"]["quantization"]
    return {
        "bundle": str(made.path),
        "bytes": sum(file.stat().st_size for file in made.path.iterdir()),
        "float_bytes": sum(file.stat().st_size for file in seen.bundle.path.iterdir()),
        **card["method"],
        "training": card["training"],
        "int8_share": card["int8_share"],
        "metrics": made.manifest["metrics"],
        "frames": len(seen.frames.names),
        "frames_sha256": card["frames_sha256"],
        "unusable": seen.frames.unusable,
    }


def probe_of(seen: Calibrated, part: Part, threads: int) -> Probe:
    """The part on a few of the calibration frames."""
    return Probe.of(seen.bundle, part, seen.source, seen.frames.names[:PROBES], threads)


def gated(seen: Calibrated, part: Part, method: Method, gate: float, threads: int, bar: Bar | None) -> tuple[str, ...]:
    """Layers of a part that stay float so that its error on a few calibration frames is at most the gate."""
    seen_by = probe_of(seen, part, threads)
    suffering = sensitivities(part, seen.collection, method, seen_by, threads, bar and bar(f"layers of {part.name}"))
    return mixed_precision(part, seen.collection, method, seen_by, suffering, gate, threads=threads)


def calibrate(
    bundle: str | os.PathLike[str] | Bundle,
    data: str,
    split: str | None,
    options: Mapping[str, Any],
    frames: int,
    state: Path | None,
    threads: int = 0,
    bar: Bar | None = None,
) -> Calibrated:
    """Chooses the frames and runs the one pass over them; arguments as of `quantize`."""
    bundle = Bundle.load(bundle)
    parts = _parts(bundle)
    chosen = _select(data, split, options)
    picked = choose_frames(chosen, golden_rig(bundle), frames, bar and bar("choose frames"))
    watched = [item for part in parts.values() for item in watch(part)]
    observable = {name: part.with_outputs([w.name for w in watched if w.part == name]) for name, part in parts.items()}
    seen = collect(
        bundle.spec, observable, watched, chosen.source, picked.names, state, threads, bar and bar("observe")
    )
    return Calibrated(bundle, parts, chosen.source, picked, seen)


def _parts(bundle: Bundle) -> dict[str, Part]:
    return {name: Part(bundle.file(f"{name}.onnx").read_bytes(), name) for name in PARTS}


def _select(data: str, split: str | None, options: Mapping[str, Any]) -> Selection:
    if split is None:
        every = select(data, options=options)
        has_train = "train" in (getattr(every.source, "splits", None) or {})
        return select(data, split="train", options=options) if has_train else every
    return select(data, split=None if split == "all" else split, options=options)


def write(
    seen: Calibrated,
    parts: Mapping[str, Quantized],
    out: str | os.PathLike[str],
    method: Method,
    metrics: Mapping[str, Any] = {},
    typing: str = "float32",
    training: Training | None = None,
) -> Bundle:
    """The INT8 bundle.

    Args:
        training: what the parts went through after the method.
        typing: what its parts compute in between their integers, float32 or float16; the other typing and the tables of scales are further
            files.
    """
    _check_typing(typing)
    bundle = seen.bundle
    typed = {
        "float32": {name: _file(part.model, seen.parts[name].stored_half) for name, part in parts.items()},
        "float16": {name: to_half(part.model).SerializeToString() for name, part in parts.items()},
    }
    files, other = typed[typing], next(kind for kind in TYPINGS if kind != typing)
    extra = {f"{name}.{other}.onnx": data for name, data in typed[other].items()}
    extra |= {f"{name}.cache": calibration_cache(part.shared) for name, part in parts.items()}
    extra["scales.json"] = overrides({name: part.scales for name, part in parts.items()})
    provenance = {**bundle.manifest["provenance"], "quantization": _card(seen, parts, method, training)}
    with open_parts(bundle.spec, golden_rig(bundle), files) as detector:
        golden = remake_golden(bundle, detector)
    return write_bundle(out, bundle.spec, files["camera"], files["bev"], golden, metrics, provenance, extra)


def _check_typing(typing: str) -> None:
    if typing not in TYPINGS:
        raise Error(Code.spec_bad_value, f"no typing {typing!r}", "--typing", f"choose one of: {', '.join(TYPINGS)}")


def _file(model: onnx.ModelProto, half: bool) -> bytes:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    if half:
        store_half(copy.graph)
    return copy.SerializeToString()


def _card(
    seen: Calibrated, parts: Mapping[str, Quantized], method: Method, training: Training | None
) -> dict[str, Any]:
    """What a reader of the bundle must know to make it again."""
    every = [group for part in parts.values() for group in part.groups]
    total = sum(group.multiply_adds for group in every)
    hashed = hashlib.sha256("\n".join(seen.frames.names).encode()).hexdigest()
    return {
        "method": {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile},
        "training": None if training is None else asdict(training),
        "frames": seen.frames.names,
        "frames_sha256": hashed,
        "stress": seen.frames.stress,
        "unusable": seen.frames.unusable,
        "int8_share": sum(group.multiply_adds for group in every if not group.float_because) / total,
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
