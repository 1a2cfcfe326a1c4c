"""The page of imkd-edge check: its tables say what was counted, and its pictures show the frames."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
from html_page import Reader
from rigs import three_camera_rig

from imkd_edge.checks.data import check
from imkd_edge.checks.data.page import NOTES, PICTURES, tables
from imkd_edge.options import CheckOptions
from imkd_edge.sources.synth import SynthSource


def test_a_page_holds_tables_and_a_picture_of_each_chosen_frame(tmp_path: Path) -> None:
    source = SynthSource(rig=three_camera_rig(), scenes=1, frames_per_scene=5, classes="forklift,pallet")
    report = check(source, CheckOptions(html=tmp_path / "check.html"))
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert not page.fetched and page.tags.count("img") == PICTURES and page.tags.count("table") == len(tables(report))
    assert all(title in tables(report) for title in NOTES) and "forklift" in text
    for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", text):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] > 1000 and picture.std() > 20


def test_columns_without_a_value_are_left_out() -> None:
    report = check(SynthSource(rig=three_camera_rig(), scenes=1, frames_per_scene=2))
    columns, rows = tables(report)["Classes"]
    assert "LiDAR misses" not in columns and all(len(row) == len(columns) for row in rows)
    with_lidar = check(SynthSource(rig=three_camera_rig(), scenes=1, frames_per_scene=2, lidar=True))
    assert "LiDAR misses" in tables(with_lidar)["Classes"][0]
