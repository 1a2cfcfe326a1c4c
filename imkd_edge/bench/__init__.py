"""How long a frame takes, and how our ops stand against the usual code for the same task."""

from imkd_edge.bench.frames import bench, environment
from imkd_edge.bench.ops import bench_ops

__all__ = ["bench", "bench_ops", "environment"]
