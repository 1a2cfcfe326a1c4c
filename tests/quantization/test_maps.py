"""Maps of the error over the ground: which way they lie, and which frames they are of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from imkd_edge.bundle import Bundle
from imkd_edge.evaluation.fidelity import Outputs
from imkd_edge.quantization.maps import ground_maps, picture


def test_an_error_ahead_and_to_the_left_is_drawn_at_the_upper_left() -> None:
    values = np.zeros((20, 10))  # y along rows, x along columns
    values[17, 8] = 1  # y of the left quarter, x of the farthest fifth
    brightness = picture(values).sum(2)
    rows, columns = np.nonzero(brightness == brightness.max())
    assert rows.max() < 0.2 * len(brightness) and columns.max() < 0.25 * brightness.shape[1]


def test_the_mean_and_the_worst_frame_are_shown() -> None:
    spec = Bundle.load("tiny").spec
    height, width = spec.grid.height(), spec.grid.width()
    grid = np.zeros((1, len(spec.radar.features), spec.radar_height(), spec.radar_width()), np.float32)
    none = ([], [], [])

    def outputs(shift: float) -> Outputs:
        heatmap = np.zeros((len(spec.head.classes), height, width))
        heatmap[0, 5, 7] += shift
        return Outputs(heatmap, np.zeros((10, height, width)), none)

    frames = [(name, outputs(0), outputs(shift), grid) for name, shift in (("a", 1.0), ("b", 3.0), ("c", 0.0))]
    mean, worst = ground_maps(spec, SimpleNamespace(compared=lambda parts: frames), {})
    # KL of Bernoulli(1/2) from Bernoulli(sigma(s)) is ln cosh(s / 2).
    assert worst.title.startswith("b") and worst.error[5, 7] == pytest.approx(np.log(np.cosh(1.5)))
    assert mean.error[5, 7] == pytest.approx((np.log(np.cosh(0.5)) + np.log(np.cosh(1.5))) / 3)
    assert np.count_nonzero(mean.error > 1e-12) == 1
