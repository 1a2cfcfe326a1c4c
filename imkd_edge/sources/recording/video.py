"""Reader of a folder with a rig, videos or images of its cameras, and tables of its radars and ego motion.

docs/guide/recordings.md describes the files. Videos are decoded by OpenCV, forward; a frame before the last one read
opens the video again, because seeking is not exact in every container.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.files import decode_image, open_file, read_bytes
from imkd_edge.sources.folder.format import INTENSITIES
from imkd_edge.sources.recording.container import import_library
from imkd_edge.sources.recording.poses import Odometry, Poses
from imkd_edge.sources.recording.tracks import Segment, Timing, Track, TrackSource
from imkd_edge.sources.times import MAX_TIME_NS

RIG, EGO, TIME = "rig.json", "ego.csv", "timestamp_ns"
VIDEOS = (".mp4", ".mkv", ".avi", ".webm", ".mov")
IMAGES = (".jpg", ".jpeg", ".png")
RADAR_COLUMNS = ("x", "y", "z", "intensity", "velocity")
POSE_COLUMNS = ("x", "y", "z", "qw", "qx", "qy", "qz")
TWIST_COLUMNS = ("vx", "vy", "yaw_rate")


def is_video_folder(path: Path) -> bool:
    """Whether a folder has a rig and a video or a folder of images that is named as one of its cameras."""
    if not path.is_dir() or not (path / RIG).is_file():
        return False
    try:
        rig = SensorRig.load(path / RIG)
    except Error:
        return False
    return any(_video(path, camera.name) or (path / camera.name).is_dir() for camera in rig.cameras)


class VideoSource(TrackSource):
    """Frames of a folder with rig.json, CAMERA.mp4 and CAMERA.csv or CAMERA/TIME.jpg, RADAR.csv and ego.csv.

    Args:
        path: the folder.
        interval, trigger, tolerance, max_age: as in a topic map.
        start_ns: time of the first frame of a video that has no CAMERA.csv, on the clock of the other files.
        intensity: of the radars: rcs_dbsm, snr_db or magnitude_db.
        lidar, labels: such a folder has none.
    Raises:
        Error: rig_*; source_missing_file, source_bad_image, source_bad_points, source_bad_time, source_bad_value.
    """

    kind = "video"

    def __init__(
        self,
        path: str | Path,
        interval: float = 0.0,
        trigger: str = "",
        tolerance: float = 0.05,
        max_age: float = 0.5,
        start_ns: int = 0,
        intensity: str = "",
        lidar: bool = True,
        labels: bool = True,
    ):
        path = Path(path)
        rig = SensorRig.load(path / RIG)
        rig.check()
        if intensity not in ("", *INTENSITIES):
            fix = f"write one of {', '.join(INTENSITIES)}"
            raise Error(Code.source_bad_value, f"intensity is {intensity!r}", str(path), fix)
        self.intensity = intensity
        cameras = {
            camera.name: track for camera in rig.cameras if (track := _camera_track(path, camera, start_ns)) is not None
        }
        tables = {radar.name: path / f"{radar.name}.csv" for radar in rig.radars}
        radars = {name: _radar_track(table) for name, table in tables.items() if table.is_file()}
        names = ["", *(camera.name for camera in rig.cameras), *tables]
        if trigger not in names:
            fix = f"write one of {', '.join(names[1:])}"
            raise Error(Code.source_bad_value, f"there is no sensor {trigger!r}", str(path), fix)
        motion = _Ego(path / EGO) if (path / EGO).is_file() else None
        segment = Segment(cameras, radars)
        if motion is not None:
            segment = Segment(cameras, radars, None, motion, motion.twist, motion.times)
        self._set(path, rig, [segment], Timing(trigger, interval, tolerance, max_age), lidar)


# ---- cameras ----
def _video(folder: Path, camera: str) -> Path | None:
    return next((path for ending in VIDEOS if (path := folder / f"{camera}{ending}").is_file()), None)


def _camera_track(folder: Path, camera: CameraCalibration, start_ns: int) -> Track | None:
    """A camera's images; None where the folder has none."""
    video, table = _video(folder, camera.name), folder / f"{camera.name}.csv"
    if video is not None:
        reader = _Video(video)
        times = _increasing(read_times(table), table) if table.is_file() else start_ns + reader.times()
        return Track(times, reader.read)
    images = folder / camera.name
    if not images.is_dir():
        return None
    files = [file for file in images.iterdir() if file.suffix.lower() in IMAGES]
    unnamed = [file.name for file in files if _ns(file.stem) is None]
    if unnamed:
        fix = "name every image by its time in ns, such as 1700000000000000000.jpg"
        raise Error(Code.source_bad_time, f"the name {sorted(unnamed)[0]!r} is no time", str(images), fix)
    files.sort(key=lambda file: int(file.stem))
    times = np.array([int(file.stem) for file in files], np.int64)
    return Track(_increasing(times, images), lambda i: decode_image(read_bytes(files[i]), files[i]))


