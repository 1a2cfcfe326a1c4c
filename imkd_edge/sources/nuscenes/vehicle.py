"""Sensors of a nuScenes vehicle by channel, in the set's usual order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT")
RADARS = ("RADAR_FRONT", "RADAR_FRONT_RIGHT", "RADAR_BACK_RIGHT", "RADAR_BACK_LEFT", "RADAR_FRONT_LEFT")
LIDAR = "LIDAR_TOP"
T_EGO_LIDAR = np.array([[0.0, 1.0, 0.0, 0.94], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.84], [0.0, 0.0, 0.0, 1.0]])


def cameras(channels: Collection[str]) -> list[str]:
    """The cameras among the channels: clockwise from the front, unknown ones last, by name."""
    return _sorted([channel for channel in channels if channel.startswith("CAM")], CAMERAS)


def radars(channels: Collection[str]) -> list[str]:
    """The radars among the channels: clockwise from the front, unknown ones last, by name."""
    return _sorted([channel for channel in channels if channel.startswith("RADAR")], RADARS)


def _sorted(channels: list[str], order: Sequence[str]) -> list[str]:
    return sorted(channels, key=lambda channel: (order.index(channel) if channel in order else len(order), channel))
