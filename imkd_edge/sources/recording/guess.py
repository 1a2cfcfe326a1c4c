"""A guess at which topic is which sensor, and what it cannot know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.recording.index import Index, Topic
from imkd_edge.sources.recording.messages import CloudMessage
from imkd_edge.sources.recording.radar import intensity_field, velocity_field
from imkd_edge.sources.recording.topic_map import TF, CameraTopic, RadarTopic, TopicMap

_EGO = ("base_link", "base_footprint", "ego", "ego_vehicle", "vehicle", "base", "car", "body", "rear_axle")
# parts of a topic's name that name no sensor; those that begin with image neither
_GENERIC = {
    "sensing", "sensor", "sensors", "camera", "cameras", "radar", "radars", "driver", "drivers", "compressed", "raw",
    "rect", "color", "ffmpeg", "detections", "detection_points", "points", "point_cloud", "pointcloud", "pointcloud2",
    "targets", "targets_pcl", "locations", "scan", "scan_raw", "output", "h264", "data",
}  # fmt: skip
_NOT_CAMERAS = ("depth", "disparity", "mask", "segmentation", "label", "debug", "overlay", "costmap", "thumbnail")


@dataclass
class Guess:
    """A topic map and what should be checked in it."""

    topic_map: TopicMap
    doubts: list[str] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)  # key of the map -> what stands above it


def guess_map(index: Index, path: Path) -> Guess:
    """The topic map by the kinds, names and fields of the topics.

    Raises: Error source_bad_value where no topic is of a camera or a radar.
    """
    guess = Guess(TopicMap())
    topics = [topic for _, topic in sorted(index.topics.items()) if topic.locations]
    images = [topic for topic in topics if topic.kind == "image"]
    clouds = [topic for topic in topics if topic.kind == "cloud"]
    radars = [topic for topic in clouds if velocity_field(_fields(topic))[0] and intensity_field(_fields(topic))[0]]
    cameras = _cameras(images, index, guess)
    named = _names([topic.channel.topic for topic in radars], "radar", taken=cameras)
    sensors = {named[topic.channel.topic]: _radar(named[topic.channel.topic], topic, guess) for topic in radars}
    if not cameras and not sensors:
        kinds = ", ".join(f"{name} ({topic.channel.schema})" for name, topic in index.topics.items()) or "none"
        fix = f"its topics are {kinds}; docs/guide/recordings.md lists the types that are read"
        raise Error(Code.source_bad_value, "no topic is of a camera or a radar", str(path), fix)
    others = [topic for topic in clouds if topic not in radars]
    lidars = [topic.channel.topic for topic in others if _is_cloud(topic) and not why_no_radar(topic)]
    ego = _ego_frame(index, guess)
    guess.topic_map = TopicMap(
        cameras=cameras,
        radars=sensors,
        lidar=lidars[0] if lidars else "",
        odometry=_odometry(index, ego, guess),
        ego_frame=ego,
        trigger=_trigger(list(cameras or sensors)),
        intensity=_unit(radars, guess),
    )
    guess.doubts += [f"{topic.channel.topic}: {why}" for topic in others if (why := why_no_radar(topic))]
    return guess


def why_no_radar(topic: Topic) -> str:
    """What keeps a cloud from being a radar's that looks like one; empty for a LiDAR's, and for a radar's."""
    fields = _fields(topic)
    velocity, (intensity, unit) = velocity_field(fields)[0], intensity_field(fields)
    usual = _is_cloud(topic) and not velocity and unit not in ("rcs_dbsm", "snr_db")
    if (velocity and intensity) or usual:
        return ""
    missing = [key for key, name in (("velocity_field", velocity), ("intensity_field", intensity)) if not name]
    return f"if it is a radar's, add [radars.NAME] with {' and '.join(missing)}, one of {', '.join(fields)}"


def _trigger(names: Sequence[str]) -> str:
    """The sensor that looks ahead, by its name, else the first."""
    ahead = [name for name in names if "front" in name.lower()]
    return min(ahead, key=len) if ahead else names[0]


def _fields(topic: Topic) -> Sequence[str]:
    message = topic.example
    return (message.points.dtype.names or ()) if isinstance(message, CloudMessage) else ()


def _is_cloud(topic: Topic) -> bool:
    return {"x", "y", "z"} <= {name.lower() for name in _fields(topic)}


# ---- cameras ----
def _cameras(images: Iterable[Topic], index: Index, guess: Guess) -> dict[str, CameraTopic]:
    """One topic for each camera: the compressed raw image before the raw one, both before rectified ones."""
    groups: dict[str, list[str]] = {}
    for topic in images:
        name = topic.channel.topic
        if not any(word in name.lower() for word in _NOT_CAMERAS):
            groups.setdefault(_namespace(name), []).append(name)
    best = {namespace: min(names, key=_preference) for namespace, names in sorted(groups.items())}
    named = _names(list(best.values()), "camera")
    result = {}
    for namespace, topic_name in best.items():
        name = named[topic_name]
        info = _info(namespace, topic_name, index, alone=len(best) == 1)
        if not info:
            guess.doubts.append(f"no camera_info for {topic_name}")
            guess.comments[f"cameras.{name}.info"] = "no camera_info topic: name one, or give a rig"
        others = [other for other in groups[namespace] if other != topic_name]
        if others:
            guess.comments[f"cameras.{name}.topic"] = f"also: {', '.join(others)}"
        result[name] = CameraTopic(topic_name, info=info, rectified="rect" in topic_name.rpartition("/image")[2])
    return result


