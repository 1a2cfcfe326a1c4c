"""Where the sections of a training config disagree with its spec, or with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imkd_edge.training.config import Config

PACKAGED = "tf_efficientnet_lite0"  # the backbone whose ImageNet weights come in a package
MAX_TILT = 30.0  # degrees
Problems = Iterator[tuple[str, str]]  # problem and fix of each disagreement


def disagreements(config: Config) -> Problems:
    """What is wrong with a config whose values are each within their limits, and how to mend it."""
    for check in CHECKS:
        yield from check(config)


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


def _check_distill(config: Config) -> Problems:
    distill = config.distill
    if distill.radar_active and "log_count" not in [f.statistic for f in config.spec.radar.features]:
        yield "[distill] radar_active without a radar statistic log_count", "add it to [spec.radar], or set it false"
    if config.data.has_unlabelled and config.data.unlabelled_truth == "none" and not distill.has_terms:
        problem = "[data] unlabelled, and [distill] has no term that teaches without labels"
        yield problem, 'set radar, fused or response, or unlabelled_truth = "teacher"'
    if config.data.has_unlabelled and config.data.unlabelled_truth == "teacher" and not distill.active:
        yield '[data] unlabelled_truth = "teacher", and [distill] has no teacher', "set inherit = true, or a term"
    if not 0 <= config.data.labelled_share < 1:
        yield f"[data] labelled_share = {config.data.labelled_share}", "give a share from 0 to below 1"
    if distill.groups and ("fused" not in distill.levels or config.model.bev_channels % 2):
        yield "[distill] groups splits the channels of the fused map", 'add "fused" to levels, with even bev_channels'


def _check_validation(config: Config) -> Problems:
    train = config.train
    if train.patience and not train.val_split:
        yield f"[train] patience = {train.patience} without a split", 'name one, such as val_split = "val"'


CHECKS = (
    _check_spec,
    _check_tilt,
    _check_labels,
    _check_history,
    _check_networks,
    _check_distill,
    _check_validation,
)
