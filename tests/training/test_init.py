"""imkd-edge init: the config fits the recordings, and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rigs import three_camera_rig

from imkd_edge import Error
from imkd_edge.options import InitOptions
from imkd_edge.sources.synth import SynthSource
from imkd_edge.training.config import Config, load_config
from imkd_edge.training.init import init

YARD = {"rig": three_camera_rig(), "classes": "forklift,pallet", "frames_per_scene": 3}


def config_of(folder: Path, options: InitOptions | None = None, **world: Any) -> Config:
    source = SynthSource(**{"scenes": 8, **YARD, **world})
    init(source, folder / "mine.toml", options or InitOptions(limit=12))
    return load_config(folder / "mine.toml")


def test_sensors_and_classes_are_those_of_the_recordings(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    spec = config.spec
    assert spec.cameras == 3 and {entry.name for entry in spec.head.classes} == {"forklift", "pallet"}
    # labels reach 60 m along the road; the grid holds them
    assert spec.grid.x_max > 50 and spec.grid.x_min < -50
    # one radar is raw, the other aliased: both need statistics of their own
    assert {"velocity_x", "phase_cos"} <= {feature.statistic for feature in spec.radar.features}
    assert "velocities: aliased, raw" in (tmp_path / "mine.toml").read_text()


def test_a_split_val_is_measured_while_training(tmp_path: Path) -> None:
    assert config_of(tmp_path, InitOptions(limit=24)).train.val_split == "val"


def test_a_source_without_a_split_val_is_not_validated(tmp_path: Path) -> None:
    assert config_of(tmp_path, scenes=1).train.val_split == ""


def test_training_on_all_frames_leaves_none_to_validate_on(tmp_path: Path) -> None:
    assert config_of(tmp_path, InitOptions(limit=24, split="all")).train.val_split == ""


class Unsplit(SynthSource):
    splits = {"train": []}


@pytest.mark.parametrize(("kind", "split"), [(SynthSource, "train"), (Unsplit, "all")])
def test_it_says_of_which_split_and_how_many_frames_the_config_is(tmp_path: Path, kind: type, split: str) -> None:
    source = kind(scenes=4, **YARD)
    result = init(source, tmp_path / "mine.toml", InitOptions(limit=24))
    assert (result["split"], result["frames"]) == (split, len(source.splits["train"]) or len(source.names))


@pytest.mark.parametrize(("past", "frames"), [(None, 3), (0, 0), (2, 2)])
def test_past_frames_are_chosen_where_poses_are_known(tmp_path: Path, past: int | None, frames: int) -> None:
    assert config_of(tmp_path, InitOptions(limit=12, past=past), scenes=2).spec.history.frames == frames


def test_few_frames_are_trained_in_small_batches(tmp_path: Path) -> None:
    assert config_of(tmp_path, InitOptions(limit=12, past=0)).train.batch == 4


def test_lidar_gives_a_teacher(tmp_path: Path) -> None:
    assert not config_of(tmp_path, scenes=1).distill.active
    (tmp_path / "mine.toml").unlink()
    assert config_of(tmp_path, scenes=1, lidar=True).distill.active


def test_a_config_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(Error, match=r"E0702.*exists.*new file"):
        config_of(tmp_path)
