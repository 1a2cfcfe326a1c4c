"""Splits of nuScenes folders: their own in splits.json, the official ones, and the message where one is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sources.nuscenes_folder import write_nuscenes

from helpers import without_package
from imkd_edge.errors import Error
from imkd_edge.sources.nuscenes import NuScenesSource
from imkd_edge.sources.select import select


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Samples k0, k1 of scene-0061 (in the official train and mini_train), k2 of the scene own-7."""
    write_nuscenes(tmp_path)
    for table, edit in (
        ("scene", lambda rows: [*rows, {**rows[0], "token": "other", "name": "own-7"}]),
        ("sample", lambda rows: [*rows[:2], {**rows[2], "scene_token": "other"}]),
    ):
        path = tmp_path / "v1.0-mini" / f"{table}.json"
        path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    return tmp_path


def write(folder: Path, content: object) -> Path:
    path = folder / "v1.0-mini" / "splits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_own_splits_name_scenes_as_the_devkits_do(folder):
    write(folder, {"my_train": ["scene-0061"], "my_val": ["own-7"], "both": ["own-7", "scene-0061", "own-7", "absent"]})
    splits = NuScenesSource(folder).splits
    assert splits["my_train"] == ["k0", "k1"] and splits["my_val"] == ["k2"] and splits["both"] == ["k2", "k0", "k1"]
    assert splits["mini_train"] == ["k0", "k1"]  # official
    assert select(str(folder), split="my_val").names == ["k2"]
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils.splits import get_scenes_of_custom_split

    devkit = NuScenes("v1.0-mini", str(folder), verbose=False)
    assert get_scenes_of_custom_split("my_val", devkit) == ["own-7"]


def test_own_splits_need_no_devkit(folder, monkeypatch):
    without_package(monkeypatch, "nuscenes")
    assert NuScenesSource(folder).splits == {}
    write(folder, {"my_train": ["scene-0061"]})
    assert NuScenesSource(folder).splits == {"my_train": ["k0", "k1"]}


def test_an_official_split_of_these_scenes_has_priority(folder):
    write(folder, {"train": ["own-7"], "val": ["own-7"]})
    splits = NuScenesSource(folder).splits
    assert splits["train"] == ["k0", "k1"]  # scene-0061
    assert splits["val"] == ["k2"]  # none of the official ones is here


def test_a_split_of_scenes_that_are_not_here_is_an_error(folder):
    write(folder, {"my_train": ["scene-9999"], "none": [], "my_val": ["own-7"]})
    for split in ("my_train", "none"):
        with pytest.raises(Error, match=f"E0307.*'{split}' is empty") as caught:
            select(str(folder), split=split)
        assert "my_val" in caught.value.fix and "my_train" not in caught.value.fix


def test_the_devkit_is_named_for_official_splits_only(folder, monkeypatch):
    write(folder, {"my_train": ["scene-0061"]})
    without_package(monkeypatch, "nuscenes")
    for split, devkit in (("val", True), ("mini_val", True), ("my_val", False)):
        with pytest.raises(Error, match=f"E0307.*no split '{split}'") as caught:
            select(str(folder), split=split)
        assert ("nuscenes-devkit" in caught.value.fix) == devkit
        assert devkit or "my_train" in caught.value.fix


@pytest.mark.parametrize("content", ["{", "[]", "3", {"a": "scene-0061"}, {"a": [1]}, {"a": {"b": []}}, {"a": None}])
def test_a_broken_list_of_splits_is_named(folder, content):
    path = write(folder, content)
    source = NuScenesSource(folder)
    assert source["k0"].frames  # it is read for splits alone
    with pytest.raises(Error, match="E0305") as caught:
        _ = source.splits
    assert caught.value.where == str(path)


def test_all_is_a_split_of_every_source(folder):
    assert select(str(folder), split="all").names == ["k0", "k1", "k2"]
    write(folder, {"all": ["own-7"]})  # unless the folder says otherwise
    assert select(str(folder), split="all").names == ["k2"]
