"""Sections of a training config, their keys with defaults, and the limits of the values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


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
    fusion: str = "concat"  # of the two sensors' maps, one of FUSIONS
    densify: int = 0  # blocks in the radar encoder that fill empty cells; they are deployed


@dataclass(frozen=True)
class DataConfig:
    """[data]: training samples, and the meaning of their labels."""

    source: str = "synth"  # argument of open_source; --data overrides it
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the source
    split: str = "train"
    # Frames that teach the student beside the labelled ones: another source (--unlabelled overrides it), or with a
    # split alone, but "all", the same source.
    unlabelled: str = ""
    unlabelled_split: str = "all"
    unlabelled_truth: str = "none"  # what they teach beside the terms, one of UNLABELLED_TRUTHS
    unlabelled_score: float = 0.3  # least score of an object that the teacher finds
    labelled_share: float = 0.0  # of an epoch's frames, labelled ones drawn the oftener; 0: each frame once
    sensors: str = "both"  # inputs of the student, one of SENSORS
    # The dataset's label -> the spec's class; labels not listed are background.
    classes: dict[str, str] = field(default_factory=dict)
    vehicles: list[str] = field(default_factory=list)  # the dataset's labels whose footprints are segmented
    keep: bool = True  # decoded samples stay in memory or in the cache; else every epoch decodes them again
    balance: bool = False  # draw the frames of an epoch so that every class is in equally many of them (CBGS)
    limit: int = 0  # only the first frames of the split; 0 = all
    licence: str = ""  # of the data, for the model card

    def without_paths(self, source: str = "") -> DataConfig:
        """The same with `source` in place of the source's path, and a word in place of the unlabelled one's."""
        return replace(self, source=source, unlabelled="other" if self.unlabelled else "")

    @property
    def has_unlabelled(self) -> bool:
        """Whether frames without labels take part."""
        return bool(self.unlabelled) or self.unlabelled_split not in ("", "all")


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
    dark: float = 0.0  # probability that all images are darkened, by up to 2^5: as much less light, as at night
    drop_points: float = 0.0  # share of dropped radar points, uniform from 0
    noisy_radar: float = 0.0  # share of the examples whose radar has one kind of noise, of a random strength
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
    """[distill]: weights of the terms of distill.py, 0 = off; without a term or inherit there is no teacher.

    The defaults of the other keys are IMKD's figure.
    """

    radar: float = 0.0
    fused: float = 0.0
    label: float = 0.0
    response: float = 0.0
    intensity: str = "reflectance"  # I, the weight of the LiDAR terms, one of INTENSITIES
    label_mask: str = "soft"  # one of LABEL_MASKS
    empty: float = 0.0  # weight of cells without a LiDAR return in the radar term; 0.1 for a dense LiDAR
    levels: list[str] = field(default_factory=lambda: ["fused"])  # of the fused term, among LEVELS
    normalise: bool = False  # standardise every channel of both sides of the feature terms
    balance: bool = False  # multiply I by sqrt(size of a car / size) inside an object, in the fused term
    background: float = 1.0  # factor of I outside objects, in the fused term
    false_positives: float = 0.0  # weight, in the fused term, of cells where the teacher finds an object that is none
    radar_target: str = "features"  # one of RADAR_TARGETS
    radar_active: bool = False  # radar term near radar returns alone; `empty` is then a share of the cells with LiDAR
    response_weight: str = "gaussian"  # one of RESPONSE_WEIGHTS; all but gaussian need no labels
    seen: bool = False  # no term where an example lacks a sensor that the term asks about
    groups: bool = False  # half of F_fused's channels for the LiDAR's features, the other half for the labels'
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
LEVELS = ("fused", "trunk", "pre-head")
RADAR_TARGETS = ("features", "heatmap")
RESPONSE_WEIGHTS = ("gaussian", "either", "difference")
FUSIONS = ("concat", "sum")
SENSORS = ("both", "camera", "radar")
# No objects; those that the source has, such as corrected ones of `imkd-edge label`; those that the teacher finds.
UNLABELLED_TRUTHS = ("none", "own", "teacher")
# Keys of numbers that must be above 0, and of those that must be at most 1.
POSITIVE = {"epochs", "label_epochs", "batch", "accumulate", "rate", "clip", "val_every"}
POSITIVE |= {"channels", "camera_channels", "bev_channels", "sensor_channels"}
SHARES = {"warmup", "ema", "empty", "background", "scale", "image_scale", "colour", "mix"}
SHARES |= {"drop_points", "drop_camera", "drop_radar", "drop_past", "noisy_radar", "unlabelled_score"}
CHOICES = {
    ("distill", "intensity"): INTENSITIES,
    ("distill", "label_mask"): LABEL_MASKS,
    ("distill", "levels"): LEVELS,
    ("distill", "radar_target"): RADAR_TARGETS,
    ("distill", "response_weight"): RESPONSE_WEIGHTS,
    ("model", "fusion"): FUSIONS,
    ("data", "sensors"): SENSORS,
    ("data", "unlabelled_truth"): UNLABELLED_TRUTHS,
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
