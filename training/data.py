"""Training examples: what the runtime's ops make of a sample in a randomly changed world, and its targets."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Dataset

import imkd_edge.ops as ops
from imkd_edge.bundle.contract import Contract
from imkd_edge.checks.contract import measure, spaced
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.conditions import no_camera, no_radar
from imkd_edge.evaluation.nuscenes import counted
from imkd_edge.evaluation.segmentation import vehicle_map
from imkd_edge.frames import Ego
from imkd_edge.progress import Track
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.remount import remount, tilt
from imkd_edge.sources.timeline import Timeline
from imkd_edge.spec import ModelSpec
from imkd_edge.training import augment, distributed
from imkd_edge.training.cache import CachedSource, FeatureFiles
from imkd_edge.training.config import Config
from imkd_edge.training.frame_checks import SeenLabels, SeenSensors
from imkd_edge.training.inputs import (
    discard_images,
    exposure_rig,
    network_inputs,
    pad,
    radar_grid,
    scaled_crop,
)
from imkd_edge.training.lidar import LidarGrid
from imkd_edge.training.mix import draw_sector, mix_batch
from imkd_edge.training.sampling import without_sensors
from imkd_edge.training.targets import depth_targets, head_targets
from imkd_edge.training.temporal import is_blind, past_motions
from imkd_edge.training.unlabelled import PartlyLabelled, is_labelled, no_truth

SELECT_SENSORS = {"both": lambda sample: sample, "camera": no_radar, "radar": no_camera}  # [data] sensors
# Frame -> variant -> level of the frozen backbone's output.
Features = dict[str, list[list[torch.Tensor]]] | FeatureFiles
PER_CAMERA = {"images", "present", "depth_bin"}  # concatenated over the examples of a batch
# Purposes of random numbers: each has its own stream, so that a change of one does not affect the others.
ORDER, IMAGES, VIEW, VARIANTS, PAST, SECTOR = range(6)
Past = list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]]  # slot, T_then_now (4,4), network inputs


def measure_contract(dataset: FrameDataset) -> Contract:
    """What a student of this data set is trained on, before augmentation."""
    settings = dataset.config
    samples = (dataset.read(name) for name in spaced([name for name in dataset.names if is_labelled(name)]))
    return measure(samples, settings.spec, settings.data.classes, dataset.source, settings.data.split)


class FrameDataset(Dataset):
    """Samples of a source as training examples; every random draw is a function of (seed, epoch, frame).

    Where the spec has a history, an example is a clip: the sample and the past ones of its scene, all in the same
    changed world.
    """

    def __init__(self, source: Source, names: list[str], config: Config, seed: int, train: bool = True):
        self.source, self.names, self.config, self.seed, self.train = source, names, config, seed, train
        self.shared_epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers outlive an epoch
        self.sensors = True  # the student's inputs
        self.radar = False  # the radar grid without cameras, for a teacher that reads radar
        self.lidar = False  # the teacher's LiDAR grid
        self.memory: dict[str, Sample] = {}
        self.checked = False  # whether its labels were, at the first stage that reads the frames
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

    def rng(self, purpose: int, index: int) -> np.random.Generator:
        """Random numbers of one purpose for one example of this epoch."""
        return np.random.default_rng([self.seed, purpose, index, self.epoch])

    def sample(self, index: int) -> Sample:
        """The raw sample of an example; see `read`."""
        return self.read(self.names[index])

    def read(self, name: str) -> Sample:
        """A raw sample, from memory where stored.

        In training the radar's estimate of the ego speed replaces an unknown ego motion.
        """
        if name in self.memory:
            return self.memory[name]
        sample = self.source[name]
        if sample.rig.ground_plane is None and self.config.spec.legacy_plane != (0.0, 0.0, 0.0):
            sample.rig.ground_plane = self.config.spec.legacy_plane  # so that augmentation moves it with the world
        if self.train:  # before the world rotates: afterwards +x is not forward
            motion = sample.motion(self.config.spec.radar.max_age)
            if motion.source == "estimated":
                sample = replace(sample, ego=replace(sample.ego or Ego(), twist=np.array(motion.twist)))
        if self.config.data.keep and not isinstance(self.source, CachedSource):
            self.memory[name] = sample
        return sample

    def load(self, progress: Track | None = None) -> None:
        """Reads every sample once into memory or cache, in the source's order, which is the fastest.

        Without either ([data] keep = false) it reads nothing. Each process fills its share of the cache.

        Raises:
            Error: train_no_data where [data] classes has none of the labels, no object of them is on the grid, or no
                frame has an image or a radar point.
        """
        stored = self.config.data.keep or isinstance(self.source, CachedSource)
        indices = distributed.share(range(len(self) if stored else 0))
        labels, sensors = SeenLabels(self.config.spec, self.config.data), SeenSensors(self.config.data)
        for index in progress(indices) if progress else indices:
            sample = self.sample(index)
            labels.add(sample.truth)
            sensors.add(sample)
        labels.check_mapped()
        if stored and distributed.size() == 1 and not self.checked:  # else other processes read other frames
            labels.check_learnt()
            sensors.check()
            self.checked = True

    def class_names(self) -> list[set[str]]:
        """The classes of the objects in each frame."""
        data = self.config.data
        read = self.read if data.keep else without_sensors(self.source).__getitem__
        truths = [read(name).truth for name in self.names]
        return [{data.classes[x] for x in truth.labels if x in data.classes} if truth else set() for truth in truths]

    def variant(self, index: int) -> int:
        """Number of the image variant of a frame in this epoch."""
        count = self.config.augment.variants
        order = np.random.default_rng([self.seed, VARIANTS, index, self.epoch // count]).permutation(count)
        return int(order[self.epoch % count])

    def image_change(self, index: int, variant: int) -> augment.ImageChange:
        """Draws the image change of an example.

        With [augment] variants it depends only on frame and variant, so that runs share the features.
        """
        config = self.config.augment
        frame = crc32(self.names[index].encode())
        draw = [IMAGES, frame, variant] if config.variants else [self.seed, IMAGES, index, variant]
        return augment.draw_image_change(np.random.default_rng(draw), config)

    def crops(self, sample: Sample, change: augment.ImageChange) -> list[ops.ImageCrop]:
        """The crop of every camera in the rig's order, absent ones too, with the change's scale and shift."""
        spec, cameras = self.config.spec, sample.rig.cameras
        return [scaled_crop(spec, c.width, c.height, change.scale, change.shift) for c in cameras]

    def images(self, index: int, variant: int) -> np.ndarray:  # (N,3,H,W) float32
        """The images of one variant, for the cache of frozen features."""
        spec, sample, change = self.config.spec, self.sample(index), self.image_change(index, variant)
        views = [sample.frames.get(c.name) for c in sample.rig.cameras]
        views = [None if f is None else augment.change_image(f, change) for f in views]
        frames, crops = pad(spec, views, self.crops(sample, change))
        return ops.preprocess_images(frames, crops, spec.image)

    def changed(self, sample: Sample, view: augment.View, rng: np.random.Generator) -> Sample:
        """The sample in the changed world, with sensors and points dropped at random."""
        sample = SELECT_SENSORS[self.config.data.sensors](sample)
        sample = augment.mirror(sample) if view.images.flip else sample
        sample = augment.rotate_and_scale(sample, view.angle, view.scale)
        sample = remount(sample, tilt(*view.tilt)) if view.tilt[0] else sample
        sample = augment.drop(sample, rng, self.config.augment)
        if self.features is not None or not self.sensors:
            return sample
        return replace(sample, frames={k: augment.change_image(v, view.images) for k, v in sample.frames.items()})

    def past(self, index: int, now: Sample, view: augment.View | None) -> Past:
        """The past frames of an example whose (changed) sample is `now`: those of which the runtime has a map."""
        config, names = self.config, self.timeline.past(self.names[index])
        spec = config.spec
        rng = self.rng(PAST, index)
        if view is not None and rng.random() < config.augment.drop_past:
            names = names[: int(rng.integers(len(names)))]
        read = [None if name is None else self.read(name) for name in names]
        if view is not None:
            read = [None if then is None else self.changed(then, view, rng) for then in read]
        max_age = spec.radar.max_age
        motions = past_motions(now.motion(max_age), [None if then is None else then.motion(max_age) for then in read])
        frames = []
        for slot, (then, T_then_now) in enumerate(zip(read, motions, strict=True)):
            if then is None or T_then_now is None:
                continue
            inputs = network_inputs(spec, then, None if view is None else self.crops(then, view.images))
            if not is_blind(inputs):
                frames.append((slot, torch.from_numpy(T_then_now), _tensors(inputs)))
        return frames

    def __getitem__(self, index: int) -> dict:
        """One example: network inputs as the stage reads them, targets of its labels, and "past" (see `past`)."""
        spec, config = self.config.spec, self.config.augment
        sample, view, crops, variant = self.sample(index), None, None, 0
        if self.train:
            variant = self.variant(index) if config.variants else self.epoch
            rng = self.rng(VIEW, index)
            view = augment.draw_view(rng, config, self.image_change(index, variant))
            sample = self.changed(sample, view, rng)
            crops = self.crops(sample, view.images)

        # Inputs.
        features = self.features[self.names[index]][variant] if self.sensors and self.features is not None else None
        arrays = network_inputs(spec, sample, crops, images=features is None) if self.sensors else {}
        if self.radar and not self.sensors:
            arrays["radar_grid"] = radar_grid(spec, sample)
        if self.lidar:
            arrays["lidar_grid"] = _lidar_grid(spec, sample)
        if self.sensors and self.config.distill.seen:
            radar = any(len(sweep.points) for sweep in sample.radar)
            arrays["seen"] = np.array([arrays["present"].any(), radar], np.float32)

        # Targets.
        arrays |= self.targets(spec, sample, crops or self.crops(sample, augment.ImageChange()))
        if self.train and config.mix:
            arrays["sector"] = draw_sector(self.rng(SECTOR, index), spec.grid, config.mix)

        example: dict = _tensors(arrays)
        if features is not None:
            example["features"] = features
        if self.sensors and spec.history.frames:
            example["past"] = self.past(index, sample, view)
        return example

    def targets(self, spec: ModelSpec, sample: Sample, crops: list[ops.ImageCrop]) -> dict[str, np.ndarray]:
        """Targets of a (changed) sample; {} without labels.

        Beside unlabelled frames a map says where the objects are known. Raises Error train_no_data in training where
        a frame should have labels.
        """
        partly = isinstance(self.source, PartlyLabelled)
        if sample.truth is None and not (self.train and partly):
            if self.train:
                fix = "train on a split whose frames have labels"
                raise Error(Code.train_no_data, "a frame without labels", sample.name, fix)
            return {}
        truth = sample.truth or no_truth()
        # nuScenes' metrics ignore objects without any LiDAR or radar return.
        visible = counted(truth) if self.source.kind in ("nuscenes", "synth") else None
        out = head_targets(spec, truth, self.config.data.classes, visible, ops.ground_of(spec, sample.rig))
        if partly:
            out["labelled"] = np.full(out["weight"].shape, sample.truth is not None, np.float32)
        if self.sensors:
            lifted = replace(discard_images(spec, sample), rig=exposure_rig(spec, sample))
            out["depth_bin"] = depth_targets(spec, lifted, crops)
            if spec.segmentation:
                out["vehicles"] = vehicle_map(truth, spec.grid, self.config.data.vehicles)
                out["vehicles"][:] = out["vehicles"] if sample.truth is not None else np.nan
        return out


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _lidar_grid(spec: ModelSpec, sample: Sample) -> np.ndarray:  # (lidar.CHANNELS,Hr,Wr)
    if sample.lidar is None:
        fix = "copy its LiDAR file too, leave the frame out of the split, "
        fix += "or tell the reader to make it ([data.options], such as lidar = true)"
        raise Error(Code.train_no_data, "a frame without LiDAR, which the teacher reads", sample.name, fix)
    return LidarGrid.of(spec)(sample.lidar, ops.ground_of(spec, sample.rig))


def collate(items: list[dict], spec: ModelSpec) -> dict:
    """Joins examples into a batch: cameras are concatenated (B*N,...), and the lift's indices refer to the whole batch.

    The P past frames of all examples, if any, form a batch of their own, "past"; past_slot (P,2) holds the example and
    slot of each, past_motion (P,4,4) its T_then_now.
    """
    batch = {}
    for key in items[0]:
        if key in {"points", "pixels", "rows", "features", "past"}:
            continue
        values = [x[key] for x in items]
        batch[key] = torch.cat(values) if key in PER_CAMERA else torch.stack(values)
    batch = mix_batch(batch)
    if "points" not in items[0]:
        return batch

    # The lift's table: example i has the pixels and frustum points from i times their number on.
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
