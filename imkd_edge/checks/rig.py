"""Whether the sensors of a rig see anything of a model's grid."""

from imkd_edge._core import CameraCoverage, camera_coverage
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


def examine(rig: SensorRig, spec: ModelSpec) -> list[CameraCoverage]:
    """What each camera sees, in the rig's order.

    Args:
        rig: the sensors.
        spec: the model, whose image size, depth range and grid count.

    Returns:
        For each camera `name`; `in_grid`, the share (0..1) of its feature pixels whose ray has a point in the grid;
        `across`, the share of those whose ray runs through 4 cells or more; `usable`, False where health will say
        "unusable"; `hint`, what in the calibration looks like a usual mistake: translations in millimetres, K
        normalised to 0..1, body axes instead of optical ones.

    Raises:
        Error: 104 for the spec, 21x for a rig that contradicts itself.
    """
    return camera_coverage(spec, rig)
