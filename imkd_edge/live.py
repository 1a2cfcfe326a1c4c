"""Live sensors: Synchronizer assembles frames, Monitor reports sensor states, Watchdog reports missing results."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Health, health_of
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


@dataclass(frozen=True)
class LiveFrame:
    """One moment of all sensors. Its fields except `complete` are the arguments of `Detector.infer`."""

    timestamp_ns: int  # of the reference item
    frames: dict[str, Any]  # camera name -> the pushed image itself; absent cameras have no entry
    camera_timestamps_ns: dict[str, int]
    camera_T_world_ego: dict[str, np.ndarray]  # the ego pose at each image's time where that is known
    # Of the last spec.radar.max_age seconds, each with the ego pose at its own time where that is known.
    radar: list[RadarSweep]
    ego: Ego | None  # at timestamp_ns
    # Every sensor of the rig has an item within tolerance of timestamp_ns and, where ego motion was ever pushed, it has
    # reached that time and gives a pose or a twist there.
    complete: bool


class Synchronizer:
    """Timestamped images, radar sweeps and ego motion, in any order -> one LiveFrame per item of the reference sensor.

    Every time is an int of nanoseconds, and `now_ns` is on the clock of the timestamps: a recording can be replayed at
    any speed, and in a loop: where its clock steps back the synchronizer discards everything and restarts. It restarts
    at once if now_ns steps back by more than max_delay, otherwise with the second item of a sensor that steps back
    together with now_ns by more than max_future, or, where now_ns stays, once every sensor has advanced four times
    behind its newest item. Every pass of a loop shorter than max_delay loses its first frame, five where now_ns stays.
    cpp/include/imkd/synchronizer.hpp defines the effect of late, early, repeated and jumping times.

    Args:
        rig: the sensors.
        spec: the model that the frames are for; sweeps are accumulated over its radar.max_age.
        reference: name of the sensor whose items define the frames; "": the rig's first camera, else its first radar.
        tolerance: s between the frame's time and an item that counts as part of the frame; best below half of the
            sensors' period.
        timeout: s that a frame waits for missing items, from the arrival of its reference item.
        max_delay: s from an item's time to its arrival; an older item is late.
        max_future: s that an item's time may exceed now.
        lost_after: s of silence after which no frame waits for a sensor.
        max_images: images stored per camera.
        max_sweeps: sweeps stored per radar.

    Raises:
        Error: 104 for an option out of range, 203 for an unknown reference, 21x for an invalid rig.
    """

    def __init__(
        self,
        rig: SensorRig,
        spec: ModelSpec,
        reference: str = "",
        tolerance: float = 0.04,
        timeout: float = 0.1,
        max_delay: float = 1.0,
        max_future: float = 0.1,
        lost_after: float = 1.0,
        max_images: int = 8,
        max_sweeps: int = 32,
    ) -> None:
        self._core: Any = _core.Synchronizer(
            rig, spec, reference, tolerance, timeout, max_delay, max_future, lost_after, max_images, max_sweeps
        )

    def push_camera(self, camera: str, image: Any, timestamp_ns: int, now_ns: int) -> str:
        """Add an image; return "kept", or the reason of a refusal: "late", "duplicate", "future" or "invalid".

        Invalid is another size than the calibration's, once the camera has delivered one that fits.

        Args:
            camera: name in the rig.
            image: as in Detector.infer, on the host or the GPU. It is referenced, not copied: do not change it later.
            timestamp_ns: time of exposure.
            now_ns: current time.

        Raises:
            Error: 201 (dtype), 202 (shape), 203 (unknown camera), 205 (time is no int64).
        """
        return self._core.push_camera(camera, image, timestamp_ns, now_ns)

    def push_radar(self, sweep: RadarSweep, now_ns: int) -> str:
        """Add a sweep, which needs its own time. Its points are referenced, and copied only to make their rows dense.

        Returns and raises as push_camera; "invalid" for a pose that is not rigid.
        """
        return self._core.push_radar(sweep, now_ns)

    def push_ego(self, ego: Ego, timestamp_ns: int, now_ns: int) -> str:
        """Add the vehicle's motion at a time, pose and twist together or in two calls.

        Returns and raises as push_camera; "invalid" for an Ego with neither, a pose that is not rigid, a twist that is
        not finite or faster than 100 m/s or 2 pi rad/s, and a pose that contradicts a newer one.
        """
        return self._core.push_ego(ego, timestamp_ns, now_ns)

    def pop(self, now_ns: int) -> LiveFrame | None:
        """The oldest frame that is ready, or None. To catch up, call it until it returns None; use the last frame."""
        fields = self._core.pop(now_ns)
        if fields is None:
            return None
        fields["radar"] = [RadarSweep(*sweep) for sweep in fields["radar"]]
        pose, twist = fields["ego"]
        fields["ego"] = None if pose is None and twist is None else Ego(pose, twist)
        return LiveFrame(**fields)

    def reset(self) -> None:
        """Discard everything but the counts."""
        self._core.reset()

    def counts(self) -> dict[str, int]:
        """Items kept, late, duplicate, future, invalid; frames complete, incomplete, dropped, expired; restarts.

        A restart: everything was discarded because the clock jumped or stepped back.
        """
        return self._core.counts()


class Monitor:
    """State of each sensor between the frames (ok, late, stale, frozen, invalid, lost, missing), and the mode.

    cpp/include/imkd/monitor.hpp defines the states.

    Args:
        rig: the sensors.
        spec: the model. As in the Detector, a sensor is late after half of its radar.max_age and stale after all of it.
        lost_after: s of silence after which a sensor is lost; more than spec.radar.max_age.
        frozen_after: number of consecutive items with the same contents that make a sensor frozen.

    Raises:
        Error: 104 for an option out of range, 21x for an invalid rig.
    """

    def __init__(self, rig: SensorRig, spec: ModelSpec, lost_after: float = 2.0, frozen_after: int = 3) -> None:
        self._core: Any = _core.Monitor(rig, spec, lost_after, frozen_after)

    def observe_camera(self, camera: str, image: Any, timestamp_ns: int, now_ns: int) -> None:
        """Observe an image in host memory, RGB or NV12. None, another size, or a flat one makes the camera invalid.

        Raises:
            Error: 201 (dtype), 202 (shape), 203 (unknown camera), 205 (time is no int64).
        """
        self._core.observe_camera(camera, image, timestamp_ns, now_ns)

    def observe_radar(self, sweep: RadarSweep, now_ns: int) -> None:
        """Observe a sweep, which needs its own time. Where most of its points are invalid, or all, so is the radar.

        Raises:
            Error: 201 (dtype), 202 (shape), 203 (unknown radar), 205 (no time, or no int64).
        """
        self._core.observe_radar(sweep, now_ns)

    def check(self, now_ns: int) -> Health:
        """Mode and sensor states at now_ns. The other fields, which describe a frame, are 0."""
        return health_of(self._core.check(now_ns))

    def reset(self) -> None:
        """Discard everything."""
        self._core.reset()


class Watchdog:
    """Reports a result that misses its deadline, from its own thread, independent of the frame loop; a context manager.

    A forked child has no such thread: there it can only be closed, other calls raise `forked`.

    Args:
        deadline: s from one beat to the next.
        missed: called with the seconds since the last beat, once per miss, on the watchdog's thread.
        clock: returns an int of ns, never a smaller one; if it raises, a miss is counted. None: the steady clock.
        timer: False: no thread, and `poll` does its work.

    Raises:
        Error: 104 for a deadline out of range.
    """

    def __init__(
        self,
        deadline: float,
        missed: Callable[[float], object] | None = None,
        clock: Callable[[], int] | None = None,
        timer: bool = True,
    ) -> None:
        self._core: Any = _core.Watchdog(deadline, missed, clock, timer)
        # At interpreter exit at the latest: the timer's thread must not call into a finalized interpreter.
        self.close = weakref.finalize(self, self._core.close)

    def beat(self) -> None:
        """Restart the deadline: a result is available."""
        self._core.beat()

    def poll(self) -> None:
        """Check the clock now, as the timer does."""
        self._core.poll()

    @property
    def overdue(self) -> bool:
        """Whether a deadline was missed since the last beat."""
        return self._core.overdue()

    @property
    def misses(self) -> int:
        """Number of missed deadlines."""
        return self._core.misses()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
