"""A checkpoint on the labelled frames of a source, without exporting it: the teacher cannot be exported, and an ablation need not be."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imkd_edge.ops as ops
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.run import Prediction, Track, choose, evaluate
from imkd_edge.evaluation.segmentation import on_grid
from imkd_edge.frames import Ego
from imkd_edge.options import EvalOptions
from imkd_edge.sources.base import Sample, Source
from imkd_edge.spec import ModelSpec
from imkd_edge.training.config import from_dict
from imkd_edge.training.data import WITHOUT, collate, network_inputs, radar_grid
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.main import load_checkpoint, load_student
from imkd_edge.training.models.teacher import Teacher
from imkd_edge.training.temporal import Timeline, motion, warp_history

KEPT = 16  # fused maps of past samples


def evaluate_checkpoint(
    checkpoint: Path | str,
    data: str,
    split: str = "val",
    options: Mapping[str, Any] | None = None,
    score: float = 0.01,
    limit: int | None = None,
    per_range: bool = False,
    per_block: bool = False,
    per_radar: bool = False,
    condition: str = "none",
    track: Track | None = None,
) -> dict[str, Any]:
    """As evaluation.run.evaluate_bundle, of the averaged student or teacher of a checkpoint, in torch."""
    chosen = choose(data, split, options, limit)
    detect = CheckpointDetector(Path(checkpoint), score, chosen.source)
    report = EvalOptions(per_range=per_range, per_block=per_block, per_radar=per_radar, condition=condition)
    metrics = evaluate(chosen, detect, report, track)
    return {"dataset": chosen.source.kind, "split": split, "frames": len(chosen), "metrics": metrics}


class CheckpointDetector:
    """What the network of a checkpoint finds in a sample; reads cameras and radar, or LiDAR for a teacher.

    A student with a history looks up the past in `source`, and keeps the fused maps of the last samples.
    """

    def __init__(self, path: Path, score: float, source: Source | None = None):
        state = load_checkpoint(path)
        settings = from_dict(state["config"], str(path))
        self.spec, self.sensors = settings.spec, WITHOUT[settings.data.sensors]
        tree = json.loads(self.spec.to_json())
        tree["head"]["score_threshold"] = score
        self.decoded = ModelSpec.from_json(json.dumps(tree))
        self.lidar = LidarGrid.of(self.spec) if state["stage"] == "teacher" else None
        self.timeline = Timeline(source, self.spec.history) if source is not None else None
        self.seen: OrderedDict[str, tuple[torch.Tensor, Ego | None]] = OrderedDict()
        self.network: torch.nn.Module
        if self.lidar is None:
            self.network = load_student(path)[0]
        else:
            self.network = Teacher(self.spec, settings.teacher)
            self.network.load_state_dict(state["ema"])
            self.network.eval()

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Prediction:
        out = self.student(sample) if self.lidar is None else self.teacher(sample, self.lidar)
        boxes, scores, labels = ops.decode(self.decoded, out["heatmap"][0].numpy(), out["box"][0].numpy())
        names = [self.spec.head.classes[int(i)].name for i in labels]
        if "segmentation" not in out:
            return boxes, scores, names
        return boxes, scores, names, on_grid(out["segmentation"][0, 0].numpy(), self.spec.grid)

    def batch(self, inputs: dict[str, np.ndarray]) -> dict:
        """The inputs of one sample as a batch of one, see data.collate."""
        return collate([{k: torch.from_numpy(v) for k, v in inputs.items()}], self.spec)

    def teacher(self, sample: Sample, lidar: LidarGrid) -> dict[str, torch.Tensor]:
        """f_lidar (1,C,H,W), heatmap (1,K,H,W) logits and box (1,groups*10,H,W) of the teacher."""
        inputs = {"lidar_grid": lidar(sample.lidar)}
        if self.network.radar is not None:
            inputs["radar_grid"] = radar_grid(self.spec, sample)
        return self.network(self.batch(inputs))

    def student(self, sample: Sample) -> dict[str, torch.Tensor]:
        """Heatmap, box and segmentation of the student, with its past."""
        fused, history = self.fused(sample)[0], None
        if self.spec.history.frames:
            if self.timeline is None:
                raise Error(
                    Code.train_no_data, "this model looks at past frames", sample.name, "give the source of the samples"
                )
            history = self.history(sample, self.timeline)
        return self.network.bev.answer(fused, history)

    def history(self, sample: Sample, timeline: Timeline) -> torch.Tensor:  # (1,frames*C,H,W)
        """Past fused maps in the ego frame of the sample, newest first, float32; 0 where there is none or a pose is unknown."""
        past = []
        for slot, name in enumerate(timeline.past(sample.name)):
            if name is not None:
                fused, then = self.seen[name] if name in self.seen else self.fused(timeline.source[name])
                T_then_now = motion(then, sample.ego)
                if T_then_now is not None:
                    past.append((fused[0], slot, torch.from_numpy(T_then_now)))
        if not past:
            return warp_history(self.spec, 1)
        maps, slots, motions = zip(*past)
        return warp_history(
            self.spec, 1, torch.stack(maps), torch.tensor([(0, slot) for slot in slots]), torch.stack(motions)
        )

    def fused(self, sample: Sample) -> tuple[torch.Tensor, Ego | None]:
        """F_fused (1,C,H,W) of a sample alone, and where the ego was."""
        found = self.network.sense(self.batch(network_inputs(self.spec, self.sensors(sample))))["f_fused"], sample.ego
        self.seen[sample.name] = found
        while len(self.seen) > KEPT:
            self.seen.popitem(last=False)
        return found
