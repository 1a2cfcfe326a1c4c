"""Reader of MCAP files and ROS 2 bags."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.sources.recording.calibration import camera_of, mounting
from imkd_edge.sources.recording.container import Container, bag_files
from imkd_edge.sources.recording.evidence import refine
from imkd_edge.sources.recording.guess import guess_map
from imkd_edge.sources.recording.images import to_rgb
from imkd_edge.sources.recording.index import Decoder, Index, Indexer, Topic, read_message, rows_of
from imkd_edge.sources.recording.messages import CloudMessage, ImageMessage
from imkd_edge.sources.recording.motion import motion_of
from imkd_edge.sources.recording.open import open_container
from imkd_edge.sources.recording.packets import PacketVideo
from imkd_edge.sources.recording.poses import Odometry
from imkd_edge.sources.recording.radar import fields_of, lidar_points, radar_points
from imkd_edge.sources.recording.topic_map import CameraTopic, RadarTopic, TopicMap, read_map, with_options
from imkd_edge.sources.recording.tracks import Segment, Timing, Track, TrackSource

ENDINGS = (".mcap", ".db3")


def is_recording(path: str | Path) -> bool:
    """Whether a path is an MCAP file, a .db3 file or the folder of a bag."""
    if os.path.isdir(path):  # unlike Path.is_dir, without OSError for a name that is too long
        folder = Path(path)
        return (folder / "metadata.yaml").is_file() or (bool(bag_files(folder)) and not (folder / "rig.json").is_file())
    return os.path.isfile(path) and Path(path).suffix.lower() in ENDINGS


def names_recording(name: str) -> bool:
    """Whether a name is that of a recording, which need not be there."""
    return is_recording(name) or Path(name).suffix.lower() in ENDINGS


def map_beside(path: Path) -> Path | None:
    """The topic map beside a recording: drive.toml beside drive.mcap; beside a bag's folder or in it."""
    names = [path.with_suffix(".toml")] if not path.is_dir() else [path / f"{path.name}.toml", path / "map.toml"]
    names.append(path.parent / f"{path.name}.toml")
    return next((name for name in names if name.is_file()), None)


class RecordingSource(TrackSource):
    """Frames of an MCAP file or a ROS 2 bag. Opening it reads it once; images and points are read on access.

    Args:
        path: the file, or a bag's folder.
        map: TOML file of the topic map, or a TopicMap; the default is the one beside the recording, else a guess, of
            which a warning tells what it cannot know.
        rig: JSON file of a SensorRig, or one, instead of camera_info and TF; its sensors have the map's names.
        interval: s between frames, instead of the map's.
        trigger: sensor whose messages make the frames, instead of the map's.
        lidar: False leaves the LiDAR out of the samples.
        labels: recordings have none.
    Raises:
        Error: missing_extra; source_missing_file, source_unknown; those of the map; source_bad_calibration where
            camera_info or TF do not make a rig; source_bad_points where a radar lacks a field.
    """

    def __init__(
        self,
        path: str | Path,
        map: str | Path | TopicMap | None = None,
        rig: str | Path | SensorRig | None = None,
        interval: float | None = None,
        trigger: str | None = None,
        lidar: bool = True,
        labels: bool = True,
    ):
        path = Path(path)
        self.container = open_container(path)
        self.decoder = Decoder(path)
        named = map if map is not None else map_beside(path)
        given = named if isinstance(named, TopicMap) else None if named is None else read_map(Path(named))
        self.index = Indexer(self.container, self.decoder, given is not None and given.clock == "log").run()
        _warn_of_damage(path, self.index)
        if given is None:
            guess = guess_map(self.index, path)
            refine(guess, self.index, self.container, self.decoder)
            given = guess.topic_map
            doubts = "; ".join(guess.doubts) or "nothing in it is doubtful"
            fix = f"imkd-edge inspect {path} --map FILE writes it, to be corrected"
            warnings.warn(f"{path}: no topic map, so topics are guessed: {doubts}. {fix}", stacklevel=2)
        self.topic_map = with_options(given, interval, trigger, path)
        self.intensity, self.traffic = self.topic_map.intensity, self.topic_map.traffic
        builder = _Builder(path, self.container, self.decoder, self.index, self.topic_map)
        segments = builder.segments()
        loaded = builder.rig() if rig is None else rig if isinstance(rig, SensorRig) else SensorRig.load(rig)
        loaded.check()
        timing = Timing(
            self.topic_map.trigger, self.topic_map.interval, self.topic_map.tolerance, self.topic_map.max_age
        )
        self._set(path, loaded, segments, timing, lidar)

    @property
    def damage(self) -> dict[str, int]:
        """What of the recording could not be read: {"chunks", "bytes", "cut", "messages"}."""
        damage = self.index.damage
        return {
            "chunks": damage.chunks,
            "bytes": damage.bytes,
            "cut": int(damage.cut),
            "messages": damage.messages,
        }


