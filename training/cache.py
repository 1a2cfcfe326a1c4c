"""Decoded samples and frozen features on disk, mapped into every worker, process and run that shares the folder.

Each frame has a safetensors file, written to a temporary name and renamed. Its folder is named after a hash of all
dependencies of the content, so that stale files are never read. Old folders may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import imkd_edge._core as _core
import imkd_edge.sources as sources
from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.progress import Track
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.timeline import moment
from imkd_edge.training import distributed
from imkd_edge.training.config import Config
from imkd_edge.training.sections import DataConfig

if TYPE_CHECKING:
    from imkd_edge.training.data import Features, FrameDataset

HERE = Path(__file__).parent
DRAWN_BY = ("augment.py", "data.py", "inputs.py")  # the images of a frame
KINDS = {kind.__name__: kind for kind in (Sample, Truth, RadarSweep, Ego)}
SAMPLES, FEATURES = "samples-", "features-"  # prefixes of the folders in a cache
Tensors = dict[str, torch.Tensor]


class FrameFiles:
    """A folder with one file per frame, each complete or absent."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The file of a frame; characters that a file name cannot hold are quoted."""
        return self.folder / f"{quote(name, safe='')}.safetensors"

    def write(self, name: str, tensors: Tensors, note: str) -> None:
        """Writes tensors and note as the file of a frame, replacing an older one; raises Error write_failed."""
        path = self.path(name)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(tensors, temporary, {"note": note})
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            what, fix = f"the cache cannot be written: {error}", "free space, or choose another --cache"
            raise Error(Code.write_failed, what, str(path), fix) from error
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> tuple[Tensors, str] | None:
        """The tensors, memory-mapped, and the note; None without a complete file."""
        try:
            with safe_open(self.path(name), "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (file is no mapping)
                return tensors, file.metadata()["note"]
        except (FileNotFoundError, SafetensorError):
            return None


class CachedSource(Source):
    """A source that decodes each sample once and then reads it from a file in `folder`."""

    def __init__(self, source: Source, data: DataConfig, folder: Path):
        self.source, self.kind, self.names, self.folder = source, source.kind, source.names, folder
        self.intensity, self.traffic = getattr(source, "intensity", ""), getattr(source, "traffic", "")  # of contracts
        self.key = _key(_origin(source, data))
        self.files = FrameFiles(folder / f"{SAMPLES}{self.key}")

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample."""
        return moment(self.source, name)

    def __getitem__(self, name: str) -> Sample:
        file = self.files.read(name)
        if file is not None:
            return _unpack(json.loads(file[1]), file[0])
        sample = self.source[name]
        tensors: Tensors = {}
        note = json.dumps(_pack(sample, tensors))
        self.files.write(name, tensors, note)
        return sample


class FeatureFiles:
    """Features of a frozen backbone: frame name -> image variant -> level (N,C,h,w) float16, channels last."""

    def __init__(self, source: CachedSource, settings: Config, backbone: torch.nn.Module):
        image = json.loads(settings.spec.to_json())["image"]
        augment = settings.augment
        draws = [augment.variants, augment.flip, augment.image_scale, augment.image_shift, augment.colour, augment.dark]
        code = [_hash(path.read_bytes()) for path in (*(HERE / f for f in DRAWN_BY), Path(_core.__file__))]
        key = _key(source.key, image, draws, code, _weights(backbone), torch.__version__)
        self.files = FrameFiles(source.folder / f"{FEATURES}{key}")

    def __contains__(self, name: str) -> bool:
        return self.files.read(name) is not None

    def __getitem__(self, name: str) -> list[list[torch.Tensor]]:
        file = self.files.read(name)
        if file is None:
            raise KeyError(name)
        tensors, variants = file[0], json.loads(file[1])
        levels = range(len(tensors) // variants)
        return [[tensors[f"{v}.{i}"].permute(0, 3, 1, 2) for i in levels] for v in range(variants)]

    def __setitem__(self, name: str, variants: list[list[torch.Tensor]]) -> None:
        levels = {f"{v}.{i}": level for v, variant in enumerate(variants) for i, level in enumerate(variant)}
        tensors = {k: level.permute(0, 2, 3, 1).contiguous() for k, level in levels.items()}
        self.files.write(name, tensors, str(len(variants)))


@torch.no_grad()
def cache_features(dataset: FrameDataset, backbone: torch.nn.Module, progress: Track | None = None) -> None:
    """Runs the frozen backbone once on every variant of every frame; examples then have features instead of images.

    The features go where the samples are: to memory, or to the cache, which later runs share.
    """
    backbone.eval()
    source = dataset.source
    features: Features = FeatureFiles(source, dataset.config, backbone) if isinstance(source, CachedSource) else {}
    device, variants = next(backbone.parameters()).device, range(dataset.config.augment.variants)
    frames = range(len(dataset))
    indices = frames if isinstance(features, dict) else distributed.share(frames)  # processes share files, not memory
    for index in progress(indices) if progress else indices:
        if dataset.names[index] not in features:
            images = [torch.from_numpy(dataset.images(index, v)).to(device) for v in variants]
            features[dataset.names[index]] = [[_half(level) for level in backbone(x)] for x in images]
    dataset.features = features


def _half(level: torch.Tensor) -> torch.Tensor:
    return level.half().cpu().contiguous(memory_format=torch.channels_last)


def _origin(source: Source, data: DataConfig) -> list[Any]:
    """Dependencies of decoded samples: the reader's code and options; name, size and time of each of its files."""
    folder = Path(data.source)
    files = [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in _files(folder, set())]
    code = [_hash(path.read_bytes()) for path in sorted(Path(sources.__file__).parent.rglob("*.py"))]
    origin = str(folder.resolve()) if files else data.source
    return [source.kind, origin, data.options, sorted(files), code, cv2.__version__]


def _files(folder: Path, visited: set[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder with its stat; follows each link to a folder once, skips dangling links and caches."""
    real = os.path.realpath(folder)
    if real in visited or not os.path.isdir(real):
        return
    visited.add(real)
    for entry in os.scandir(folder):
        if entry.is_dir():
            if not entry.name.startswith((SAMPLES, FEATURES)):
                yield from _files(folder / entry.name, visited)
        elif entry.is_file():
            yield folder / entry.name, entry.stat()


def _weights(network: torch.nn.Module) -> list[str]:
    state = sorted(network.state_dict().items())
    return [str(network), *(name + _hash(value.cpu().contiguous().numpy().tobytes()) for name, value in state)]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _key(*parts: Any) -> str:
    return _hash(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


def _pack(value: Any, tensors: Tensors) -> Any:
    """The JSON form of a sample; its arrays go to `tensors`, and their numbers replace them."""
    if isinstance(value, np.ndarray):
        number = str(len(tensors))
        tensors[number] = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        return {"array": number}
    if isinstance(value, SensorRig):
        return {"rig": value.to_json()}
    if is_dataclass(value):
        members = {f.name: _pack(getattr(value, f.name), tensors) for f in fields(value)}
        return {"kind": type(value).__name__, "fields": members}
    if isinstance(value, dict):
        return {"table": {key: _pack(entry, tensors) for key, entry in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_pack(entry, tensors) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(tree: Any, tensors: Tensors) -> Any:
    """The inverse of _pack."""
    if isinstance(tree, list):
        return [_unpack(entry, tensors) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return tensors[tree["array"]].numpy()
    if "rig" in tree:
        return SensorRig.from_json(tree["rig"])
    if "table" in tree:
        return {key: _unpack(entry, tensors) for key, entry in tree["table"].items()}
    return KINDS[tree["kind"]](**{key: _unpack(entry, tensors) for key, entry in tree["fields"].items()})
