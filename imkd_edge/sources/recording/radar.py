"""Point messages as radar sweeps: which field of a driver is which, and polar returns in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.recording.topic_map import RadarTopic

# Names that drivers give to a field, in lower case, the preferred first.
VELOCITY = (
    "velocity", "radial_velocity", "range_rate", "doppler", "doppler_velocity", "radial_speed", "v_r", "vr", "v",
    "radar_relative_radial_velocity", "relative_radial_velocity", "speed_radial", "radial_vel", "v_doppler",
)  # fmt: skip
COMPENSATED = ("ground_relative_radial_velocity", "v_r_compensated", "vr_compensated", "velocity_compensated", "v_comp")
COMPENSATED_VECTOR = ("vx_comp", "vy_comp")  # m/s over ground, as nuScenes publishes
RCS = ("rcs", "radar_cross_section", "rcs_dbsm")
SNR = ("snr", "signal_to_noise_ratio", "signal_noise_ratio", "snr_db")
MAGNITUDE = ("power", "reflected_power", "amplitude", "intensity", "magnitude", "rssi", "reflectivity")
INTENSITIES = {"rcs_dbsm": RCS, "snr_db": SNR, "magnitude_db": MAGNITUDE}  # unit -> names
RANGE, AZIMUTH, ELEVATION = ("range", "r", "radial_distance", "distance"), ("azimuth", "azimuth_angle"), (
    "elevation",
    "elevation_angle",
)  # fmt: skip


@dataclass(frozen=True)
class Fields:
    """Which fields of a radar's points are used; an empty name: the drivers' usual ones are looked for."""

    velocity: str = ""
    intensity: str = ""
    sign: int = 1  # -1: the driver's velocity is positive when approaching
    scale: float = 1.0  # m/s of 1 in the velocity's field
    degrees: bool = False  # azimuth and elevation are in degrees


def fields_of(radar: RadarTopic) -> Fields:
    """Which fields a topic map names, and their units."""
    degrees = radar.angle == "deg"
    return Fields(radar.velocity_field, radar.intensity_field, radar.sign, radar.velocity_scale, degrees)


def first_of(names: Sequence[str], aliases: Sequence[str]) -> str:
    """The field whose lower-case name is the first among `aliases`; empty where there is none."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[alias] for alias in aliases if alias in lower), "")


def velocity_field(names: Sequence[str]) -> tuple[str, str]:
    """The field of the radial velocity, and its kind (compensated, raw) as its name says; empty without one.

    Two fields of a vector are joined by a comma.
    """
    if compensated := first_of(names, COMPENSATED):
        return compensated, "compensated"
    if set(COMPENSATED_VECTOR) <= {name.lower() for name in names}:
        return ",".join(first_of(names, (axis,)) for axis in COMPENSATED_VECTOR), "compensated"
    relative = first_of(names, VELOCITY)
    return relative, "raw" if relative else ""


def intensity_field(names: Sequence[str]) -> tuple[str, str]:
    """The field of the intensity and its unit as its name says; empty without one."""
    for unit, aliases in INTENSITIES.items():
        if name := first_of(names, aliases):
            return name, unit
    return "", ""


def radar_points(points: np.ndarray, fields: Fields, where: str) -> np.ndarray:
    """(N, 5) float32 of a message's points: x, y, z m in the radar frame, intensity dB, radial velocity m/s.

    Polar points without an elevation, or whose elevation is NaN, lie in the radar's plane. A velocity is positive when
    receding.

    Raises: Error source_bad_points where a field is missing.
    """
    names = points.dtype.names or ()
    velocity = fields.velocity or velocity_field(names)[0]
    intensity = fields.intensity or intensity_field(names)[0]
    xyz = _positions(points, where, fields.degrees)
    columns = [*xyz.T, _column(points, intensity, "intensity", where), _radial(points, velocity, xyz, where)]
    result = np.stack(columns, 1).astype(np.float32) if len(points) else np.zeros((0, 5), np.float32)
    result[:, 4] *= fields.sign * fields.scale
    return result


def _positions(points: np.ndarray, where: str, degrees: bool = False) -> np.ndarray:
    """(N, 3) float64 m."""
    names = points.dtype.names or ()
    axes = [first_of(names, (axis,)) for axis in "xyz"]
    if axes[0] and axes[1]:
        columns = [_values(points, axis, where) if axis else np.zeros(len(points)) for axis in axes]
        return np.stack(columns, 1).reshape(-1, 3)
    distance = _column(points, first_of(names, RANGE), "x, y or range", where)
    azimuth = _column(points, first_of(names, AZIMUTH), "x, y or azimuth", where)
    name = first_of(names, ELEVATION)
    elevation = np.nan_to_num(_values(points, name, where)) if name else np.zeros(len(points))
    if degrees:
        azimuth, elevation = np.radians(azimuth), np.radians(elevation)
    across = distance * np.cos(elevation)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), distance * np.sin(elevation)], 1)


def _radial(points: np.ndarray, name: str, xyz: np.ndarray, where: str) -> np.ndarray:
    if "," not in name:
        return _column(points, name, "velocity", where)
    vx, vy = (_column(points, axis, "velocity", where) for axis in name.split(","))
    distance = np.maximum(np.hypot(xyz[:, 0], xyz[:, 1]), 1e-6)
    return (vx * xyz[:, 0] + vy * xyz[:, 1]) / distance


def _column(points: np.ndarray, name: str, what: str, where: str) -> np.ndarray:
    names = points.dtype.names or ()
    if name not in names:
        looked = f"the field {name!r}" if name else f"a field for {what} that is known"
        fix = f"name it in the topic map; the points have {', '.join(names) or 'no fields'}"
        raise Error(Code.source_bad_points, f"the points do not have {looked}", where, fix)
    return _values(points, name, where)


def _values(points: np.ndarray, name: str, where: str) -> np.ndarray:
    """(N,) float64 of a field."""
    values = points[name]
    if values.ndim != 1:
        what = f"the field {name!r} has {values.shape[1]} values a point"
        raise Error(Code.source_bad_points, what, where, "publish a field with one")
    return values.astype(np.float64)


def lidar_points(points: np.ndarray, T: np.ndarray, where: str) -> np.ndarray:
    """(N, 4) float32 of a LiDAR's points: x, y, z m in the target frame of T (4, 4), reflectance 0 to 255."""
    xyz = _positions(points, where) @ T[:3, :3].T + T[:3, 3]
    name = first_of(points.dtype.names or (), ("intensity", "reflectivity", "i"))
    intensity = _values(points, name, where) if name else np.zeros(len(points))
    cloud = np.column_stack([xyz, intensity]).astype(np.float32)
    return cloud[np.isfinite(cloud).all(1)]


def examples(points: np.ndarray, fields: Mapping[str, str], count: int = 3) -> list[dict[str, float]]:
    """The first points with a finite velocity, as name -> value."""
    names = points.dtype.names or ()
    wanted = (*fields.values(), "x", "y", "z", "range", "azimuth")
    chosen = [name for name in wanted if name in names and not points.dtype[name].shape]
    rows = [{name: float(row[name]) for name in dict.fromkeys(chosen)} for row in points[:100]]
    return [row for row in rows if all(np.isfinite(list(row.values())))][:count]
