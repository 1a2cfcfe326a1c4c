"""Live sensors: Synchronizer makes frames of what arrives, Monitor tells how the sensors do, Watchdog when results stay away."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imkd_edge._core as _core
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Health
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


@dataclass(frozen=True)
class LiveFrame:
    """One moment of all sensors; its fields but `complete` are what `Detector.infer` takes."""

    timestamp_ns: int  # of the reference item
    frames: dict[str, Any]  # camera name -> the very image that was pushed; absent cameras are not in it
    camera_timestamps_ns: dict[str, int]
    radar: list[
        RadarSweep
    ]  # of the last spec.radar.max_age seconds, each with the ego pose of its time where that is known
    ego: Ego | None  # at timestamp_ns
    complete: bool  # every sensor of the rig, and the ego motion where there was any, was there


class Synchronizer:
    """Timestamped images, radar sweeps and ego motion, in any order -> one LiveFrame per item of the reference sensor.

    Every time is an int of nanoseconds; `now_ns` is on the clock of the timestamps, so a recording can be replayed at any pace.
    What late, early, repeated and jumping times do is written in cpp/include/imkd/synchronizer.hpp.

    Args:
        rig: the sensors.
        spec: the model that the frames are for; its radar.max_age is how far back sweeps are accumulated.
        reference: name of the sensor whose items make the frames; "": the rig's first camera, else its first radar.
        tolerance: s from the reference time within which a sensor counts as there; best below half of the sensors' period.
        timeout: s that a frame waits for what is missing, from the arrival of its reference item.
        max_delay: s from an item's time to its arrival; older ones are late.
        max_future: s that an item's time may lie beyond now.
        lost_after: s of silence after which no frame waits for a sensor.
        max_images: kept per camera.
        max_sweeps: kept per radar.

    Raises:
        Error: 104 for an option out of range, 203 for an unknown reference, 21x for a rig that is none.
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
        """Takes an image; says "kept", or why not: "late", "duplicate", "future".

        Args:
            camera: name in the rig.
            image: as in Detector.infer, on the host or the GPU; kept, not copied, so it must not change any more.

        Raises:
            Error: 201, 202, 203, 205 for what only a mistake in the caller's program can bring.
        """
        return self._core.push_camera(camera, image, timestamp_ns, now_ns)

    def push_radar(self, sweep: RadarSweep, now_ns: int) -> str:
        """Takes a sweep, which must have its time; its points are kept, copied only to make them dense rows.

        As push_camera; "invalid" for a pose that is none.
        """
        return self._core.push_radar(sweep, now_ns)

    def push_ego(self, ego: Ego, timestamp_ns: int, now_ns: int) -> str:
        """Takes the motion of the vehicle at a time, pose and twist together; "invalid" where its numbers make none. As push_camera."""
        return self._core.push_ego(ego, timestamp_ns, now_ns)

    def pop(self, now_ns: int) -> LiveFrame | None:
        """The oldest frame that is ready; None where there is none. To catch up, call it until then and use the last."""
        found = self._core.pop(now_ns)
        if found is None:
            return None
        found["radar"] = [RadarSweep(*sweep) for sweep in found["radar"]]
        pose, twist = found["ego"]
        found["ego"] = None if pose is None and twist is None else Ego(pose, twist)
        return LiveFrame(**found)

    def reset(self) -> None:
        """Forgets everything but the counts."""
        self._core.reset()

    def counts(self) -> dict[str, int]:
        """Items kept, late, duplicate, future, invalid; frames complete, incomplete, dropped, expired; restarts of the clock."""
        return self._core.counts()


class Monitor:
    """State of each sensor between the frames: ok, late, stale, frozen, invalid, lost or (nothing came yet) missing; and the mode.

    What each state means is written in cpp/include/imkd/monitor.hpp.

    Args:
        rig: the sensors.
        spec: the model; a sensor is late at half of its radar.max_age and stale at the whole, as the Detector counts.
        lost_after: s of silence that make a sensor lost; above spec.radar.max_age.
        frozen_after: items in a row with the same contents that make a sensor frozen.

    Raises:
        Error: 104 for an option out of range, 21x for a rig that is none.
    """

    def __init__(self, rig: SensorRig, spec: ModelSpec, lost_after: float = 2.0, frozen_after: int = 3) -> None:
        self._core: Any = _core.Monitor(rig, spec, lost_after, frozen_after)

    def observe_camera(self, camera: str, image: Any, timestamp_ns: int, now_ns: int) -> None:
        """Sees an image on the host, RGB or NV12; None, or one of another size, makes the camera invalid. Raises Error 201 to 205."""
        self._core.observe_camera(camera, image, timestamp_ns, now_ns)

    def observe_radar(self, sweep: RadarSweep, now_ns: int) -> None:
        """Sees a sweep, which must have its time; one whose every point is invalid makes the radar invalid. Raises Error 201-205."""
        self._core.observe_radar(sweep, now_ns)

    def check(self, now_ns: int) -> Health:
        """Mode and sensors as of now; the other fields, which belong to a frame, are 0."""
        return Health(**self._core.check(now_ns))

    def reset(self) -> None:
        """Forgets everything."""
        self._core.reset()


class Watchdog:
    """Tells when a result did not come in time, on a thread of its own, whatever the frame loop does; a context manager.

    Args:
        deadline: s from one beat to the next.
        missed: called with the seconds since the last beat, once per miss, on the watchdog's thread.
        clock: ns that never go back, where it raises a miss is counted; None: the machine's steady clock.
        timer: False: no thread; `poll` does its work.

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
        self.close = weakref.finalize(
            self, self._core.close
        )  # at the latest when Python ends: a thread must not call into what is gone

    def beat(self) -> None:
        """A result is out: the deadline starts anew."""
        self._core.beat()

    def poll(self) -> None:
        """Looks at the clock now, as the timer does."""
        self._core.poll()

    @property
    def overdue(self) -> bool:
        """Whether the deadline passed since the last beat."""
        return self._core.overdue()

    @property
    def misses(self) -> int:
        """Deadlines missed so far."""
        return self._core.misses()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
