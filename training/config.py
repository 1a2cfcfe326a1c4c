"""One TOML file per model: [spec] is the ModelSpec, [model] the networks, [data] samples and labels, [train] losses and
schedule, [augment] random changes, [teacher] and [distill] the distillation.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec
from imkd_edge.training.config_checks import disagreements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIGS = Path(__file__).parent / "configs"


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
    limit: int = 0  # only the first frames of the split; 0 = all
    licence: str = ""  # of the data, for the model card


@dataclass(frozen=True)
class TrainConfig:
    """[train]: batches, schedule, weights of the losses, validation; [teacher] replaces epochs and rate of its stages.

    Validation measures and never changes a weight. What it chooses is best.pt and, with patience, the end of the run,
    both on the split that val_split names: measure the final model on another one.
    """

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
    val_split: str = ""  # split that is measured while training, such as "val"; empty: none
    val_every: int = 5  # epochs between two validations; the last epoch has one too
    val_limit: int = 0  # at most so many frames of the split, evenly spaced; 0 = all
    val_metric: str = ""  # the higher the better: it chooses best.pt; empty: the first of MAIN_METRICS that is measured
    val_pictures: int = 4  # validation frames that are drawn, with their boxes
    patience: int = 0  # validations without a better val_metric that end the run; 0 = never
    tensorboard: bool = True  # events beside log.jsonl, where the package is installed


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
POSITIVE = {"epochs", "label_epochs", "batch", "accumulate", "rate", "clip", "val_every"}
POSITIVE |= {"channels", "camera_channels", "bev_channels", "sensor_channels"}
SHARES = {"warmup", "ema", "empty", "scale", "image_scale", "colour", "mix"}
SHARES |= {"drop_points", "drop_camera", "drop_radar", "drop_past"}
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
            raise _unknown("key", key, known, where)
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


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> Error:
    """The error of an unknown key or section, which names the nearest known one and all others."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    fix = (f"did you mean '{near[0]}'? " if near else "") + f"known {what}s: " + ", ".join(sorted(known))
    return Error(Code.train_config, f"unknown {what} '{name}'", where, fix)


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
            raise _unknown("section", key, ("name", "spec", *SECTIONS), where)
    if "spec" not in tree or not isinstance(tree.get("name"), str):
        raise Error(Code.train_config, "name or [spec] is missing", where, "start from a file of training/configs")
    try:
        spec = ModelSpec.from_json(json.dumps(tree["spec"]))
    except Error as error:  # which names the key alone
        raise Error(error.code, error.what, f"{where} [spec] {error.where}", error.fix) from None
    sections = {k: _section(cls, tree.get(k, {}), f"{where} [{k}]") for k, cls in SECTIONS.items()}
    for (section, key), known in CHOICES.items():
        if (value := getattr(sections[section], key)) not in known:
            fix = "choose one of: " + ", ".join(known)
            raise Error(Code.train_config, f"{key} = '{value}'", f"{where} [{section}]", fix)
    config = Config(name=tree["name"], spec=spec, **sections)
    for problem, fix in disagreements(config):
        raise Error(Code.train_config, problem, where, fix)
    return config


def load_config(name: str | Path, changes: Iterable[str] = ()) -> Config:
    """Loads a TOML file, or a shipped one by name; `base = "other"` supplies every key that the file lacks.

    Args:
        name: path, or the name of a shipped config.
        changes: of keys, such as "train.epochs=3"; see `changed_tree`.

    Raises:
        Error: train_config (unknown key, wrong type, missing file), spec_* (bad [spec]).
    """
    tree, path = read_tree(name)
    changes = list(changes)
    return from_dict(changed_tree(tree, changes), f"{path} with --set {' '.join(changes)}" if changes else str(path))


def changed_tree(tree: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A tree with other values, each "SECTION.KEY=VALUE" with a value in TOML; a bare word is text.

    Raises: Error train_config for another form, or a section or key that no config has.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        section, *keys = path.strip().split(".")
        where = f"--set {change}"
        if not equals or (not keys and section != "name") or not all(keys):
            fix = "write for example --set train.epochs=3"
            raise Error(Code.train_config, f"{change!r} is not SECTION.KEY=VALUE", "--set", fix)
        if section not in {"name", "spec", *SECTIONS}:
            raise _unknown("section", section, ("name", "spec", *SECTIONS), where)
        known = [f.name for f in fields(SECTIONS[section])] if section in SECTIONS else keys
        if keys and keys[0] not in known:
            raise _unknown("key", keys[0], known, where)
        value = _toml_value(text.strip())
        for key in reversed([section, *keys]):
            value = {key: value}
        tree = merged(tree, value)
    return tree


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
        if Path(name).is_dir():
            fix = f"write one that fits these recordings: imkd-edge init {name} --out {Path(name).name}.toml"
            raise Error(Code.train_config, "it is a folder, and a config is a TOML file", str(name), fix)
        problem = f"'{name}' is its own base" if path in visited else f"there is no '{name}'"
        raise Error(Code.train_config, problem, str(path), f"name a .toml file, or a shipped one: {names}")
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
