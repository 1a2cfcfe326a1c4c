"""Both float parts and the lift between them in PyTorch, and the gradients of its outputs by every quantized tensor.

The probe (Hutchinson's estimator) multiplies random signs with the square root of each output's curvature: of the heat
map p (1 - p), of the box the highest p over the squared tolerance (evaluation/fidelity.py). The expected square of a
gradient is then what a squared error of that value adds to twice the loss; with a weight, to twice the weighted loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

import imkd_edge.ops as ops
from imkd_edge.calibration.collect import Gradients
from imkd_edge.engines import torch_graph
from imkd_edge.evaluation.fidelity import tolerances
from imkd_edge.quantization.graph import Part
from imkd_edge.quantization.insert import quantized_inputs
from imkd_edge.quantization.radar_weight import RadarWeight
from imkd_edge.quantization.threads import torch_threads
from imkd_edge.rig import SensorRig
from imkd_edge.spec import BOX_CHANNELS, ModelSpec
from imkd_edge.training.inputs import interval_rows
from imkd_edge.training.models.student import lift_sum


def unknown_operators(parts: Mapping[str, Part]) -> list[str]:
    """Operators of the parts that PyTorch's graph does not have."""
    return sorted({n.op_type for part in parts.values() for n in part.graph.node} - set(torch_graph.OPERATORS))


class Chain:
    """The model on one frame.

    After `run`, `sites` holds each tensor as its quantized readers see it and `layers` what each convolution makes, by
    PART/TENSOR.

    Args:
        parts: "camera" and "bev".
        threads: of PyTorch; 0 is one per core.
        weight: of the outputs' errors; None: all cells alike.
    """

    def __init__(
        self, spec: ModelSpec, parts: Mapping[str, Part], threads: int = 0, weight: RadarWeight | None = None
    ) -> None:
        self.kind, self._weight = "" if weight is None else weight.kind, weight
        self._spec, self._parts, self._threads = spec, parts, threads
        self._constants = {name: torch_graph.constants(part.graph) for name, part in parts.items()}
        self._reads = {
            name: {(i.node, i.index): i.tensor for i in quantized_inputs(part, part.groups()) if i.axis is None}
            for name, part in parts.items()
        }
        self._table: tuple[SensorRig | None, dict[str, torch.Tensor]] = (None, {})
        self.sites: dict[str, torch.Tensor] = {}
        self.layers: dict[str, torch.Tensor] = {}

    def __call__(self, tensors: Mapping[str, np.ndarray], rig: SensorRig, seed: int) -> Gradients:
        """Implements `calibration.collect.Sensitivity`."""
        with torch_threads(self._threads):
            outputs = self.run(tensors, rig)
            sites, layers = self._gradients(outputs, seed, self._cell_weight(tensors, outputs["heatmap"].detach()))
        squares = {name: (g.astype(np.float64) ** 2).sum((0, 2, 3)) for name, g in layers.items()}
        return Gradients(sites, squares, float(torch.sigmoid(outputs["heatmap"].detach()).sum()))

    def layer_gradients(
        self, tensors: Mapping[str, np.ndarray], outputs: Mapping[str, torch.Tensor], seed: int
    ) -> dict[str, np.ndarray]:
        """Gradients at the outputs of the convolutions, after `run` of the same tensors."""
        return self._gradients(outputs, seed, self._cell_weight(tensors, outputs["heatmap"].detach()))[1]

    def run(self, tensors: Mapping[str, np.ndarray], rig: SensorRig) -> dict[str, torch.Tensor]:
        """The outputs; tensors: of a Detector after a frame, of which the networks' inputs are read."""
        self.sites, self.layers = {}, {}
        camera = self._execute("camera", {"images": self._input("camera", "images", tensors)})
        height, width = self._spec.grid.height(), self._spec.grid.width()
        lifted = lift_sum(camera["depth"], camera["context"], self._lift_table(rig))
        bev = lifted.view(1, height, width, -1).permute(0, 3, 1, 2).contiguous()
        names = [item.name for item in self._parts["bev"].graph.input if item.name != "camera_bev"]
        inputs = {name: self._input("bev", name, tensors) for name in names}
        return {**camera, **self._execute("bev", {"camera_bev": bev, **inputs})}

    def _input(self, part: str, name: str, tensors: Mapping[str, np.ndarray]) -> torch.Tensor:
        values = tensors[name].reshape(self._parts[part].shapes[name])
        return torch.from_numpy(values.copy()).requires_grad_()

    def _lift_table(self, rig: SensorRig) -> dict[str, torch.Tensor]:
        """Of training.data: which frustum points fall into which cell."""
        if self._table[0] != rig:
            crops = [ops.image_crop(self._spec.image, c.width, c.height) for c in rig.cameras]
            table = ops.lift_table(self._spec, rig, crops)
            rows = interval_rows(table, self._spec.grid.height() * self._spec.grid.width())
            arrays = {"points": table.points, "pixels": table.pixels, "rows": rows}
            self._table = rig, {name: torch.from_numpy(np.array(a, np.int64)) for name, a in arrays.items()}
        return self._table[1]

    def _execute(self, name: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        part, reads = self._parts[name], self._reads[name]

        def read(node, index, value):
            tensor = reads.get((node.name, index))
            if tensor is None:
                return value
            return self.sites.setdefault(f"{name}/{tensor}", value.view_as(value))

        values = torch_graph.execute(part.graph, {**self._constants[name], **inputs}, read)
        self.layers |= {f"{name}/{n.output[0]}": values[n.output[0]] for n in part.layers() if n.op_type == "Conv"}
        return {item.name: values[item.name] for item in part.graph.output}

    def _gradients(
        self, outputs: Mapping[str, torch.Tensor], seed: int, weight: torch.Tensor | None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Of the sites, and of the layers that the outputs depend on."""
        probe = self._probe(outputs["heatmap"].detach(), outputs["box"].detach(), np.random.default_rng(seed))
        if weight is not None:
            probe = [item * weight.sqrt() for item in probe]
        wanted = [*self.sites.values(), *self.layers.values()]
        found = torch.autograd.grad(
            [outputs["heatmap"], outputs["box"]], wanted, probe, retain_graph=False, allow_unused=True
        )
        known = [None if g is None else g.numpy() for g in found]
        count = len(self.sites)
        sites = {
            key: np.zeros(tuple(x.shape), np.float32) if g is None else g
            for (key, x), g in zip(self.sites.items(), known[:count], strict=True)
        }
        return sites, {key: g for key, g in zip(self.layers, known[count:], strict=True) if g is not None}

    def _cell_weight(self, tensors: Mapping[str, np.ndarray], heatmap: torch.Tensor) -> torch.Tensor | None:
        """(1, 1, H, W), or None."""
        if self._weight is None:
            return None
        weight = self._weight(tensors, torch.sigmoid(heatmap)[0].amax(0).numpy())
        return torch.from_numpy(np.ascontiguousarray(weight, np.float32))[None, None]

    def _probe(self, heatmap: torch.Tensor, box: torch.Tensor, random: np.random.Generator) -> list[torch.Tensor]:
        """Gradients at the heat map (1, K, H, W) and at the box (1, groups * 10, H, W)."""
        p = torch.sigmoid(heatmap)
        units = torch.from_numpy(tolerances(self._spec).astype(np.float32)).repeat(box.shape[1] // BOX_CHANNELS)
        roots = [(p * (1 - p)).sqrt(), p.amax(1, keepdim=True).sqrt() / units.view(1, -1, 1, 1)]
        return [r * torch.from_numpy(random.choice(np.array([-1, 1], np.float32), tuple(r.shape))) for r in roots]
