"""The Contract of a bundle: measured on its training data, and compared with a rig or a drive."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle import Bundle, replace_contract
from imkd_edge.bundle.contract import CamerasContract, ClassContract, Contract, RadarsContract, TrainedOutputs
from imkd_edge.errors import Code, Error
from imkd_edge.frames import MAX_INTENSITY, valid_points
from imkd_edge.ops import ground_of
from imkd_edge.progress import Track
from imkd_edge.result import Result, Warning
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.open import is_synth
from imkd_edge.sources.select import open_with, split_names
from imkd_edge.spec import ModelSpec

FRAMES = 500  # evenly spaced over the split; a contract is measured on no more
INTENSITY_STEP = 0.1  # dB, of the histogram behind the quantiles
SIZE_STEP, MAX_SIZE = 0.01, 100.0  # m
INTERVAL_STEP, MAX_INTERVAL = 0.001, 10.0  # s, between two sweeps of a radar
MAX_POINTS = 100_000  # of a sweep; more count as so many
USUAL = (0.01, 0.99)  # quantiles

_Item = TypeVar("_Item")


class Histogram:
    """Quantiles of a stream of numbers in fixed memory: the centre of the quantile's bin."""

    def __init__(self, low: float, high: float, step: float):
        self.low, self.step = low, step
        self.counts = np.zeros(round((high - low) / step) + 1, np.int64)

    def add(self, values: Any) -> None:
        """Counts numbers; one beyond the ends counts as the end."""
        index = np.rint((np.asarray(values, np.float64) - self.low) / self.step)
        np.add.at(self.counts, np.clip(index, 0, len(self.counts) - 1).astype(np.int64), 1)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest bin below or in which a share (0..1) of the numbers lies; 0 without a number."""
        if not self.total:
            return 0.0
        index = int(np.searchsorted(np.cumsum(self.counts), share * self.total))
        return round(self.low + min(index, len(self.counts) - 1) * self.step, 4)

    def ends(self) -> tuple[float, float]:
        """The smallest and the largest bin with a number; (0, 0) without a number."""
        bins = np.flatnonzero(self.counts)
        if not len(bins):
            return 0.0, 0.0
        return round(self.low + int(bins[0]) * self.step, 4), round(self.low + int(bins[-1]) * self.step, 4)

    def usual(self) -> tuple[float, float]:
        """Quantiles 1 % and 99 %."""
        return self.quantile(USUAL[0]), self.quantile(USUAL[1])


class Extent:
    """The smallest and the largest of a stream of numbers; (0, 0) without one."""

    def __init__(self) -> None:
        self.values: tuple[float, float] | None = None

    def add(self, value: float) -> None:
        low, high = self.values or (value, value)
        self.values = min(low, value), max(high, value)

    def range(self, digits: int = 3) -> tuple[float, float]:
        low, high = self.values or (0.0, 0.0)
        return round(low, digits), round(high, digits)

    def counts(self) -> tuple[int, int]:
        low, high = self.values or (0, 0)
        return int(low), int(high)


@dataclass
class _Cameras:
    number: Extent = field(default_factory=Extent)
    view: Extent = field(default_factory=Extent)
    width: Extent = field(default_factory=Extent)
    height: Extent = field(default_factory=Extent)
    mounting: Extent = field(default_factory=Extent)
    lenses: set[str] = field(default_factory=set)

    def add(self, rig: SensorRig, ground: tuple[float, float, float]) -> None:
        self.number.add(len(rig.cameras))
        for camera in rig.cameras:
            self.view.add(_core.horizontal_view(camera))
            self.width.add(camera.width)
            self.height.add(camera.height)
            self.mounting.add(_core.mounting_height(camera.T_ego_camera, ground))
            self.lenses.add(camera.distortion)

    def contract(self) -> CamerasContract:
        sizes = self.width.counts(), self.height.counts()
        lenses = tuple(sorted(self.lenses))
        return CamerasContract(self.number.counts(), self.view.range(1), *sizes, lenses, self.mounting.range())


@dataclass
class _Radars:
    number: Extent = field(default_factory=Extent)
    mounting: Extent = field(default_factory=Extent)
    kinds: set[str] = field(default_factory=set)
    intensity: Histogram = field(default_factory=lambda: Histogram(-MAX_INTENSITY, MAX_INTENSITY, INTENSITY_STEP))
    points: Histogram = field(default_factory=lambda: Histogram(0, MAX_POINTS, 1))
    intervals: Histogram = field(default_factory=lambda: Histogram(0, MAX_INTERVAL, INTERVAL_STEP))
    newest: dict[tuple[str, str], int] = field(default_factory=dict)  # (scene, radar) -> ns

    def add(self, sample: Sample, ground: tuple[float, float, float]) -> None:
        self.number.add(len(sample.rig.radars))
        for radar in sample.rig.radars:
            self.mounting.add(_core.mounting_height(radar.T_ego_radar, ground))
            self.kinds.add(radar.velocity)
        for sweep in sample.radar:
            points = sweep.points[valid_points(sweep.points)]
            self.points.add([len(points)])
            self.intensity.add(points[:, 3])
        self._add_intervals(sample)

    def _add_intervals(self, sample: Sample) -> None:
        """Between the sweeps of a sample, and from the newest of the sample before in the same scene."""
        if any(scene != sample.scene for scene, _ in self.newest):
            self.newest.clear()
        times: dict[str, set[int]] = {}
        for sweep in sample.radar:
            times.setdefault(sweep.radar, set()).add(
                sample.timestamp_ns if sweep.timestamp_ns is None else sweep.timestamp_ns
            )
        for radar, moments in times.items():
            last = self.newest.get((sample.scene, radar))
            series = sorted(moments | ({last} if last is not None else set()))
            self.intervals.add(np.diff(series) * 1e-9)
            self.newest[(sample.scene, radar)] = series[-1]

    def contract(self, unit: str) -> RadarsContract:
        interval = self.intervals.quantile(0.5)
        rate = round(1 / interval, 3) if 0 < interval < MAX_INTERVAL else 0.0
        kinds, usual = tuple(sorted(self.kinds)), (self.intensity.usual(), self.points.usual())
        return RadarsContract(self.number.counts(), kinds, unit, *usual, rate, self.mounting.range())


class _Labels:
    """Sizes of the objects by class of the spec, and whether their velocity is known."""

    def __init__(self, spec: ModelSpec, classes: Mapping[str, str]):
        self.mapping = classes
        self.sizes = {item.name: [Histogram(0, MAX_SIZE, SIZE_STEP) for _ in range(3)] for item in spec.head.classes}
        self.velocity = False

    def add(self, truth: Truth) -> None:
        for box, label in zip(truth.boxes, truth.labels, strict=True):
            sizes = self.sizes.get(self.mapping.get(label, ""))
            if sizes is None:
                continue
            for histogram, value in zip(sizes, box[3:6], strict=True):
                histogram.add([value])
            self.velocity = self.velocity or bool(np.isfinite(box[7:9]).all())

    def contract(self) -> tuple[ClassContract, ...]:
        return tuple(_class_contract(name, *histograms) for name, histograms in self.sizes.items())


def _class_contract(name: str, length: Histogram, width: Histogram, height: Histogram) -> ClassContract:
    size = length.quantile(0.5), width.quantile(0.5), height.quantile(0.5)
    if not length.total:
        return ClassContract(name, 0, size)
    smallest, largest = zip(length.ends(), width.ends(), height.ends(), strict=True)
    return ClassContract(name, length.total, size, smallest, largest)


def measure(
    samples: Iterable[Sample], spec: ModelSpec, classes: Mapping[str, str], source: Source, split: str
) -> Contract:
    """Measures a contract; images are not looked at.

    Args:
        samples: of the training split, one at a time; see `spaced`.
        spec: of the model.
        classes: the data set's label -> the spec's class; other labels are background.
        source: of the samples; its `intensity` (unit) and `traffic`, where it has them, go into the contract.
        split: name of the split.

    Raises:
        Error: train_no_data without a sample, bundle_bad_value for numbers that no sensor has.
    """
    cameras, radars, labels = _Cameras(), _Radars(), _Labels(spec, classes)
    frames, planes = 0, False
    for sample in samples:
        ground = ground_of(spec, sample.rig)
        cameras.add(sample.rig, ground)
        radars.add(sample, ground)
        if sample.truth is not None:
            labels.add(sample.truth)
        planes = planes or any(ground)
        frames += 1
    if not frames:
        raise Error(Code.train_no_data, "no frame to measure a contract on", source.kind, "choose a split with frames")
    contract = Contract(
        f"{source.kind}, split {split}",
        frames,
        cameras.contract(),
        radars.contract(getattr(source, "intensity", "") or "unknown"),
        labels.contract(),
        traffic_of(source),
        planes,
        TrainedOutputs(labels.velocity),
    )
    contract.core().check(spec)
    return contract


def spaced(items: Sequence[_Item], limit: int | None = None) -> list[_Item]:
    """At most `limit` of a sequence, FRAMES by default, evenly spaced and in order."""
    count = min(len(items), FRAMES if limit is None else limit)
    return [items[index * len(items) // count] for index in range(count)]


def measure_bundle(
    bundle: str | Path,
    data: str,
    split: str | None = None,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> Contract:
    """Measures the contract of a bundle on its training data and writes it into the bundle's manifest.

    Args:
        bundle: path of a bundle, or the name of a shipped one; its provenance names the classes of the labels.
        data: source of the training.
        split: of the training; None: the one that the bundle's provenance names.
        limit: frames to measure on, evenly spaced over the split; None: FRAMES.
        options: of the source's reader; by default those of the training.
        track: wraps the frames, for a progress bar.

    Raises:
        Error: bundle_bad_value where the provenance lacks the training's [data], those of the source, write_failed.
    """
    loaded = Bundle.load(bundle)
    settings = training_data(loaded)
    split = split or str(settings["split"])
    unread = {"lidar": False} if is_synth(data) else {"lidar": False, "images": False}
    source = open_with(data, {**(options or settings["options"]), **unread})
    names = spaced(split_names(source, split, data), limit)
    frames = (source[name] for name in (track(names) if track else names))
    contract = measure(frames, loaded.spec, settings["classes"], source, split)
    replace_contract(loaded, contract)
    return contract


def training_data(bundle: Bundle) -> dict[str, Any]:
    """[data] of the config that a bundle was trained with: "classes", "split", "options".

    Raises: Error bundle_bad_value where its provenance has none.
    """
    try:
        data = bundle.manifest["provenance"]["config"]["data"]
        return {"options": {}, **data, "classes": dict(data["classes"]), "split": str(data["split"])}
    except (KeyError, TypeError, ValueError):
        fix = "export it again from its checkpoint"
        raise Error(Code.bundle_bad_value, "its provenance lacks config.data", str(bundle.path), fix) from None


def traffic_of(source: Source) -> str:
    """The side of the road in a source: right, left, unknown."""
    return getattr(source, "traffic", "") or "unknown"


def compare_rig(bundle: Bundle, rig: SensorRig) -> list[Warning]:
    """Everything in which a rig is unlike the bundle's contract; without a contract what its spec alone tells."""
    contract = None if bundle.contract is None else bundle.contract.core()
    return [Warning(*pair) for pair in _core.rig_warnings(bundle.spec, rig, contract)]


