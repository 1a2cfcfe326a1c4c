"""What an MCAP file and a ROS 2 bag have in common: channels of messages, read in order or by their location."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

from imkd_edge.errors import Code, Error

EXTRA = 'pip install "imkd-edge[recordings]"'
Location = tuple[int, int, int]  # where a container finds a message again; its own numbers


@dataclass(frozen=True)
class Channel:
    """A topic and how its messages are encoded."""

    id: int
    topic: str
    schema: str  # such as sensor_msgs/msg/Image or foxglove.RawImage
    encoding: str  # of the messages: cdr, protobuf, ...
    schema_encoding: str = ""  # ros2msg, ros2idl, protobuf; empty: the file has no definition
    schema_data: bytes = b""


class Entry(NamedTuple):
    """One message as it is stored."""

    channel: Channel
    log_ns: int  # when it was recorded
    data: bytes | memoryview
    location: Location


@dataclass
class Damage:
    """What of a recording could not be read."""

    chunks: int = 0  # parts of a file that were skipped
    bytes: int = 0  # in them, and behind the point where a file breaks off
    cut: bool = False  # the file has no proper end
    messages: int = 0  # that could not be decoded

    def __bool__(self) -> bool:
        return bool(self.chunks or self.bytes or self.cut or self.messages)

    def __str__(self) -> str:
        parts = [f"{self.chunks} damaged parts skipped" if self.chunks else ""]
        parts.append("the file breaks off" if self.cut else "")
        parts.append(f"{self.messages} messages cannot be decoded" if self.messages else "")
        lost = f" ({self.bytes} bytes)" if self.bytes else ""
        return ", ".join(part for part in parts if part) + lost


class Container(Protocol):
    """A stored recording."""

    path: Path
    kind: str  # "mcap", "bag"
    damage: Damage

    def scan(self) -> Iterator[Entry]:
        """Every message in the order of the file; counts the damage afresh."""

    def read(self, location: Location) -> bytes | memoryview:
        """The message at a location that `scan` gave."""

    def close(self) -> None: ...


def import_library(module: str, path: Path) -> ModuleType:
    """A module of the extra `recordings`; raises Error missing_extra."""
    try:
        return import_module(module)
    except ImportError as fault:
        what = f"reading a recording needs {fault.name or module}, which is not installed"
        raise Error(Code.missing_extra, what, str(path), EXTRA) from None


def bag_files(folder: Path) -> list[Path]:
    """The files of a bag in the order of their numbers (NAME_0.mcap, NAME_1.mcap, ...); empty where it has none."""
    for ending in (".mcap", ".db3"):
        files = [path for path in folder.glob(f"*{ending}*") if path.name.endswith((ending, ending + ".zstd"))]
        if files:
            return sorted(files, key=lambda path: (len(path.name), path.name))
    return []
