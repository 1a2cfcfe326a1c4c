"""Decoded samples and frozen features on disk: made once, then mapped into every worker, process and run that shares the folder.

One safetensors file per frame, written beside and renamed, in a folder named after the hash of all that its content depends on:
what is stale has another name and is never read. Old folders may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import imkd_edge._core as _core
import imkd_edge.sources as sources
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.training.config import Config, DataConfig
from imkd_edge.training.temporal import moment

HERE = Path(__file__).parent
KINDS = {kind.__name__: kind for kind in (Sample, Truth, RadarSweep, Ego)}
Tensors = dict[str, torch.Tensor]


class FrameFiles:
    """A folder with one file per frame, each whole or absent."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the file of a frame lies, whatever characters the name holds."""
        return self.folder / f"{quote(name, safe='')}.safetensors"

    def write(self, name: str, tensors: Tensors, note: str) -> None:
        """Keeps tensors and note as the file of a frame, in place of an older one."""
        path = self.path(name)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(tensors, beside, {"note": note})
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def read(self, name: str) -> tuple[Tensors, str] | None:
        """The tensors, mapped rather than read, and the note; None where there is no whole file."""
        try:
            with safe_open(self.path(name), "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()["note"]  # noqa: SIM118 (no mapping)
        except (FileNotFoundError, SafetensorError):
            return None


class CachedSource:
    """A source whose samples are decoded once and then come from files in `folder`."""

    def __init__(self, source: Source, data: DataConfig, folder: Path):
        self.source, self.kind, self.names, self.folder = source, source.kind, source.names, folder
        self.key = _key(_origin(source, data))
        self.files = FrameFiles(folder / f"samples-{self.key}")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample."""
        return moment(self.source, name)

    def __getitem__(self, name: str) -> Sample:
        found = self.files.read(name)
        if found is not None:
            return _unpack(json.loads(found[1]), found[0])
        sample = self.source[name]
        arrays: Tensors = {}
        note = json.dumps(_pack(sample, arrays))
        self.files.write(name, arrays, note)
        return sample


class FeatureFiles:
    """What a frozen backbone says of every image variant of a frame: name -> variant -> level (N,C,h,w) float16, channels last."""

    def __init__(self, source: CachedSource, settings: Config, backbone: torch.nn.Module):
        image = json.loads(settings.spec.to_json())["image"]
        augment = settings.augment
        drawn = [augment.variants, augment.flip, augment.image_scale, augment.image_shift, augment.colour]
        code = [_hash(path.read_bytes()) for path in (HERE / "augment.py", HERE / "data.py", Path(_core.__file__))]
        key = _key(source.key, image, drawn, code, _weights(backbone), torch.__version__)
        self.files = FrameFiles(source.folder / f"features-{key}")

    def __contains__(self, name: str) -> bool:
        return self.files.read(name) is not None

    def __getitem__(self, name: str) -> list[list[torch.Tensor]]:
        found = self.files.read(name)
        if found is None:
            raise KeyError(name)
        tensors, variants = found[0], json.loads(found[1])
        levels = range(len(tensors) // variants)
        return [[tensors[f"{v}.{i}"].permute(0, 3, 1, 2) for i in levels] for v in range(variants)]

    def __setitem__(self, name: str, variants: list[list[torch.Tensor]]) -> None:
        levels = {f"{v}.{i}": level for v, variant in enumerate(variants) for i, level in enumerate(variant)}
        self.files.write(
            name, {k: level.permute(0, 2, 3, 1).contiguous() for k, level in levels.items()}, str(len(variants))
        )


def _origin(source: Source, data: DataConfig) -> list[Any]:
    """What decoded samples depend on: the reader's code, its options, and name, size and time of every file below the folder."""
    folder = Path(data.source)
    files = [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in _files(folder, set())]
    code = [_hash(path.read_bytes()) for path in sorted(Path(sources.__file__).parent.rglob("*.py"))]
    place = str(folder.resolve()) if files else data.source
    return [source.kind, place, data.options, sorted(files), code, cv2.__version__]


def _files(folder: Path, seen: set[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, links to folders followed once, with its stat; not what leads nowhere, nor a cache of ours."""
    real = os.path.realpath(folder)
    if real in seen or not os.path.isdir(real):
        return
    seen.add(real)
    for entry in os.scandir(folder):
        if entry.is_dir():
            if not entry.name.startswith(("samples-", "features-")):
                yield from _files(folder / entry.name, seen)
        elif entry.is_file():
            yield folder / entry.name, entry.stat()


def _weights(network: torch.nn.Module) -> list[str]:
    state = network.state_dict()
    return [
        str(network),
        *(name + _hash(value.cpu().contiguous().numpy().tobytes()) for name, value in sorted(state.items())),
    ]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _key(*parts: Any) -> str:
    return _hash(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


def _pack(value: Any, arrays: Tensors) -> Any:
    """The JSON form of a sample; its arrays go to `arrays` under the numbers that stand in their place."""
    if isinstance(value, np.ndarray):
        number = str(len(arrays))
        arrays[number] = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return {"array": number}
    if isinstance(value, SensorRig):
        return {"rig": value.to_json()}
    if is_dataclass(value):
        return {
            "kind": type(value).__name__,
            "fields": {f.name: _pack(getattr(value, f.name), arrays) for f in fields(value)},
        }
    if isinstance(value, dict):
        return {"table": {key: _pack(entry, arrays) for key, entry in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_pack(entry, arrays) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(tree: Any, arrays: Tensors) -> Any:
    if isinstance(tree, list):
        return [_unpack(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]].numpy()
    if "rig" in tree:
        return SensorRig.from_json(tree["rig"])
    if "table" in tree:
        return {key: _unpack(entry, arrays) for key, entry in tree["table"].items()}
    return KINDS[tree["kind"]](**{key: _unpack(entry, arrays) for key, entry in tree["fields"].items()})
