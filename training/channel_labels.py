"""What the channels of a student's tensors mean, so that two students of different specs can be compared."""

from __future__ import annotations

import numpy as np
import torch

from imkd_edge.spec import BOX_CHANNELS, GridSpec, ModelSpec
from imkd_edge.training.models.bev import INTENSITY
from imkd_edge.training.sections import ModelConfig

Tensors = dict[str, torch.Tensor]
Labels = list[str]
RADAR, GATE, REMEMBER = "bev.radar.net.0.0.weight", "bev.radar_gate.net.0.0.weight", "bev.remember.0.weight"
INPUTS = ("bev.camera.0.weight", RADAR, GATE, REMEMBER)  # labelled along their second axis, others along the first


def channel_labels(spec: ModelSpec, source: ModelSpec, model: ModelConfig) -> dict[str, Labels]:
    """Tensor -> the meaning of its channels along the axis that has one.

    Args:
        spec: of the student whose tensors are described.
        source: of the student to compare with: a group of box channels is named after its most similar group.
        model: sizes of the networks.
    """
    depth, features = spec.depth, [f.statistic for f in spec.radar.features]
    span = f"of {depth.bins} ({depth.min:g} to {depth.max:g} m, {depth.spacing})"
    bins = [f"depth bin {i} {span}" for i in range(depth.bins)]
    context = [f"context {i}" for i in range(spec.context_channels)]
    classes = [c.name for c in spec.head.classes]
    boxes = _box_labels(spec, source)
    ages = [f"{slot * spec.history.interval:g} s" for slot in range(1 + spec.history.frames)]
    return {
        "camera.out.weight": bins + context,
        "camera.out.bias": bins + context,
        "bev.camera.0.weight": [*context, "opacity"],
        RADAR: list(features),
        GATE: [f"feature {i}" for i in range(model.sensor_channels)] + [name for name in INTENSITY if name in features],
        REMEMBER: [f"map {i} of {age} ago" for age in ages for i in range(model.bev_channels)],
        "bev.heatmap.1.weight": classes,
        "bev.heatmap.1.bias": classes,
        "bev.box.1.weight": boxes,
        "bev.box.1.bias": boxes,
    }


def _box_labels(spec: ModelSpec, source: ModelSpec) -> Labels:
    """Box channels, each group under the source's group that shares the most classes with it, else the first.

    The ten channels mean the same in every group, so that those of another class are a start too.
    """
    labels: Labels = []
    groups = [{c.name for c in source.head.classes if c.group == g} for g in range(source.head.groups())]
    for group in range(spec.head.groups()):
        names = {c.name for c in spec.head.classes if c.group == group}
        nearest = int(np.argmax([len(names & other) for other in groups]))
        labels += [f"box channel {i} of group {nearest}" for i in range(BOX_CHANNELS)]
    return labels


def converted(tensors: Tensors, source: ModelSpec, spec: ModelSpec, model: ModelConfig) -> tuple[Tensors, list[str]]:
    """The source's tensors with names, coordinates and scales of another spec.

    Lateral convolutions are numbered from the finest level in use, positions run from -1 to 1 over the grid, and radar
    statistics have a scale. Each of them is converted exactly, an offset of a statistic is not.

    Returns:
        The tensors, and what was converted or means something else now, in sentences.
    """
    shift = _finest(spec) - _finest(source)
    result = {_shifted(name, -shift): value.clone() for name, value in tensors.items()}
    notes = _convert_positions(result, source.grid, spec.grid) + _convert_radar(result, source, spec, model)
    if source.radar.cell != spec.radar.cell or source.grid.cell != spec.grid.cell:
        cells = (
            f"{spec.grid.cell:g} and {spec.radar.cell:g} m instead of {source.grid.cell:g} and {source.radar.cell:g} m"
        )
        notes.append(f"cells of {cells}: the same convolutions cover another distance")
    return result, notes


def source_name(name: str, source: ModelSpec, spec: ModelSpec) -> str:
    """The source's name of a tensor or layer."""
    return _shifted(name, _finest(spec) - _finest(source))


def _finest(spec: ModelSpec) -> int:
    return 0 if spec.image.stride == 8 else 1


def _shifted(name: str, by: int) -> str:
    """The name with the number of a lateral convolution changed."""
    prefix = "camera.lateral."
    if not by or not name.startswith(prefix):
        return name
    number, _, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{int(number) + by}.{rest}"


def _convert_positions(tensors: Tensors, source: GridSpec, grid: GridSpec) -> list[str]:
    """Makes the embedding the same function of metres: its coordinates run from -1 to 1 over the grid."""
    weight, bias = tensors.get("bev.position_weight.weight"), tensors.get("bev.position_weight.bias")
    if weight is None or bias is None:
        return []
    (centre, half), (new_centre, new_half) = _extent(source), _extent(grid)
    if np.allclose(centre, new_centre) and np.allclose(half, new_half):
        return []
    matrix = weight[:, :, 0, 0].double()
    bias.copy_(bias + (matrix @ torch.from_numpy((new_centre - centre) / half)).float())
    weight.copy_((matrix * torch.from_numpy(new_half / half)).float()[:, :, None, None])
    return ["another grid: the embedding of positions is converted to it"]


def _extent(grid: GridSpec) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half of the distance between the outer cells' centres along x and y, m."""
    low, high = np.array([grid.x_min, grid.y_min]), np.array([grid.x_max, grid.y_max])
    return (low + high) / 2, np.maximum(high - low - grid.cell, grid.cell) / 2


def _convert_radar(tensors: Tensors, source: ModelSpec, spec: ModelSpec, model: ModelConfig) -> list[str]:
    """Multiplies the weights of a statistic by the ratio of its scales: the grid holds (value - offset) * scale."""
    notes = []
    theirs = {f.statistic: f for f in source.radar.features}
    labels = channel_labels(source, source, model)
    for feature in spec.radar.features:
        other = theirs.get(feature.statistic)
        if other is None:
            continue
        for name in (RADAR, GATE):
            if name in tensors and feature.statistic in labels[name] and len(labels[name]) == tensors[name].shape[1]:
                tensors[name][:, labels[name].index(feature.statistic)] *= other.scale / feature.scale
        if other.offset != feature.offset:
            change = f"{feature.offset:g} instead of {other.offset:g}"
            notes.append(f"radar statistic {feature.statistic} has the offset {change}: training must learn it")
    return notes