class _Video:
    """Frames of a video by number."""

    def __init__(self, path: Path):
        self.path = path
        self._cv2 = import_library("cv2", path)
        self._next = 0
        self._capture: Any = None
        self._open()

    def _open(self) -> None:
        self._capture, self._next = self._cv2.VideoCapture(str(self.path)), 0
        if not self._capture.isOpened():
            fix = "write H.264, HEVC, AV1, VP9 or MPEG-4 with the end of the file complete"
            raise Error(Code.source_bad_image, "OpenCV cannot open the video", str(self.path), fix)

    def times(self) -> np.ndarray:
        """(N,) ns of every frame from the video's start, by its own time stamps."""
        self._open()
        result = []
        while self._capture.grab():
            result.append(round(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6))
        self._open()
        return _increasing(np.array(result, np.int64), self.path)

    def read(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; raises Error source_bad_image."""
        if number < self._next:
            self._open()
        while self._next < number and self._capture.grab():
            self._next += 1
        ok, pixels = self._capture.read() if self._next == number else (False, None)
        if not ok:
            what = f"the video ends before frame {number}"
            raise Error(Code.source_bad_image, what, str(self.path), "its table has more rows than it has frames")
        self._next += 1
        return self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)


# ---- tables ----
def _columns(path: Path, required: Sequence[str]) -> list[str]:
    """The header of a table, whose first column is the time."""
    with open_file(path) as file:
        header = [word.strip() for word in file.readline().decode("utf-8-sig", "replace").split(",")]
    missing = [name for name in (TIME, *required) if name not in header]
    if missing or header[0] != TIME:
        fix = f"begin it with the header {','.join((TIME, *required))}"
        what = f"the table has no column {missing[0]}" if missing else f"its first column is {header[0]!r}"
        raise Error(Code.source_bad_points, what, str(path), fix)
    return header


def read_times(path: Path) -> np.ndarray:
    """(N,) int64 ns, the first column of a table."""
    _columns(path, ())
    times = array("q")
    with open_file(path) as file:
        file.readline()
        for number, line in enumerate(file, 2):
            if line.strip():
                times.append(_time(line, path, number))
    return np.array(times, np.int64)


def _time(line: bytes, path: Path, number: int) -> int:
    text = line.partition(b",")[0].strip().decode("utf-8", "replace")
    time = _ns(text)
    if time is None:
        what = f"line {number} begins with {text[:40]!r}"
        raise Error(Code.source_bad_time, what, str(path), "begin every row with its time, whole nanoseconds")
    return time


def _ns(text: str) -> int | None:
    """The time that a text of digits says; None where it says none that an int64 holds."""
    digits = text.isascii() and text.isdigit() and len(text) <= 19
    return int(text) if digits and int(text) <= MAX_TIME_NS else None


def _increasing(times: np.ndarray, path: Path) -> np.ndarray:
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        what = f"the time of entry {int(back[0]) + 2} is not after that of the one before it"
        raise Error(Code.source_bad_time, what, str(path), "write the times in order, each once")
    return times


def _numbers(lines: Sequence[bytes], columns: Sequence[int], path: Path) -> np.ndarray:
    """(N, len(columns)) float64 of rows of a table."""
    try:
        table = np.loadtxt(lines, np.float64, delimiter=",", usecols=columns, ndmin=2)
    except (ValueError, IndexError) as fault:
        raise Error(Code.source_bad_points, f"a row is not numbers ({fault})", str(path), "correct it") from None
    return table.reshape(-1, len(columns))


def _radar_track(path: Path) -> Track:
    """Sweeps of a table with one return a row: rows of one time are one sweep; a row of nan is a sweep without any."""
    header = _columns(path, RADAR_COLUMNS)
    columns = [header.index(name) for name in RADAR_COLUMNS]
    times, offsets = array("q"), array("q")
    with open_file(path) as file:
        offset = len(file.readline())
        for number, line in enumerate(file, 2):
            if line.strip():
                time = _time(line, path, number)
                if not times or time != times[-1]:
                    times.append(time)
                    offsets.append(offset)
            offset += len(line)
    offsets.append(offset)

    def read(row: int) -> np.ndarray:
        with open_file(path) as file:
            file.seek(offsets[row])
            lines = [line for line in file.read(offsets[row + 1] - offsets[row]).split(b"\n") if line.strip()]
        points = _numbers(lines, columns, path).astype(np.float32)
        return points[np.isfinite(points).all(1)]

    return Track(_increasing(np.array(times, np.int64), path), read)


class _Ego:
    """Poses, twist or both of a table."""

    def __init__(self, path: Path):
        header = _columns(path, ())
        self.times = _increasing(read_times(path), path)
        lines = read_bytes(path).split(b"\n")[1:]
        lines = [line for line in lines if line.strip()]
        self._odometry = None
        self._has_poses = set(POSE_COLUMNS) <= set(header)
        count = len(self.times)
        poses, twists = np.tile([0.0, 0, 0, 1, 0, 0, 0], (count, 1)), np.full((count, 6), np.nan)
        if self._has_poses:
            poses = _numbers(lines, [header.index(name) for name in POSE_COLUMNS], path)
        if set(TWIST_COLUMNS) <= set(header):
            values = _numbers(lines, [header.index(name) for name in TWIST_COLUMNS], path)
            twists = np.zeros((count, 6))
            twists[:, [0, 1, 5]] = values
        try:
            known = Poses(self.times.tolist(), poses[:, :3], poses[:, 3:])
            self._odometry = Odometry(known, known.times, twists, np.eye(4))
        except ValueError as fault:
            raise Error(Code.source_bad_value, str(fault), str(path), "correct the row") from None

    def at(self, time_ns: int) -> np.ndarray | None:
        """(4, 4) T_world_ego at a time."""
        return self._odometry.at(time_ns) if self._has_poses and self._odometry else None

    def twist(self, time_ns: int) -> np.ndarray | None:
        """(3,) vx, vy m/s and yaw rate rad/s at a time."""
        return self._odometry.twist(time_ns) if self._odometry else None
