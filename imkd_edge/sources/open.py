"""Opens a source by its folder or name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Source


def open_source(path: str | Path, **options: Any) -> Source:
    """Opens a data set by its folder, whose content tells its kind.

    Args:
        path: a folder of Astyx HiRes2019, nuScenes v1.0 (or a single scene of it) or View-of-Delft, "synth" or
            "synth:SEED".
        options: of the reader (AstyxSource, NuScenesSource, VodSource, SynthSource).
    Raises:
        Error source_unknown: no reader knows this folder; source_missing_file: it does not exist or may not be read.
    """
    name = str(path)
    if is_synth(name):
        return _synth(name, options)
    folder = Path(path)
    if not os.path.isdir(folder):  # unlike Path.is_dir, without OSError for a name that is too long
        fix = "give a data set's folder, or synth for the synthetic world"
        raise Error(Code.source_missing_file, "no such folder", name, fix)
    try:
        return _recording(folder, options)
    except OSError as fault:
        what, where = f"the folder cannot be read ({fault.strerror})", str(fault.filename or name)
        raise Error(Code.source_missing_file, what, where, "give yourself the right to read it") from None


def is_synth(name: str) -> bool:
    """Whether a source's name is that of the synthetic world."""
    return name == "synth" or name.startswith("synth:")


def _recording(folder: Path, options: dict[str, Any]) -> Source:
    from imkd_edge.sources.astyx import AstyxSource, is_astyx
    from imkd_edge.sources.folder import FolderSource, is_folder
    from imkd_edge.sources.nuscenes import NuScenesSource, is_nuscenes
    from imkd_edge.sources.vod import VodSource, is_vod

    if is_folder(folder):
        return FolderSource(folder, **options)
    if is_astyx(folder):
        return AstyxSource(folder, **options)
    if is_nuscenes(folder):
        return NuScenesSource(folder, **options)
    if is_vod(folder):
        return VodSource(folder, **options)
    astyx, nuscenes = "Astyx HiRes2019 (camera_front/, radar_6455/)", "nuScenes (v1.0-*/sample.json)"
    fix = f"known are {astyx}, {nuscenes}, View-of-Delft (lidar/, radar/); or give synth"
    raise Error(Code.source_unknown, "no reader knows this folder", str(folder), fix)


def _synth(name: str, options: dict[str, Any]) -> Source:
    _, _, seed = name.partition(":")
    if seed:
        if not seed.isdecimal():
            fix = "write synth:SEED with a whole number, such as synth:7"
            raise Error(Code.source_unknown, f"not a seed: {seed!r}", name, fix)
        options = {"seed": int(seed), **options}
    from imkd_edge.sources.synth import SynthSource

    return SynthSource(**options)
