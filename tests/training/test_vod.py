"""View-of-Delft as training data: the reader's samples fit the tensors of the dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.vod_folder import NAMES, OBJECTS, SPLITS, write_vod

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.lidar import channel
from imkd_edge.training.program import open_dataset

CONFIG = """base = "astyx-lite"
[spec]
name = "vod"
[spec.image]
width = 256
height = 160
[spec.grid]
x_max = 51.2
[spec.radar]
features = [
  { statistic = "log_count", offset = 0.0, scale = 1.0 },
  { statistic = "velocity_x", offset = 0.0, scale = 0.2 },
  { statistic = "age_min", offset = 0.0, scale = 2.0 },
]
[model]
backbone = "small"
pretrained = false
frozen_backbone = false
[data]
source = "vod"
[data.classes]
pedestrian = "person"
[augment]
variants = 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_vod(tmp_path_factory.mktemp("vod"))


def dataset(folder: Path, tmp_path: Path, train: bool) -> FrameDataset:
    (tmp_path / "vod.toml").write_text(CONFIG)
    config = load_config(tmp_path / "vod.toml")
    source = open_source(folder)
    result = FrameDataset(source, source.splits["train"], config, seed=0, train=train)
    result.lidar = True
    return result


def test_targets_lie_at_the_objects_and_their_returns(folder, tmp_path):
    data = dataset(folder, tmp_path, train=False)
    grid, tensors = data.config.spec.grid, data[0]
    counts, radar = channel(tensors["lidar_grid"], "log_count"), tensors["radar_grid"][0]
    fine = counts.shape[-1] // grid.width()
    classes = {"Car": 0, "Pedestrian": 2, "Cyclist": 2}
    assert (tensors["heatmap"] == 1).sum((1, 2)).tolist() == [2, 0, 2]  # racks and riders are background
    for name, x, y, z, length, *_, height, yaw, _ in OBJECTS:
        if name not in classes:
            continue
        row, column = int((y - grid.y_min) / grid.cell), int((x - grid.x_min) / grid.cell)
        assert tensors["heatmap"][classes[name], row, column] == 1 and tensors["unlit"][row, column] == 0
        box = tensors["box"][:, row, column].numpy()
        assert box[2] == pytest.approx(z + height / 2 + 1.65, abs=1e-4)  # the road lies 1.65 m below the LiDAR
        assert box[3] == pytest.approx(np.log(length), abs=1e-5)
        assert box[6:8] == pytest.approx([np.sin(yaw), np.cos(yaw)], abs=1e-5)
        assert np.isnan(box[8:]).all()  # velocities are not labelled
        cell = slice(row * fine, (row + 1) * fine), slice(column * fine, (column + 1) * fine)
        assert counts[cell].max() > 0
        around = slice(max(row - 4, 0) * fine, (row + 5) * fine), slice(max(column - 4, 0) * fine, (column + 5) * fine)
        assert radar[around].max() > 0


def test_augmented_frames_form_a_batch(folder, tmp_path):
    data = dataset(folder, tmp_path, train=True)
    assert len(data) == len(SPLITS["train"])
    batch = collate([data[0], data[1]], data.config.spec)
    assert batch["images"].shape == (2, 3, 160, 256) and batch["heatmap"].shape[:2] == (2, 3)
    for key in ("images", "radar_grid", "lidar_grid", "heatmap"):
        assert batch[key].isfinite().all() and batch[key].abs().sum() > 0, key


def opened(folder: Path, tmp_path: Path, split: str) -> FrameDataset:
    """As `train --data FOLDER --split SPLIT` opens it."""
    (tmp_path / "vod.toml").write_text(CONFIG)
    config = load_config(tmp_path / "vod.toml")
    return open_dataset(replace(config, data=replace(config.data, source=str(folder), split=split)), seed=0)


def test_frames_without_labels_are_left_out_of_training_counted_and_named(tmp_path):
    folder = write_vod(tmp_path / "vod")
    labels = folder / "lidar" / "training" / "label_2"
    (labels / f"{NAMES[1]}.txt").unlink()
    with pytest.warns(UserWarning, match=f"leaves out 1 of 4 frames, which have no labels: {NAMES[1]}$"):
        data = opened(folder, tmp_path, "train_val")
    assert data.names == [NAMES[0], *NAMES[2:4]]
    data.load()
    assert all("heatmap" in data[index] for index in range(len(data)))
    for file in labels.iterdir():
        file.unlink()
    with pytest.raises(Error, match=r"E0604.*4 frames, all without labels"):
        opened(folder, tmp_path, "train_val")


def test_split_all_trains_on_every_labelled_frame(folder, tmp_path):
    with pytest.warns(UserWarning, match=f"1 of 5 frames.*{NAMES[4]}"):  # of the test split
        assert opened(folder, tmp_path, "all").names == NAMES[:4]


def test_a_split_that_is_not_there_is_named_with_those_that_are(folder, tmp_path):
    with pytest.raises(Error, match=r"E0604.*no split 'dev'") as caught:
        opened(folder, tmp_path, "dev")
    assert "train_val" in caught.value.fix and "devkit" not in caught.value.fix
