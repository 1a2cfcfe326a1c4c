"""Bundles with random weights, of a few ONNX nodes, for tests that need no trained network; recording engines; toy
trainings."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imkd_edge import Detector, ModelSpec, SensorRig
from imkd_edge.bundle import write_bundle
from imkd_edge.checks.drive import golden_samples
from imkd_edge.checks.selftest import make_golden
from imkd_edge.engines import Engine, TensorInfo
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource, default_rig
from imkd_edge.spec import HistorySpec

SPEC_JSON = """{
  "version": 3, "name": "random", "cameras": %d, "context_channels": 8,
  "image": {"width": 128, "height": 64, "stride": 16, "anchor": 0.5, "mean": [127, 127, 127], "std": [64, 64, 64]},
  "depth": {"min": 2, "max": 58, "bins": 12, "spacing": "log"},
  "grid": {"x_min": -51.2, "x_max": 51.2, "y_min": -51.2, "y_max": 51.2, "z_min": -3, "z_max": 5, "cell": 1.6},
  "radar": {"cell": 0.8, "max_points": 8000, "max_age": 0.6, "features": [
    {"statistic": "log_count", "offset": 0, "scale": 1}, {"statistic": "intensity_max", "offset": 0, "scale": 0.05},
    {"statistic": "velocity_x", "offset": 0, "scale": 0.2}, {"statistic": "velocity_y", "offset": 0, "scale": 0.2},
    {"statistic": "age_min", "offset": 0, "scale": 2}]},
  "head": {"score_threshold": 0.2, "max_candidates": 200, "max_detections": 50, "classes": [
    {"name": "car", "group": 0, "nms_radius": 4}, {"name": "pedestrian", "group": 0, "nms_radius": 2}]},
  "history": {"frames": 0, "interval": 0.5, "channels": 0}, "segmentation": false
}"""


def random_spec(cameras: int = 6, past: int = 0, segmentation: bool = False) -> ModelSpec:
    """A small spec that fits the synthetic rig (6 cameras), with `past` fused maps of 4 channels, 0.5 s apart."""
    spec = ModelSpec.from_json(SPEC_JSON % cameras)
    spec.history = HistorySpec(frames=past, interval=0.5, channels=4 if past else 0)
    spec.segmentation = segmentation
    return spec


def camera_onnx(spec: ModelSpec, seed: int = 0) -> bytes:
    """images (N,3,H,W) -> depth (N,D,h,w) softmaxed, context (N,C,h,w): one strided convolution."""
    from onnx import TensorProto, helper, numpy_helper

    image, bins, context = spec.image, spec.depth.bins, spec.context_channels
    random = np.random.default_rng(seed)
    weight = random.normal(0, 0.05, (bins + context, 3, image.stride, image.stride)).astype(np.float32)
    stride = [image.stride, image.stride]
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["features"], kernel_shape=stride, strides=stride),
        helper.make_node("Split", ["features", "sizes"], ["logits", "context"], axis=1),
        helper.make_node("Softmax", ["logits"], ["depth"], axis=1),
    ]
    shape = [spec.cameras, 0, image.feature_height(), image.feature_width()]
    outputs = [_info("depth", [shape[0], bins, *shape[2:]]), _info("context", [shape[0], context, *shape[2:]])]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([bins, context], np.int64), "sizes"),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [spec.cameras, 3, image.height, image.width])]
    return _model("camera", nodes, inputs, outputs, constants)


def bev_onnx(spec: ModelSpec, seed: int = 1, gates: bool = False) -> bytes:
    """camera_bev (1,C+1,H,W), radar_grid (1,F,Hr,Wr) -> heatmap (1,K,H,W), box (1,groups*10,H,W), by 3x3 convolutions.

    Where the spec has them also history -> fused and segmentation; with gates i_cam and i_rad; each a 1x1 convolution.
    """
    from onnx import helper, numpy_helper

    height, width = spec.grid.height(), spec.grid.width()
    ratio = spec.radar_width() // width
    channels = spec.context_channels + 1 + len(spec.radar.features)
    past = spec.history.frames * spec.history.channels
    classes, groups = len(spec.head.classes), spec.head.groups()
    random = np.random.default_rng(seed)
    heat = random.normal(0, 0.3, (classes, channels + past, 3, 3)).astype(np.float32)
    box = random.normal(0, 0.05, (groups * 10, channels + past, 3, 3)).astype(np.float32)
    size_bias = np.tile(
        np.array([0, 0, 0.8, 1.4, 0.6, 0.4, 0, 1, 0, 0], np.float32), groups
    )  # metres and log metres of a plausible car
    constants = [
        numpy_helper.from_array(array, name)
        for name, array in {
            "heat": heat,
            "heat_bias": np.full(classes, -3, np.float32),
            "size": box,
            "size_bias": size_bias,
        }.items()
    ]
    nodes = [
        helper.make_node("MaxPool", ["radar_grid"], ["pooled"], kernel_shape=[ratio, ratio], strides=[ratio, ratio]),
        helper.make_node("Concat", ["camera_bev", "pooled"], ["present"], axis=1),
        helper.make_node("Concat", ["present", "history"] if past else ["present"], ["trunk"], axis=1),
        helper.make_node("Conv", ["trunk", "heat", "heat_bias"], ["heatmap"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["trunk", "size", "size_bias"], ["box"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    inputs = [
        _info("camera_bev", [1, spec.context_channels + 1, height, width]),
        _info("radar_grid", [1, len(spec.radar.features), spec.radar_height(), spec.radar_width()]),
    ]
    outputs = [_info("heatmap", [1, classes, height, width]), _info("box", [1, groups * 10, height, width])]
    if past:
        inputs.append(_info("history", [1, past, height, width]))
    maps = [("fused", "present", channels, spec.history.channels)] * bool(past) + [
        ("segmentation", "trunk", channels + past, 1)
    ] * spec.segmentation
    maps += [
        ("i_cam_logit", "camera_bev", spec.context_channels + 1, 1),
        ("i_rad_logit", "pooled", len(spec.radar.features), 1),
    ] * gates
    for name, source, count, out in maps:
        constants.append(
            numpy_helper.from_array(random.normal(0, 0.3, (out, count, 1, 1)).astype(np.float32), f"{name}_weight")
        )
        nodes.append(helper.make_node("Conv", [source, f"{name}_weight"], [name], kernel_shape=[1, 1]))
        outputs.append(_info(name.removesuffix("_logit"), [1, out, height, width]))
    nodes += [helper.make_node("Sigmoid", [f"{name}_logit"], [name]) for name in ("i_cam", "i_rad") * gates]
    return _model("bev", nodes, inputs, outputs, constants)


def _info(name: str, shape: list[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(name: str, nodes: list, inputs: list, outputs: list, constants: list) -> bytes:
    from onnx import checker, helper

    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()


@functools.cache
def random_drive(cameras: int, interval: float) -> list[Sample]:
    """The golden drive of the first cameras of the synthetic world's rig; interval: of the history, s."""
    spec = ModelSpec()
    spec.history.interval = interval
    return golden_samples("synth", golden_sample(cameras).rig, spec)


