"""Sensors of a nuScenes vehicle by channel, in the set's usual order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_RIGHT", "RADAR_BACK_RIGHT", "RADAR_BACK_LEFT", "RADAR_FRONT_LEFT")
LIDAR = "LIDAR_TOP"
T_EGO_LIDAR = np.array([[0.0, 1.0, 0.0, 0.94], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.84], [0.0, 0.0, 0.0, 1.0]])


def cameras(channels: Collection[str], modalities: Mapping[str, str | None] = MappingProxyType({})) -> list[str]:
    """The cameras among the channels: clockwise from the front, unknown ones last, by name."""
    return _sorted(_of(channels, modalities, "camera", "CAM"), CAMERAS)


def radars(channels: Collection[str], modalities: Mapping[str, str | None] = MappingProxyType({})) -> list[str]:
    """The radars among the channels: clockwise from the front, unknown ones last, by name."""
    return _sorted(_of(channels, modalities, "radar", "RADAR"), RADARS)


def lidar(channels: Collection[str], modalities: Mapping[str, str | None] = MappingProxyType({})) -> str | None:
    """The LiDAR whose time and pose are the sample's: LIDAR_TOP, else the first by name; None without one."""
    return next(iter(_sorted(_of(channels, modalities, "lidar", "LIDAR"), (LIDAR,))), None)


def _of(channels: Collection[str], modalities: Mapping[str, str | None], modality: str, prefix: str) -> list[str]:
    """The channels of a modality; a channel whose table says none is known by its prefix."""
    of = {channel: modalities.get(channel) for channel in channels}
    return [channel for channel, kind in of.items() if kind == modality or (not kind and channel.startswith(prefix))]


def _sorted(channels: list[str], order: Sequence[str]) -> list[str]:
    return sorted(channels, key=lambda channel: (order.index(channel) if channel in order else len(order), channel))
