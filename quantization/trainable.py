"""A float part in PyTorch whose quantizers' steps are parameters (LSQ: Esser et al., ICLR 2020); exported as Q/DQ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from onnx import numpy_helper

from imkd_edge.calibration.solvers import Method
from imkd_edge.engines import torch_graph
from imkd_edge.quantization.graph import Group, Part
from imkd_edge.quantization.insert import SMALLEST, channel_steps, insert, quantized_inputs, shared_scales, step
from imkd_edge.quantization.ptq import QuantizedPart


class FakeQuantize(torch.autograd.Function):
    """x -> step * clamp(round(x / step)), with LSQ's gradients (equations 3 and 5)."""

    @staticmethod
    def forward(ctx, x, step, levels):
        """x of any shape; step broadcasts to it; integers from -levels - 1 to levels."""
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
    """The step that is exported, exact in float16 (see insert.step), with a straight-through gradient."""
    return step + (step.clamp(min=SMALLEST).half().float() - step).detach()


@dataclass(frozen=True)
class _Quantizer:
    key: str  # of its step, in TrainablePart.steps
    axis: int | None  # of the output channels in a weight


class TrainablePart:
    """A part whose quantizers' steps are parameters, and its weights and biases too where they are trained.

    Quantizers are where `insert` puts pairs. Steps are stored as logarithms: they stay positive, and one learning rate
    fits steps of every size.

    Args:
        amax: of every tensor of `quantized_tensors` and of the tensors that share its scale, as `solve_all` returns it.
        method: of the number of levels.
        weights: False fixes weights and biases.
    """

    def __init__(
        self, part: Part, groups: list[Group], amax: Mapping[str, float], method: Method, weights: bool = True
    ) -> None:
        self._part, self._groups, self._amax, self._method = part, groups, dict(amax), method
        self._constants = torch_graph.constants(part.graph)
        names = [name for node in part.layers() for name in node.input[1:3] if weights and name in part.weights]
        self.weights = {name: self._constants[name].clone().requires_grad_() for name in names}
        self._sharing = {name: sorted(group)[0] for group in shared_scales(part, list(amax)) for name in group}
        self.steps: dict[str, torch.Tensor] = {}  # logarithms: scalars of activations, (channels,) of weights
        self._quantizers = {
            (item.node, item.index): self._quantizer(item.tensor, item.axis) for item in quantized_inputs(part, groups)
        }

    def _quantizer(self, tensor: str, axis: int | None) -> _Quantizer:
        """The quantizer of a tensor; adds its step where no other quantizer has the same."""
        key = tensor if axis is not None else self._sharing.get(tensor, tensor)
        if key not in self.steps:
            if axis is None:
                initial = step(self._amax[tensor], self._method.levels)
            else:
                weight = numpy_helper.to_array(self._part.weights[tensor])
                initial = channel_steps(weight, axis, self._method.weight_levels)
            self.steps[key] = torch.log(torch.as_tensor(initial, dtype=torch.float32)).requires_grad_()
        return _Quantizer(key, axis)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The part's outputs."""
        quantized: dict[int, torch.Tensor] = {}  # a tensor is quantized once, for all its readers

        def read(node, index, value):
            quantizer = self._quantizers.get((node.name, index))
            if quantizer is None:
                return value
            if id(value) not in quantized:
                exported = to_half(torch.exp(self.steps[quantizer.key]))
                levels = self._method.levels
                if quantizer.axis is not None:
                    levels = self._method.weight_levels
                    exported = torch_graph.along(exported, value, quantizer.axis)
                quantized[id(value)] = FakeQuantize.apply(value, exported, levels)
            return quantized[id(value)]

        values = torch_graph.execute(self._part.graph, {**self._constants, **self.weights, **inputs}, read)
        return {item.name: values[item.name] for item in self._part.graph.output}

    def quantized(self) -> QuantizedPart:
        """The part in INT8 with the trained steps and weights."""
        steps = {key: to_half(torch.exp(value.detach())).numpy() for key, value in self.steps.items()}
        amax = {
            name: float(steps[key]) * self._method.levels
            for name in self._amax
            if (key := self._sharing.get(name, name)) in steps
        }
        part = self._part.with_weights({name: value.detach().numpy() for name, value in self.weights.items()})
        weight_steps = {q.key: steps[q.key] for q in self._quantizers.values() if q.axis is not None}
        levels = self._method.levels
        model, scales = insert(part, self._groups, amax, levels, weight_steps, self._method.weight_levels)
        shared = {name: float(step(value, levels)) for name, value in amax.items()}
        return QuantizedPart(model, scales, shared, self._groups)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Every parameter, for a file."""
        return {
            "weights": {name: value.detach() for name, value in self.weights.items()},
            "steps": {name: value.detach() for name, value in self.steps.items()},
        }

    def restore(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Sets every parameter to a value that `state` returned."""
        with torch.no_grad():
            for parameters, saved in ((self.weights, state["weights"]), (self.steps, state["steps"])):
                for name, value in parameters.items():
                    value.copy_(saved[name])
