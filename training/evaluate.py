"""A checkpoint on the labelled frames of a source, without exporting it: the teacher cannot be exported, and an ablation need not be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imkd_edge import ModelSpec, ops
from imkd_edge.evaluation.run import Found, Track, choose, evaluate
from imkd_edge.sources.sample import Sample
from imkd_edge.training.config import from_dict
from imkd_edge.training.data import collate, network_inputs
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.main import load_checkpoint, load_student
from imkd_edge.training.models.teacher import Teacher


def evaluate_checkpoint(
    checkpoint: Path | str,
    data: str,
    split: str = "val",
    options: Mapping[str, Any] | None = None,
    score: float = 0.01,
    limit: int | None = None,
    per_range: bool = False,
    per_block: bool = False,
    condition: str = "none",
    track: Track | None = None,
) -> dict[str, Any]:
    """As evaluation.run.evaluate_bundle, of the averaged student or teacher of a checkpoint, in torch."""
    chosen = choose(data, split, options, limit)
    metrics = evaluate(chosen, CheckpointDetector(Path(checkpoint), score), per_range, per_block, condition, track)
    return {"dataset": chosen.source.kind, "split": split, "frames": len(chosen), "metrics": metrics}


class CheckpointDetector:
    """Boxes of a sample by the network of a checkpoint; reads cameras and radar, or LiDAR for a teacher."""

    def __init__(self, path: Path, score: float):
        state = load_checkpoint(path)
        settings = from_dict(state["config"], str(path))
        self.spec = settings.spec
        tree = json.loads(self.spec.to_json())
        tree["head"]["score_threshold"] = score
        self.decoded = ModelSpec.from_json(json.dumps(tree))
        self.lidar = LidarGrid.of(self.spec) if state["stage"] == "teacher" else None
        self.network: torch.nn.Module
        if self.lidar is None:
            self.network = load_student(path)[0]
        else:
            self.network = Teacher(self.spec, settings.teacher)
            self.network.load_state_dict(state["ema"])
            self.network.eval()

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Found:
        inputs = network_inputs(self.spec, sample) if self.lidar is None else {"lidar_grid": self.lidar(sample.lidar)}
        out = self.network(collate([{k: torch.from_numpy(v) for k, v in inputs.items()}], self.spec))
        boxes, scores, labels = ops.decode(self.decoded, out["heatmap"][0].numpy(), out["box"][0].numpy())
        return boxes, scores, [self.spec.head.classes[int(i)].name for i in labels]