def compare_source(bundle: Bundle, source: Source) -> Iterator[Warning]:
    """In what a drive is unlike the bundle's contract beyond its rig and its data: the side of the road."""
    side = traffic_of(source)
    if bundle.contract and "unknown" not in (side, bundle.contract.traffic) and side != bundle.contract.traffic:
        text = f"the drive's vehicles keep to the {side}, those of the training to the {bundle.contract.traffic}"
        yield Warning("W0141", text)


def warn_of_source(bundle: Bundle, source: Source) -> list[Warning]:
    """Issues the warnings of `compare_source` as Python's, and returns them."""
    result = list(compare_source(bundle, source))
    for item in result:
        warnings.warn(f"{item.code} {item.text}", stacklevel=3)
    return result


def with_warnings(result: Result, warnings: tuple[Warning, ...]) -> Result:
    """A result with further warnings in its health, as of `compare_source`."""
    if not warnings:
        return result
    return replace(result, health=replace(result.health, warnings=result.health.warnings + warnings))


class WarningLog:
    """Writes one line where a warning begins and one where it ends, whatever the number of frames between."""

    def __init__(self, write: Callable[[str], Any]):
        self._write, self._present = write, set[str]()

    def write(self, frame: str, warnings: Iterable[Warning]) -> None:
        """Compares a frame's warnings with those of the frame before."""
        texts = {warning.code: warning.text for warning in warnings}
        for code in sorted(texts.keys() - self._present):
            self._write(f"{frame}: {code} {texts[code]}")
        for code in sorted(self._present - texts.keys()):
            self._write(f"{frame}: {code} ended")
        self._present = set(texts)
