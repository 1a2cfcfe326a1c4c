"""A .npy or .csv file of points; the first byte chooses."""

from fuzz import scratch

from imkd_edge.sources.folder.points import read_points

COLUMNS = ("x", "y", "z", "intensity")


def run(data: bytes) -> None:
    name = "points.npy" if data[:1] == b"n" else "points.csv"
    points = read_points(scratch.file(name, data[1:]), COLUMNS, {})
    assert points.ndim == 2 and points.shape[1] == len(COLUMNS) and points.dtype == "float32"
