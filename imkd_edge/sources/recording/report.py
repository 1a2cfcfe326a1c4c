"""What `imkd-edge inspect` says of a recording: its topics, a guess at what they are, and examples of doubtful ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.recording.container import Container
from imkd_edge.sources.recording.evidence import SLOWEST, Evidence, refine, weigh
from imkd_edge.sources.recording.guess import guess_map
from imkd_edge.sources.recording.index import Decoder, Index, Indexer, Topic
from imkd_edge.sources.recording.messages import CalibrationMessage, CloudMessage, ImageMessage
from imkd_edge.sources.recording.open import open_container
from imkd_edge.sources.recording.radar import examples
from imkd_edge.sources.recording.source import map_beside
from imkd_edge.sources.recording.topic_map import RadarTopic, TopicMap, read_map, write_map


def inspect_recording(path: str | Path, map_file: Path | None = None) -> dict[str, Any]:
    """Reads a recording once and says what is in it.

    Args:
        path: an MCAP file, a .db3 file or a bag's folder.
        map_file: where the guessed topic map is written, if anywhere; an existing file is not overwritten.
    Returns:
        {"path", "container", "duration_s", "messages", "damage", "topics": [...], "frames": [...], "map": text,
        "map_file", "written", "doubts": [...], "examples": {...}}; "map" is that of "map_file" beside the recording,
        without one a guess, and None where no topic is of a sensor.
    Raises:
        Error: missing_extra, source_missing_file, source_unknown; write_failed; those of the map beside the recording.
    """
    path = Path(path)
    if map_file is not None and map_file.exists():
        raise Error(Code.write_failed, "the file exists", str(map_file), "name a new one, or delete it")
    container = open_container(path)
    decoder = Decoder(path)
    beside = map_beside(path) if map_file is None else None
    given = None if beside is None else read_map(beside)
    index = Indexer(container, decoder, given is not None and given.clock == "log").run()
    result: dict[str, Any] = {
        "path": str(path),
        "container": container.kind,
        "duration_s": round((index.last_ns - index.first_ns) * 1e-9, 3),
        "messages": sum(topic.messages for topic in index.topics.values()),
        "damage": str(index.damage) or None,
        "parts": len(index.newest),
        "frames": index.tree.frames,
        "map_file": None if beside is None else str(beside),
    }
    if given is not None and beside is not None:
        return {**result, **_by_map(given, beside, index, container, decoder)}
    try:
        guess = guess_map(index, path)
    except Error as fault:
        nothing: dict[str, Any] = {"map": None, "written": None, "doubts": [fault.what], "examples": {}}
        return {**result, "topics": _topics(index, TopicMap()), **nothing}
    evidence = refine(guess, index, container, decoder)
    shown = {name: _example(index, guess.topic_map.radars[name], said) for name, said in evidence.items()}
    text = f"# guessed from {path.name}; docs/guide/recordings.md\n" + write_map(guess.topic_map, guess.comments)
    if map_file is not None:
        _write(map_file, text)
    written = None if map_file is None else str(map_file)
    topics = _topics(index, guess.topic_map)
    return {**result, "topics": topics, "map": text, "written": written, "doubts": guess.doubts, "examples": shown}


def _by_map(given: TopicMap, file: Path, index: Index, container: Container, decoder: Decoder) -> dict[str, Any]:
    """What a map that was written for the recording makes of it."""
    named = {name: sensor.topic for room in (given.cameras, given.radars) for name, sensor in room.items()}
    doubts = [f"{name}: there is no topic {topic}" for name, topic in named.items() if topic not in index.topics]
    radars = {name: radar for name, radar in given.radars.items() if radar.topic in index.topics}
    examples = {
        name: _example(index, radar, weigh(index, container, decoder, given, radar)) for name, radar in radars.items()
    }
    text = file.read_text(encoding="utf-8", errors="replace")
    topics = _topics(index, given)
    return {"topics": topics, "map": text, "written": None, "doubts": doubts, "examples": examples}


def _example(index: Index, radar: RadarTopic, evidence: Evidence | None) -> dict[str, Any]:
    """Points of a radar, and what its sweeps say of its velocity."""
    message = index.topics[radar.topic].example
    fields = {"velocity": radar.velocity_field, "intensity": radar.intensity_field}
    points = examples(message.points, fields) if isinstance(message, CloudMessage) else []
    unknown = f"the vehicle's twist is unknown or below {SLOWEST:g} m/s: nothing tells the kind of velocity"
    return {"points": points, "evidence": unknown if evidence is None else str(evidence)}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise Error(Code.write_failed, str(fault.strerror), str(path), "choose another file") from None


def _topics(index: Index, topic_map: TopicMap) -> list[dict[str, Any]]:
    uses = {camera.topic: f"camera {name}" for name, camera in topic_map.cameras.items()}
    uses |= {camera.info: f"calibration of {name}" for name, camera in topic_map.cameras.items() if camera.info}
    uses |= {radar.topic: f"radar {name}" for name, radar in topic_map.radars.items()}
    uses |= {name: use for name, use in ((topic_map.lidar, "lidar"), (topic_map.odometry, "odometry")) if name}
    rows = []
    for name, topic in sorted(index.topics.items()):
        use = "transforms" if topic.kind == "transforms" else uses.get(name, "")
        rate = topic.rate() if topic.kind in ("image", "cloud") else _rate(topic, index)
        rows.append(
            {
                "topic": name,
                "schema": topic.channel.schema,
                "messages": topic.messages,
                "rate_hz": None if rate is None else round(rate, 2),
                "frame": topic.frame or None,
                "content": _content(topic),
                "use": use or ("not used" if topic.kind else "not read"),
            }
        )
    return rows


def _rate(topic: Topic, index: Index) -> float | None:
    """Mean rate over the whole recording."""
    seconds = (index.last_ns - index.first_ns) * 1e-9
    return (topic.messages - 1) / seconds if topic.messages > 1 and seconds > 0 else None


def _content(topic: Topic) -> str:
    """What the first message says of its content."""
    message = topic.example
    if isinstance(message, CloudMessage):
        return f"{len(message.points)} points: {', '.join(message.points.dtype.names or ())}"
    if isinstance(message, ImageMessage) and message.packet:
        return f"{message.encoding} video, {len(message.data)} bytes"
    if isinstance(message, ImageMessage):
        size = f"{message.width} x {message.height} {message.encoding}"
        return size if message.encoding else f"compressed, {len(message.data)} bytes"
    if isinstance(message, CalibrationMessage):
        return f"{message.width} x {message.height}, {message.model or 'no distortion'}"
    return ""