def _preference(name: str) -> tuple[bool, bool, str]:
    return "rect" in name, "compressed" not in name, name


def _namespace(topic: str) -> str:
    """The topic without its last parts that say which form of the image it is."""
    parts = topic.strip("/").split("/")
    while len(parts) > 1 and _is_generic(parts[-1]):
        parts.pop()
    return "/".join(parts)


def _is_generic(word: str) -> bool:
    return word.lower() in _GENERIC or word.lower().startswith("image")


def _info(namespace: str, topic: str, index: Index, alone: bool) -> str:
    """The calibration of an image topic: in its namespace, else the one with the same frame, else the only one."""
    candidates = list(index.calibrations)
    inside = [name for name in candidates if _namespace(name.rpartition("/")[0] or name) == namespace]
    inside = inside or [name for name in candidates if name.strip("/").startswith(namespace + "/")]
    if inside:
        return min(inside, key=len)
    frame = index.topics[topic].frame
    same = [name for name in candidates if frame and index.calibrations[name].frame == frame]
    return same[0] if same else candidates[0] if alone and len(candidates) == 1 else ""


def _names(topics: Sequence[str], fallback: str, taken: Mapping[str, object] = {}) -> dict[str, str]:
    """Topic -> the sensor's name: the last part that names one, with those before it where two would be equal."""
    parts = {topic: topic.strip("/").split("/") for topic in topics}
    for depth in range(1, 8):
        names = {}
        for topic, words in parts.items():
            useful = [word for word in words if not _is_generic(word)] or words[:1] or [fallback]
            names[topic] = "_".join(useful[-depth:])
        if len(set(names.values())) == len(names) and not set(names.values()) & set(taken):
            return names
    return {topic: f"{fallback}_{i}" for i, topic in enumerate(topics)}


# ---- radars ----
def _radar(name: str, topic: Topic, guess: Guess) -> RadarTopic:
    fields = _fields(topic)
    velocity, kind = velocity_field(fields)
    intensity, unit = intensity_field(fields)
    where = f"radars.{name}."
    if kind == "raw":
        guess.doubts.append(f"{name}: whether its velocity is raw or compensated, and its sign, which no message says")
        guess.comments[where + "velocity"] = "raw, compensated for the vehicle's motion, or aliased (then also period)"
        guess.comments[where + "sign"] = "1: positive when receding; -1: positive when approaching"
    guess.comments[where + "velocity_field"] = f"fields: {', '.join(fields)}"
    if unit == "magnitude_db":
        guess.doubts.append(f"{name}: whether {intensity!r} is in dB")
        guess.comments[where + "intensity_field"] = f"{intensity!r} is taken as dB"
    return RadarTopic(topic.channel.topic, kind, velocity_field=velocity, intensity_field=intensity)


def _unit(radars: Sequence[Topic], guess: Guess) -> str:
    units = {intensity_field(_fields(topic))[1] for topic in radars}
    if len(units) > 1:
        guess.doubts.append(f"the radars' intensities have different units: {', '.join(sorted(units))}")
    return units.pop() if len(units) == 1 else ""


# ---- motion ----
def _ego_frame(index: Index, guess: Guess) -> str:
    frames = index.tree.frames
    lower = {frame.lower(): frame for frame in frames}
    known = next((lower[name] for name in _EGO if name in lower), "")
    children = [log.child for log in index.odometry.values() if log.child]
    if known or not frames:
        return known or (children[0] if children else "base_link")
    sensors = [topic.frame for topic in index.topics.values() if topic.frame in frames]
    chains = [index.tree.chain(frame) for frame in sensors]
    common = next((frame for frame in chains[0] if all(frame in chain for chain in chains)), "") if chains else ""
    moving = [frame for frame in index.tree.chain(common or frames[0]) if _moves(index, frame)]
    guess.doubts.append("which frame is the vehicle's: none is called base_link")
    guess.comments["ego_frame"] = f"none is called base_link; the frames are {', '.join(frames)}"
    return moving[0] if moving else common or frames[0]


def _moves(index: Index, frame: str) -> bool:
    edge = index.tree.edges.get(frame)
    return edge is not None and edge.poses().moves()


def _odometry(index: Index, ego: str, guess: Guess) -> str:
    """The odometry's topic, or TF where it moves the vehicle."""
    children = [child for child, edge in index.tree.edges.items() if edge.parent == ego]
    frames = {ego, "", *index.tree.chain(ego), *children}
    topics = [name for name, log in index.odometry.items() if log.child in frames and len(log.poses.times) > 1]
    if topics:
        best = max(topics, key=lambda name: (_has_twist(index, name), len(index.odometry[name].poses.times)))
        if len(topics) > 1:
            guess.comments["odometry"] = f"also: {', '.join(name for name in topics if name != best)}, {TF}"
        return best
    if index.tree.world(ego) is not None:
        return TF
    guess.doubts.append("no odometry and no TF that moves the vehicle: the ego motion is unknown")
    return ""


def _has_twist(index: Index, name: str) -> bool:
    return bool(np.isfinite(np.frombuffer(index.odometry[name].twists, np.float64)).any())
