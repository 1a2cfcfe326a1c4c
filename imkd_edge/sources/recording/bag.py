"""ROS 2 bags that are no plain MCAP files (sqlite3, compressed as a whole), read by the library rosbags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import open_file
from imkd_edge.sources.recording.container import Channel, Damage, Entry, Location, bag_files, import_library

_SCHEMA_ENCODINGS = {"MSG": "ros2msg", "IDL": "ros2idl"}  # rosbags' name -> MCAP's


class Bag:
    """A bag's folder or one .db3 file; without metadata.yaml, as a killed recorder leaves it, its files in order.

    Raises: Error missing_extra; source_missing_file where it cannot be opened.
    """

    kind = "bag"

    def __init__(self, path: Path):
        self.path, self.damage = path, Damage()
        reader = import_library("rosbags.rosbag2", path).Reader
        paths = [path] if not path.is_dir() or (path / "metadata.yaml").is_file() else bag_files(path)
        self._readers: list[Any] = []
        try:
            for file in bag_files(path) if path.is_dir() else [path]:
                open_file(file).close()  # no pipe, for whose other end the library would wait
            for file in paths:
                opened = reader(file)
                opened.open()
                self._readers.append(opened)
            self._channels = [_channels(each.connections) for each in self._readers]
        except Exception as fault:  # the library has several kinds
            self.close()
            fix = "correct the path, or copy the bag again with its metadata.yaml; ros2 bag reindex writes that anew"
            raise Error(Code.source_missing_file, f"the bag cannot be opened ({fault})", str(path), fix) from None

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def scan(self) -> Iterator[Entry]:
        self.damage = Damage()
        for number, reader in enumerate(self._readers):
            repeats: Counter[int] = Counter()  # messages of one channel at one time, in order
            newest = None
            messages = reader.messages()
            while True:
                try:
                    connection, log_ns, data = next(messages)
                except StopIteration:
                    break
                except Exception:  # of SQLite or a decompressor: the rest of this file is lost
                    self.damage.chunks += 1
                    self.damage.cut = True
                    break
                if not isinstance(log_ns, int) or not isinstance(data, bytes | memoryview):
                    self.damage.messages += 1  # SQLite keeps any value in any column
                    continue
                if log_ns != newest:
                    repeats.clear()
                    newest = log_ns
                nth = repeats[connection.id]
                repeats[connection.id] += 1
                channel = self._channels[number][connection.id]
                yield Entry(channel, log_ns, data, (number, connection.id << 16 | nth, log_ns))

    def read(self, location: Location) -> bytes | memoryview:
        number, which, log_ns = location
        reader, identity, nth = self._readers[number], which >> 16, which & 0xFFFF
        connections = [connection for connection in reader.connections if connection.id == identity]
        for i, (_, _, data) in enumerate(reader.messages(connections, log_ns, log_ns + 1)):
            if i == nth:
                return data
        raise Error(Code.source_unknown_frame, "the bag has changed", str(self.path), "open it again")


def _channels(connections: Any) -> dict[int, Channel]:
    """By identity; raises ValueError where a name is no text."""
    result = {}
    for connection in connections:
        definition = connection.msgdef
        encoding = _SCHEMA_ENCODINGS.get(definition.format.name, "")
        names = connection.topic, connection.msgtype, connection.ext.serialization_format, definition.data
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a topic's name, type or definition is no text")
        data = definition.data.encode() if encoding else b""
        serialization = connection.ext.serialization_format
        result[connection.id] = Channel(
            connection.id, connection.topic, connection.msgtype, serialization, encoding, data
        )
    return result
