"""A PCD file of radar points."""

from fuzz import scratch

from imkd_edge.sources.folder.points import read_points

COLUMNS = ("x", "y", "z", "intensity", "velocity")


def run(data: bytes) -> None:
    points = read_points(scratch.file("points.pcd", data), COLUMNS, {"intensity": "rcs"})
    assert points.ndim == 2 and points.shape[1] == len(COLUMNS) and points.dtype == "float32"
