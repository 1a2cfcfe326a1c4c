"""Opens a source by its folder or name: the readers here, then those that other packages register."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Source
from imkd_edge.sources.words import explain

GROUP = "imkd_edge.sources"  # of entry points


def open_source(path: str | Path | Source, **options: Any) -> Source:
    """Opens a source by its name; the content of a folder tells its kind. A Source is returned as it is.

    Another package registers a reader by an entry point of the group "imkd_edge.sources" that loads a class (or any
    object) with `recognises(name: str) -> bool`, whose call with the name, the options `labels` and `lidar` (False:
    they need not be read) and options of its own returns a Source.

    Args:
        path: a drive folder, an MCAP file or ROS 2 bag, a folder of videos, of Astyx HiRes2019, nuScenes v1.0 (or a
            single scene of it), MAN TruckScenes, View-of-Delft or KITTI, "synth" or "synth:SEED", or a name that a
            registered reader recognises.
        options: of the reader (FolderSource, RecordingSource, VideoSource, AstyxSource, NuScenesSource, VodSource,
            KittiSource, SynthSource).
    Raises:
        Error source_unknown: no reader knows this name, which says what it is; source_missing_file: it does not exist
            or may not be read; spec_bad_value: options for a Source that is open already.
    """
    if not isinstance(path, (str, Path)):
        if options:
            what, fix = f"the source is open already, so {', '.join(options)} would be ignored", "leave the options out"
            raise Error(Code.spec_bad_value, what, path.kind, fix)
        return path
    name = str(path)
    if is_synth(name):
        return _synth(name, options)
    try:
        if os.path.exists(name):  # unlike Path.exists, without OSError for a name that is too long
            for recognises, reader in _readers():
                if recognises(Path(name)):
                    return reader(Path(name), **options)
        for entry in entry_points(group=GROUP):
            registered = _load(entry)
            if registered is not None and registered.recognises(name):
                return registered(name, **options)
        raise explain(name)
    except OSError as fault:
        what, where = f"the folder cannot be read ({fault.strerror})", str(fault.filename or name)
        raise Error(Code.source_missing_file, what, where, "give yourself the right to read it") from None


def is_synth(name: str) -> bool:
    """Whether a source's name is that of the synthetic world."""
    return name == "synth" or name.startswith("synth:")


def reader_of(name: str) -> Callable[..., Source] | None:
    """The reader here that opens a source; None where another package's may."""
    if is_synth(name):
        from imkd_edge.sources.synth import SynthSource

        return SynthSource
    return next((reader for recognises, reader in _readers() if recognises(Path(name))), None)


def _readers() -> list[tuple[Callable[[Path], bool], Callable[..., Source]]]:
    """For each kind of file or folder whether one is of it, and its reader; the first that recognises it reads it."""
    from imkd_edge.sources.astyx import AstyxSource
    from imkd_edge.sources.folder import FolderSource, is_folder
    from imkd_edge.sources.kitti import KittiSource
    from imkd_edge.sources.nuscenes import NuScenesSource, is_nuscenes
    from imkd_edge.sources.recording import RecordingSource, VideoSource, is_recording, is_video_folder
    from imkd_edge.sources.vod import VodSource

    return [
        (is_folder, FolderSource),
        (AstyxSource.recognises, AstyxSource),
        (is_nuscenes, NuScenesSource),
        (VodSource.recognises, VodSource),
        (KittiSource.recognises, KittiSource),
        (is_recording, RecordingSource),
        (is_video_folder, VideoSource),
    ]


def _load(entry: EntryPoint) -> Any:
    """The reader of an entry point; None, with a warning, where it cannot be loaded."""
    try:
        reader = entry.load()
        if callable(getattr(reader, "recognises", None)) and callable(reader):
            return reader
        problem = "it has no recognises(name), or cannot be called"
    except Exception as fault:  # another package's code
        problem = f"{type(fault).__name__}: {fault}"
    package = entry.dist.name if entry.dist is not None else entry.value
    warnings.warn(f"the source reader {entry.name!r} of {package} is left out: {problem}", stacklevel=3)
    return None


def _synth(name: str, options: dict[str, Any]) -> Source:
    _, _, seed = name.partition(":")
    if seed:
        if not seed.isdecimal():
            fix = "write synth:SEED with a whole number, such as synth:7"
            raise Error(Code.source_unknown, f"not a seed: {seed!r}", name, fix)
        options = {"seed": int(seed), **options}
    from imkd_edge.sources.synth import SynthSource

    return SynthSource(**options)
