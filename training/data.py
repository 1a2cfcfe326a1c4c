"""Raw samples -> tensors. Every input tensor comes from the runtime's own ops, so training sees what the Detector sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Dataset

import imkd_edge.ops as ops
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.conditions import no_camera, no_radar
from imkd_edge.evaluation.nuscenes import counted
from imkd_edge.evaluation.segmentation import vehicle_map
from imkd_edge.frames import Ego
from imkd_edge.sources.base import Sample, Source
from imkd_edge.spec import ModelSpec
from imkd_edge.training import augment, world
from imkd_edge.training.cache import CachedSource, FeatureFiles
from imkd_edge.training.config import Config
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.mix import draw_own, mix_batch
from imkd_edge.training.targets import depth_targets, head_targets
from imkd_edge.training.temporal import Timeline, motion

WITHOUT = {"both": lambda sample: sample, "camera": no_radar, "radar": no_camera}  # [data] sensors
Features = (
    dict[str, list[list[torch.Tensor]]] | FeatureFiles
)  # frame -> variant -> level of the frozen backbone's output


def network_inputs(
    spec: ModelSpec,
    sample: Sample,
    crops: list[ops.ImageCrop] | None = None,
    images: bool = True,
) -> dict[str, np.ndarray]:
    """What the two networks and the lift between them read.

    Returns images (N,3,H,W) float32 (unless images=False), present (N,) float32, radar_grid (F,Hr,Wr) float32, and the
    lift's table: points and pixels (P,) int32, rows (H*W+1,) int64 with the interval of every cell in them.
    """
    if crops is None:
        crops = [ops.image_crop(spec.image, c.width, c.height) for c in sample.rig.cameras]
    frames = [sample.frames.get(c.name) for c in sample.rig.cameras]
    table = ops.lift_table(spec, sample.rig, crops)
    out = {
        "present": np.array([f is not None for f in frames], np.float32),
        "radar_grid": radar_grid(spec, sample),
        "points": table.points,
        "pixels": table.pixels,
        "rows": _rows(table, spec.grid.height() * spec.grid.width()),
    }
    if images:
        out["images"] = ops.preprocess_images(frames, crops, spec.image)
    return {k: np.require(v, requirements="W") for k, v in out.items()}  # torch wants writable memory


def radar_grid(spec: ModelSpec, sample: Sample) -> np.ndarray:  # (F,Hr,Wr)
    """The statistics of the spec over all sweeps of a sample, in its ego frame, float32."""
    return ops.voxelize_radar(spec, sample.rig, sample.radar, sample.timestamp_ns, sample.ego)[0]


def _rows(table: ops.LiftTable, cells: int) -> np.ndarray:  # (cells+1,) int64
    counts = np.zeros(cells + 1, np.int64)
    counts[table.cells + 1] = np.diff(table.starts)
    return counts.cumsum()


def scaled_crop(spec: ModelSpec, width: int, height: int, factor: float, shift: float = 0.0) -> ops.ImageCrop:
    """The runtime's crop, magnified about the centre of the network's input and moved to the right by a share of its width."""
    base = ops.image_crop(spec.image, width, height)
    left = (base.left + spec.image.width / 2) * factor - spec.image.width / 2 + shift * spec.image.width
    top = (base.top + spec.image.height / 2) * factor - spec.image.height / 2
    return ops.ImageCrop(base.scale * factor, left, top)


class FrameDataset(Dataset):
    """Samples of a source as training examples; every random draw is a function of (seed, epoch, frame) alone.

    Where the spec has a history, an example is a clip: the sample and the past ones of its scene, all seen in the same changed world.
    """

    def __init__(self, source: Source, names: list[str], config: Config, seed: int, train: bool = True):
        self.source, self.names, self.config, self.seed, self.train = source, names, config, seed, train
        self.shared_epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by loader workers that live on
        self.sensors = True  # what the student reads
        self.radar = False  # its radar alone, where a teacher reads that too
        self.lidar = False  # what a teacher reads
        self.memory: dict[str, Sample] = {}
        self.features: Features | None = None
        self.timeline = Timeline(source, config.spec.history)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def epoch(self) -> int:
        return int(self.shared_epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self.shared_epoch.fill_(value)

    def sample(self, index: int) -> Sample:
        """The raw sample of an example, see read."""
        return self.read(self.names[index])

    def read(self, name: str) -> Sample:
        """A raw sample, from memory where it is kept; for training, one whose motion is unknown is given the speed that its radar tells."""
        if name in self.memory:
            return self.memory[name]
        sample = self.source[name]
        if self.train and not _moves(sample):  # known before the world is turned; afterwards +x is no longer forward
            speed = ops.estimate_ego_speed(sample.rig, sample.radar)
            if speed.valid:
                sample = replace(sample, ego=replace(sample.ego or Ego(), twist=np.array([speed.speed, 0.0, 0.0])))
        if self.config.data.keep and not isinstance(self.source, CachedSource):
            self.memory[name] = sample
        return sample

    def load(self, progress: Callable[[Iterable], Iterable] | None = None) -> None:
        """Reads every sample once, in the source's order, which is the quick one; epochs then draw from memory or the cache.

        Without either ([data] keep) nothing is read beforehand. Processes that train together fill the cache together, by stretches.
        """
        indices = world.share(range(len(self) if self.config.data.keep or isinstance(self.source, CachedSource) else 0))
        labels: set[str] = set()
        for index in progress(indices) if progress else indices:
            truth = self.sample(index).truth
            labels |= set(truth.labels) if truth is not None else set(self.config.data.classes)
        if labels and not labels & set(self.config.data.classes):
            problem = f"[data] classes knows none of the labels: {', '.join(sorted(labels))}"
            raise Error(Code.train_no_data, problem, self.config.data.source, "map them to the classes of the spec")

    def variant(self, index: int) -> int:
        """Which image variant of a frame this epoch shows."""
        count = self.config.augment.variants
        order = np.random.default_rng([self.seed, 3, index, self.epoch // count]).permutation(count)
        return int(order[self.epoch % count])

    def image_change(self, index: int, variant: int) -> augment.ImageChange:
        """Numbered variants are those of the frame, whatever the seed and the split, so that runs share their features."""
        config = self.config.augment
        draw = [1, crc32(self.names[index].encode()), variant] if config.variants else [self.seed, 1, index, variant]
        return augment.draw_image_change(np.random.default_rng(draw), config)

    def crops(self, sample: Sample, change: augment.ImageChange) -> list[ops.ImageCrop]:
        """The crop of each camera of the rig, in its order and also of absent ones, scaled and shifted as the images are to be."""
        return [
            scaled_crop(self.config.spec, c.width, c.height, change.scale, change.shift) for c in sample.rig.cameras
        ]

    def images(self, index: int, variant: int) -> np.ndarray:  # (N,3,H,W) float32
        """The images of one variant, for the cache of frozen features."""
        sample, change = self.sample(index), self.image_change(index, variant)
        frames = [sample.frames.get(c.name) for c in sample.rig.cameras]
        frames = [None if f is None else augment.change_image(f, change) for f in frames]
        return ops.preprocess_images(frames, self.crops(sample, change), self.config.spec.image)

    def shown(self, sample: Sample, view: augment.View, rng: np.random.Generator) -> Sample:
        """The sample in the changed world, with losses drawn from rng."""
        sample = WITHOUT[self.config.data.sensors](sample)
        sample = augment.mirror(sample) if view.images.flip else sample
        sample = augment.drop(augment.turn_and_scale(sample, view.angle, view.scale), rng, self.config.augment)
        if self.features is not None or not self.sensors:
            return sample
        return replace(sample, frames={k: augment.change_image(v, view.images) for k, v in sample.frames.items()})

    def past(
        self, index: int, now: Sample, view: augment.View | None
    ) -> list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]]:
        """Slot, T_then_now (4,4) and network inputs of each past frame of an example; now is its sample as shown."""
        config, names = self.config, self.timeline.past(self.names[index])
        spec = config.spec if view is None else augment.seen_spec(config.spec, view)
        rng = np.random.default_rng([self.seed, 4, index, self.epoch])
        if view is not None and rng.random() < config.augment.drop_past:
            names = names[: int(rng.integers(len(names)))]
        found = []
        for slot, name in enumerate(names):
            if name is None:
                continue
            then = self.read(name) if view is None else self.shown(self.read(name), view, rng)
            T_then_now = motion(then.ego, now.ego)
            if T_then_now is not None:
                inputs = network_inputs(spec, then, None if view is None else self.crops(then, view.images))
                found.append((slot, torch.from_numpy(T_then_now), {k: torch.from_numpy(v) for k, v in inputs.items()}))
        return found

    def __getitem__(self, index: int) -> dict:
        spec, config = self.config.spec, self.config.augment
        sample, view, crops, variant = self.sample(index), None, None, 0
        if self.train:
            variant = self.variant(index) if config.variants else self.epoch
            rng = np.random.default_rng([self.seed, 2, index, self.epoch])
            view = augment.draw_view(rng, config, self.image_change(index, variant))
            spec, sample = augment.seen_spec(spec, view), self.shown(sample, view, rng)
            crops = self.crops(sample, view.images)
        cached = self.features[self.names[index]][variant] if self.sensors and self.features is not None else None
        out = network_inputs(spec, sample, crops, images=cached is None) if self.sensors else {}
        if self.radar and not self.sensors:
            out["radar_grid"] = radar_grid(spec, sample)
        if self.lidar:
            if sample.lidar is None:
                fix = (
                    "copy the LiDAR's folder too, or tell the reader to make it ([data.options], such as lidar = true)"
                )
                raise Error(Code.train_no_data, "a frame without LiDAR, which its teacher reads", sample.name, fix)
            out["lidar_grid"] = LidarGrid.of(spec)(sample.lidar)
        if sample.truth is None and self.train:
            raise Error(
                Code.train_no_data, "a frame without labels", sample.name, "train on a split whose frames have labels"
            )
        if sample.truth is not None:
            seen = (
                counted(sample.truth) if self.source.kind in ("nuscenes", "synth") else None
            )  # what their metrics ask for
            out |= head_targets(spec, sample.truth, self.config.data.classes, seen)
            if self.sensors:
                out["depth_bin"] = depth_targets(spec, sample, crops or self.crops(sample, augment.ImageChange()))
                if spec.segmentation:
                    out["vehicles"] = vehicle_map(sample.truth, spec.grid, self.config.data.vehicles)
        if self.train and config.mix:
            rng = np.random.default_rng([self.seed, 5, index, self.epoch])
            out["own"] = draw_own(rng, spec.grid, config.mix)
        tensors: dict = {k: torch.from_numpy(v) for k, v in out.items()}
        if cached is not None:
            tensors["features"] = cached
        if self.sensors and spec.history.frames:
            tensors["past"] = self.past(index, sample, view)
        return tensors


def _moves(sample: Sample) -> bool:
    """Whether its ego motion is told, by a twist or by the poses of its sweeps, as the runtime takes it from either."""
    ego, now = sample.ego, sample.timestamp_ns
    if ego is None or ego.twist is not None or ego.T_world_ego is None:
        return ego is not None and ego.twist is not None
    times = [sweep.timestamp_ns for sweep in sample.radar if sweep.T_world_ego is not None]
    return any(time is not None and abs(now - time) >= 10_000_000 for time in times)


def collate(items: list[dict], spec: ModelSpec) -> dict:
    """Joins examples into a batch: camera slots are laid end to end (B*N,...), and the lift's indices point into the whole batch.

    The P past frames of all examples, where there are any, make a batch of their own, "past"; past_slot (P,2) tells each one's example
    and slot, past_motion (P,4,4) its T_then_now.
    """
    batch = {}
    per_camera = {"images", "present", "depth_bin"}
    for key in items[0]:
        if key in {"points", "pixels", "rows", "features", "past"}:
            continue
        values = [x[key] for x in items]
        batch[key] = torch.cat(values) if key in per_camera else torch.stack(values)
    batch = mix_batch(batch)
    if "points" not in items[0]:
        return batch
    pixels = spec.cameras * spec.image.feature_width() * spec.image.feature_height()
    for key, stride in {"points": pixels * spec.depth.bins, "pixels": pixels}.items():
        batch[key] = torch.cat([x[key].long() + i * stride for i, x in enumerate(items)])
    first = [0, *np.cumsum([len(x["points"]) for x in items])]
    batch["rows"] = torch.cat([x["rows"][i > 0 :] + n for i, (x, n) in enumerate(zip(items, first))])
    if "features" in items[0]:
        batch["features"] = [torch.cat(level).float() for level in zip(*(x["features"] for x in items))]
    past = [(example, *frame) for example, x in enumerate(items) for frame in x.get("past", ())]
    if past:
        batch["past"] = collate([inputs for *_, inputs in past], spec)
        batch["past_slot"] = torch.tensor([(example, slot) for example, slot, *_ in past])
        batch["past_motion"] = torch.stack([T_then_now for _, _, T_then_now, _ in past])
    return batch


@torch.no_grad()
def cache_features(
    dataset: FrameDataset, backbone: torch.nn.Module, progress: Callable[[Iterable], Iterable] | None = None
) -> None:
    """Runs the frozen backbone once over every variant of every frame; examples then carry features instead of images.

    The features are kept where the samples are: in memory, or in the cache, where later runs find them.
    """
    backbone.eval()
    source = dataset.source
    features: Features = FeatureFiles(source, dataset.config, backbone) if isinstance(source, CachedSource) else {}
    device = next(backbone.parameters()).device
    indices = (
        range(len(dataset)) if isinstance(features, dict) else world.share(range(len(dataset)))
    )  # memory is not shared
    for index in progress(indices) if progress else indices:
        if dataset.names[index] not in features:
            images = [
                torch.from_numpy(dataset.images(index, v)).to(device) for v in range(dataset.config.augment.variants)
            ]
            features[dataset.names[index]] = [[_half(level) for level in backbone(x)] for x in images]
    dataset.features = features


def _half(level: torch.Tensor) -> torch.Tensor:
    return level.half().cpu().contiguous(memory_format=torch.channels_last)
