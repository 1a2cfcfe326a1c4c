"""Changes at random that make a model no better and no worse: the spread of their metrics is noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import numpy_helper

from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.insert import channel_steps, quantized_inputs
from imkd_edge.quantization.ptq import SolvedPart

JITTER = 0.02  # largest relative change of a range
NOISE = 0.25  # standard deviation of a weight's change, in INT8 steps of its output channel


def jittered(solved: SolvedPart, seed: int) -> SolvedPart:
    """The part with every range scaled at random; tensors that share a range share its factor."""
    random = np.random.default_rng(seed)
    factors = {value: random.uniform(1 - JITTER, 1 + JITTER) for value in dict.fromkeys(solved.amax.values())}
    return replace(solved, amax={name: value * factors[value] for name, value in solved.amax.items()})


def noisy_weights(part: Part, seed: int) -> Part:
    """The float part with noise on the weights that INT8 quantizes."""
    random = np.random.default_rng(seed)
    values = {}
    for item in quantized_inputs(part, part.groups()):
        if item.axis is not None:
            weight = numpy_helper.to_array(part.weights[item.tensor])
            steps = channel_steps(weight, item.axis, Method().levels)
            shape = [-1 if axis == item.axis else 1 for axis in range(weight.ndim)]
            values[item.tensor] = weight + NOISE * steps.reshape(shape) * random.standard_normal(weight.shape)
    return part.with_weights(values)
