"""One TOML file per model: [spec] is the ModelSpec, [model] the networks, [data] what they learn from, [train] and [augment] how."""

from __future__ import annotations

import json
import math
import sys
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
PACKAGED = "tf_efficientnet_lite0"  # whose ImageNet weights a package has


@dataclass(frozen=True)
class ModelConfig:
    """[model]: the student's networks."""

    backbone: str = "small"  # "small" or a timm name
    pretrained: bool = False  # ImageNet weights from their package
    weights: str = ""  # or from a local .safetensors or .pth file with the keys of timm's or torchvision's classifier
    frozen_backbone: bool = False
    camera_channels: int = 64
    bev_channels: int = 32
    sensor_channels: int = 32
    gates: bool = True  # intensity-guided fusion


@dataclass(frozen=True)
class DataConfig:
    """[data]: the samples to learn from, and what their labels mean to the model."""

    source: str = "synth"  # what open_source understands; --data overrides it
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the source
    split: str = "train"
    sensors: str = "both"  # what the student is given of them, one of SENSORS
    classes: dict[str, str] = field(
        default_factory=dict
    )  # the dataset's label -> the spec's class; others are background
    vehicles: list[str] = field(default_factory=list)  # the dataset's labels whose footprints are segmented
    keep: bool = True  # decoded samples stay in memory or the cache; without it every epoch reads them again
    licence: str = ""  # of the data, for the model card


@dataclass(frozen=True)
class TrainConfig:
    """[train]: batches, schedule and weights of the losses; the teacher's stages have epochs and rate of their own."""

    epochs: int = 20
    batch: int = 4  # of a step: all processes and micro-batches together
    accumulate: int = 1  # micro-batches per step; batch norms and the losses' normalisers see one of them at a time
    precision: str = "float32"  # of the trained networks, one of PRECISIONS; losses and lift stay in float32
    workers: int = 0  # processes that make the examples of this one; no result depends on it
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
    """[augment]: how far examples are changed at random; what is 0 or false changes nothing."""

    variants: int = (
        0  # > 0: image augmentations are drawn from this many per frame, so that frozen features can be cached
    )
    flip: bool = True
    rotation: float = 0.0  # rad, uniform +-, of the ego frame about z
    scale: float = 0.0  # uniform 1 +- of the world
    reverse: bool = False  # half of the worlds are turned round; with flip that is a mirror at x = 0
    image_scale: float = 0.0  # uniform 1 +- of the image crop
    image_shift: float = 0.0  # uniform +- of the crop to either side, share of the network's width
    colour: float = 0.0  # brightness and contrast, uniform 1 +-
    drop_points: float = 0.0  # share of radar points dropped, uniform 0..
    drop_camera: float = 0.0  # probability that a camera is absent
    drop_radar: float = 0.0
    mix: float = 0.0  # probability that an example is cut along a line through the ego and goes on as the next of its batch: mix.py
    drop_past: float = 0.0  # probability that what is past is forgotten from a random slot on, as after a reset


@dataclass(frozen=True)
class TeacherConfig:
    """The LiDAR teacher and the label encoder; they learn from the same split with the same augmentation."""

    channels: int = 32
    radar: bool = False  # the teacher reads the student's radar grid beside its LiDAR
    epochs: int = 30
    label_epochs: int = 6
    rate: float = 3e-3


@dataclass(frozen=True)
class DistillConfig:
    """Weights of the terms of distill.py, 0 = off; all 0 and nothing inherited trains without a teacher."""

    radar: float = 0.0
    fused: float = 0.0
    label: float = 0.0
    response: float = 0.0
    intensity: str = "reflectance"  # what weights the LiDAR terms, one of INTENSITIES
    label_mask: str = "soft"  # one of LABEL_MASKS
    empty: float = 0.0  # weight of cells without a LiDAR return in the radar term; 0.1 for a dense LiDAR
    ramp: float = 1.0  # epochs until the terms have their full weight
    reach: float = 0.0  # m from the ego within which the terms count, for a LiDAR that is blind beyond; 0 = everywhere
    inherit: bool = False  # start with the weights of the teacher: trunk, head and, of one size, radar encoder and fusion; no adaptor then

    @property
    def taught(self) -> bool:
        """Whether any term counts, so that the teacher sees every batch."""
        return any((self.radar, self.fused, self.label, self.response))

    @property
    def active(self) -> bool:
        """Whether there is a teacher at all."""
        return self.inherit or self.taught


