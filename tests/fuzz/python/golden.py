"""The golden drive of a bundle."""

from pathlib import Path

from fuzz import scratch

from imkd_edge.bundle import Bundle
from imkd_edge.bundle.golden import read_golden

SPEC = Bundle.load("tiny").spec


def run(data: bytes) -> None:
    path: Path = scratch.file("golden.npz", scratch.npz(data))
    for frame in read_golden(Bundle(path.parent, SPEC, {"files": {path.name: {}}})):
        _, sweeps, *_ = frame.arguments()
        assert len(sweeps) == len(frame.arrays["sweep_count"])
