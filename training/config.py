"""One TOML file per model: [spec] is the ModelSpec, [model] the networks, [data] samples and labels, [train] losses and
schedule, [augment] random changes, [teacher] and [distill] the distillation.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIGS = Path(__file__).parent / "configs"
PACKAGED = "tf_efficientnet_lite0"  # the backbone whose ImageNet weights come in a package
Problems = Iterator[tuple[str, str]]  # problem and fix, of each disagreement between spec and sections


@dataclass(frozen=True)
class ModelConfig:
    """[model]: networks of the student."""

    backbone: str = "small"  # "small" or a timm name
    pretrained: bool = False  # ImageNet weights from their package
    weights: str = ""  # or from a .safetensors or .pth file with the keys of timm's or torchvision's classifier
    frozen_backbone: bool = False
    camera_channels: int = 64
    bev_channels: int = 32
    sensor_channels: int = 32
    gates: bool = True  # intensity-guided fusion


@dataclass(frozen=True)
class DataConfig:
    """[data]: training samples, and the meaning of their labels."""

    source: str = "synth"  # argument of open_source; --data overrides it
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the source
    split: str = "train"
    sensors: str = "both"  # inputs of the student, one of SENSORS
    # The dataset's label -> the spec's class; labels not listed are background.
    classes: dict[str, str] = field(default_factory=dict)
    vehicles: list[str] = field(default_factory=list)  # the dataset's labels whose footprints are segmented
    keep: bool = True  # decoded samples stay in memory or in the cache; else every epoch decodes them again
    licence: str = ""  # of the data, for the model card


@dataclass(frozen=True)
class TrainConfig:
    """[train]: batches, schedule and weights of the losses; [teacher] replaces epochs and rate for its stages."""

    epochs: int = 20
    batch: int = 4  # of a step: all processes and micro-batches together
    accumulate: int = 1  # micro-batches per step; batch norms and the losses' normalisers see one of them at a time
    precision: str = "float32"  # of the networks, one of PRECISIONS; losses and lift stay in float32
    workers: int = 0  # processes that load the examples; results do not depend on it
    rate: float = 2e-3  # AdamW, peak of the one-cycle schedule
    weight_decay: float = 0.03
    warmup: float = 0.1  # share of the steps
    clip: float = 10.0  # gradient norm
    ema: float = 0.998
    depth_weight: float = 1.0
    box_weight: float = 0.5
    overlap_weight: float = 0.0  # of 1 - IoU with the object's box
    height_weight: float = 1.0  # relative weight of the height channel among the box channels
    segmentation_weight: float = 1.0


@dataclass(frozen=True)
class AugmentConfig:
    """[augment]: random changes of the examples; 0 or false turns a change off."""

    variants: int = 0  # > 0: number of image augmentations per frame, so that frozen features can be cached
    flip: bool = True
    rotation: float = 0.0  # rad, uniform +-, of the ego frame about z
    scale: float = 0.0  # uniform 1 +- of the world
    tilt: float = (
        0.0  # degrees, uniform from 0, about a horizontal axis: of the mounting together with its ground plane
    )
    reverse: bool = False  # rotate half of the worlds by pi; with flip that is a mirror at x = 0
    image_scale: float = 0.0  # uniform 1 +- of the image crop
    image_shift: float = 0.0  # uniform +-, horizontal, of the crop, as a share of the network's width
    colour: float = 0.0  # brightness and contrast, uniform 1 +-
    drop_points: float = 0.0  # share of dropped radar points, uniform from 0
    drop_camera: float = 0.0  # probability that a camera is absent
    drop_radar: float = 0.0  # probability that all radars are absent
    mix: float = 0.0  # probability that a line through the ego cuts an example and the next one of the batch fills it
    drop_past: float = 0.0  # probability that past frames are absent from a random slot on, as after a reset


@dataclass(frozen=True)
class TeacherConfig:
    """[teacher]: LiDAR teacher and label encoder, trained on the same split with the same augmentation."""

    channels: int = 32
    radar: bool = False  # the teacher also reads the student's radar grid
    epochs: int = 30
    label_epochs: int = 6
    rate: float = 3e-3


@dataclass(frozen=True)
class DistillConfig:
    """[distill]: weights of the terms of distill.py, 0 = off; without a term or inherit there is no teacher."""

    radar: float = 0.0
    fused: float = 0.0
    label: float = 0.0
    response: float = 0.0
    intensity: str = "reflectance"  # weight of the LiDAR terms, one of INTENSITIES
    label_mask: str = "soft"  # one of LABEL_MASKS
    empty: float = 0.0  # weight of cells without a LiDAR return in the radar term; 0.1 for a dense LiDAR
    ramp: float = 1.0  # epochs until the terms have their full weight
    reach: float = 0.0  # m from the ego, range of the terms, for a LiDAR without returns beyond; 0 = everywhere
    # Copy the teacher's trunk, head and, where sizes agree, radar encoder and fusion; the terms then have no adaptor.
    inherit: bool = False

    @property
    def has_terms(self) -> bool:
        """Whether any term is on, so that the teacher runs on every batch."""
        return any((self.radar, self.fused, self.label, self.response))

    @property
    def active(self) -> bool:
        """Whether the student needs a teacher."""
        return self.inherit or self.has_terms


INTENSITIES = ("reflectance", "energy", "density", "binary", "uniform")
PRECISIONS = ("float32", "bfloat16", "float16")
LABEL_MASKS = ("soft", "binary")
SENSORS = ("both", "camera", "radar")
# Keys of numbers that must be above 0, and of those that must be at most 1.
POSITIVE = {"epochs", "label_epochs", "batch", "accumulate", "rate", "clip"}
POSITIVE |= {"channels", "camera_channels", "bev_channels", "sensor_channels"}
SHARES = {"warmup", "ema", "empty", "scale", "image_scale", "colour", "mix"}
SHARES |= {"drop_points", "drop_camera", "drop_radar", "drop_past"}
MAX_TILT = 30.0  # degrees
CHOICES = {
    ("distill", "intensity"): INTENSITIES,
    ("distill", "label_mask"): LABEL_MASKS,
    ("data", "sensors"): SENSORS,
    ("train", "precision"): PRECISIONS,
}
SECTIONS = {
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "augment": AugmentConfig,
    "teacher": TeacherConfig,
    "distill": DistillConfig,
}


@dataclass(frozen=True)
class Config:
    """A TOML file merged over its base, checked by from_dict."""

    name: str
    spec: ModelSpec
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    augment: AugmentConfig
    teacher: TeacherConfig = TeacherConfig()
    distill: DistillConfig = DistillConfig()

    def to_dict(self) -> dict[str, Any]:
        """The tree that from_dict reads, as stored in checkpoints."""
        sections = {k: asdict(getattr(self, k)) for k in SECTIONS}
        return {"name": self.name, "spec": json.loads(self.spec.to_json()), **sections}


def _section(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise Error(Code.train_config, f"{values!r} is not a table", where, "write a TOML table")
    known = {f.name: f for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise Error(Code.train_config, f"unknown key '{key}'", where, "known keys: " + ", ".join(sorted(known)))
        default = known[key].default
        if default is MISSING:
            default = known[key].default_factory()  # type: ignore[operator,misc]
        expected = type(default)
        if expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected:
            raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"it must be a {expected.__name__}")
        if expected in (int, float):
            _check_number(key, value, where)
    return cls(**values)


def _check_number(key: str, value: float, where: str) -> None:
    """Raises Error train_config for a number that is not finite, negative, 0 in POSITIVE, or above 1 in SHARES."""
    low, high = ("more than 0" if key in POSITIVE else "at least 0"), (", at most 1" if key in SHARES else "")
    if not math.isfinite(value) or value < 0 or (value == 0 and key in POSITIVE) or (value > 1 and key in SHARES):
        raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"it must be finite, {low}{high}")


def from_dict(tree: dict[str, Any], where: str) -> Config:
    """Checks a tree and makes a Config of it.

    Args:
        tree: {"name", "spec", and any of SECTIONS}.
        where: file or other origin, for error messages.

    Raises:
        Error: spec_* for [spec], train_config for the rest.
    """
    for key in tree:
        if key not in {"name", "spec", *SECTIONS}:
            fix = "known sections: name, spec, " + ", ".join(SECTIONS)
            raise Error(Code.train_config, f"unknown section '{key}'", where, fix)
    if "spec" not in tree or not isinstance(tree.get("name"), str):
        raise Error(Code.train_config, "name or [spec] is missing", where, "start from a file of training/configs")
    spec = ModelSpec.from_json(json.dumps(tree["spec"]))
    sections = {k: _section(cls, tree.get(k, {}), f"{where} [{k}]") for k, cls in SECTIONS.items()}
    for (section, key), known in CHOICES.items():
        if (value := getattr(sections[section], key)) not in known:
            fix = "choose one of: " + ", ".join(known)
            raise Error(Code.train_config, f"{key} = '{value}'", f"{where} [{section}]", fix)
    config = Config(name=tree["name"], spec=spec, **sections)
    for check in (_check_spec, _check_tilt, _check_labels, _check_history, _check_networks):
        for problem, fix in check(config):
            raise Error(Code.train_config, problem, where, fix)
    return config


def _check_spec(config: Config) -> Problems:
    spec = config.spec
    ratio = spec.grid.cell / spec.radar.cell
    if not any(math.isclose(ratio, known) for known in (1, 2, 4)):
        yield f"grid.cell is {ratio:g} times radar.cell", "the networks take 1, 2 or 4"
    if spec.image.stride not in (8, 16):
        yield f"image.stride = {spec.image.stride}", "the networks take 8 or 16"
    if spec.image.width % 32 or spec.image.height % 32:
        yield f"images of {spec.image.width} x {spec.image.height}", "the networks take multiples of 32"


def _check_tilt(config: Config) -> Problems:
    if config.augment.tilt > MAX_TILT:
        yield f"[augment] tilt = {config.augment.tilt} degrees", f"a road needs {MAX_TILT} or less"


def _check_labels(config: Config) -> Problems:
    data = config.data
    if not all(isinstance(label, str) for label in data.classes.values()):
        yield f"[data] classes is {data.classes!r}", "map each label of the dataset to a class of the spec"
    classes, targets = {c.name for c in config.spec.head.classes}, set(data.classes.values())
    if targets - classes:
        yield f"[data] classes maps to {sorted(targets - classes)}", f"the spec has {sorted(classes)}"
    if classes - targets:
        missing = sorted(classes - targets)
        yield f"[data] classes has no label for {missing}", "map the dataset's labels (in small letters) to each class"
    if not all(isinstance(label, str) for label in data.vehicles):
        yield f"[data] vehicles is {data.vehicles!r}", "list the dataset's labels"
    if config.spec.segmentation and not data.vehicles:
        yield "segmentation without [data] vehicles", "list the labels whose footprints are to be segmented"


def _check_history(config: Config) -> Problems:
    history, channels = config.spec.history, config.model.bev_channels
    if not history.frames:
        return
    if history.channels != channels:
        problem = f"history has {history.channels} channels, the fused map {channels}"
        yield problem, "make [model] bev_channels the same"
    if config.model.frozen_backbone and config.augment.variants:
        yield "[augment] variants cache features of single frames", "set variants = 0 for a spec with history"
    if config.augment.mix:
        yield "[augment] mix joins frames of different pasts", "set mix = 0 for a spec with history"


def _check_networks(config: Config) -> Problems:
    model, train = config.model, config.train
    if config.distill.inherit and model.bev_channels != config.teacher.channels:
        problem = f"a teacher of {config.teacher.channels} channels, a fused map of {model.bev_channels}"
        yield problem, "inherit needs the same number in both"
    if train.batch % train.accumulate:
        problem = f"batch = {train.batch} is no multiple of accumulate = {train.accumulate}"
        yield problem, "batch counts all micro-batches of a step"
    if model.weights and model.pretrained:
        yield "both pretrained and weights", "choose one of them"
    if model.pretrained and model.backbone != PACKAGED:
        problem = f"no package has ImageNet weights for '{model.backbone}'"
        yield problem, f"name a file in [model] weights, or take {PACKAGED}"


def load_config(name: str | Path) -> Config:
    """Loads a TOML file, or a shipped one by name; `base = "other"` supplies every key that the file lacks.

    Raises:
        Error: train_config (unknown key, wrong type, missing file), spec_* (bad [spec]).
    """
    tree, path = read_tree(name)
    return from_dict(tree, str(path))


def read_tree(
    name: str | Path, folder: Path = CONFIGS, visited: frozenset[Path] = frozenset()
) -> tuple[dict[str, Any], Path]:
    """Reads a TOML file and merges it over its base.

    Args:
        name: path, or without a suffix the name of a file in `folder`.
        folder: of the shipped files.
        visited: files that have this one as their base, to detect a loop.

    Returns:
        The tree and the path.

    Raises:
        Error: train_config.
    """
    path = Path(name)
    if not path.suffix:
        path = folder / f"{name}.toml"
    if not path.is_file() or path in visited:
        names = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        problem = f"'{name}' is its own base" if path in visited else f"there is no '{name}'"
        raise Error(Code.train_config, problem, str(path), f"shipped {folder.name}: {names}")
    try:
        tree = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error(Code.train_config, f"not TOML: {error}", str(path), "correct the syntax") from error
    if "base" in tree:
        if not isinstance(tree["base"], str):
            fix = "name a shipped config or a TOML file"
            raise Error(Code.train_config, f"base is {tree['base']!r}", str(path), fix)
        tree = merged(read_tree(tree.pop("base"), folder, visited | {path})[0], tree)
    return tree, path


def merged(base: Any, change: Any) -> Any:
    """`base` with the values of `change`, table by table."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