INTENSITIES = ("reflectance", "energy", "density", "binary", "uniform")
PRECISIONS = ("float32", "bfloat16", "float16")
LABEL_MASKS = ("soft", "binary")
SENSORS = ("both", "camera", "radar")
POSITIVE = {"epochs", "label_epochs", "batch", "accumulate", "rate", "clip"}
POSITIVE |= {"channels", "camera_channels", "bev_channels", "sensor_channels"}
SHARES = {
    "warmup",
    "ema",
    "scale",
    "image_scale",
    "colour",
    "drop_points",
    "drop_camera",
    "drop_radar",
    "drop_past",
    "mix",
    "empty",
}
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
    """What a TOML file over its base says, as from_dict has checked it."""

    name: str
    spec: ModelSpec
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    augment: AugmentConfig
    teacher: TeacherConfig = TeacherConfig()
    distill: DistillConfig = DistillConfig()

    def to_dict(self) -> dict[str, Any]:
        """The tree that from_dict reads, as checkpoints keep it."""
        parts = {k: asdict(getattr(self, k)) for k in SECTIONS}
        return {"name": self.name, "spec": json.loads(self.spec.to_json()), **parts}


def _section(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise Error(Code.train_config, f"[{where}] is not a table", where, "write it as a TOML table")
    known = {f.name: f for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise Error(Code.train_config, f"unknown key '{key}'", where, "known keys: " + ", ".join(sorted(known)))
        field_ = known[key]
        wanted = type(field_.default) if field_.default is not MISSING else type(field_.default_factory())  # type: ignore[operator,misc]
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"it must be a {wanted.__name__}")
        if wanted in (int, float):
            _check_number(key, value, where)
    return cls(**values)


def _check_number(key: str, value: float, where: str) -> None:
    """Raises Error train_config for what no number of a config may be: not finite, negative, nothing where it counts, a share above 1."""
    low, high = ("more than 0" if key in POSITIVE else "at least 0"), (", at most 1" if key in SHARES else "")
    if not math.isfinite(value) or value < 0 or (value == 0 and key in POSITIVE) or (value > 1 and key in SHARES):
        raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"it must be finite, {low}{high}")


def from_dict(tree: dict[str, Any], where: str) -> Config:
    """A checked Config; raises Error spec_* for [spec] and train_config for the rest."""
    for key in tree:
        if key not in {"name", "spec", *SECTIONS}:
            raise Error(
                Code.train_config, f"unknown section '{key}'", where, "known: name, spec, " + ", ".join(SECTIONS)
            )
    if "spec" not in tree or not isinstance(tree.get("name"), str):
        raise Error(Code.train_config, "name or [spec] is missing", where, "start from a file of training/configs")
    spec = ModelSpec.from_json(json.dumps(tree["spec"]))
    parts = {k: _section(cls, tree.get(k, {}), f"{where} [{k}]") for k, cls in SECTIONS.items()}
    for (section, key), known in CHOICES.items():
        if (value := getattr(parts[section], key)) not in known:
            raise Error(
                Code.train_config, f"{key} = '{value}'", f"{where} [{section}]", "choose one of: " + ", ".join(known)
            )
    _check_parts(spec, parts, where)
    return Config(name=tree["name"], spec=spec, **parts)


