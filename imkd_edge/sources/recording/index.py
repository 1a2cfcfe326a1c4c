"""One pass over a recording: where every message of a sensor lies, and the small messages themselves."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.sources.recording import protobuf, ros
from imkd_edge.sources.recording.container import Channel, Container, Damage, Entry, Location
from imkd_edge.sources.recording.messages import CalibrationMessage, Message, OdometryMessage, TransformsMessage
from imkd_edge.sources.recording.poses import FrameTree, PoseLog
from imkd_edge.sources.times import MAX_TIME_NS

STEP = 1_000_000_000  # ns by which a sensor's time steps back where its clock was set, or the recording repeats
_REMEMBERED, _REORDERED = 256, 2  # messages of a topic: whose times are known again; that may change places
_NO_TWIST = (float("nan"),) * 6


def kind_of(channel: Channel) -> str:
    """What a topic carries: image, calibration, cloud, transforms, odometry; empty: nothing that is read."""
    if channel.encoding == "cdr":
        return ros.KINDS.get(channel.schema, "")
    return protobuf.KINDS.get(channel.schema, "") if channel.encoding == "protobuf" else ""


class Decoder:
    """Decodes the messages of a recording."""

    def __init__(self, path: Path):
        self.path = path
        self._ros: ros.RosDecoder | None = None
        self._protobuf: protobuf.ProtobufDecoder | None = None

    def add(self, channel: Channel) -> None:
        """Takes a channel's definition of its type."""
        if channel.encoding == "cdr":
            self._ros = self._ros or ros.RosDecoder(self.path)
            self._ros.add(channel)

    def decode(self, channel: Channel, data: bytes | memoryview) -> Message:
        """A message of a channel that `kind_of` knows; raises whatever a library raises for other bytes."""
        if channel.encoding == "cdr":
            self._ros = self._ros or ros.RosDecoder(self.path)
            return self._ros.decode(channel, data)
        self._protobuf = self._protobuf or protobuf.ProtobufDecoder(self.path)
        return self._protobuf.decode(channel, data)


@dataclass
class Topic:
    """The messages of one topic."""

    channel: Channel
    kind: str
    messages: int = 0
    frame: str = ""  # of TF, of the first message
    example: Message | None = None  # the first that could be decoded
    stamps: array = field(default_factory=lambda: array("q"))  # ns
    logs: array = field(default_factory=lambda: array("q"))  # ns
    segments: array = field(default_factory=lambda: array("H"))
    locations: list[Location] = field(default_factory=list)

    def rate(self) -> float | None:
        """Messages per second, by the usual distance of two; None below two messages."""
        logs = np.frombuffer(self.logs, np.int64)
        gaps = np.diff(np.sort(np.frombuffer(self.stamps, np.int64) if len(self.stamps) else logs))
        gaps = gaps[gaps > 0]
        return 1e9 / float(np.median(gaps)) if len(gaps) else None


@dataclass
class Index:
    """A recording's topics, transforms, odometry and calibrations."""

    topics: dict[str, Topic] = field(default_factory=dict)
    tree: FrameTree = field(default_factory=FrameTree)
    odometry: dict[str, OdometryLog] = field(default_factory=dict)  # topic -> messages
    calibrations: dict[str, CalibrationMessage] = field(default_factory=dict)  # topic -> the first message
    newest: list[int] = field(default_factory=list)  # stamp of each segment, ns
    unstamped: int = 0  # messages whose header has no time: that of the recording holds
    first_ns: int = 0  # log times
    last_ns: int = 0
    damage: Damage = field(default_factory=Damage)


class OdometryLog:
    """Odometry messages in compact form."""

    def __init__(self, parent: str, child: str):
        self.poses = PoseLog(parent)
        self.child = child
        self.twists = array("d")
        self.segments = array("H")

    def add(self, message: OdometryMessage, stamp_ns: int, segment: int) -> None:
        before = len(self.poses.times)
        self.poses.add(message.pose, stamp_ns)
        if len(self.poses.times) > before:
            self.twists.extend(_NO_TWIST if message.twist is None else message.twist.tolist())
            self.segments.append(segment)


