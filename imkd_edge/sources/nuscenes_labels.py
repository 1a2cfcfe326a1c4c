"""Names of nuScenes classes and attributes, as written and as evaluated."""

from __future__ import annotations

import numpy as np

CATEGORIES = {
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
# Official mapping of the 23 categories to the 10 classes of the detection task; the others are left out.
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
RACK = "static_object.bicycle_rack"
ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
MOVING = 0.2  # m/s, slower is standing


def attribute_of(label: str, speed: float) -> str:
    """The nuScenes attribute that a class has at a speed in m/s, "" where it has none or the speed is unknown.

    Nobody can see from a speed whether a vehicle is parked or stopped, or a cycle ridden: parked and ridden are written.
    """
    if label in ("traffic_cone", "barrier") or label not in CATEGORIES or not np.isfinite(speed):
        return ""
    if label in ("bicycle", "motorcycle"):
        return "cycle.with_rider"
    if label == "pedestrian":
        return "pedestrian.moving" if speed > MOVING else "pedestrian.standing"
    return "vehicle.moving" if speed > MOVING else "vehicle.parked"
