"""Ranges and channel factors of a part together, by gradient descent on the modelled error of the outputs.

The error of activations is read off the histograms' tables. Rounding a weight is noise of step^2 / 12, times the power
of what it multiplies, times the sensitivity of what its channel makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from imkd_edge.calibration.histogram import Histogram
from imkd_edge.calibration.solvers import FINE, SPAN, Method, errors
from imkd_edge.quantization.equalise import CLIP, Channels, rounded
from imkd_edge.quantization.threads import torch_threads

STEPS, RATE = 100, 0.04
ROUNDS = 12  # of the start: factors and ranges in turns
MOST = 5.0  # octaves, the largest factor and its inverse
COLUMNS = SPAN * FINE


@dataclass(frozen=True)
class _Table:
    """Of one tensor: the logarithm of its channels' error (C, COLUMNS) over ranges that descend from 2^top."""

    group: int  # its range
    ids: torch.Tensor  # (C,) its factors
    error: torch.Tensor
    top: float

    def at(self, amax: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Error of the tensor under logarithms of the ranges and of the factors."""
        where = (FINE * (self.top - amax[self.group] - factor[self.ids])).clamp(0, COLUMNS - 1.001)
        low = where.detach().long()
        share, row = where - low, torch.arange(len(low))
        return torch.exp(self.error[row, low] * (1 - share) + self.error[row, low + 1] * share).sum()


@dataclass(frozen=True)
class _Layer:
    """Of one INT8 convolution."""

    weight: torch.Tensor  # (O, I) the largest value of each kernel
    power: torch.Tensor  # (O, I) mean square of its inputs, times the kernel's size
    inner: torch.Tensor  # (O, I) numbers of the inputs' factors
    sensitivity: torch.Tensor  # (O,)

    def error(self, levels: int, factor: torch.Tensor) -> torch.Tensor:
        """Of all its channels; an output's own factor cancels."""
        e = torch.exp2(factor[self.inner])
        step = (self.weight * e).amax(1) / levels
        return (step**2 / 12 * (self.power / e**2).sum(1) * self.sensitivity).sum()


class Joint:
    """The problem of one part.

    Args:
        histograms: of its quantized tensors.
        sensitivity: tensor -> (O,) of its convolutions' outputs.
        groups: tensors that share a range.
        integer: names of the INT8 layers.
        clipped: groups[k] is what a ReLU6 makes.
    """

    def __init__(
        self,
        channels: Channels,
        histograms: Mapping[str, Histogram],
        sensitivity: Mapping[str, np.ndarray],
        groups: Sequence[Sequence[str]],
        integer: set[str],
        clipped: Sequence[bool],
        method: Method,
    ) -> None:
        self._channels, self._method = channels, method
        self._free = torch.from_numpy(channels.free)
        lowest = np.where(channels.lowest > 0, np.log2(np.maximum(channels.lowest, 1e-30)), -MOST)
        self._lowest = torch.from_numpy(np.maximum(lowest, -MOST).astype(np.float32))
        self._highest = torch.where(torch.from_numpy(channels.lowest > 0), 0.0, MOST)
        self._limit = torch.tensor([np.log2(CLIP) if c else np.inf for c in clipped], dtype=torch.float32)
        self._tables = [self._table(k, t, histograms[t]) for k, g in enumerate(groups) for t in g]
        self._layers = list(self._weights(histograms, sensitivity, integer))
        largest = [max(max(histograms[t].largest for t in group), 1e-6) for group in groups]
        self._amax = torch.tensor(np.log2(largest), dtype=torch.float32)

    def _table(self, group: int, tensor: str, histogram: Histogram) -> _Table:
        error = np.log(errors(histogram, self._method.levels) + 1e-12).astype(np.float32)
        top = float(np.log2(histogram.top)) if histogram.top else 0.0
        return _Table(group, torch.from_numpy(self._channels.ids[tensor]), torch.from_numpy(error), top)

    def _weights(
        self, histograms: Mapping[str, Histogram], sensitivity: Mapping[str, np.ndarray], integer: set[str]
    ) -> Iterator[_Layer]:
        for node, weight, inner in self._channels.layers():
            squares = sensitivity.get(node.output[0])
            if node.name not in integer or squares is None:
                continue
            power = np.zeros(self._channels.count)
            power[self._channels.ids[node.input[0]]] = histograms[node.input[0]].power()
            kernel = weight.reshape(*weight.shape[:2], -1)
            arrays = np.abs(kernel).max(2), power[inner] * kernel.shape[2], squares
            w, p, s = (torch.from_numpy(np.asarray(a, np.float32)) for a in arrays)
            yield _Layer(w, p, torch.from_numpy(inner), s)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors (ids,), and amax (groups,) of the tensors divided by them.

        On one thread: the tensors are small, and threads that wait for a busy core cost forty times the work.
        """
        with torch_threads(1):
            return self._solve()

    def _solve(self) -> tuple[np.ndarray, np.ndarray]:
        factor, amax = self._start()
        factor.requires_grad_(), amax.requires_grad_()
        optimizer = torch.optim.Adam([factor, amax], RATE)
        best = float("inf"), factor.detach().clone(), amax.detach().clone()
        for number in range(STEPS):
            optimizer.param_groups[0]["lr"] = RATE * (1 - number / STEPS) + 0.001
            loss = self.error(amax, torch.where(self._free, factor, 0.0))
            if loss.item() < best[0]:
                best = loss.item(), factor.detach().clone(), amax.detach().clone()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                factor.copy_(torch.minimum(torch.maximum(factor, self._lowest), self._highest))
                amax.copy_(torch.minimum(amax, self._limit))
        found = torch.where(self._free, best[1], 0.0).numpy().astype(np.float64)
        return rounded(np.exp2(found)), np.exp2(best[2].numpy().astype(np.float64))

    def error(self, amax: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Modelled error under logarithms of the ranges and of the factors."""
        total = torch.stack([table.at(amax, factor) for table in self._tables]).sum()
        return total + sum(layer.error(self._method.weight_levels, factor) for layer in self._layers)

    def _start(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Every channel the factor, and every group the range, that suits the activations; weights do not count yet."""
        amax, factor = torch.minimum(self._amax, self._limit), torch.zeros(self._channels.count)
        shifts = torch.arange(-round(MOST * FINE), round(MOST * FINE) + 1) / FINE
        outside = (shifts < self._lowest[:, None]) | (shifts > self._highest[:, None])
        for _ in range(ROUNDS):
            every = torch.zeros(len(factor), len(shifts))
            for t in self._tables:
                where = (FINE * (t.top - amax[t.group] - shifts)).round().long().clamp(0, COLUMNS - 1)
                every.index_add_(0, t.ids, torch.exp(t.error[:, where]))
            seen = every.amax(1) > 1e-6 + 2 * every.amin(1)  # of a channel that hardly matters nothing is known
            every[outside] = float("inf")
            factor = torch.where(seen & self._free, shifts[every.argmin(1)], 0.0)
            amax = self._ranges(factor)
        return factor, amax

    def _ranges(self, factor: torch.Tensor) -> torch.Tensor:
        """Of every group the best range under these factors, on a grid."""
        found = []
        for group in range(len(self._amax)):
            own = [t for t in self._tables if t.group == group]
            grid = max(t.top for t in own) - torch.arange(COLUMNS) / FINE
            total = torch.zeros(COLUMNS)
            for t in own:
                where = (FINE * (t.top - grid - factor[t.ids][:, None])).round().long().clamp(0, COLUMNS - 1)
                total += torch.exp(t.error.gather(1, where)).sum(0)
            found.append(torch.minimum(grid[total.argmin()], self._limit[group]))
        return torch.stack(found)
