"""Contract: what a bundle was trained on, and which of its outputs were trained.

The core reads, checks and compares it (`imkd/contract.hpp`); these classes are its fields in Python.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import imkd_edge._core as _core

Range = tuple[float, float]  # smallest and largest
Size = tuple[float, float, float]  # length, width, height


@dataclass(frozen=True)
class CamerasContract:
    """The cameras of the training data."""

    number: tuple[int, int]  # of a rig
    field_of_view: Range  # degrees, horizontal, of the raw image
    width: tuple[int, int]  # px
    height: tuple[int, int]
    lenses: tuple[str, ...]  # CameraCalibration.distortion
    mounting: Range  # m, height above the ground plane


@dataclass(frozen=True)
class RadarsContract:
    """The radars of the training data."""

    number: tuple[int, int]  # of a rig
    velocity: tuple[str, ...]  # RadarCalibration.velocity
    unit: str  # of intensity: unknown, rcs_dbsm, snr_db, magnitude_db
    intensity: Range  # dB, quantiles 1 % and 99 % of the points
    points: Range  # valid points of a sweep, quantiles 1 % and 99 %
    rate: float  # sweeps of a radar a second; 0: unknown
    mounting: Range  # m, height above the ground plane


@dataclass(frozen=True)
class ClassContract:
    """A class of the spec in the labels of the training data."""

    name: str
    objects: int
    size: Size  # m, median length, width, height; 0 without an object
    smallest: Size | None = None  # m, of each side; None without an object, and in bundles older than these members
    largest: Size | None = None


@dataclass(frozen=True)
class TrainedOutputs:
    """Which outputs were trained; one that was not is NaN in results."""

    velocity: bool


@dataclass(frozen=True)
class Contract:
    """What a bundle was trained on."""

    data: str  # kind and split
    frames: int  # of the split, on which it was measured
    cameras: CamerasContract
    radars: RadarsContract
    classes: tuple[ClassContract, ...]  # those of the spec, in its order
    traffic: str  # right, left, unknown
    ground_plane: bool  # a rig named one other than z = 0
    trained: TrainedOutputs

    def to_json(self) -> str:
        """Canonical JSON; raises Error bundle_bad_value for a number out of range."""
        return self.core().to_json()

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Reads to_json's form strictly.

        Raises:
            Error: 402 not JSON, 403 unknown key, 404 missing key, 410 wrong type or out of range.
        """
        return cls.from_core(_core.Contract.from_json(text))

    @classmethod
    def from_core(cls, core: _core.Contract) -> Contract:
        """The same contract as dataclasses."""
        values: dict[str, Any] = json.loads(core.to_json())
        return cls(
            values["data"],
            values["frames"],
            CamerasContract(**_tuples(values["cameras"])),
            RadarsContract(**_tuples(values["radars"])),
            tuple(ClassContract(**_tuples(item)) for item in values["classes"]),
            values["traffic"],
            values["ground_plane"],
            TrainedOutputs(**values["trained"]),
        )

    def core(self) -> _core.Contract:
        """The same contract for the core; raises as from_json."""
        return _core.Contract.from_json(json.dumps(_without_none(asdict(self))))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
