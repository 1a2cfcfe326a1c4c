"""The rig: what its cameras see, where its sensors are mounted, and how far its ground plane is from the returns'."""

from __future__ import annotations

from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.checks.data.report import Findings, error, rounded, warning
from imkd_edge.checks.ground import RANGES, GroundProposal, compare_planes, propose_plane
from imkd_edge.checks.rig import examine
from imkd_edge.errors import Code
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.plane import Plane
from imkd_edge.spec import ModelSpec

MAX_DISTANCE = 15.0  # m of a sensor from the ego origin
CAMERA_HEIGHTS, RADAR_HEIGHTS = (0.2, 5.0), (0.1, 4.0)  # m above the ground
NOTABLE, LARGE = (0.2, 1.0), (0.5, 3.0)  # m and degrees from the proposed ground plane
ERRORS = 3.0  # standard errors of the proposal that a difference must exceed
OFF_CENTRE, NEAR_CENTRE = 0.15, 0.05  # of the image's sides, a principal point from the middle
FLAT = (0.0, 0.0, 0.0)


def view_spec(cameras: int) -> ModelSpec:
    """A usual model (that of `ModelSpec`'s defaults), to ask what cameras see of its grid."""
    spec = ModelSpec()
    spec.cameras = max(cameras, 1)
    spec.radar.features = [_core.RadarFeature(statistic="log_count")]
    spec.head.classes = [_core.ClassSpec(name="object")]
    return spec


def ground(rig: SensorRig) -> Plane:
    """The rig's ground plane; z = 0 where it names none."""
    return FLAT if rig.ground_plane is None else rig.ground_plane


def statistics(rig: SensorRig) -> dict[str, dict[str, Any]]:
    """For each camera its view, height and share of the rays that cross the grid; for each radar its height."""
    plane, result = ground(rig), dict[str, dict[str, Any]]()
    for camera, coverage in zip(rig.cameras, _coverage(rig)):
        result[camera.name] = {
            "view_degrees": round(_core.horizontal_view(camera), 1),
            "height": round(_core.mounting_height(camera.T_ego_camera, plane), 3),
            "across": round(coverage.across, 3),
            "image": [camera.width, camera.height],
            "lens": camera.distortion,
        }
    for radar in rig.radars:
        result[radar.name] = {
            "height": round(_core.mounting_height(radar.T_ego_radar, plane), 3),
            "velocity": radar.velocity,
        }
    return result


def _coverage(rig: SensorRig) -> list[_core.CameraCoverage]:
    return examine(rig, view_spec(len(rig.cameras))) if len(rig.cameras) else []


