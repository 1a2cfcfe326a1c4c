"""The rig of a recording: camera_info and TF."""

from __future__ import annotations

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.recording.messages import CalibrationMessage
from imkd_edge.sources.recording.poses import FrameTree

# distortion model of ROS, Foxglove and Kalibr -> the rig's and its number of coefficients
MODELS = {
    "plumb_bob": ("plumb_bob", 5),
    "radtan": ("plumb_bob", 5),
    "rational_polynomial": ("rational_polynomial", 8),
    "equidistant": ("fisheye", 4),
    "kannala_brandt": ("fisheye", 4),
    "fisheye": ("fisheye", 4),
    "pinhole": ("none", 0),
    "none": ("none", 0),
    "": ("none", 0),
}
# REP 103: a body frame has x forward, y left, z up; an optical one z forward, x right, y down
T_BODY_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_UPRIGHT = 0.5  # cosine to the ego's vertical from which an axis counts as up or down


def camera_of(name: str, info: CalibrationMessage, T_ego_camera: np.ndarray, rectified: bool) -> CameraCalibration:
    """A camera of the rig.

    Args:
        name: in the rig.
        info: its calibration.
        T_ego_camera: (4, 4) mounting of its optical frame.
        rectified: the images are (image_rect): P holds, no distortion, and the rectification turns the axes.
    Raises:
        Error source_bad_calibration: not calibrated, or a lens that the rig does not know.
    """
    K = info.P[:, :3] if rectified else info.K
    if not K[0, 0] > 0 or not K[1, 1] > 0:
        fix = "calibrate the camera (ros2 run camera_calibration), or give a rig: --option rig=rig.json"
        what = f"the camera {name!r} is not calibrated: {'P' if rectified else 'K'}[0] is {K[0, 0]:g}"
        raise Error(Code.source_bad_calibration, what, "camera_info", fix)
    model, coefficients = ("none", ()) if rectified else lens(name, info.model, info.D)
    (left, top), (bx, by) = info.offset, info.binning
    width, height = (info.roi[0] or info.width) // bx, (info.roi[1] or info.height) // by
    K = np.diag([1 / bx, 1 / by, 1]) @ (K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]]))
    K[2] = (0, 0, 1)
    if rectified:
        R = np.eye(4)
        R[:3, :3] = info.R
        T_ego_camera = T_ego_camera @ R.T
    return CameraCalibration(
        name=name,
        width=width,
        height=height,
        K=K,
        T_ego_camera=T_ego_camera,
        distortion=model,
        coefficients=coefficients,
    )


def lens(name: str, model: str, D: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    """The rig's distortion of a message's model and its coefficients, cut or padded with zeros to their number.

    Raises: Error source_bad_calibration for an unknown model, or coefficients beyond those of the model.
    """
    known = MODELS.get(model.lower())
    if known is None:
        what = f"the camera {name!r} has the distortion model {model!r}"
        raise Error(Code.source_bad_calibration, what, "camera_info", f"use one of {', '.join(filter(None, MODELS))}")
    if not any(D):
        return ("fisheye", (0.0,) * 4) if known[0] == "fisheye" else ("none", ())
    kind, count = known
    if any(D[count:]):
        what = f"the camera {name!r} has {len(D)} coefficients, of which the distortion model {model!r} knows {count}"
        fix = (
            "recalibrate it without the thin prism"
            if count
            else f"name their model, one of {', '.join(filter(None, MODELS))}"
        ) + ", or give a rig: --option rig=rig.json"
        raise Error(Code.source_bad_calibration, what, "camera_info", fix)
    return kind, (*D[:count], *[0.0] * (count - len(D)))


def mounting(
    tree: FrameTree, ego: str, frame: str, where: str, optical: bool | None = None
) -> tuple[np.ndarray, list[str], str]:
    """T_ego_camera of a camera whose images say `frame`, the edges of TF that move, and the optical frame's name.

    Drivers name the optical frame or the body's. TF decides: a frame whose y axis points down is optical; one whose z
    axis points up is a body, whose optical frame is its child in TF, or its axes turned after REP 103.

    Args:
        tree: the transforms.
        ego: the vehicle's frame.
        frame: of the images.
        where: what an error calls the camera.
        optical: whether `frame` is one, against that rule; None: by the rule.
    Raises:
        Error source_bad_calibration where no transforms lead there.
    """
    T, moving = tree.fixed(ego, frame, where)
    if optical is None:
        down, up = -T[2, 1], T[2, 2]
        optical = down > _UPRIGHT or not up > _UPRIGHT or "optical" in frame
    if optical:
        return T, moving, frame
    children = [child for child, edge in tree.edges.items() if edge.parent == frame and "optical" in child]
    if children:
        T, moving = tree.fixed(ego, children[0], where)
        return T, moving, children[0]
    return T @ T_BODY_OPTICAL, moving, f"{frame} with its axes turned"
