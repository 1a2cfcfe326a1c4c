"""Several sources as one: the recordings of many days become one drive folder."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import FACTS, Sample, Source

METHODS = ("moment", "image_files", "instances")  # that a source may have


class JoinedSource(Source):
    """Frames of several sources, one source after the other.

    A frame is called SOURCE-FRAME, its scene SOURCE where its source has one scene, else SOURCE-SCENE. SOURCE is the
    file's or folder's name, with its number before it where two have the same.

    Args:
        readers: name of each source, a path or not, and the source.
    Raises:
        Error: source_bad_value where they differ in what a drive folder says once: licence, intensity, traffic.
    """

    kind = "joined"

    def __init__(self, readers: Sequence[tuple[str, Source]]):
        stems = [Path(name).stem if Path(name).suffix in (".mcap", ".db3") else Path(name).name for name, _ in readers]
        if len(set(stems)) < len(stems):
            stems = [f"{number}-{stem}" for number, stem in enumerate(stems)]
        self._readers = dict(zip(stems, (reader for _, reader in readers)))
        self._keys = {f"{stem}-{name}": (stem, name) for stem, reader in self._readers.items() for name in reader.names}
        self.names = list(self._keys)
        self.path = f"{stems[0]} and {len(stems) - 1} more"
        for fact in FACTS:
            setattr(self, fact, _common(fact, self._readers))
        classes = [getattr(reader, "classes", None) for reader in self._readers.values()]
        self.classes = list(dict.fromkeys(name for each in classes for name in each or ())) if all(classes) else []
        for method in METHODS:
            if all(hasattr(reader, method) for reader in self._readers.values()):
                setattr(self, method, getattr(self, f"_{method}"))

    def __getitem__(self, name: str) -> Sample:
        stem, inner = self._key(name)
        sample = self._readers[stem][inner]
        return dataclasses.replace(sample, name=name, scene=self._scene(stem, sample.scene))

    @property
    def splits(self) -> dict[str, list[str]]:
        """The frames of each split of any source."""
        result: dict[str, list[str]] = {}
        for stem, reader in self._readers.items():
            splits: Mapping[str, Sequence[str]] = getattr(reader, "splits", None) or {}
            for split, names in splits.items():
                result.setdefault(split, []).extend(f"{stem}-{name}" for name in names)
        return result

    def _key(self, name: str) -> tuple[str, str]:
        if name not in self._keys:
            fix = f"choose one of {self.names[0]} to {self.names[-1]}"
            raise Error(Code.source_unknown_frame, f"there is no frame {name!r}", self.path, fix)
        return self._keys[name]

    def _scene(self, stem: str, scene: str) -> str:
        scenes = getattr(self._readers[stem], "scenes", None)
        return stem if not scene or (scenes is not None and len(scenes) == 1) else f"{stem}-{scene}"

    def _moment(self, name: str) -> tuple[str, int]:
        stem, inner = self._key(name)
        scene, time = self._readers[stem].moment(inner)  # type: ignore[attr-defined]
        return self._scene(stem, scene), time

    def _image_files(self, name: str) -> Any:
        stem, inner = self._key(name)
        return self._readers[stem].image_files(inner)  # type: ignore[attr-defined]

    def _instances(self, name: str) -> Any:
        stem, inner = self._key(name)
        return self._readers[stem].instances(inner)  # type: ignore[attr-defined]


def without_images(reader: Source) -> Source:
    """A source with `image_files` whose samples have no pixels."""
    result = copy.copy(reader)
    if isinstance(result, JoinedSource):
        result._readers = {stem: without_images(part) for stem, part in result._readers.items()}
    else:
        result.images = False  # type: ignore[attr-defined]
    return result


def _common(fact: str, readers: Mapping[str, Source]) -> str:
    """What all sources say of one thing; raises Error source_bad_value where they differ."""
    said = {stem: getattr(reader, fact, None) or "" for stem, reader in readers.items()}
    first, *others = said
    for other in others:
        if said[other] != said[first]:
            what = f"{fact} {said[first] or 'unknown'!r} ({first}) and {said[other] or 'unknown'!r} ({other})"
            fix = (
                "write the same into both (a recording's topic map, dataset.json), or convert each into its own folder"
            )
            raise Error(Code.source_bad_value, what, "convert", fix)
    return said[first]
