"""The official splits of nuScenes, which come with nuscenes-devkit."""

from __future__ import annotations

GET_DEVKIT = 'pip install "imkd-edge[test]" && pip install --no-deps nuscenes-devkit==1.2.0'


def official_splits() -> dict[str, list[str]] | None:
    """Scene names by split (train, val, mini_train, ...); None where nuscenes-devkit is not installed."""
    try:
        from nuscenes.utils.splits import create_splits_scenes
    except ImportError:
        return None
    return create_splits_scenes()