def golden_sample(cameras: int) -> Sample:
    """A frame of the synthetic world, seen by the first cameras of its rig."""
    rig = default_rig()
    rig = SensorRig(cameras=list(rig.cameras)[:cameras], radars=list(rig.radars))
    source = SynthSource(scenes=1, frames_per_scene=1, rig=rig)
    return source[source.names[0]]


def write_random_bundle(folder: Path, spec: ModelSpec | None = None, seed: int = 0, gates: bool = False) -> Path:
    """A whole bundle, with a golden drive from the synthetic world."""
    spec = spec or random_spec()
    parts = camera_onnx(spec, seed), bev_onnx(spec, seed + 1, gates)
    rig = golden_sample(spec.cameras).rig
    provenance = {"data": "none: random weights", "seed": seed}
    with tempfile.TemporaryDirectory() as place:
        camera, bev = Path(place) / "camera.onnx", Path(place) / "bev.onnx"
        camera.write_bytes(parts[0])
        bev.write_bytes(parts[1])
        with Detector.from_onnx(spec, rig, camera, bev) as detector:
            golden = make_golden(detector, random_drive(spec.cameras, spec.history.interval))
    write_bundle(folder, spec, *parts, golden=golden, metrics={}, provenance=provenance)
    return folder


class Recorder(Engine):
    """An engine that fills the outputs bound to it with a constant and remembers its arrays."""

    def __init__(self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes, self.arrays, self.runs, self.thread = (inputs, outputs), {}, 0, None

    def name(self) -> str:
        return "recorder"

    def load(self, onnx_path: str) -> None:
        self.path = onnx_path

    def inputs(self) -> list[TensorInfo]:
        return [TensorInfo(name, shape) for name, shape in self.shapes[0].items()]

    def outputs(self) -> list[TensorInfo]:
        return [TensorInfo(name, shape) for name, shape in self.shapes[1].items()]

    def bind(self, tensor: str, array: np.ndarray) -> None:
        self.arrays[tensor] = array

    def run(self) -> None:
        self.runs += 1
        for name in self.shapes[1].keys() & self.arrays:
            self.arrays[name][:] = 0.25


def recorders(spec: ModelSpec) -> tuple[Recorder, Recorder]:
    """The two parts of a spec with two cameras and neither history nor segmentation."""
    h, w, H, W = spec.image.feature_height(), spec.image.feature_width(), spec.grid.height(), spec.grid.width()
    camera = Recorder(
        {"images": (2, 3, spec.image.height, spec.image.width)},
        {"depth": (2, spec.depth.bins, h, w), "context": (2, spec.context_channels, h, w)},
    )
    radar = (1, len(spec.radar.features), spec.radar_height(), spec.radar_width())
    bev = Recorder(
        {"camera_bev": (1, spec.context_channels + 1, H, W), "radar_grid": radar},
        {"heatmap": (1, len(spec.head.classes), H, W), "box": (1, 10 * spec.head.groups(), H, W)},
    )
    return camera, bev


TOY_CONFIG = """base = "tiny"  # same parts, an eighth of the work
[spec.image]
width = 128
height = 64
[spec.depth]
bins = 8
[spec.grid]
cell = 3.2
[spec.radar]
cell = 3.2
[model]
bev_channels = 16
[train]
epochs = 3
[data.options]
scenes = 2
frames_per_scene = 4
"""


DISTIL = """lidar = true
[teacher]
channels = 16
epochs = 2
label_epochs = 2
[distill]
radar = 0.3
fused = 0.3
label = 0.3
response = 1.0
empty = 0.1
"""  # with all four terms; goes behind TOY_CONFIG


CLIP = """[spec.history]
frames = 3
interval = 0.5
channels = 16
[data]
vehicles = ["car", "truck", "bicycle"]
[augment]
drop_past = 0.1
"""  # goes behind TOY_CONFIG


def without_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Makes every import of it fail, as where it is not installed."""
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def without_limits(spec: ModelSpec) -> ModelSpec:
    """The spec, whose decoding keeps boxes of any size: a short training has not learnt sizes."""
    for item in spec.head.classes:
        item.min_size = item.max_size = None
    return spec


def few_of_astyx(folder: Path, whole: Path, each: int) -> Path:
    """An Astyx folder of `each` frames of train and of val, as links: choosing frames reads a whole split."""
    names = {split: (whole / "splits" / f"{split}.txt").read_text().split() for split in ("train", "val")}
    names = {split: every[:: len(every) // each][:each] for split, every in names.items()}
    (folder / "splits").mkdir(parents=True)
    for split, chosen in names.items():
        (folder / "splits" / f"{split}.txt").write_text("\n".join(chosen))
    for kind in ("calibration", "camera_front", "groundtruth_obj3d", "lidar_vlp16", "radar_6455"):
        (folder / kind).mkdir()
        for file in (whole / kind).iterdir():
            if file.name.split(".")[0] in names["train"] + names["val"]:
                (folder / kind / file.name).symlink_to(file)
    return folder


@contextmanager
def killed_after_the_first_save() -> Iterator[None]:
    """A training within is interrupted when its first checkpoint is written."""
    from imkd_edge.training.run import Run

    save = Run.save

    def save_then_die(run: Run) -> None:
        save(run)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "save", save_then_die)
        yield


def write_toy_config(path: Path, more: str = "") -> Path:
    """A training config that runs in seconds; `more` is appended."""
    path.write_text(TOY_CONFIG + more)
    return path


def save_untrained_teacher(config: Path, folder: Path) -> Path:
    """The checkpoint, in a new folder, of an untrained teacher that finds something everywhere."""
    import torch

    from imkd_edge.training.config import load_config
    from imkd_edge.training.program import open_dataset
    from imkd_edge.training.run import Run
    from imkd_edge.training.stages import TeacherStage

    settings = load_config(config)
    torch.manual_seed(3)
    stage = TeacherStage(settings)
    torch.nn.init.zeros_(stage.network.heatmap[1].bias)
    run = Run(settings, 0, folder, stage, open_dataset(settings, 0))
    folder.mkdir()
    run.save()
    return run.checkpoint


def write_toy_clip_config(path: Path, more: str = "") -> Path:
    """The same with four key frames and vehicle segmentation."""
    text = TOY_CONFIG.replace("[spec.image]", "[spec]\nversion = 4\nsegmentation = true\n[spec.image]")
    path.write_text(text + CLIP + more)
    return path
