"""The golden drive of a bundle."""

from pathlib import Path

from fuzz import scratch

from imkd_edge.bundle import Bundle
from imkd_edge.bundle.golden import read_golden

SPEC = Bundle.load("tiny").spec


class Unchecked(Bundle):
    """A bundle without the checksum, which would refuse every change of the drive."""

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def run(data: bytes) -> None:
    path: Path = scratch.file("golden.npz", scratch.npz(data))
    for frame in read_golden(Unchecked(path.parent, SPEC, {"files": {path.name: {}}})):
        _, sweeps, *_ = frame.arguments()
        assert len(sweeps) == len(frame.arrays["sweep_count"])