def _warn_of_damage(path: Path, index: Index) -> None:
    if index.damage:
        warnings.warn(f"{path}: {index.damage}; what is left is read", stacklevel=3)
    if index.unstamped:
        text = f"{index.unstamped} messages have no time in their header: the time of recording holds"
        warnings.warn(f"{path}: {text}", stacklevel=3)
    for topic, log in index.odometry.items():
        usable = log.poses.usable()
        if not usable.all():
            text = f"of {len(usable)} poses {np.sum(~usable)} have no rotation or a number that is not finite"
            warnings.warn(f"{path}, {topic}: {text}: they count as unknown", stacklevel=3)


@dataclass(frozen=True)
class _Builder:
    """Rig and segments of an indexed recording."""

    path: Path
    container: Container
    decoder: Decoder
    index: Index
    topic_map: TopicMap

    # ---- rig ----
    def rig(self) -> SensorRig:
        """The rig by camera_info and TF, or the map's mountings."""
        cameras = [self._camera(name, camera) for name, camera in self.topic_map.cameras.items()]
        radars = [self._radar(name, radar) for name, radar in self.topic_map.radars.items()]
        return SensorRig(cameras=cameras, radars=radars, ground_plane=self.topic_map.ground_plane)

    def _camera(self, name: str, camera: CameraTopic) -> Any:
        info = self.index.calibrations.get(camera.info)
        if info is None:
            known = ", ".join(sorted(self.index.calibrations)) or "none"
            what = f"the camera {name!r} has no camera_info {camera.info!r}"
            fix = f"the recording's are: {known}; name one as info in [cameras.{name}], or give --option rig=rig.json"
            raise Error(Code.source_bad_calibration, what, str(self.path), fix)
        if camera.T_ego_camera is not None:
            T = np.asarray(camera.T_ego_camera, np.float64)
        else:
            topic = self.index.topics.get(camera.topic)
            frame = camera.frame or (topic.frame if topic else "") or info.frame
            tree, ego = self.index.tree, self.topic_map.ego_frame
            T, moving, _ = mounting(tree, ego, frame, f"{self.path}, camera {name!r}", camera.optical)
            self._warn_of_motion(name, moving)
        return camera_of(name, info, T, camera.rectified)

    def _radar(self, name: str, radar: RadarTopic) -> RadarCalibration:
        if radar.T_ego_radar is not None:
            T = np.asarray(radar.T_ego_radar, np.float64)
        else:
            topic = self.index.topics.get(radar.topic)
            frame = radar.frame or (topic.frame if topic else "")
            T, moving = self.index.tree.fixed(self.topic_map.ego_frame, frame, f"{self.path}, radar {name!r}")
            self._warn_of_motion(name, moving)
        return RadarCalibration(name=name, T_ego_radar=T, velocity=radar.velocity, period=radar.period)

    def _warn_of_motion(self, name: str, moving: list[str]) -> None:
        if moving:
            what = f"the frame {moving[0]!r} between {name!r} and {self.topic_map.ego_frame!r} moves"
            warnings.warn(f"{self.path}: {what}: its first transform holds for the whole drive", stacklevel=5)

    # ---- readings ----
    def segments(self) -> list[Segment]:
        """The parts of the drive between steps of the clock."""
        return [self._segment(number) for number in range(len(self.index.newest))]

    def _segment(self, number: int) -> Segment:
        cameras = {
            name: self._image_track(topic, number, camera)
            for name, camera in self.topic_map.cameras.items()
            if (topic := self._topic(name, camera.topic, "image")) is not None
        }
        radars = {
            name: self._track(topic, number, self._radar_reader(topic, name, radar))
            for name, radar in self.topic_map.radars.items()
            if (topic := self._topic(name, radar.topic, "cloud")) is not None
        }
        motion = motion_of(self.index, self.topic_map, self.path, number)
        twist = motion.twist if isinstance(motion, Odometry) else lambda time_ns: None
        times = motion.poses.times if isinstance(motion, Odometry) else np.zeros(0, np.int64)
        return Segment(cameras, radars, self._lidar_track(number), motion, twist, times)

    def _topic(self, sensor: str, name: str, kind: str) -> Topic | None:
        """A sensor's topic; None where it has no message that can be read."""
        topic = self.index.topics.get(name)
        if topic is not None and topic.kind == kind:
            return topic if topic.locations else None
        of_kind = ", ".join(sorted(key for key, each in self.index.topics.items() if each.kind == kind)) or "none"
        what = f"{sensor!r} has the topic {name!r}, which " + (
            f"carries {topic.channel.schema}" if topic is not None else "is not in the recording"
        )
        fix = f"the topics that carry such messages are: {of_kind}; correct the topic map, or leave the sensor out"
        raise Error(Code.source_bad_value, what, str(self.path), fix)

    def _track(self, topic: Topic, segment: int, read: Any) -> Track:
        rows = rows_of(topic, segment)
        times = np.frombuffer(topic.stamps, np.int64)[rows]
        arrivals = np.frombuffer(topic.logs, np.int64)[rows]
        return Track(times, lambda i: read(int(rows[i])), arrivals)

    def _image_track(self, topic: Topic, segment: int, camera: CameraTopic) -> Track:
        where = f"{self.path}, {camera.topic}"

        def message(row: int) -> ImageMessage:
            return self._message(topic, row, Code.source_bad_image, where)

        if getattr(topic.example, "packet", False):
            return self._track(topic, segment, PacketVideo(message, where).read)
        track = self._track(topic, segment, lambda row: to_rgb(message(row), where, camera.bits))
        if getattr(topic.example, "encoding", ""):
            return track
        rows = rows_of(topic, segment)
        return replace(track, encoded=lambda i: bytes(message(int(rows[i])).data))

    def _radar_reader(self, topic: Topic, name: str, radar: RadarTopic) -> Any:
        where = f"{self.path}, {radar.topic}"
        fields = fields_of(radar)
        if isinstance(topic.example, CloudMessage):
            radar_points(topic.example.points[:0], fields, where)  # raises where a field is missing

        def read(row: int) -> np.ndarray:
            return radar_points(self._message(topic, row, Code.source_bad_points, where).points, fields, where)

        return read

    def _lidar_track(self, number: int) -> Track | None:
        name = self.topic_map.lidar
        topic = self._topic("lidar", name, "cloud") if name else None
        if topic is None:
            return None
        where = f"{self.path}, {name}"
        T, _ = self.index.tree.fixed(self.topic_map.ego_frame, topic.frame, where)

        def read(row: int) -> np.ndarray:
            return lidar_points(self._message(topic, row, Code.source_bad_points, where).points, T, where)

        return self._track(topic, number, read)

    def _message(self, topic: Topic, row: int, code: Code, where: str) -> Any:
        try:
            return read_message(self.container, self.decoder, topic, row)
        except Error:
            raise
        except Exception as fault:  # of a library, for bytes that are no such message
            raise Error(code, f"a message cannot be decoded ({fault})", where, "copy the recording again") from None