class Indexer:
    """Builds an Index of a container.

    Args:
        container: what to read.
        decoder: its decoder.
        log_clock: the time of recording holds instead of the headers'.
    """

    def __init__(self, container: Container, decoder: Decoder, log_clock: bool = False):
        self.container, self.decoder, self.log_clock = container, decoder, log_clock
        self.index = Index()
        self._latest: dict[str, tuple[int, int]] = {}  # topic -> segment and stamp of its last message
        self._recent: dict[str, deque[int]] = {}  # topic -> stamps of its last messages, the newest first

    def run(self) -> Index:
        """One pass over the whole recording."""
        failures, index = 0, self.index
        for entry in self.container.scan():
            if not 0 <= entry.log_ns <= MAX_TIME_NS:
                failures += 1
                continue
            topic = index.topics.get(entry.channel.topic)
            if topic is None:
                topic = index.topics[entry.channel.topic] = Topic(entry.channel, kind_of(entry.channel))
                if topic.kind:
                    self.decoder.add(entry.channel)
            topic.messages += 1
            index.first_ns = min(index.first_ns or entry.log_ns, entry.log_ns)
            index.last_ns = max(index.last_ns, entry.log_ns)
            try:
                self._take(topic, entry)
            except Exception:  # bytes that are no such message, or a type that its decoder does not know
                failures += 1
        index.damage = self.container.damage
        index.damage.messages += failures
        return index

    def _take(self, topic: Topic, entry: Entry) -> None:
        small = topic.kind in ("transforms", "odometry", "calibration")
        if not topic.kind or (topic.kind == "calibration" and topic.example is not None):
            return
        message = None
        if small or topic.example is None or topic.channel.encoding != "cdr":
            message = self.decoder.decode(topic.channel, entry.data)
            topic.example = topic.example or message
        stamp = self._stamp(message.stamp_ns if message is not None else ros.stamp_of(entry.data), entry.log_ns)
        if isinstance(message, TransformsMessage):
            self.index.tree.add(message.transforms, entry.log_ns if self.log_clock else None)
            return
        if message is not None and not topic.frame:
            topic.frame = getattr(message, "frame", "")
        if isinstance(message, CalibrationMessage):
            self.index.calibrations.setdefault(topic.channel.topic, message)
            return
        segment = self._segment(topic.channel.topic, stamp)
        if isinstance(message, OdometryMessage):
            name = topic.channel.topic
            if name not in self.index.odometry:
                self.index.odometry[name] = OdometryLog(message.pose.parent, message.pose.child)
            self.index.odometry[name].add(message, stamp, segment)
            return
        topic.stamps.append(stamp)
        topic.logs.append(entry.log_ns)
        topic.segments.append(segment)
        topic.locations.append(entry.location)

    def _stamp(self, stamp_ns: int, log_ns: int) -> int:
        if self.log_clock:
            return log_ns
        if stamp_ns <= 0:
            self.index.unstamped += 1
            return log_ns
        if stamp_ns > MAX_TIME_NS:
            raise OverflowError("a time that no clock has")
        return stamp_ns

    def _segment(self, topic: str, stamp: int) -> int:
        """The segment of a message: a sensor whose time steps back begins a new one, which the others join.

        It steps back by more than STEP, or to a time that it had before: a recording shorter than that in a loop. A
        message that arrives after that and still has the old time belongs to the segment before.
        """
        newest = self.index.newest
        if not newest:
            newest.append(stamp)
        last, before = self._latest.get(topic, (len(newest) - 1, stamp))
        current = len(newest) - 1
        recent = self._recent.setdefault(topic, deque(maxlen=_REMEMBERED))
        repeats = stamp < before and stamp in recent and recent.index(stamp) > _REORDERED
        recent.appendleft(stamp)
        if last == current and (stamp < before - STEP or repeats):
            newest.append(stamp)
            current += 1
        elif last < current and abs(stamp - before) < abs(stamp - newest[current]):
            current = last
        newest[current] = max(newest[current], stamp)
        self._latest[topic] = (current, stamp)
        return current


def rows_of(topic: Topic, segment: int) -> np.ndarray:
    """Rows of a topic's messages in a segment, in order of time, one a time."""
    rows = np.flatnonzero(np.frombuffer(topic.segments, np.uint16) == segment)
    _, first = np.unique(np.frombuffer(topic.stamps, np.int64)[rows], return_index=True)
    return rows[first]


def read_message(container: Container, decoder: Decoder, topic: Topic, row: int) -> Any:
    """A message again, decoded; raises as Decoder.decode."""
    return decoder.decode(topic.channel, container.read(topic.locations[row]))
