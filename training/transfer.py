"""Copies the weights of a trained student into another one, wherever shape and meaning agree.

Channels with a meaning of their own are copied one by one, by that meaning (`channel_labels`): classes and radar
statistics by name, depth bins by their depths, past maps by their age. The number of cameras is in no weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from imkd_edge.errors import Code, Error
from imkd_edge.training.channel_labels import INPUTS, Labels, Tensors, channel_labels, converted, source_name
from imkd_edge.training.models.student import Student
from imkd_edge.training.sections import ModelConfig
from imkd_edge.training.source_weights import SourceWeights


@dataclass
class Transfer:
    """What a student took from a source and what it left, tensor by tensor."""

    source: str
    licence: str = ""  # of the source's data
    weights: int = 0  # values taken, of the student's parameters
    of: int = 0  # values of the student's parameters
    taken: list[str] = field(default_factory=list)
    partly: dict[str, dict[str, Labels]] = field(default_factory=dict)  # tensor -> {"taken", "new"}: its channels
    left: dict[str, str] = field(default_factory=dict)  # tensor -> why
    notes: list[str] = field(default_factory=list)  # what was converted, or has another meaning now
    folded: list[str] = field(default_factory=list)  # batch norms without statistics; statistics.py measures them

    def lines(self) -> list[str]:
        """The same in a few lines, for a log."""
        result = [f"starts from {self.source}: {self.weights:,} of {self.of:,} weights"]
        for name, labels in self.partly.items():
            if name.endswith(".weight"):
                result.append(f"  {name}: takes {_listed(labels['taken'])}; new: {_listed(labels['new'])}")
        reasons: dict[str, dict[str, None]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, {})[name.rpartition(".")[0]] = None
        result += [f"  leaves {_listed(list(layers))}: {reason}" for reason, layers in reasons.items()]
        return result + [f"  {note}" for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, which lies in a run's folder."""
        return dict(vars(self))


def _listed(names: Labels, most: int = 12) -> str:
    """The names in a line: of many the first and the last."""
    short = names if len(names) <= most else [names[0], "...", f"{names[-1]} ({len(names)} in all)"]
    return ", ".join(short) or "none"


def transfer(student: Student, model: ModelConfig, source: SourceWeights) -> Transfer:
    """Copies into `student`, in place; what does not fit keeps its initial value.

    Args:
        student: with initial weights.
        model: its [model].
        source: a trained student.

    Raises:
        Error: train_checkpoint where nothing fits.
    """
    copier = _Copier(student, model, source)
    with torch.no_grad():
        for name, target in student.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                copier.copy(name, target)
    result = copier.result
    result.of = sum(p.numel() for p in student.parameters())
    if not result.weights:
        fix = "name a student with networks of the same form, or train without --from"
        raise Error(Code.train_checkpoint, "no weight of it fits this model", source.name, fix)
    return result


class _Copier:
    """Copies the tensors of a source one by one and writes down what became of each."""

    def __init__(self, student: Student, model: ModelConfig, source: SourceWeights):
        spec = student.spec
        self.source, self.model = source, model
        self.tensors, notes = converted(source.tensors, source.spec, spec, model)
        self.result = Transfer(source.name, source.licence, notes=notes)
        self.ours = channel_labels(spec, source.spec, model)
        self.theirs = channel_labels(source.spec, source.spec, model)
        self.parameters = {name for name, _ in student.named_parameters()}
        self.behind: dict[str, str] = {}  # batch norm -> convolution
        modules = dict(student.named_modules())
        for conv, bn in batch_norms(student).items():
            self.behind[bn] = conv
            bias = source.folded.get(source_name(conv, source.spec, spec))
            if bias is not None:
                self.tensors |= _adding(bn, bias, modules[bn].eps)
                self.result.folded.append(bn)

    def copy(self, name: str, target: torch.Tensor) -> None:
        """Copies one tensor, or those of its channels that the source has."""
        reason = self.obstacle(name, target)
        if reason:
            self.result.left[name] = reason
            self.result.folded = [bn for bn in self.result.folded if not name.startswith(f"{bn}.")]
        elif name in self.ours:
            self.copy_channels(name, target)
        else:
            target.copy_(self.tensors[name])
            self.result.taken.append(name)
            self.result.weights += target.numel() if name in self.parameters else 0

    def obstacle(self, name: str, target: torch.Tensor) -> str:
        """Why a tensor cannot be taken; empty where it, or some of its channels, can."""
        backbone = self.source.backbone
        if name.startswith("camera.backbone.") and backbone and backbone != self.model.backbone:
            return f"the source's backbone is {backbone}, not {self.model.backbone}"
        if name not in self.tensors:
            return "the source has no such layer"
        shape, expected = list(self.tensors[name].shape), list(target.shape)
        if name in self.ours:
            axis = int(name in INPUTS)
            expected[axis] = len(self.theirs[name])
        if shape != expected:
            return f"the source's has the shape {_shape(shape)}, not {_shape(expected)}"
        # A batch norm belongs to the convolution before it.
        conv = self.behind.get(name.rpartition(".")[0])
        return self.result.left.get(f"{conv}.weight", "") if conv else ""

    def copy_channels(self, name: str, target: torch.Tensor) -> None:
        """Copies the channels whose meaning the source has."""
        ours, index = self.ours[name], {label: i for i, label in enumerate(self.theirs[name])}
        shared = [i for i, label in enumerate(ours) if label in index]
        if not shared:
            self.result.left[name] = "the source has none of its channels"
            return
        axis = int(name in INPUTS)
        values = self.tensors[name].index_select(axis, torch.tensor([index[ours[i]] for i in shared]))
        target.index_copy_(axis, torch.tensor(shared, device=target.device), values.to(target))
        self.result.weights += values.numel()
        if len(shared) == len(ours):
            self.result.taken.append(name)
        else:
            taken = [ours[i] for i in shared]
            self.result.partly[name] = {"taken": taken, "new": [label for label in ours if label not in index]}


def batch_norms(network: nn.Module) -> dict[str, str]:
    """Convolution -> the batch norm behind it, which is the next layer of the network and has as many channels."""
    result: dict[str, str] = {}
    previous: tuple[str, int] | None = None
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            previous = (name, module.out_channels)
        elif isinstance(module, _BatchNorm):
            if previous and previous[1] == module.num_features:
                result[previous[0]] = name
            previous = None
    return result


def _adding(bn: str, bias: torch.Tensor, eps: float) -> Tensors:
    """The tensors of a batch norm that adds a bias and changes nothing else."""
    one = torch.ones_like(bias)
    values = {"weight": one, "bias": bias, "running_mean": 0 * one, "running_var": (1 - eps) * one}
    return {f"{bn}.{key}": value for key, value in values.items()}


def _shape(sizes: list[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
