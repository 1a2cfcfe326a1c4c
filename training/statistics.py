"""Measures the statistics of batch norms whose source had them folded into its convolutions.

Such a batch norm adds b' and has mean 0 and variance 1. In training it would divide by the batch's own deviation, and
the network would forget what it knows. With the mean m and variance v of its inputs as statistics, the weight
sqrt(v + eps) and the bias b' + m it is the same function, and batches of the same data leave it so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@torch.no_grad()
def measure_statistics(network: nn.Module, names: Iterable[str], batches: Iterable[dict]) -> None:
    """Gives batch norms the statistics of their inputs, without a change of what they compute in evaluation.

    Args:
        network: on the device of the batches.
        names: of batch norms that add a bias and change nothing else.
        batches: inputs of the network, as in training. A batch norm that none of them reaches stays as it is.
    """
    modules = dict(network.named_modules())
    norms = {name: modules[name] for name in names}
    mode = network.training
    network.eval()
    with _recording(norms) as sums:
        for batch in batches:
            network(batch)
    network.train(mode)
    for name, norm in norms.items():
        count, total, squares = sums[name]
        if not count:
            continue
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(norm.bias.double() + norm.running_mean.double())


@contextmanager
def _recording(norms: dict[str, nn.Module]) -> Iterator[dict[str, list]]:
    """Within it every call of a batch norm adds to its number of values, and their sum and sum of squares (C,)."""
    sums: dict[str, list] = {name: [0, 0.0, 0.0] for name in norms}

    def hook(name: str):
        def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].double()
            entry = sums[name]
            entry[0] += x.numel() // x.shape[1]
            entry[1] = entry[1] + x.sum((0, 2, 3))
            entry[2] = entry[2] + x.square().sum((0, 2, 3))

        return add

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in norms.items()]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
