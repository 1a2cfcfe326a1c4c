"""The overview as a video, by OpenCV: MPEG-4 Part 2, which players show and browsers do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.result import Result
from imkd_edge.run.sink import Sink
from imkd_edge.sources.base import Sample

RATES = 1.0, 60.0  # frames per second of the file
MAX_REPEATS = 20  # of a picture, until the next frame's time


class Video(Sink):
    """Each frame is shown until the next one's time; the rate is that of the first two frames.

    Args:
        path: of the .mp4.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._rate = RATES[0]
        self._size = 0, 0  # width and height of the file, px
        self._last: tuple[int, str, np.ndarray] | None = None  # time, scene and picture that no file has yet
        self._pictures = 0  # written

    def write(self, sample: Sample, result: Result) -> None:
        picture = result.plot(sample)
        if self._last is not None:
            time_ns, scene, last = self._last
            seconds = (sample.timestamp_ns - time_ns) / 1e9 if scene == sample.scene else 0.0
            self._append(last, seconds)
        self._last = sample.timestamp_ns, sample.scene, picture

    def close(self) -> None:
        if self._last is None:
            return  # no frame, no file
        self._append(self._last[2], 0.0)
        self._writer.release()
        self._check()

    def _append(self, picture: np.ndarray, seconds: float) -> None:
        """Shows a picture for its time, at least once; another size is cut, or filled with black, to the file's."""
        import cv2

        if self._writer is None:
            self._open(picture, seconds)
        width, height = self._size
        if picture.shape[:2] != (height, width):
            fitted = np.zeros((height, width, 3), np.uint8)
            part = picture[:height, :width]
            fitted[: part.shape[0], : part.shape[1]] = part
            picture = fitted
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(min(MAX_REPEATS, max(1, round(seconds * self._rate)))):
            self._writer.write(bgr)
            self._pictures += 1

    def _check(self) -> None:
        """OpenCV reports no error of a write: raises OSError where the file lacks pictures."""
        import cv2

        video = cv2.VideoCapture(str(self._path))
        there = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if there != self._pictures:
            raise OSError(f"it has {there} of {self._pictures} pictures; is the disk full?")

    def _open(self, picture: np.ndarray, seconds: float) -> None:
        import cv2

        self._rate = float(np.clip(1 / seconds if seconds > 0 else 10.0, *RATES))
        self._size = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2  # the codec needs even numbers
        self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter_fourcc(*"mp4v"), self._rate, self._size)
        if not self._writer.isOpened():
            raise OSError("OpenCV cannot; install opencv-python-headless with FFmpeg, or write .jsonl")
