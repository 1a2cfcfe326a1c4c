"""The table of the box channels: its order is the one that decode reads, its slices cover every channel once."""

import numpy as np
import pytest
from op_cases import small_spec

from imkd_edge.ops import decode
from imkd_edge.spec import BOX_CHANNELS, BOX_SLICES, SCORES, BoxChannel

FIELDS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")  # of a decoded box


def test_the_slices_cover_every_channel_once() -> None:
    channels = [channel for part in BOX_SLICES.values() for channel in range(BOX_CHANNELS)[part]]
    assert channels == list(range(BOX_CHANNELS)) == [int(channel) for channel in BoxChannel]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("offset", ["offset_x", "offset_y"]),
        ("above_ground", ["above_ground"]),
        ("log_size", ["log_length", "log_width", "log_height"]),
        ("heading", ["sin_yaw", "cos_yaw"]),
        ("velocity", ["velocity_x", "velocity_y"]),
    ],
)
def test_a_slice_has_the_channels_of_its_name(part: str, names: list[str]) -> None:
    assert [channel.name for channel in list(BoxChannel)[BOX_SLICES[part]]] == names


@pytest.mark.parametrize(
    ("channel", "value", "field", "expected"),
    [
        ("offset_x", 0.25, "x", -16 + 3.75),  # cells of 1 m, column 3
        ("offset_y", -0.5, "y", -12 + 5.0),  # row 5
        ("above_ground", 1.5, "z", 1.5),
        ("log_length", np.log(4), "length", 4),
        ("log_width", np.log(2), "width", 2),
        ("log_height", np.log(3), "height", 3),
        ("sin_yaw", 1, "yaw", np.pi / 4),  # the cosine is 1
        ("cos_yaw", -1, "yaw", -np.pi),  # the sine is 0
        ("velocity_x", 7, "vx", 7),
        ("velocity_y", -2, "vy", -2),
    ],
)
def test_decode_reads_each_channel_by_its_name(channel: str, value: float, field: str, expected: float) -> None:
    spec = small_spec()
    shape = spec.grid.height(), spec.grid.width()
    heatmap = np.full((3, *shape), -9, np.float32)
    heatmap[0, 5, 3] = 2
    box = np.zeros((spec.head.groups() * BOX_CHANNELS, *shape), np.float32)
    box[BoxChannel.cos_yaw] = 1
    box[BoxChannel[channel], 5, 3] = value
    (decoded,), _, _ = decode(spec, heatmap, box)
    assert decoded[FIELDS.index(field)] == pytest.approx(expected, abs=1e-6)


def test_the_scores_are_those_that_the_spec_takes() -> None:
    for score in SCORES:
        spec = small_spec()
        spec.head.score_threshold = score
        spec.check()
    assert SCORES == (1e-6, 1 - 1e-6)
