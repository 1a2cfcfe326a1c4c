"""Writer of drive folders: frames.jsonl.part grows by a line a frame, and gets its name when the folder is complete."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.files import file_name, read_bytes
from imkd_edge.sources.folder.format import (
    DATASET,
    FRAMES,
    IMAGES,
    LIDAR,
    PART,
    RACK,
    RADAR,
    RIG,
    RIGS,
    SPLITS,
    VERSION,
    read_rig,
)
from imkd_edge.sources.folder.index import Index, read_index
from imkd_edge.sources.folder.problem import raise_first

_PNG = b"\x89PNG"


class FolderWriter:
    """Writes samples as a drive folder, one at a time.

    A frame's line follows its files, so a writer that is interrupted leaves only whole frames; another one on the same
    folder continues after them. `finish` makes the folder one that opens. Until `finish` or `close` no other writer, of
    any process, gets the folder.

    Args:
        folder: new, empty, or of an unfinished writer that is closed.
        dataset: keys of dataset.json besides format, such as {"name": "yard", "classes": ["forklift"]}.
    Raises:
        Error: write_failed; those of an unfinished folder's lines.
    """

    def __init__(self, folder: str | Path, dataset: Mapping[str, Any] | None = None):
        self.folder = Path(folder)
        self._part = self.folder / (FRAMES + PART)
        self._closing = ExitStack()  # the folder's lock, and the file of its lines
        with ExitStack() as stack:
            _lock(self.folder, stack)
            self._open(dataset or {}, stack)
            self._closing = stack.pop_all()

    def _open(self, dataset: Mapping[str, Any], stack: ExitStack) -> None:
        """Begins a folder, or reads how far another writer came."""
        if (self.folder / FRAMES).exists():
            raise _refused("the folder is complete already", self.folder)
        if not self._part.exists() and any(self.folder.iterdir()):
            raise _refused("the folder is not empty", self.folder)
        content = _json({"format": VERSION, **dataset})
        if (self.folder / DATASET).exists() and read_bytes(self.folder / DATASET) != content:
            raise _refused("it is an unfinished drive folder of another recording", self.folder)
        try:
            self._file = stack.enter_context(open(self._part, "ab"))  # noqa: SIM115 (first: it makes the folder ours)
            _drop_broken_line(self._part)
        except OSError as fault:
            raise _failed(fault, self._part) from None
        self._write(DATASET, content)
        index = read_index(self._part, raise_first) if self._part.stat().st_size else Index(self._part)
        self.names = dict.fromkeys(index.rows)  # written, in this order
        self._newest = dict(zip(index.scenes, index.times))  # scene -> time of its last frame, ns
        rig = read_rig(self.folder / RIG, raise_first) if self.names else None
        self._rig = "" if rig is None else rig.hash()  # of rig.json

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file of an unfinished folder, which another writer may continue."""
        self._closing.close()

    def add(
        self,
        sample: Sample,
        images: Mapping[str, Path | bytes] | None = None,
        tracks: Sequence[object] | None = None,
    ) -> None:
        """Writes the files of a sample, then its line.

        Args:
            sample: after those of its scene that are earlier. Its pixels are stored as PNG, without loss.
            images: camera -> JPEG or PNG, a file or its content, that is copied instead.
            tracks: of the boxes of its truth.
        Raises:
            Error: write_failed; source_duplicate for a name that is written already; source_bad_time.
        """
        if sample.name in self.names:
            fix = "give every sample a name of its own"
            raise Error(Code.source_duplicate, f"the frame {sample.name!r} is written already", str(self._part), fix)
        if sample.timestamp_ns <= self._newest.get(sample.scene, -1):
            what = f"the frame {sample.name!r} is not after the scene's frame before it"
            raise Error(Code.source_bad_time, what, str(self._part), "write the frames of a scene in order of time")
        stem = file_name(sample.name)
        entry: dict[str, Any] = {"frame": sample.name}
        if sample.scene:
            entry["scene"] = sample.scene
        entry["timestamp_ns"] = int(sample.timestamp_ns)
        rig = self._rig_file(sample.rig)
        if rig != RIG:
            entry["rig"] = rig
        entry["cameras"] = self._cameras(sample, stem, images or {})
        entry["radars"] = self._radars(sample, stem)
        if sample.lidar is not None:
            self._write(f"{LIDAR}/{stem}.npy", _npy(sample.lidar))
            entry["lidar"] = {"file": f"{LIDAR}/{stem}.npy"}
        if sample.ego is not None:
            entry["ego"] = _ego(sample.ego)
        if sample.truth is not None:
            entry["objects"] = _objects(sample.truth, tracks)
        try:
            self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as fault:
            raise _failed(fault, self._part) from None
        self.names[sample.name] = None
        self._newest[sample.scene] = sample.timestamp_ns

    def finish(self, splits: Mapping[str, Sequence[str]] | None = None) -> Path:
        """Writes the splits (name -> frame names) and gives frames.jsonl its name; returns the folder."""
        for name, frames in (splits or {}).items():
            self._write(f"{SPLITS}/{name}.txt", "".join(f"{frame}\n" for frame in frames).encode())
        try:
            os.fsync(self._file.fileno())
            os.replace(self._part, self.folder / FRAMES)
        except OSError as fault:
            raise _failed(fault, self._part) from None
        self.close()
        return self.folder

    def _write(self, name: str, data: bytes) -> None:
        """A file that is there completely or not at all."""
        path = self.folder / name
        temporary = path.with_name(f".{path.name}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as fault:
            raise _failed(fault, path) from None

    # ---- parts of a frame ----
    def _rig_file(self, rig: SensorRig) -> str:
        """The file of a rig, written where it is new."""
        if not self._rig:
            self._write(RIG, rig.to_json().encode())
            self._rig = rig.hash()
        if rig.hash() == self._rig:
            return RIG
        name = f"{RIGS}/{rig.hash()}.json"
        if not (self.folder / name).exists():
            self._write(name, rig.to_json().encode())
        return name

    def _cameras(self, sample: Sample, stem: str, images: Mapping[str, Path | bytes]) -> dict[str, Any]:
        result = {}
        for camera in sample.rig.cameras:
            if camera.name in images:
                image = images[camera.name]
                data = image if isinstance(image, bytes) else read_bytes(image)
            elif camera.name in sample.frames:
                data = _png(sample.frames[camera.name])
            else:
                continue
            ending = "png" if data.startswith(_PNG) else "jpg"
            file = f"{IMAGES}/{file_name(camera.name)}/{stem}.{ending}"
            self._write(file, data)
            pose = _pose(sample.camera_T_world_ego.get(camera.name))
            result[camera.name] = {"file": file, **_time(sample.camera_timestamps_ns.get(camera.name)), **pose}
        return result

    def _radars(self, sample: Sample, stem: str) -> dict[str, Any]:
        result: dict[str, list[Any]] = {}
        for sweep in sample.radar:
            entries = result.setdefault(sweep.radar, [])
            number = f"~{len(entries)}" if entries else ""  # a ~, as no name of a frame ends so
            file = f"{RADAR}/{file_name(sweep.radar)}/{stem}{number}.npy"
            self._write(file, _npy(sweep.points))
            entries.append({"file": file, **_time(sweep.timestamp_ns), **_pose(sweep.T_world_ego)})
        return result


def _failed(fault: OSError, path: Path) -> Error:
    if isinstance(fault, (FileExistsError, NotADirectoryError)):
        return Error(Code.write_failed, "a file is in its place", str(path), "name a new folder")
    return Error(Code.write_failed, str(fault), str(path), "free space, or choose another folder")


def _refused(what: str, folder: Path) -> Error:
    return Error(Code.write_failed, what, str(folder), "name a new folder")


def _lock(folder: Path, stack: ExitStack) -> None:
    """Makes the folder, and locks it until the stack or the process ends; raises Error write_failed where it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as fault:
        raise _failed(fault, folder) from None
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fix = "wait for its end, or name a new folder"
        raise Error(Code.write_failed, "another process writes this folder", str(folder), fix) from None
    except OSError:
        pass  # a file system without locks


def _drop_broken_line(path: Path) -> None:
    """Cuts off a last line without its end."""
    with open(path, "rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _npy(points: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(points, np.float32), allow_pickle=False)
    return file.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()


def _pose(T_world_ego: np.ndarray | None) -> dict[str, Any]:
    return {} if T_world_ego is None else {"T_world_ego": np.asarray(T_world_ego, float).tolist()}


def _time(timestamp_ns: int | None) -> dict[str, int]:
    return {} if timestamp_ns is None else {"timestamp_ns": int(timestamp_ns)}


def _ego(ego: Ego) -> dict[str, Any]:
    values = {"T_world_ego": ego.T_world_ego, "twist": ego.twist}
    return {key: np.asarray(value, float).tolist() for key, value in values.items() if value is not None}


def _objects(truth: Truth, tracks: Sequence[object] | None) -> list[dict[str, Any]]:
    result = []
    for i, (box, label, occlusion) in enumerate(zip(truth.boxes.tolist(), truth.labels, truth.occlusion.tolist())):
        item = {"label": label, "center": box[:3], "size": box[3:6], "yaw": box[6]}
        if np.isfinite(box[7:]).all():
            item["velocity"] = box[7:]
        if tracks is not None:
            item["track"] = str(tracks[i])
        if occlusion >= 0:
            item["occlusion"] = occlusion
        if truth.scores is not None:
            item["score"] = round(float(truth.scores[i]), 4)
        result.append(item)
    for rack in truth.racks.tolist():
        result.append({"label": RACK, "center": rack[:3], "size": rack[3:6], "yaw": rack[6]})
    return result
