"""`imkd-edge init`: a commented config that fits the recordings that it is to train on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle.files import write_atomically
from imkd_edge.checks.data import Survey, survey
from imkd_edge.errors import Code, Error
from imkd_edge.options import InitOptions
from imkd_edge.progress import Track
from imkd_edge.sources.base import Source
from imkd_edge.sources.folder.format import LIDAR
from imkd_edge.sources.open import is_synth
from imkd_edge.sources.select import ALL, source_name, split_names
from imkd_edge.training.config import from_dict, tomllib
from imkd_edge.training.init_sizes import SIZES
from imkd_edge.training.init_text import config_text

DEFAULTS = InitOptions()
CELLS = (0.2, 0.4, 0.8, 1.6)  # m
ALIGNED = 8  # cells that divide each side of the grid
REACH = 102.4  # m, farthest side of a grid
MIN_REACH = 12.8  # m
MARGIN = 2.0  # m around the labels
MIN_OBJECTS = 10  # of a class
RADIUS, RADII = 0.7, (0.3, 5.0)  # of circle suppression, of the square root of a footprint; bounds, m
SAME_GROUP = 2.0  # ratio of lengths within a group of classes, which share box channels
PAST, PAST_INTERVAL = 3, 0.5  # frames, s
KEEP = 3e9  # bytes of decoded samples that stay in memory
DENSE = 500  # returns of a sweep, from which on a radar resolves half a cell
STEPS, EPOCHS = 2000, (8, 60)  # of a training: steps, about, and the bounds of its epochs
SMALL_BATCH = 4  # at least, where fewer frames a step leave more steps
VALIDATED = 200  # frames of the validation split, at most


def init(
    source: str | Source,
    out: Path,
    options: InitOptions = DEFAULTS,
    *,
    source_options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> dict[str, Any]:
    """Writes a config that trains on a source.

    Args:
        source: a Source, or the name of one.
        out: TOML file to make.
        options: size of the networks, split, and how many frames to read.
        source_options: of the source's reader; they go into [data.options].
        track: wraps the frame names, for a progress bar.
    Returns:
        {"config", "split", "frames", "size", "cameras", "image", "grid", "classes", "past", "teacher"}.
    Raises:
        Error: spec_bad_value for an unknown size; train_no_data without labels or cameras; write_failed where the file
            exists; the first defect of the source.
    """
    if options.size not in SIZES:
        fix = f"choose one of: {', '.join(SIZES)}"
        raise Error(Code.spec_bad_value, f"there is no size {options.size!r}", "--size", fix)
    if out.suffix != ".toml" or out.exists():
        what = "the file exists" if out.exists() else "a config is a .toml file"
        raise Error(Code.write_failed, what, str(out), "name a new file, such as mine.toml")
    given = dict(source_options or {})
    if isinstance(source, str) and is_synth(source):
        given.setdefault("lidar", True)
    data = survey(source, options.limit, given, track, validate=False)
    proposal = Proposal(data, options, given, out.stem)
    tree, notes = proposal.tree()
    text = config_text(tree, notes)
    config = from_dict(tomllib.loads(text), str(out))
    write_atomically(out, text.encode())
    spec = config.spec
    grid = spec.grid
    return {
        "config": str(out),
        "split": proposal.split,
        "frames": len(proposal.rows),
        "size": options.size,
        "cameras": spec.cameras,
        "image": f"{spec.image.width} x {spec.image.height}",
        "grid": f"x {grid.x_min:g} to {grid.x_max:g}, y {grid.y_min:g} to {grid.y_max:g} m, cells of {grid.cell:g} m",
        "radar_features": len(spec.radar.features),
        "classes": ", ".join(entry.name for entry in spec.head.classes),
        "past": spec.history.frames,
        "teacher": config.distill.active,
    }


class Proposal:
    """The values of a config, from what a source holds."""

    def __init__(self, data: Survey, options: InitOptions, source_options: dict[str, Any], name: str):
        self.data, self.size, self.size_name = data, SIZES[options.size], options.size
        self.source_options, self.name, self.past = source_options, name, options.past
        self.notes: dict[str, str] = {}  # key of the config -> comment
        source = data.source
        assert source is not None
        splits = getattr(source, "splits", None) or {}
        self.split = options.split or ("train" if splits.get("train") else ALL)
        self.names = split_names(source, self.split, data.name, Code.train_no_data)
        chosen = set(self.names)
        self.rows = [i for i, name in enumerate(data.moments.names) if name in chosen and data.moments.labelled[i]]
        labelled = set(self.rows)
        self.objects = np.array([row in labelled for row in data.moments.frame_of], bool)
        self.boxes = data.moments.boxes[self.objects]
        labels = zip(data.moments.labels, self.objects)
        self.labels = np.array([label for label, used in labels if used], object)
        self._check()

    def _check(self) -> None:
        """Raises Error train_no_data where there is nothing to learn."""
        if self.data.rig is None or not len(self.data.rig.cameras):
            fix = "a camera is needed: add one to rig.json"
            raise Error(Code.train_no_data, "the rig has no camera", self.data.name, fix)
        if not len(self.boxes):
            fix = "add objects to the frames, or choose another split"
            raise Error(Code.train_no_data, f"no labelled object in the split {self.split!r}", self.data.name, fix)

    def tree(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The config as from_dict reads it, and a comment for some of its keys."""
        past, teacher = self._past(), self._teacher()
        camera, bev, sensor = self.size.channels
        spec: dict[str, Any] = {
            "version": 4,
            "name": self.name,
            "cameras": max(len(rig.cameras) for rig in self.data.rigs.values()),
            "context_channels": self.size.context,
            "segmentation": False,
            "history": past,
            "image": self._image(),
            "depth": self._depth(),
            "grid": self._grid(),
        }
        spec["radar"] = self._radar(spec["grid"]["cell"])
        classes = self._classes()
        spec["head"] = {"score_threshold": 0.2, "max_candidates": 300, "max_detections": 200, "classes": classes}
        model = {"backbone": self.size.backbone, "pretrained": self.size.pretrained, "gates": not teacher}
        model |= {"camera_channels": camera, "bev_channels": bev, "sensor_channels": bev if teacher else sensor}
        tree: dict[str, Any] = {
            "name": self.name,
            "spec": spec,
            "model": model,
            "data": self._data([entry["name"] for entry in classes]),
            "train": self._train(spec),
            "augment": self._augment(bool(past["frames"])),
        }
        if teacher:
            tree["teacher"] = {"channels": bev, "radar": True, "epochs": tree["train"]["epochs"]}
            tree["distill"] = {"inherit": True}
        return tree, self.notes

    # ---- what the cameras see ----
    def _image(self) -> dict[str, Any]:
        cameras = [camera for rig in self.data.rigs.values() for camera in rig.cameras]
        aspect = float(np.median([camera.height / camera.width for camera in cameras]))
        widest = max(camera.width for camera in cameras)
        width = max(64, min(self.size.width, widest // 32 * 32))
        height = max(32, round(width * aspect / 32) * 32)
        sizes = sorted({f"{camera.width} x {camera.height}" for camera in cameras})
        self.notes["spec.image"] = f"the pictures are {', '.join(sizes)}; multiples of 32, the aspect is kept"
        image = {"width": width, "height": height, "stride": self.size.stride, "anchor": 0.5}
        return {**image, "mean": list(self.size.mean), "std": list(self.size.std)}

    def _depth(self) -> dict[str, Any]:
        reach = float(np.quantile(np.hypot(self.boxes[:, 0], self.boxes[:, 1]), 0.99)) + MARGIN
        far = float(np.clip(math.ceil(reach / 2) * 2, 20, 120))
        return {"min": 1.0 if far <= 30 else 2.0, "max": far, "bins": self.size.bins, "spacing": "log"}

    def _grid(self) -> dict[str, Any]:
        low, high = np.quantile(self.boxes[:, :2], [0.01, 0.99], 0) + [[-MARGIN] * 2, [MARGIN] * 2]
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        low, high = np.clip(low, -REACH, 0), np.clip(high, 0, REACH)
        extent = float(np.maximum(high - low, MIN_REACH).max())
        cell = next((cell for cell in CELLS if extent / cell <= self.size.cells * 1.05), CELLS[-1])
        step = cell * ALIGNED

        def side(value: float, bound: float) -> float:
            return round(min(math.ceil(max(abs(value), 0.0) / step - 1e-6) * step, bound), 6)

        bound = math.floor(REACH / step + 1e-6) * step
        x_min, y_min = -side(low[0], bound), -side(low[1], bound)
        x_max, y_max = max(side(high[0], bound), step), max(side(high[1], bound), step)
        tops = self.boxes[:, 2] + self.boxes[:, 5] / 2
        z_max = float(np.clip(math.ceil(np.quantile(tops, 0.99) + 1), 4, 10))
        seen = ", ".join(f"{axis} {low[i]:.0f} to {high[i]:.0f} m" for i, axis in enumerate("xy"))
        self.notes["spec.grid"] = f"the labels reach {seen}; z is above the ground plane"
        grid = {"x_min": x_min or -step, "x_max": x_max, "y_min": y_min or -step, "y_max": y_max}
        return {**grid, "z_min": -2.0, "z_max": z_max, "cell": cell}

    # ---- what the radars measure ----
    def _radar(self, cell: float) -> dict[str, Any]:
        radars = self.data.radars.values()
        dense = max((radar.points.quantile(0.5) for radar in radars), default=0) > DENSE
        cell = cell / 2 if dense and cell > CELLS[0] else cell
        points = max([1000, *(math.ceil(1.5 * count / 1000) * 1000 for count in self.data.points)])
        oldest = max([0.0, *self.data.ages])
        age = round(math.ceil((1.2 * oldest + 0.05) / 0.05) * 0.05, 2)
        age = min(max(age, 0.15), 2.0)
        return {"cell": cell, "max_points": points, "max_age": age, "features": self._features(cell, oldest, age)}

    def _features(self, cell: float, oldest: float, age: float) -> list[dict[str, Any]]:
        radars = list(self.data.radars.values())
        lows, highs = zip(*(radar.intensity.usual() for radar in radars)) if radars else ((0.0,), (0.0,))
        low, high = min(lows), max(highs)
        offset, scale = round((low + high) / 2, 1), round(2 / max(high - low, 10.0), 4)
        self.notes["spec.radar.features"] = f"intensities are {low:g} to {high:g} dB (1 % to 99 %)"
        features = [("log_count", 0.0, 1.0), ("intensity_max", offset, scale), ("intensity_mean", offset, scale)]
        kinds = {radar.calibration.velocity for radar in radars if radar.measures_velocity}
        if kinds - {"aliased"}:
            features += [("velocity_x", 0.0, 0.2), ("velocity_y", 0.0, 0.2)]
        if "aliased" in kinds:
            features += [("phase_cos", 0.0, 1.0), ("phase_sin", 0.0, 1.0)]
        if any(radar.measures_elevation for radar in radars):
            features += [("z_mean", 0.0, 0.25), ("z_min", 0.0, 0.25), ("z_max", 0.0, 0.25)]
        features += [("offset_x", 0.0, round(1.6 / cell, 2)), ("offset_y", 0.0, round(1.6 / cell, 2))]
        if oldest > 0.1:
            features.append(("age_min", 0.0, round(1 / age, 2)))
        self.notes["spec.radar"] = f"velocities: {', '.join(sorted(kinds)) or 'none'}; sweeps up to {oldest:.2f} s old"
        return [{"statistic": name, "offset": offset, "scale": scale} for name, offset, scale in features]

    # ---- labels ----
    def _classes(self) -> list[dict[str, Any]]:
        """The classes with enough objects, the largest first; those of like size share a group."""
        sides = {label: self._side(label) for label in set(self.labels.tolist())}
        counts = {label: int((self.labels == label).sum()) for label in sides}
        few = sorted(label for label, count in counts.items() if count < MIN_OBJECTS)
        usual = [label for label in sides if label not in few] or list(sides)
        if set(few) - set(usual):
            self.notes["data.classes"] = f"fewer than {MIN_OBJECTS} objects, so background: {', '.join(few)}"
        classes: list[dict[str, Any]] = []
        group, first = -1, 0.0
        for label in sorted(usual, key=lambda label: (-sides[label], label)):
            if group < 0 or first / sides[label] > SAME_GROUP:
                group, first = group + 1, sides[label]
            radius = round(float(np.clip(RADIUS * sides[label], *RADII)), 2)
            classes.append({"name": label, "group": group, "nms_radius": radius, "exclusive": True})
        sizes = (f"{entry['name']} {self._size(entry['name'])}" for entry in classes)
        self.notes["spec.head.classes"] = f"medians in m: {'; '.join(sizes)}"
        return classes

    def _side(self, label: str) -> float:
        """Side of a square as large as the median footprint of a class, m."""
        length, width = np.median(self.boxes[self.labels == label][:, 3:5], 0)
        return float(np.sqrt(length * width))

    def _size(self, label: str) -> str:
        return " x ".join(f"{value:.2f}" for value in np.median(self.boxes[self.labels == label][:, 3:6], 0))

    def _data(self, classes: list[str]) -> dict[str, Any]:
        source, rig = self.data.source, self.data.rig
        assert rig is not None
        images = sum(3 * camera.width * camera.height for camera in rig.cameras)
        keep = len(self.names) * (images + 2e6 * any(self.data.moments.lidar)) <= KEEP
        if not keep:
            self.notes["data.keep"] = "the decoded frames do not fit into memory: a --cache folder is quicker"
        data = {"source": source_name(self.data.name), "split": self.split, "licence": getattr(source, "licence", "")}
        options = self.source_options
        if not self._teacher():
            options = {key: value for key, value in options.items() if key != LIDAR}
        return {**data, "keep": keep, "options": options, "classes": {name: name for name in classes}}

    # ---- past, teacher, schedule ----
    def _past(self) -> dict[str, Any]:
        none = {"frames": 0, "interval": PAST_INTERVAL, "channels": 0}
        if self.past == 0:
            self.notes["spec.history"] = "no past, as --past 0 asked"
            return none
        gaps = self._intervals()
        unknown = self.data.motions.get("none", 0)
        if unknown > 0.1 * len(self.data.read):
            self.notes["spec.history"] = "no past: the ego motion is not known in most frames"
            return none
        if not len(gaps):
            self.notes["spec.history"] = "no past: no scene has two frames"
            return none
        gap = float(np.median(gaps))
        interval = round(gap * max(1, round(PAST_INTERVAL / gap)), 3)
        if interval > 2:
            self.notes["spec.history"] = f"no past: frames are {interval:g} s apart"
            return none
        frames = PAST if self.past is None else self.past
        return {"frames": frames, "interval": interval, "channels": self.size.channels[1]}

    def _intervals(self) -> np.ndarray:
        """s between successive frames of a scene."""
        times = list(self.data.times.values())
        return np.array([(b - a) * 1e-9 for (scene, a), (other, b) in pairwise(times) if scene == other and b > a])

    def _teacher(self) -> bool:
        """Whether every labelled frame of the split has LiDAR."""
        lidar = [self.data.moments.lidar[row] for row in self.rows]
        if any(lidar) and not all(lidar):
            self.notes["distill"] = f"no teacher: {lidar.count(False)} of {len(lidar)} labelled frames lack LiDAR"
        return all(lidar)

    def _train(self, spec: dict[str, Any]) -> dict[str, Any]:
        image, past = spec["image"], spec["history"]["frames"]
        pixels = spec["cameras"] * image["width"] * image["height"] * (1 + past / 2)
        frames = max(len(self.names) * len(self.rows) // max(self._counted(), 1), 1)
        batch = int(np.clip(round(self.size.pixels / pixels), 2, 8))
        batch = min(batch, max(SMALL_BATCH, round(EPOCHS[1] * frames / STEPS)), frames)
        epochs = int(np.clip(round(STEPS * batch / frames), *EPOCHS))
        self.notes["train.batch"] = f"{batch * spec['cameras']} images a step" + (", and their past" if past else "")
        rates = {"rate": self.size.rate, "weight_decay": 0.02, "clip": 10.0 if self.size.rate > 1e-3 else 5.0}
        train = {"epochs": epochs, "batch": batch, **rates, "depth_weight": 0.5, "box_weight": 0.5}
        return train | self._validation()

    def _validation(self) -> dict[str, Any]:
        """The split that is measured while training, where the source has one beside that of the training."""
        frames = (getattr(self.data.source, "splits", None) or {}).get("val")
        looked_at = zip(self.data.moments.names, self.data.moments.labelled)
        known = {name for name, labelled in looked_at if labelled}
        if not frames or self.split in ("val", ALL) or not known.intersection(frames):
            return {}
        self.notes["train.val_split"] = "measured every 5 epochs: its best epoch is best.pt; empty: none"
        return {"val_split": "val", **({"val_limit": VALIDATED} if len(frames) > VALIDATED else {})}

    def _counted(self) -> int:
        """Frames of the split among those that were looked at."""
        chosen = set(self.names)
        return sum(name in chosen for name in self.data.moments.names)

    def _augment(self, past: bool) -> dict[str, Any]:
        augment = {"flip": True, "rotation": 0.1, "scale": 0.05, "image_scale": 0.05, "colour": 0.2}
        augment |= {"drop_points": 0.2, "drop_camera": 0.1, "drop_radar": 0.05}
        self.notes["augment.flip"] = "mirrors the world: traffic on the other side, as a price for twice the data"
        return {**augment, "drop_past": 0.1} if past else augment
