"""What `imkd-edge inspect` says of a recording: its topics, a guess at what they are, and examples of doubtful ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.recording.container import open_container
from imkd_edge.sources.recording.guess import Guess, guess_map
from imkd_edge.sources.recording.index import Decoder, Index, Indexer, Topic, read_message
from imkd_edge.sources.recording.messages import CalibrationMessage, CloudMessage, ImageMessage
from imkd_edge.sources.recording.poses import Odometry
from imkd_edge.sources.recording.radar import Fields, examples, radar_points
from imkd_edge.sources.recording.topic_map import TF, RadarTopic, TopicMap, write_map

_SLOW = 2.0  # m/s, below which a radar's velocity does not tell its kind
_STATIC = 0.5  # m/s from a hypothesis, within which a return supports it


def inspect_recording(path: str | Path, map_file: Path | None = None) -> dict[str, Any]:
    """Reads a recording once and says what is in it.

    Args:
        path: an MCAP file, a .db3 file or a bag's folder.
        map_file: where the guessed topic map is written, if anywhere; an existing file is not overwritten.
    Returns:
        {"path", "container", "duration_s", "messages", "damage", "topics": [...], "frames": [...], "map": text,
        "written", "doubts": [...], "examples": {...}}; "map" is None where no topic is of a sensor.
    Raises:
        Error: missing_extra, source_missing_file, source_unknown; write_failed.
    """
    path = Path(path)
    if map_file is not None and map_file.exists():
        raise Error(Code.write_failed, "the file exists", str(map_file), "name a new one, or delete it")
    container = open_container(path)
    decoder = Decoder(path)
    index = Indexer(container, decoder).run()
    result: dict[str, Any] = {
        "path": str(path),
        "container": container.kind,
        "duration_s": round((index.last_ns - index.first_ns) * 1e-9, 3),
        "messages": sum(topic.messages for topic in index.topics.values()),
        "damage": str(index.damage) or None,
        "parts": len(index.newest),
        "frames": index.tree.frames,
    }
    try:
        guess = guess_map(index, path)
    except Error as fault:
        nothing = {"map": None, "written": None, "doubts": [fault.what], "examples": {}}
        return {**result, "topics": _topics(index, TopicMap()), **nothing}
    shown = {name: _evidence(index, container, decoder, guess, name) for name in guess.topic_map.radars}
    text = f"# guessed from {path.name}; docs/guide/recordings.md\n" + write_map(guess.topic_map, guess.comments)
    if map_file is not None:
        _write(map_file, text)
    written = None if map_file is None else str(map_file)
    topics = _topics(index, guess.topic_map)
    return {**result, "topics": topics, "map": text, "written": written, "doubts": guess.doubts, "examples": shown}


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
    if isinstance(message, ImageMessage):
        size = f"{message.width} x {message.height} {message.encoding}"
        return size if message.encoding else f"compressed, {len(message.data)} bytes"
    if isinstance(message, CalibrationMessage):
        return f"{message.width} x {message.height}, {message.model or 'no lens'}, {len(message.D)} coefficients"
    return ""


# ---- what a radar's velocity looks like ----
def _evidence(index: Index, container: Any, decoder: Decoder, guess: Guess, name: str) -> dict[str, Any]:
    """Example points of a radar, and which kind and sign of velocity most returns of a standing world would have."""
    radar = guess.topic_map.radars[name]
    topic = index.topics[radar.topic]
    fields = {"velocity": radar.velocity_field, "intensity": radar.intensity_field}
    message = topic.example
    result: dict[str, Any] = {"points": [], "evidence": None}
    if isinstance(message, CloudMessage):
        result["points"] = examples(message.points, fields)
    shares = _supports(index, container, decoder, guess.topic_map, radar)
    if shares is None:
        result["evidence"] = "the vehicle's motion is unknown or too slow to tell the kind of velocity"
        return result
    speed, shares = shares
    result["evidence"] = (
        f"at {speed:.1f} m/s a standing world fits "
        + ", ".join(f"{kind}: {share:.0%}" for kind, share in shares.items())
        + " of the points"
    )
    return result


def _supports(
    index: Index, container: Any, decoder: Decoder, topic_map: TopicMap, radar: RadarTopic
) -> tuple[float, dict[str, float]] | None:
    """The vehicle's speed and, by hypothesis, the share of returns within 0.5 m/s of what a standing world gives."""
    log = index.odometry.get(topic_map.odometry)
    topic = index.topics[radar.topic]
    if topic_map.odometry in ("", TF) or log is None or not len(log.twists):
        return None
    try:
        T = index.tree.fixed(topic_map.ego_frame, radar.frame or topic.frame, radar.topic)[0]
    except Error:
        return None
    odometry = Odometry(log.poses.poses(), np.frombuffer(log.twists, np.float64).reshape(-1, 6), np.eye(4))
    fields = Fields(radar.velocity_field, radar.intensity_field)
    best: tuple[float, dict[str, float]] | None = None
    for row in np.linspace(0, len(topic.locations) - 1, min(20, len(topic.locations))).astype(int):
        twist = odometry.twist(int(topic.stamps[row])) if len(odometry.poses) == len(odometry.twists) else None
        if twist is None or np.hypot(*twist[:2]) < max(_SLOW, best[0] if best else 0):
            continue
        try:
            points = radar_points(read_message(container, decoder, topic, int(row)).points, fields, radar.topic)
        except Exception:  # a damaged message: another one is an example as well
            continue
        unit = points[:, :3].astype(np.float64) / np.maximum(np.linalg.norm(points[:, :3], axis=1, keepdims=True), 1e-6)
        sensor = np.array([*twist[:2], 0.0]) + np.cross([0, 0, twist[2]], T[:3, 3])
        approach = unit @ (T[:3, :3].T @ sensor)
        expected = {"raw, sign 1": -approach, "raw, sign -1": approach, "compensated": np.zeros(len(points))}
        near = {kind: np.abs(points[:, 4] - value) < _STATIC for kind, value in expected.items()}
        best = float(np.hypot(*twist[:2])), {kind: float(hits.mean()) for kind, hits in near.items() if len(hits)}
    return best
