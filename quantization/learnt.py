"""A float part in PyTorch whose quantizers' steps are parameters (LSQ: Esser et al., ICLR 2020), written back as a Q/DQ part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from onnx import numpy_helper

from imkd_edge.engines import torch_graph
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.insert import SMALLEST, channel_steps, insert, places, shared_scales, step
from imkd_edge.quantization.ptq import Quantized


class FakeQuantize(torch.autograd.Function):
    """x -> step * clamp(round(x / step)), with LSQ's gradients (equations 3 and 5)."""

    @staticmethod
    def forward(ctx, x, step, levels):
        """x of any shape; step broadcasts over it; integers from -levels - 1 to levels."""
        ctx.save_for_backward(x, step)
        ctx.levels = levels
        return torch.round(x / step).clamp_(-levels - 1, levels).mul_(step)

    @staticmethod
    def backward(ctx, grad):
        x, step = ctx.saved_tensors
        levels, scaled = ctx.levels, x / step
        inside = (scaled >= -levels - 1) & (scaled <= levels)
        integers = torch.round(scaled).clamp_(-levels - 1, levels)
        by_step = (grad * (integers - scaled * inside)).sum_to_size(step.shape)
        return grad * inside, by_step, None


def to_half(step: torch.Tensor) -> torch.Tensor:
    """The step that is exported, a float16 number (see insert.step); its gradient passes."""
    return step + (step.clamp(min=SMALLEST).half().float() - step).detach()


@dataclass(frozen=True)
class _Site:
    key: str  # of the step, in LearntPart.steps
    axis: int | None  # of the output channels in a weight


class LearntPart:
    """Steps of a part as parameters, and its weights and biases where they are learnt too; pairs stand where `insert` puts them.

    Steps are kept as logarithms: they stay positive, and one rate serves all sizes.

    Args:
        amax: of every tensor of `quantized_tensors` and of what shares its scale, as `solve_all` gives it.
        levels: largest integer.
        weights: false leaves weights and biases as they are.
    """

    def __init__(
        self, part: Part, groups: list[Group], amax: Mapping[str, float], levels: int, weights: bool = True
    ) -> None:
        self._part, self._groups, self._amax, self._levels = part, groups, dict(amax), levels
        self._constants = torch_graph.constants(part.graph)
        named = [name for node in part.layers() for name in node.input[1:3] if weights and name in part.weights]
        self.weights = {name: self._constants[name].clone().requires_grad_() for name in named}
        self._sharing = {name: sorted(group)[0] for group in shared_scales(part, list(amax)) for name in group}
        self.steps: dict[str, torch.Tensor] = {}  # logarithms: scalars of activations, (channels,) of weights
        self._sites = {
            (place.node, place.index): self._site(place.tensor, place.axis) for place in places(part, groups)
        }

    def _site(self, tensor: str, axis: int | None) -> _Site:
        key = tensor if axis is not None else self._sharing.get(tensor, tensor)
        if key not in self.steps:
            weight = numpy_helper.to_array(self._part.weights[tensor]) if axis is not None else np.zeros(0)
            first = (
                step(self._amax[tensor], self._levels) if axis is None else channel_steps(weight, axis, self._levels)
            )
            self.steps[key] = torch.log(torch.as_tensor(first, dtype=torch.float32)).requires_grad_()
        return _Site(key, axis)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The part's outputs."""
        quantized: dict[int, torch.Tensor] = {}  # a tensor is quantized once, whoever reads it

        def read(node, index, value):
            site = self._sites.get((node.name, index))
            if site is None:
                return value
            if id(value) not in quantized:
                exported = to_half(torch.exp(self.steps[site.key]))
                at = exported if site.axis is None else torch_graph.along(exported, value, site.axis)
                quantized[id(value)] = FakeQuantize.apply(value, at, self._levels)
            return quantized[id(value)]

        values = torch_graph.execute(self._part.graph, {**self._constants, **self.weights, **inputs}, read)
        return {item.name: values[item.name] for item in self._part.graph.output}

    def quantized(self) -> Quantized:
        """The part in INT8 as it has been learnt."""
        steps = {key: to_half(torch.exp(value.detach())).numpy() for key, value in self.steps.items()}
        amax = {
            name: float(steps[key]) * self._levels
            for name in self._amax
            if (key := self._sharing.get(name, name)) in steps
        }
        part = self._part.with_weights({name: value.detach().numpy() for name, value in self.weights.items()})
        own = {site.key: steps[site.key] for site in self._sites.values() if site.axis is not None}
        model, scales = insert(part, self._groups, amax, self._levels, own)
        return Quantized(
            model, scales, {name: float(step(value, self._levels)) for name, value in amax.items()}, self._groups
        )

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Every parameter, for a file."""
        return {
            "weights": {k: v.detach() for k, v in self.weights.items()},
            "steps": {k: v.detach() for k, v in self.steps.items()},
        }

    def restore(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """What `state` gave."""
        with torch.no_grad():
            for own, saved in ((self.weights, state["weights"]), (self.steps, state["steps"])):
                for name, value in own.items():
                    value.copy_(saved[name])
