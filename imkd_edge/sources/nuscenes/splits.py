"""Splits of scenes: the official ones, which come with nuscenes-devkit, and a folder's own in splits.json."""

from __future__ import annotations

from pathlib import Path

from imkd_edge.errors import Code, Error
from imkd_edge.sources.absences import is_absent
from imkd_edge.sources.files import read_json

OFFICIAL = ("train", "val", "test", "mini_train", "mini_val", "train_detect", "train_track")
GET_DEVKIT = 'pip install "imkd-edge[test]" && pip install --no-deps nuscenes-devkit==1.2.0'


def official_splits() -> dict[str, list[str]] | None:
    """Scene names by split (train, val, mini_train, ...); None where nuscenes-devkit is not installed."""
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError:
        return None
    return create_splits_scenes()


def custom_splits(folder: Path) -> dict[str, list[str]]:
    """Scene names by split from splits.json in a folder of tables, as nuscenes-devkit 1.2 reads it; {} without it.

    Raises: Error source_bad_label for a file that is not {name: [scene names]}.
    """
    path = folder / "splits.json"
    if is_absent(path):
        return {}
    content = read_json(path, Code.source_bad_label)
    scenes = list(content.values()) if isinstance(content, dict) else [None]
    for names in scenes:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            fix = 'write {"my_train": ["scene-0001", ...], "my_val": [...]}'
            raise Error(Code.source_bad_label, f"not lists of scene names by split: {str(names)[:60]}", str(path), fix)
    return dict(content)
