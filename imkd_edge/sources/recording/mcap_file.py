"""MCAP files (mcap.dev/spec): chunks decompressed one at a time, damaged ones skipped and counted.

The library parses chunks, channels and schemas; the records are walked here, because a reader that survives damage and
finds a message again needs their offsets.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import open_file
from imkd_edge.sources.recording.container import Channel, Damage, Entry, Location, import_library

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_LARGEST_OPCODE = 0x0F
_RECORD = struct.Struct("<BQ")  # opcode, length of the content
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CACHED = 64 << 20  # bytes of decompressed chunks
_MOST = 4 << 30  # bytes of a record; the library's limit
_PLAIN = -1  # chunk of a location: the message lies in the file itself


class McapFiles:
    """One MCAP file, or those of a split bag in order.

    Raises: Error missing_extra; source_missing_file where a file cannot be read; source_unknown where the first is no
        MCAP file.
    """

    kind = "mcap"

    def __init__(self, path: Path, files: Sequence[Path]):
        self.path, self.damage = path, Damage()
        self._records = import_library("mcap.records", path)
        self._streams = import_library("mcap.data_stream", path)
        self._chunks = import_library("mcap.stream_reader", path)
        self._files: list[BinaryIO] = [_opened(file) for file in files]
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._cached = 0

    def close(self) -> None:
        for file in self._files:
            file.close()

    def scan(self) -> Iterator[Entry]:
        self.damage = Damage()
        for number, file in enumerate(self._files):
            file.seek(0)
            if file.read(len(MAGIC)) != MAGIC:
                if number == 0:
                    fix = "copy it again; another file has the ending of its own kind"
                    raise Error(Code.source_unknown, "it does not begin as an MCAP file does", file.name, fix)
                self._lose(_size(file))
                continue
            yield from self._scan_file(number, file)

    def read(self, location: Location) -> bytes | memoryview:
        number, chunk, offset = location
        if chunk == _PLAIN:
            file = self._files[number]
            file.seek(offset)
            _, length = _RECORD.unpack(file.read(_RECORD.size))
            return file.read(length)[_MESSAGE_HEAD.size :]
        content = self._chunk(number, chunk)
        _, length = _RECORD.unpack_from(content, offset)
        start = offset + _RECORD.size
        return memoryview(content)[start + _MESSAGE_HEAD.size : start + length]

    # ---- records ----
    def _scan_file(self, number: int, file: BinaryIO) -> Iterator[Entry]:
        schemas, channels, chunks = self._summary(file)
        size, offset = _size(file), len(MAGIC)
        while offset < size:
            file.seek(offset)
            head = file.read(_RECORD.size)
            opcode, length = _RECORD.unpack(head) if len(head) == _RECORD.size else (0, 0)
            end = offset + _RECORD.size + length
            if opcode == _DATA_END:
                return
            if not 0 < opcode <= _LARGEST_OPCODE or length > _MOST or end > size:
                # a damaged length: the chunks behind it are in the index, where the file has one
                behind = min((start for start in chunks if start > offset), default=None)
                if behind is None:
                    self.damage.cut = True
                    self.damage.bytes += size - offset
                    return
                self._lose(behind - offset)
                offset = behind
                continue
            if opcode in (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK):
                yield from self._record(opcode, file.read(length), (number, offset), schemas, channels)
            offset = end
        self.damage.cut = True

    def _record(
        self, opcode: int, content: bytes, at: tuple[int, int], schemas: dict[int, Any], channels: dict[int, Channel]
    ) -> Iterator[Entry]:
        number, offset = at
        if opcode == _MESSAGE:
            if len(content) < _MESSAGE_HEAD.size:
                self._lose(len(content))
                return
            channel, _, log_ns, _ = _MESSAGE_HEAD.unpack_from(content)
            if channel in channels:
                data = memoryview(content)[_MESSAGE_HEAD.size :]
                yield Entry(channels[channel], log_ns, data, (number, _PLAIN, offset))
            else:
                self.damage.messages += 1
        elif opcode == _CHUNK:
            try:
                inner = self._decompress(content)
                entries = list(self._messages(inner, at, schemas, channels))
            except Exception:  # of a decompressor, or of records that are no records
                self._lose(len(content))
                return
            yield from entries
        else:
            try:
                self._declare(opcode, content, schemas, channels)
            except Exception:  # a damaged record: its channel's messages are not read
                self._lose(len(content))

    def _messages(
        self, content: bytes, at: tuple[int, int], schemas: dict[int, Any], channels: dict[int, Channel]
    ) -> Iterator[Entry]:
        """Every message of a chunk; raises where it is not made of whole records."""
        number, chunk = at
        view, offset, end = memoryview(content), 0, len(content)
        read_record, read_head = _RECORD.unpack_from, _MESSAGE_HEAD.unpack_from
        while offset < end:
            opcode, length = read_record(content, offset)
            start = offset + _RECORD.size
            if start + length > end:
                raise ValueError("a record exceeds its chunk")
            if opcode == _MESSAGE:
                channel, _, log_ns, _ = read_head(content, start)
                if channel in channels:
                    data = view[start + _MESSAGE_HEAD.size : start + length]
                    yield Entry(channels[channel], log_ns, data, (number, chunk, offset))
                else:  # its definition lies in a damaged part
                    self.damage.messages += 1
            elif opcode in (_SCHEMA, _CHANNEL):
                self._declare(opcode, content[start : start + length], schemas, channels)
            offset = start + length

    def _declare(self, opcode: int, content: bytes, schemas: dict[int, Any], channels: dict[int, Channel]) -> None:
        stream = self._streams.ReadDataStream(BytesIO(content))
        if opcode == _SCHEMA:
            schema = self._records.Schema.read(stream)
            schemas.setdefault(schema.id, schema)
            return
        record = self._records.Channel.read(stream)
        channels.setdefault(record.id, _channel(record, schemas.get(record.schema_id)))

    def _summary(self, file: BinaryIO) -> tuple[dict[int, Any], dict[int, Channel], list[int]]:
        """Schemas, channels and the chunks' offsets by the end of the file; empty where it is missing or damaged."""
        reader = import_library("mcap.reader", self.path)
        try:
            file.seek(0)
            summary = reader.SeekingReader(file).get_summary()
            schemas, records = dict(summary.schemas), summary.channels
            channels = {key: _channel(record, schemas.get(record.schema_id)) for key, record in records.items()}
            return schemas, channels, sorted(index.chunk_start_offset for index in summary.chunk_indexes)
        except Exception:  # whatever bytes that are no summary lead to
            return {}, {}, []

    # ---- chunks ----
    def _decompress(self, content: bytes) -> bytes:
        chunk = self._records.Chunk.read(self._streams.ReadDataStream(BytesIO(content)))
        stream, size = self._chunks.get_chunk_data_stream(chunk)
        data: bytes = chunk.data if not chunk.compression else stream.read(size)
        if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            raise ValueError("the checksum differs")
        return data

    def _chunk(self, number: int, offset: int) -> bytes:
        """The decompressed chunk at an offset, from the cache or read."""
        key = (number, offset)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        file = self._files[number]
        file.seek(offset)
        _, length = _RECORD.unpack(file.read(_RECORD.size))
        content = self._decompress(file.read(length))
        self._cache[key] = content
        self._cached += len(content)
        while self._cached > _CACHED and len(self._cache) > 1:
            self._cached -= len(self._cache.popitem(last=False)[1])
        return content

    def _lose(self, size: int) -> None:
        self.damage.chunks += 1
        self.damage.bytes += size


def _channel(record: Any, schema: Any) -> Channel:
    name, encoding, data = ("", "", b"") if schema is None else (schema.name, schema.encoding, schema.data)
    return Channel(record.id, record.topic, name, record.message_encoding, encoding, data)


def _opened(file: Path) -> BinaryIO:
    try:
        return open_file(file)
    except OSError as fault:
        what = f"cannot read the file ({fault.strerror})"
        raise Error(
            Code.source_missing_file, what, str(file), "correct the path, or copy the recording again"
        ) from None


def _size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, 2)
    file.seek(position)
    return size
