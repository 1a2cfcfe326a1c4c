"""Evaluation of a checkpoint in torch, without export: a teacher cannot be exported, and an ablation need not be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imkd_edge.ops as ops
from imkd_edge.checks.limits import with_limits
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.run import DEFAULTS, Prediction, check_protocol, choose, measure, predict, summary
from imkd_edge.evaluation.segmentation import on_grid
from imkd_edge.options import EvalOptions
from imkd_edge.progress import Track
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.timeline import Timeline
from imkd_edge.training.checkpoint import TEACHER, contract_of, load_checkpoint, student_of
from imkd_edge.training.config import from_dict
from imkd_edge.training.data import SELECT_SENSORS, collate
from imkd_edge.training.distributed import use_threads
from imkd_edge.training.inputs import network_inputs, radar_grid
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.models.teacher import Teacher
from imkd_edge.training.temporal import is_blind, past_motions, warp_history

CACHED_MAPS = 16  # fused maps of the last samples


def evaluate_checkpoint(
    checkpoint: Path | str,
    data: str | Source,
    options: EvalOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    threads: int = 0,
    track: Track | None = None,
) -> dict[str, Any]:
    """Evaluates the averaged student or teacher of a checkpoint; see evaluation.run.evaluate_bundle.

    `threads` are those of torch and of our ops; 0 leaves them as they are.
    """
    use_threads(threads)
    teacher = load_checkpoint(Path(checkpoint))["stage"] == TEACHER
    read = ("labels", "lidar") if teacher else ("labels",)
    selection = choose(data, options.split, source_options, options.limit, read)
    detect = CheckpointDetector(Path(checkpoint), options.score, selection.source)
    check_protocol(selection.source, options, detect.classes)
    predictions = predict(selection, detect, options, track, detect.classes)
    return summary(predictions, options, measure(predictions, options))


class CheckpointDetector:
    """Detects with the network of a checkpoint: a student reads cameras and radar, a teacher LiDAR.

    A student with a history looks up past samples in `source`, and caches the fused maps of the last samples.
    """

    def __init__(self, checkpoint: Path | dict[str, Any], score: float, source: Source | None = None):
        """checkpoint: a file, or the state that one holds."""
        path = "a training" if isinstance(checkpoint, dict) else str(checkpoint)
        state = checkpoint if isinstance(checkpoint, dict) else load_checkpoint(Path(checkpoint))
        settings = from_dict(state["config"], path)
        self.spec, self.select_sensors = settings.spec, SELECT_SENSORS[settings.data.sensors]
        names = {item.name: item.name for item in self.spec.head.classes}
        self.classes = {**names, **settings.data.classes}  # label of the data -> class
        self.decode_spec = with_limits(self.spec, contract_of(state))  # as of the bundle that it becomes
        self.decode_spec.head.score_threshold = score
        self.lidar = LidarGrid.of(self.spec) if state["stage"] == TEACHER else None
        self.timeline = Timeline(source, self.spec.history) if source is not None else None
        self.maps: OrderedDict[str, tuple[torch.Tensor, ops.EgoMotion, bool]] = OrderedDict()  # see fused
        self.network: torch.nn.Module
        if self.lidar is None:
            self.network = student_of(state, path)[0]
        else:
            self.network = Teacher(self.spec, settings.teacher)
            self.network.load_state_dict(state["ema"])
            self.network.eval()

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Prediction:
        """Boxes (M,9), scores (M,), class names, and of a student that segments the logits of segmentation.on_grid."""
        out = self.run_student(sample) if self.lidar is None else self.run_teacher(sample, self.lidar)
        ground = ops.ground_of(self.spec, sample.rig)
        boxes, scores, labels = ops.decode(self.decode_spec, out["heatmap"][0].numpy(), out["box"][0].numpy(), ground)
        names = [self.spec.head.classes[int(i)].name for i in labels]
        if "segmentation" not in out:
            return boxes, scores, names
        return boxes, scores, names, on_grid(out["segmentation"][0, 0].numpy(), self.spec.grid)

    def batch(self, inputs: dict[str, np.ndarray]) -> dict:
        """The inputs of one sample as a batch of one; see data.collate."""
        return collate([{k: torch.from_numpy(v) for k, v in inputs.items()}], self.spec)

    def run_teacher(self, sample: Sample, lidar: LidarGrid) -> dict[str, torch.Tensor]:
        """f_lidar (1,C,H,W), heatmap (1,K,H,W) logits and box (1,groups*10,H,W) of the teacher."""
        inputs = {"lidar_grid": lidar(sample.lidar, ops.ground_of(self.spec, sample.rig))}
        if self.network.radar is not None:
            inputs["radar_grid"] = radar_grid(self.spec, sample)
        return self.network(self.batch(inputs))

    def run_student(self, sample: Sample) -> dict[str, torch.Tensor]:
        """Heatmap, box and segmentation of the student. Raises Error train_no_data for a history without a source."""
        fused, history = self.fused(sample)[0], None
        if self.spec.history.frames:
            if self.timeline is None:
                problem, fix = "the model needs past frames, but has no source", "give the source of the samples"
                raise Error(Code.train_no_data, problem, sample.name, fix)
            history = self.history(sample, self.timeline)
        return self.network.bev.detect(fused, history)

    def history(self, sample: Sample, timeline: Timeline) -> torch.Tensor:  # (1,frames*C,H,W)
        """Past fused maps in the ego frame of the sample, newest first, float32; 0 without a frame or its motion."""
        names = timeline.past(sample.name)
        read = [None if name is None else self.maps.get(name) or self.fused(timeline.source[name]) for name in names]
        now = sample.motion(self.spec.radar.max_age)
        motions = past_motions(now, [None if then is None else then[1] for then in read])
        past = []
        for slot, (then, T_then_now) in enumerate(zip(read, motions, strict=True)):
            if then is not None and T_then_now is not None and not then[2]:
                past.append((then[0][0], slot, torch.from_numpy(T_then_now)))
        if not past:
            return warp_history(self.spec, 1)
        maps, slots, past_poses = zip(*past)
        index = torch.tensor([(0, slot) for slot in slots])
        ground = torch.tensor([ops.ground_of(self.spec, sample.rig)], dtype=torch.float64)
        return warp_history(self.spec, 1, torch.stack(maps), index, torch.stack(past_poses), ground)

    def fused(self, sample: Sample) -> tuple[torch.Tensor, ops.EgoMotion, bool]:
        """F_fused (1,C,H,W) of a sample without its past, its ego motion, whether it is blind; they go to the cache."""
        inputs = network_inputs(self.spec, self.select_sensors(sample))
        fused = self.network.encode(self.batch(inputs))["f_fused"]
        self.maps[sample.name] = fused, sample.motion(self.spec.radar.max_age), is_blind(inputs)
        while len(self.maps) > CACHED_MAPS:
            self.maps.popitem(last=False)
        return self.maps[sample.name]
