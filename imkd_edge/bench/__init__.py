"""Benchmarks: the time of whole frames, and our ops against the usual code for the same task."""

from imkd_edge.bench.frames import bench
from imkd_edge.bench.machine import environment
from imkd_edge.bench.ops import bench_ops
from imkd_edge.bench.page import write_page

__all__ = ["bench", "bench_ops", "environment", "write_page"]
