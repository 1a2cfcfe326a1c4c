"""Calibrations, poses, labels and tables of KITTI, View-of-Delft and Astyx; the first byte chooses the set."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz import scratch

from imkd_edge.errors import Error
from imkd_edge.sources.astyx import CAMERA, LABELS, RADAR, AstyxSource
from imkd_edge.sources.kitti import KittiSource
from imkd_edge.sources.vod import formats


def attempt(read: Callable[[], Any]) -> None:
    try:
        read()
    except Error as fault:
        assert str(fault).startswith("error[E")


def kitti(calibration: bytes, labels: bytes, _: bytes) -> None:
    root = scratch.file("kitti/image_2/none", b"").parents[1]
    scratch.file("kitti/calib/1.txt", calibration)
    scratch.file("kitti/label_2/1.txt", labels)
    source = KittiSource(root)
    attempt(lambda: source["1"])
    attempt(lambda: source.truth("1", np.eye(4), None))


def vod(calibration: bytes, labels: bytes, pose: bytes) -> None:
    attempt(lambda: formats.read_calibration(scratch.file("calib.txt", calibration), "P2", "Tr_velo_to_cam"))
    attempt(lambda: formats.read_objects(scratch.file("label.txt", labels), np.eye(4)))
    attempt(lambda: formats.read_pose(scratch.file("pose.json", pose)))


def astyx(calibration: bytes, labels: bytes, points: bytes) -> None:
    root = scratch.file(f"astyx/{CAMERA}/none", b"").parents[1]
    scratch.file("astyx/calibration/1.json", calibration)
    scratch.file(f"astyx/{LABELS}/1.json", labels)
    scratch.file(f"astyx/{RADAR}/1.txt", points)
    source = AstyxSource(root)
    attempt(lambda: source["1"])
    attempt(lambda: source.truth("1", None, None))
    attempt(lambda: source.radar_points("1"))


def run(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of absent files
        {b"k": kitti, b"v": vod}.get(data[:1], astyx)(*scratch.parts(data[1:], 3))
