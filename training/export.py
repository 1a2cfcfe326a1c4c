"""Checkpoint -> bundle: two ONNX parts without plugins, the golden drive and the model card."""

from __future__ import annotations

import datetime
import json
import platform
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from imkd_edge.bundle import check_target, write_bundle
from imkd_edge.bundle.contract import Contract
from imkd_edge.bundle.half import store_half
from imkd_edge.checks.cameras import spec_with_cameras
from imkd_edge.checks.contract import measure, spaced
from imkd_edge.checks.drive import SYNTH, golden_samples, golden_source
from imkd_edge.checks.limits import with_limits
from imkd_edge.checks.selftest import make_golden
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.predict.cost import cost
from imkd_edge.sources.base import Source
from imkd_edge.sources.select import select, split_names
from imkd_edge.sources.synth import default_rig
from imkd_edge.spec import ModelSpec
from imkd_edge.training.checkpoint import contract_of, load_student
from imkd_edge.training.config import Config
from imkd_edge.training.models.student import Student

OPSET = 18
GOLDEN_IMAGE = (240, 135)  # px, of the synthetic rig


def export(
    checkpoint: Path | str,
    out: Path | str,
    data: str | None = None,
    metrics: Path | str | None = None,
    half: bool = False,
    cameras: int | None = None,
    golden: str = SYNTH,
) -> dict[str, Any]:
    """Writes the averaged student of a checkpoint as a bundle; the contract's sizes limit those of its boxes.

    Args:
        checkpoint: file of `imkd-edge train`.
        out: folder to make, NAME.imkd.
        data: source whose rig the golden drive has, and on whose training split the contract is measured anew; the
            default is the config's, with the contract of the checkpoint.
        metrics: JSON file of `imkd-edge eval --json` for the model card.
        half: store the large weights as float16, which halves the file; the arithmetic stays float32.
        cameras: largest number of cameras of a rig; the default is the training's.
        golden: of the golden drive, as in `golden_samples`.

    Returns:
        {"bundle", "bytes", "parameters"}.

    Raises:
        Error: train_checkpoint, train_config, those of the source, write_failed.
    """
    check_target(out)
    student, settings, state = load_student(Path(checkpoint))
    if settings.data.sensors != "both":
        problem = f"a student trained with the {settings.data.sensors} alone"
        fix = 'train one of [data] sensors = "both", since a Detector feeds it both'
        raise Error(Code.train_config, problem, str(checkpoint), fix)
    card_metrics = _metrics(metrics)
    if cameras is not None:  # the weights are shared by all cameras
        settings = replace(settings, spec=spec_with_cameras(settings.spec, cameras))
    camera, bev = to_onnx(student, settings.spec, half)

    # The synthetic golden drive has the rig of the source's first frame.
    name = data or settings.data.source
    options = settings.data.options if name == settings.data.source else {}
    source = select(name, options=options, read=("labels",)).source
    contract = _contract(settings, state, source if data else None)
    settings = replace(settings, spec=with_limits(settings.spec, contract))
    drive = _golden(golden, settings, source, camera, bev, contract)

    provenance = model_card(_without_paths(settings, source.kind), state)
    provenance["golden"] = golden_source(golden)
    provenance["parts"] = {"camera.onnx": cost(camera), "bev.onnx": cost(bev)}
    write_bundle(out, settings.spec, camera, bev, drive, card_metrics, provenance, contract=contract)
    size = sum(p.stat().st_size for p in Path(out).iterdir())
    return {"bundle": str(out), "bytes": size, "parameters": provenance["parameters"]}


def to_onnx(student: Student, spec: ModelSpec, half: bool = False) -> tuple[bytes, bytes]:
    """Exports camera.onnx and bev.onnx: opset 18, static shapes, float32; `half` stores large weights as float16."""
    student.eval()
    image = torch.zeros(spec.cameras, 3, spec.image.height, spec.image.width)
    grid = spec.grid.height(), spec.grid.width()
    camera_bev = torch.zeros(1, spec.context_channels + 1, *grid)
    radar = torch.zeros(1, len(spec.radar.features), spec.radar_height(), spec.radar_width())
    inputs = {"camera_bev": camera_bev, "radar_grid": radar}
    if spec.history.frames:
        inputs["history"] = torch.zeros(1, spec.history.frames * spec.history.channels, *grid)
    return (
        _part(student.camera, (image,), ["images"], ["depth", "context"], half),
        _part(student.bev, tuple(inputs.values()), list(inputs), student.bev.outputs, half),
    )


def _part(module: nn.Module, inputs: tuple, input_names: list[str], output_names: list[str], half: bool) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, input_names=input_names, output_names=output_names,
            dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
        )  # fmt: skip
    model = program.model_proto

    # Metadata holds paths and stack traces of the exporting machine.
    graph = model.graph
    for item in [graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""
    if half:
        store_half(graph)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _contract(settings: Config, state: dict[str, Any], source: Source | None) -> Contract | None:
    """What the model was trained on: measured on a source, else the checkpoint's; None in checkpoints of old."""
    if source is None:
        return contract_of(state)
    names = split_names(source, settings.data.split, settings.data.source)
    samples = (source[name] for name in spaced(names))
    return measure(samples, settings.spec, settings.data.classes, source, settings.data.split)


def _golden(
    golden: str, settings: Config, source: Source, camera: bytes, bev: bytes, contract: Contract | None
) -> dict[str, np.ndarray]:
    """Runs a drive through the bundle: every device must reproduce its tensors and boxes.

    The sensors are those of the training data. The world is synthetic by default, since a licence may forbid to pass
    frames on.
    """
    rig = source[source.names[0]].rig
    if source.kind == "synth":
        rig = default_rig(GOLDEN_IMAGE)  # images make up most of a small bundle
    samples = golden_samples(golden, rig, settings.spec)
    with tempfile.TemporaryDirectory() as folder:
        draft = write_bundle(Path(folder) / "draft.imkd", settings.spec, camera, bev, {}, {}, {}, contract=contract)
        with Detector(draft, rig=samples[0].rig) as detector:
            return make_golden(detector, samples)


def _without_paths(settings: Config, kind: str) -> Config:
    """The config without paths of this machine."""
    weights = Path(settings.model.weights).name
    return replace(settings, data=settings.data.without_paths(kind), model=replace(settings.model, weights=weights))


def model_card(settings: Config, state: dict[str, Any]) -> dict[str, Any]:
    """Provenance of the model: everything needed to train it again."""
    student = Student(settings.spec, replace(settings.model, pretrained=False, weights=""))
    method = "distilled from a LiDAR teacher" + (" and labels" if settings.distill.label else "")
    method = method if settings.distill.active else "trained without distillation"
    return {
        "config": settings.to_dict(),
        "data": {"source": settings.data.source, "split": settings.data.split, "licence": settings.data.licence},
        "seed": state["seed"],
        "epochs": state["epoch"],
        "commit": state.get("commit", "unknown"),
        "parameters": sum(p.numel() for p in student.parameters()),
        **({"from": state["from"]} if state.get("from") else {}),  # weights that it started from, and their licence
        "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "method": f"re-implementation of IMKD from its public description; {method}",
    }


def _metrics(path: Path | str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        fix = "pass the output of imkd-edge eval --json"
        raise Error(Code.source_missing_file, f"unreadable metrics: {error}", str(path), fix) from error
