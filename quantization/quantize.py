"""Float bundle -> INT8 bundle: choose frames, observe once, solve the scales, write Q/DQ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import onnx

from imkd_edge.bundle import Bundle, golden_rig, write_bundle
from imkd_edge.calibration.collect import PARTS, Collection, Watched, collect, open_parts
from imkd_edge.calibration.frames import Frames, choose_frames
from imkd_edge.calibration.solvers import Method, solve
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.golden import remake_golden
from imkd_edge.quantization.graph import Group, Part, store_half
from imkd_edge.quantization.half import to_half
from imkd_edge.quantization.insert import Scales, insert, quantized_tensors, shared_scales, step
from imkd_edge.quantization.tables import calibration_cache, overrides
from imkd_edge.samples import Selection, select

TYPINGS = ("float32", "float16")
Bar = Callable[[str], Callable[[Any], Any]]  # title -> progress bar


@dataclass(frozen=True)
class Calibrated:
    """A float bundle and what its calibration saw; every method starts from it."""

    bundle: Bundle
    parts: dict[str, Part]
    frames: Frames
    collection: Collection


@dataclass(frozen=True)
class Quantized:
    """One part in INT8."""

    model: onnx.ModelProto
    scales: Scales
    shared: dict[str, float]  # steps of every tensor that has one, those of concatenations' inputs included
    groups: list[Group]


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
    collection: Path | None = None,
    evaluate: str | None = None,
    typing: str = "float32",
    threads: int = 0,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """Post-training quantization of a float bundle.

    Args:
        data: source of the calibration frames.
        out: folder to make, NAME.imkd.
        split: of the source; the default is "train" where it has one, else every frame.
        frames: how many to observe, chosen by herding.
        keep_float: names of layers that stay float beside those that the rules name.
        collection: file of the observers' counts, written on the way and gone on with; the default is OUT.collection.npz.
        evaluate: split of the source on which to measure both forms, for the model card.
        typing: of the bundle's parts, float32 (for ONNX Runtime) or float16 (for TensorRT, strongly typed).
        bar: makes progress bars.

    Returns:
        {"bundle", "bytes", "float_bytes", "name", "bits", "kappa", "percentile", "int8_share", "metrics", "frames", "frames_sha256",
        "unusable", "collection"}.

    Raises:
        Error: calibration_*, quantized_already, spec_bad_value, those of the source and of the bundle.
    """
    method = method or Method()
    state = collection or Path(out).absolute().with_suffix(".collection.npz")
    seen = calibrate(bundle, data, split, options or {}, frames, state, threads, bar)
    parts = {name: quantize_part(part, seen.collection, method, keep_float) for name, part in seen.parts.items()}
    made = write(seen, parts, out, method, {}, typing)
    if evaluate is not None:
        forms = {"float": seen.bundle.path, "int8": made.path}
        metrics = {
            form: evaluate_bundle(str(path), data, evaluate, options, threads=threads, track=bar and bar(f"evaluate {form}"))["metrics"]
            for form, path in forms.items()
        }
        made = write(seen, parts, out, method, metrics, typing)
    card = made.manifest["provenance"]["quantization"]
    return {
        "bundle": str(made.path),
        "bytes": sum(file.stat().st_size for file in made.path.iterdir()),
        "float_bytes": sum(file.stat().st_size for file in seen.bundle.path.iterdir()),
        **card["method"],
        "int8_share": card["int8_share"],
        "metrics": made.manifest["metrics"],
        "frames": len(seen.frames.names),
        "frames_sha256": card["frames_sha256"],
        "unusable": seen.frames.unusable,
        "collection": str(state),
    }


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
    parts = {name: Part(bundle.file(f"{name}.onnx").read_bytes(), name) for name in PARTS}
    chosen = _select(data, split, options)
    picked = choose_frames(chosen, golden_rig(bundle), frames, bar and bar("choose frames"))
    watched = [item for part in parts.values() for item in watch(part)]
    observable = {name: part.with_outputs([w.name for w in watched if w.part == name]) for name, part in parts.items()}
    seen = collect(bundle.spec, observable, watched, chosen.source, picked.names, state, threads, bar and bar("observe"))
    return Calibrated(bundle, parts, picked, seen)


def _select(data: str, split: str | None, options: Mapping[str, Any]) -> Selection:
    if split is None:
        every = select(data, options=options)
        has_train = "train" in (getattr(every.source, "splits", None) or {})
        return select(data, split="train", options=options) if has_train else every
    return select(data, split=None if split == "all" else split, options=options)


def watch(part: Part) -> list[Watched]:
    """Every activation that may be quantized, and what is concatenated to one."""
    tensors = quantized_tensors(part, part.groups())
    return part.watched({*tensors, *(name for group in shared_scales(part, tensors) for name in group)})


def quantize_part(part: Part, collection: Collection, method: Method, keep_float: tuple[str, ...] = ()) -> Quantized:
    """A part in INT8 with the scales that the method finds in the collection."""
    groups = part.groups(keep_float)
    return with_amax(part, groups, solve_all(part, quantized_tensors(part, groups), collection, method), method)


def with_amax(part: Part, groups: list[Group], amax: Mapping[str, float], method: Method) -> Quantized:
    """A part in INT8 with these ranges, of every tensor of `quantized_tensors`."""
    model, scales = insert(part, groups, amax, method.levels)
    shared = {name: float(step(value, method.levels)) for name, value in amax.items()}
    return Quantized(model, scales, shared, groups)


def solve_all(part: Part, tensors: list[str], collection: Collection, method: Method) -> dict[str, float]:
    """amax of the tensors; a concatenation's are solved on the sum of its inputs' histograms and given to its inputs too."""
    histograms = collection.histograms
    amax = {name: solve(histograms[f"{part.name}/{name}"], method) for name in tensors}
    for group in shared_scales(part, tensors):
        joined = {out for node in part.graph.node if node.op_type == "Concat" for out in node.output}
        leaves = sorted(group - joined)
        amax |= dict.fromkeys(sorted(group), solve(reduce(add, (histograms[f"{part.name}/{name}"] for name in leaves)), method))
    return amax


def write(
    seen: Calibrated,
    parts: Mapping[str, Quantized],
    out: str | os.PathLike[str],
    method: Method,
    metrics: Mapping[str, Any] = {},
    typing: str = "float32",
) -> Bundle:
    """The INT8 bundle.

    Args:
        typing: what its parts compute in between their integers, float32 or float16; the other typing and the tables of scales are further
            files.
    """
    if typing not in TYPINGS:
        raise Error(Code.spec_bad_value, f"no typing {typing!r}", "--typing", f"choose one of: {', '.join(TYPINGS)}")
    bundle = seen.bundle
    typed = {
        "float32": {name: _file(part.model, seen.parts[name].stored_half) for name, part in parts.items()},
        "float16": {name: to_half(part.model).SerializeToString() for name, part in parts.items()},
    }
    files, other = typed[typing], next(kind for kind in TYPINGS if kind != typing)
    extra = {f"{name}.{other}.onnx": data for name, data in typed[other].items()}
    extra |= {f"{name}.cache": calibration_cache(part.shared) for name, part in parts.items()}
    extra["scales.json"] = overrides({name: part.scales for name, part in parts.items()})
    provenance = {**bundle.manifest["provenance"], "quantization": _card(seen, parts, method)}
    with open_parts(bundle.spec, golden_rig(bundle), files) as detector:
        golden = remake_golden(bundle, detector)
    return write_bundle(out, bundle.spec, files["camera"], files["bev"], golden, metrics, provenance, extra)


def _file(model: onnx.ModelProto, half: bool) -> bytes:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    if half:
        store_half(copy.graph)
    return copy.SerializeToString()


def _card(seen: Calibrated, parts: Mapping[str, Quantized], method: Method) -> dict[str, Any]:
    """What a reader of the bundle must know to make it again."""
    every = [group for part in parts.values() for group in part.groups]
    total = sum(group.multiply_adds for group in every)
    hashed = hashlib.sha256("\n".join(seen.frames.names).encode()).hexdigest()
    return {
        "method": {"name": method.name, "bits": method.bits, "kappa": method.kappa, "percentile": method.percentile},
        "frames": seen.frames.names,
        "frames_sha256": hashed,
        "stress": seen.frames.stress,
        "unusable": seen.frames.unusable,
        "int8_share": sum(group.multiply_adds for group in every if not group.float_because) / total,
        "parts": {
            name: {
                "precision": {group.name: f"float: {group.float_because}" if group.float_because else "int8" for group in part.groups},
                "scales": part.scales.activations,
            }
            for name, part in parts.items()
        },
    }
