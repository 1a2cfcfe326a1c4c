"""The state file of a calibration that was interrupted."""

from fuzz import scratch

from imkd_edge.calibration.collect import ObservedTensor, _open

TENSORS = [ObservedTensor("bev", "radar_grid", (1, 2, 8, 8))]


def run(data: bytes) -> None:
    collection = _open(scratch.file("state.npz", scratch.npz(data)), "key", TENSORS)
    assert collection.key == "key" and list(collection.histograms) == [TENSORS[0].key]
    histogram = collection.histograms[TENSORS[0].key]
    assert histogram.counts.shape[1] == histogram.channels == len(histogram.highest)
    assert all(isinstance(name, str) for name in collection.frames)
