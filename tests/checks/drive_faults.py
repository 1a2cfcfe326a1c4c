"""Faults of drives: what is changed in a good drive folder, and what `check` has to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from checks.faulty_drives import (
    FRAMES,
    SCENES,
    Change,
    frozen,
    in_first,
    in_lines,
    in_millimetres,
    in_objects,
    in_points,
    in_rig,
    inverted,
    kind,
    lines_of,
    without_motion,
)


@dataclass(frozen=True)
class Fault:
    """What is done to a drive, and what must be found."""

    name: str
    change: Change
    code: str
    topic: str
    what: str  # part of the text
    fix: str  # part of the cure
    drive: str = "compensated"  # kind of the radars' velocities
    others: tuple[str, ...] = ()  # topics that the fault also touches


def update(**values):
    return lambda item: item.update(values)


def shift(x: float, y: float):
    def edit(item) -> None:
        item["center"][0] += x
        item["center"][1] += y

    return edit


def scale(column: int, factor: float, offset: float = 0.0):
    def edit(points: np.ndarray) -> None:
        points[:, column] = points[:, column] * factor + offset

    return edit


def turn(item) -> None:
    item["yaw"] = float((item["yaw"] + 1.5 * np.pi) % (2 * np.pi) - np.pi)


def lower(item) -> None:
    item["center"][2] -= item["size"][2] / 2


def mirror(item) -> None:
    item["center"][1] *= -1
    item["yaw"] *= -1
    if "velocity" in item:
        item["velocity"][1] *= -1


def to_world(entry) -> None:
    T = np.array(entry["ego"]["T_world_ego"])
    T[:3, 3] += [40.0, -30.0, 0.0]  # the drive does not begin at the origin
    entry["ego"]["T_world_ego"] = T.tolist()
    for sweeps in entry["radars"].values():
        for sweep in sweeps:
            if "T_world_ego" in sweep:
                sweep["T_world_ego"][0][3] += 40.0
                sweep["T_world_ego"][1][3] -= 30.0
    for item in entry["objects"]:
        item["center"] = (T @ [*item["center"], 1.0])[:3].tolist()


def swap_centre(data) -> None:
    K = data["cameras"][0]["K"]
    K[0][2], K[1][2] = K[1][2], K[0][2]


def stretch(item) -> None:
    item["size"][0] = 40.0


def relative(entry) -> None:
    vx = entry["ego"]["twist"][0]
    for item in entry["objects"]:
        if "velocity" in item:
            item["velocity"][0] -= vx


def late(entry) -> None:
    entry["cameras"]["CAM_BACK"]["timestamp_ns"] -= 300_000_000


def twist(index: int, factor: float):
    def edit(entry) -> None:
        entry["ego"]["twist"][index] *= factor

    return edit


def both(first: Change, second: Change) -> Change:
    def change(folder: Path) -> None:
        first(folder)
        second(folder)

    return change


def third(key: str) -> Change:
    """Takes a key out of every third line."""

    def change(folder: Path) -> None:
        left = iter(range(SCENES * FRAMES))
        in_lines(lambda entry: next(left) % 3 == 2 and entry.pop(key) and None)(folder)

    return change


def black(folder: Path) -> None:
    import cv2

    for path in sorted((folder / "images" / "CAM_FRONT").glob("*.png"))[:2]:
        cv2.imwrite(str(path), np.full((54, 96, 3), 7, np.uint8))


def gap(folder: Path) -> None:
    entries = lines_of(folder)
    scene = entries[-1]["scene"]

    def delay(entry) -> None:
        if entry["scene"] == scene and entry["frame"] > f"{scene}-f002":
            entry["timestamp_ns"] += 5_000_000_000
            sweeps = (sweep for radar in entry["radars"].values() for sweep in radar)
            for reading in (*entry["cameras"].values(), *sweeps, entry["lidar"]):
                if "timestamp_ns" in reading:
                    reading["timestamp_ns"] += 5_000_000_000

    in_lines(delay)(folder)


FAULTS = [
    Fault("raw_called_compensated", kind("compensated"), "E0306", "velocity kind", "1.00 times", "raw", "raw"),
    Fault("compensated_called_raw", kind("raw"), "E0306", "velocity kind", "0.00 times", '"compensated"'),
    Fault("sign_reversed", in_points(scale(4, -1)), "E0306", "velocity kind", "-1.00 times", "sign", "raw"),
    Fault("velocities_in_km_per_h", in_points(scale(4, 3.6)), "E0306", "velocity kind", "3.60 times", "km/h", "raw"),
    Fault(
        "raw_called_compensated_without_motion",
        both(kind("compensated"), in_lines(without_motion)),
        "E0306",
        "velocity kind",
        "stand at an ego speed of",
        "raw",
        "raw",
        ("ego motion",),
    ),
    Fault("velocities_10_percent_large", in_points(scale(4, 1.1)), "W0306", "velocity scale", "1.1", "scale", "raw"),
    Fault("no_velocity", in_points(scale(4, 0)), "W0304", "velocity", "every velocity is 0", "radial"),
    Fault("cameras_in_millimetres", in_rig(in_millimetres), "E0306", "rig", "millimetres", "metres"),
    Fault(
        "radar_in_millimetres",
        in_rig(
            lambda data: [row.__setitem__(3, row[3] * 1000) for row in data["radars"][0]["T_ego_radar"][:3]] and None
        ),
        "E0306",
        "rig",
        "millimetres",
        "metres",
        others=("returns in boxes", "velocity kind", "velocity scale", "ground plane"),
    ),
    Fault("intensity_60_dB_high", in_points(scale(3, 1, 60)), "E0304", "intensity", "rcs_dbsm", "offset"),
    Fault(
        "intensity_60_dB_low_in_a_scene",
        in_points(scale(3, 1, -40), files=slice(0, 10)),
        "W0304",
        "intensity",
        "elsewhere",
        "one unit",
    ),
    Fault(
        "ground_a_metre_high",
        in_rig(update(ground_plane=[0, 0, 1.0])),
        "E0306",
        "ground plane",
        "m and 0.0 degrees off the lidar",
        '"ground_plane": [',
        others=("heights", "rig"),
    ),
    Fault(
        "ground_tilted",
        in_rig(update(ground_plane=[0.08, 0, 0])),
        "E0306",
        "ground plane",
        "degrees off the lidar",
        '"ground_plane": [',
        others=("heights", "rig"),
    ),
    Fault("camera_0.3_s_late", in_lines(late), "E0314", "time offset", "0.300 s before", "clock"),
    Fault("gap_in_a_scene", gap, "W0314", "time gaps", "1 gaps", "scene"),
    Fault(
        "boxes_elsewhere",
        in_objects(shift(9, 7)),
        "E0305",
        "returns in boxes",
        "radar returns",
        "frame",
    ),
    Fault(
        "labels_left_for_right",
        in_objects(mirror),
        "E0305",
        "returns in boxes",
        "another way",
        "left",
        others=("headings",),
    ),
    Fault(
        "centres_in_the_world",
        in_lines(to_world),
        "E0305",
        "returns in boxes",
        "another way",
        "world frame",
        others=("positions",),
    ),
    Fault(
        "width_for_length",
        in_objects(lambda item: item.update(size=[item["size"][i] for i in (1, 0, 2)])),
        "W0305",
        "sizes",
        "wider than long",
        "this order",
    ),
    Fault("centre_of_K_swapped", in_rig(swap_centre), "W0306", "rig", "cx and cy swapped", "cx"),
    Fault("person_of_40_m", in_first("pedestrian", stretch), "E0305", "sizes", "such as 40 m", "size"),
    Fault(
        "sizes_in_millimetres",
        in_first("car", lambda item: item.update(size=[v * 1000 for v in item["size"]])),
        "E0305",
        "sizes",
        "above 60 m",
        "metres",
        others=("heights",),
    ),
    Fault("yaw_a_quarter_off", in_objects(turn), "E0305", "headings", "90 degrees off", "yaw"),
    Fault(
        "centres_half_a_height_low",
        in_objects(lower),
        "W0305",
        "heights",
        "below the ground",
        "middle of the box",
        others=("returns in boxes",),
    ),
    Fault(
        "velocities_relative", in_lines(relative), "E0305", "speeds", "what stands", "over ground", others=("headings",)
    ),
    Fault(
        "object_at_120_m_per_s",
        in_first("car", update(velocity=[120.0, 0.0])),
        "E0305",
        "speeds",
        "faster than 70",
        "m/s",
    ),
    Fault("poses_inverted", in_lines(inverted), "E0311", "ego motion", "", "not its inverse"),
    Fault("twist_in_km_per_h", in_lines(twist(0, 3.6)), "E0311", "ego motion", "3.6", "km/h"),
    Fault("camera_frozen", frozen, "W0313", "frozen images", "5 of 15", "frozen"),
    Fault("camera_dark", black, "W0303", "dark images", "2 of 15", "uncover"),
    Fault(
        "camera_without_frames",
        in_lines(lambda entry: entry["cameras"].pop("CAM_BACK") and None),
        "W0306",
        "sensors",
        "in no frame",
        "rig",
    ),
    Fault("a_third_without_pose", third("ego"), "W0310", "absent", "5 of 15 frames are without pose", "every frame"),
    Fault(
        "a_camera_in_two_thirds",
        in_lines(lambda entry: entry["frame"].endswith("2") and entry["cameras"].pop("CAM_BACK") and None),
        "W0310",
        "absent",
        "3 of 15 frames are without CAM_BACK",
        "missing files",
    ),
    Fault(
        "lidar_of_0_to_1",
        in_points(scale(3, 1 / 255), "lidar"),
        "W0304",
        "reflectance",
        "largest LiDAR intensity",
        "255",
    ),
    Fault(
        "no_labels",
        in_lines(lambda entry: entry.pop("objects") and None),
        "W0305",
        "labels",
        "no frame has labels",
        "objects",
        others=("classes",),
    ),
]
