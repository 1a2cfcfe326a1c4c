"""Sector mix: a line joins two examples, at the same position in every map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from imkd_edge.errors import Error
from imkd_edge.sources import open_source
from imkd_edge.spec import GridSpec
from imkd_edge.training.config import from_dict, load_config, merged, read_tree
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.mix import MAPS, draw_sector, mix_maps
from imkd_edge.training.models.student import Student

GRID = GridSpec(x_min=0.0, x_max=8.0, y_min=-4.0, y_max=4.0, cell=1.0)


def dataset(mix: float, names: int = 3) -> FrameDataset:
    config = load_config("synth-ablation")
    config = replace(config, augment=replace(config.augment, mix=mix))
    source = open_source("synth", scenes=1, frames_per_scene=names, lidar=True)
    data = FrameDataset(source, source.names, config, seed=0)
    data.lidar = True
    return data


def test_a_line_splits_the_grid_into_left_and_right():
    rng = np.random.default_rng(3)
    for _ in range(50):
        sector = draw_sector(rng, GRID, 1.0)
        azimuth = np.arctan2(np.arange(-3.5, 4)[:, None], np.arange(0.5, 8)[None])
        assert azimuth[sector].min(initial=np.pi) >= azimuth[~sector].max(initial=-np.pi)


def test_the_share_of_cut_examples_is_the_probability():
    rng = np.random.default_rng(0)
    cut = [not draw_sector(rng, GRID, 0.3).all() for _ in range(1000)]
    assert 0.2 < np.mean(cut) <= 0.35  # a few lines miss every cell
    assert draw_sector(rng, GRID, 0.0).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 2, 8, 8), (3, 5, 16, 16)])
def test_a_cell_comes_from_its_example_or_from_the_next_one_in_the_batch(shape):
    maps = torch.arange(3.0).view(3, *(1,) * (len(shape) - 1)).expand(shape)
    sectors = torch.from_numpy(np.stack([draw_sector(np.random.default_rng(n), GRID, 1.0) for n in (3, 1, 5)]))
    out = mix_maps(maps, sectors)
    ratio = shape[-1] // 8
    for n, mask in enumerate(sectors.numpy()):
        mask = np.kron(mask, np.ones((ratio, ratio), bool))
        values = out[n].reshape(-1, *mask.shape).numpy()
        assert (values[:, mask] == n).all() and (values[:, ~mask] == (n + 1) % 3).all()


def test_every_map_of_a_batch_is_cut_at_the_same_position():
    plain, cut = dataset(0.0), dataset(1.0)
    a, b = (collate([data[i] for i in range(3)], data.config.spec) for data in (plain, cut))
    assert not b["sector"].all()
    for name in MAPS:
        if name in a:
            assert torch.equal(torch.nan_to_num(b[name]), torch.nan_to_num(mix_maps(a[name], b["sector"]))), name
    assert {"radar_grid", "lidar_grid", "heatmap", "box", "weight", "group", "label"} <= set(a)
    assert torch.equal(a["images"], b["images"]) and torch.equal(a["depth_bin"], b["depth_bin"])  # images are not cut


def test_the_lifted_cameras_are_cut_with_the_radar():
    data = dataset(1.0)
    batch = collate([data[i] for i in range(3)], data.config.spec)
    inputs = []
    student = Student(data.config.spec, data.config.model).eval()
    student.bev.features = lambda camera, radar: inputs.append(camera) or {}  # type: ignore[method-assign]
    with torch.no_grad():
        student.encode(batch)
        student.encode({k: v for k, v in batch.items() if k != "sector"})
    assert torch.equal(inputs[0], mix_maps(inputs[1], batch["sector"])) and not torch.equal(inputs[0], inputs[1])


def test_without_training_nothing_is_mix_maps():
    data = dataset(1.0)
    data.train = False
    assert "sector" not in data[0]


def test_a_model_with_history_refuses_it():
    tree = merged(read_tree("tiny-t4")[0], {"augment": {"mix": 0.5}})
    with pytest.raises(Error) as error:
        from_dict(tree, "here")
    assert error.value.code == "E0601" and "mix" in str(error.value)
