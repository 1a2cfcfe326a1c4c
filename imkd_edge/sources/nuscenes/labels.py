"""Names of nuScenes: categories, classes of the detection task, attributes, levels of visibility."""

from __future__ import annotations

import numpy as np

CATEGORIES = {  # class -> the category that is written for it
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction",
    "pedestrian": "human.pedestrian.adult",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}
# Official mapping of the 23 categories to the 10 classes of the detection task; the others have no class.
DETECTION_CLASSES = {
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
}
# MAN TruckScenes' own mapping (truckscenes-devkit, eval/detection/utils.py) where it differs.
TRUCKSCENES_CLASSES = {
    **DETECTION_CLASSES,
    "animal": "animal",
    "static_object.traffic_sign": "traffic_sign",
    "vehicle.construction": "other_vehicle",
    "vehicle.ego_trailer": "trailer",
    "vehicle.other": "other_vehicle",
    "vehicle.train": "other_vehicle",
}
RACK = "static_object.bicycle_rack"
_UNCLASSED = {  # nuScenes' categories without a class
    *("animal", "human.pedestrian.personal_mobility", "human.pedestrian.stroller", "human.pedestrian.wheelchair"),
    *("movable_object.debris", "movable_object.pushable_pullable", "vehicle.emergency.ambulance"),
    *("vehicle.emergency.police", RACK),
}
ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")  # visible share in percent, tokens "1" to "4"
MOVING = 0.2  # m/s, slower is standing


def class_of(category: str, truckscenes: bool = False) -> str | None:
    """The class of a category; None where it has none. A category that nuScenes does not have is a class of its own."""
    classes = TRUCKSCENES_CLASSES if truckscenes else DETECTION_CLASSES
    return classes.get(category) or (None if category in _UNCLASSED else category)


def occlusion_of(level: str) -> int:
    """Truth.occlusion of a level of visibility: 0 visible to 3 hidden; -1 for an unknown level."""
    return len(VISIBILITY) - 1 - VISIBILITY.index(level) if level in VISIBILITY else -1


def visibility_token(occlusion: int) -> str:
    """Token of the level of visibility of Truth.occlusion; "" where it is unknown."""
    return str(len(VISIBILITY) - occlusion) if occlusion >= 0 else ""


def attribute_of(label: str, speed: float) -> str:
    """The nuScenes attribute of a class at a speed in m/s; "" where it has none or the speed is unknown.

    A speed does not distinguish parked from stopped, nor with from without a rider: the result is parked, with a rider.
    """
    if label in ("traffic_cone", "barrier") or label not in CATEGORIES or not np.isfinite(speed):
        return ""
    if label in ("bicycle", "motorcycle"):
        return "cycle.with_rider"
    if label == "pedestrian":
        return "pedestrian.moving" if speed > MOVING else "pedestrian.standing"
    return "vehicle.moving" if speed > MOVING else "vehicle.parked"