def judge(rig: SensorRig, where: str) -> Findings:
    """What is wrong with the mounting of a rig; where: its file, or what else names it."""
    code, topic, hinted = Code.source_bad_calibration, "rig", set[str]()
    for coverage in _coverage(rig):
        if coverage.hint:
            hinted.add(coverage.name)
        if coverage.hint or not coverage.usable:
            what = f"{100 * coverage.across:.0f} % of its rays cross a usual grid"
            what += f": {coverage.hint}" if coverage.hint else ""
            fix = (
                "T_ego_camera (not its inverse) in metres from optical axes (x right, y down, z ahead) to the ego frame"
            )
            fix += "; K in pixels"
            grade = warning if coverage.usable else error
            yield grade(code, topic, f"camera {coverage.name}: {what}", where, fix)
    for camera in rig.cameras:
        if _centre_swapped(camera):
            cx, cy = (float(value) for value in np.asarray(camera.K)[:2, 2])
            what = f"the principal point ({cx:g}, {cy:g}) px of camera {camera.name} is that of a {camera.width} x "
            what += f"{camera.height} image with cx and cy swapped"
            yield warning(code, topic, what, where, "write K as [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    plane = ground(rig)
    for kind, sensors, usual in (("camera", rig.cameras, CAMERA_HEIGHTS), ("radar", rig.radars, RADAR_HEIGHTS)):
        for sensor in sensors:
            if kind == "camera" and sensor.name in hinted:
                continue
            T = sensor.T_ego_camera if kind == "camera" else sensor.T_ego_radar  # type: ignore[union-attr]
            yield from _judge_mounting(f"{kind} {sensor.name}", np.asarray(T), plane, usual, where)


def _centre_swapped(camera: CameraCalibration) -> bool:
    """Whether the principal point is off the image's middle, and near it with its coordinates swapped."""
    cx, cy = (float(value) for value in np.asarray(camera.K)[:2, 2])
    off = max(abs(cx / camera.width - 0.5), abs(cy / camera.height - 0.5))
    swapped = max(abs(cy / camera.width - 0.5), abs(cx / camera.height - 0.5))
    return off > OFF_CENTRE and swapped < NEAR_CENTRE


def _judge_mounting(sensor: str, T: np.ndarray, plane: Plane, usual: tuple[float, float], where: str) -> Findings:
    code, topic = Code.source_bad_calibration, "rig"
    distance, height = float(np.linalg.norm(T[:3, 3])), _core.mounting_height(T, plane)
    if distance > MAX_DISTANCE:
        what = f"{sensor} is {distance:.4g} m from the ego origin: is its translation in millimetres?"
        yield error(code, topic, what, where, "write translations in metres")
    elif not usual[0] <= height <= usual[1]:
        what = f"{sensor} is {height:.2f} m above the ground plane; usual are {usual[0]:g} to {usual[1]:g} m"
        grade = error if height < 0 else warning
        yield grade(code, topic, what, where, "correct its mounting, or the ground_plane of the rig")


class GroundReturns:
    """Returns near the vehicle, from which a ground plane is proposed."""

    FRAMES = 60  # of the drive: more cost memory and add little
    POINTS = 60_000  # of a frame

    def __init__(self) -> None:
        self.clouds: dict[str, list[np.ndarray]] = {"lidar": [], "radar": []}
        self.planes: list[Plane] = []

    def add(self, rig: SensorRig, lidar: np.ndarray | None, radar: np.ndarray) -> None:
        """The clouds (N, 3+) of a frame, m in its ego frame; radar: only where its sensors measure elevation."""
        self.planes.append(ground(rig))
        for sensor, cloud in (("lidar", lidar), ("radar", radar)):
            if cloud is not None and len(cloud):
                near = cloud[np.hypot(cloud[:, 0], cloud[:, 1]) < RANGES[sensor][1], :3]
                self.clouds[sensor].append(near[:: max(1, len(near) // self.POINTS)].astype(np.float32))

    def proposals(self) -> list[GroundProposal]:
        """By LiDAR and by radar, where they support one."""
        results = [propose_plane(clouds, sensor) for sensor, clouds in self.clouds.items() if clouds]
        return [result for result in results if result is not None]

    def named(self) -> Plane:
        """The rigs' plane, in the median of the frames."""
        a, b, c = np.median(np.array(self.planes or [FLAT]), 0).tolist()
        return a, b, c


def ground_report(returns: GroundReturns, proposals: list[GroundProposal]) -> dict[str, Any]:
    """The rigs' plane, and how far it is from each proposal."""
    named = returns.named()
    result: dict[str, Any] = {"named": list(named)}
    for proposal in proposals:
        difference = compare_planes(named, proposal.plane)
        result[proposal.sensor] = {
            "plane": [round(value, 4) for value in proposal.plane],
            "height_error": rounded(proposal.height_error, 3),
            "tilt_error": rounded(proposal.tilt_error, 2),
            "height_off": round(difference.height, 3),
            "tilt_off": round(difference.tilt, 2),
        }
    return result


def judge_ground(report: dict[str, Any]) -> Findings:
    """Whether the rigs' ground plane is where the returns see it."""
    for sensor in ("lidar", "radar"):
        if sensor not in report:
            continue
        entry = report[sensor]
        height, tilt = abs(entry["height_off"]), entry["tilt_off"]
        certain = entry["height_error"] is not None  # else the frames are too few for an uncertainty
        height_bound, tilt_bound = (
            ERRORS * entry[key] if certain else bound for key, bound in zip(("height_error", "tilt_error"), LARGE)
        )
        if not ((height > NOTABLE[0] and height > height_bound) or (tilt > NOTABLE[1] and tilt > tilt_bound)):
            continue
        large = (height > LARGE[0] and height > height_bound) or (tilt > LARGE[1] and tilt > tilt_bound)
        what = f"the ground plane is {height:.2f} m and {tilt:.1f} degrees off the {sensor} returns' ground"
        plane = ", ".join(f"{value:g}" for value in entry["plane"])
        fix = f'write "ground_plane": [{plane}] in the rig'
        if sensor == "radar":
            fix = "look at the radars' mounting and the ego frame's origin; measure the height above the road"
        grade = error if large and certain else warning
        yield grade(Code.source_bad_calibration, "ground plane", what, "rig", fix)
        return