def _check_parts(spec: ModelSpec, parts: dict[str, Any], where: str) -> None:
    """What must agree between the spec and the sections."""
    model, data, train, history = parts["model"], parts["data"], parts["train"], spec.history

    def refuse(problem: str, fix: str) -> None:
        raise Error(Code.train_config, problem, where, fix)

    ratio = spec.grid.cell / spec.radar.cell
    if not any(math.isclose(ratio, known) for known in (1, 2, 4)):
        refuse(f"grid.cell is {ratio:g} times radar.cell", "these networks take 1, 2 or 4")
    if spec.image.stride not in (8, 16):
        refuse(f"image.stride = {spec.image.stride}", "these networks take 8 or 16")
    if spec.image.width % 32 or spec.image.height % 32:
        refuse(f"images of {spec.image.width} x {spec.image.height}", "these networks take multiples of 32")
    if not all(isinstance(label, str) for label in data.classes.values()):
        refuse(f"[data] classes is {data.classes!r}", "map each label of the dataset to a class of the spec")
    named, taught = {c.name for c in spec.head.classes}, set(data.classes.values())
    if taught - named:
        refuse(f"[data] classes maps to {sorted(taught - named)}", f"the spec has {sorted(named)}")
    if named - taught:
        refuse(
            f"no label of [data] classes is for {sorted(named - taught)}",
            "map the dataset's labels (in small letters) to each class",
        )
    if not all(isinstance(label, str) for label in data.vehicles):
        refuse(f"[data] vehicles is {data.vehicles!r}", "list the dataset's labels")
    if spec.segmentation and not data.vehicles:
        refuse("segmentation without [data] vehicles", "list the labels whose footprints are wanted")
    if history.frames and history.channels != model.bev_channels:
        refuse(
            f"history has {history.channels} channels, the fused map {model.bev_channels}",
            "make [model] bev_channels the same",
        )
    if history.frames and model.frozen_backbone and parts["augment"].variants:
        refuse("[augment] variants cache features of single frames", "leave variants out where there is history")
    if history.frames and parts["augment"].mix:
        refuse("[augment] mix joins frames of different pasts", "leave mix out where there is history")
    if parts["distill"].inherit and model.bev_channels != parts["teacher"].channels:
        refuse(
            f"a teacher of {parts['teacher'].channels} channels, a fused map of {model.bev_channels}",
            "inherit needs the same in both",
        )
    if train.batch % train.accumulate:
        refuse(
            f"batch = {train.batch} is no multiple of accumulate = {train.accumulate}",
            "batch counts all micro-batches of a step",
        )
    if model.weights and model.pretrained:
        refuse("both pretrained and weights", "choose one of them")
    if model.pretrained and model.backbone != PACKAGED:
        refuse(
            f"no ImageNet weights for '{model.backbone}' in a package",
            f"name a file in [model] weights, or take {PACKAGED}",
        )


def load_config(name: str | Path) -> Config:
    """Reads a TOML file, or one of the shipped ones by name; `base = "other"` takes over what the file itself does not say.

    Raises: Error train_config (unknown key, wrong type, missing file) or spec_* (bad [spec]).
    """
    tree, path = read_tree(name)
    return from_dict(tree, str(path))


def read_tree(
    name: str | Path, folder: Path = CONFIGS, seen: frozenset[Path] = frozenset()
) -> tuple[dict[str, Any], Path]:
    """A TOML file over its base, and where it lies; `name` without a suffix is a file of `folder`. Raises Error train_config."""
    path = Path(name)
    if not path.suffix:
        path = folder / f"{name}.toml"
    if not path.is_file() or path in seen:
        have = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        problem = f"'{name}' is its own base" if path in seen else f"there is no '{name}'"
        raise Error(Code.train_config, problem, str(path), f"shipped {folder.name}: {have}")
    try:
        tree = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error(Code.train_config, f"not TOML: {error}", str(path), "mend the file") from error
    if "base" in tree:
        if not isinstance(tree["base"], str):
            raise Error(
                Code.train_config, f"base is {tree['base']!r}", str(path), "name a shipped config or a TOML file"
            )
        tree = merged(read_tree(tree.pop("base"), folder, seen | {path})[0], tree)
    return tree, path


def merged(base: Any, change: Any) -> Any:
    """change over base, table by table."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
