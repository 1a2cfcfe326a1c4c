"""The lift inside autograd: equal to the runtime's op, with the gradient of finite differences."""

import numpy as np
import pytest
import torch

from imkd_edge import ops
from imkd_edge.sources import open_source
from imkd_edge.training.config import load_config
from imkd_edge.training.data import collate
from imkd_edge.training.inputs import network_inputs
from imkd_edge.training.models.student import LiftSum, lift_sum


@pytest.fixture(scope="module")
def spec():
    return load_config("tiny").spec


@pytest.fixture(scope="module")
def samples():
    source = open_source("synth")
    return [source[n] for n in source.names[:2]]


def test_lift_sum_equals_the_runtimes_lift(spec, samples):
    rng = np.random.default_rng(0)
    shape = spec.image.feature_height(), spec.image.feature_width()
    depth = rng.random((2 * spec.cameras, spec.depth.bins, *shape), np.float32)
    context = rng.standard_normal((2 * spec.cameras, spec.context_channels, *shape), np.float32)
    items = [{k: torch.from_numpy(v) for k, v in network_inputs(spec, s, images=False).items()} for s in samples]
    both = lift_sum(torch.from_numpy(depth), torch.from_numpy(context), collate(items, spec)).numpy()
    cells = spec.grid.height() * spec.grid.width()
    for i, sample in enumerate(samples):
        table = ops.lift_table(spec, sample.rig)
        part = slice(i * spec.cameras, (i + 1) * spec.cameras)
        expected = ops.lift(spec, table, depth[part], context[part]).reshape(spec.context_channels + 1, -1)
        np.testing.assert_allclose(both[i * cells : (i + 1) * cells].T, expected, rtol=1e-4, atol=1e-4)


def test_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    rows = torch.tensor([0, 3, 3, 5])  # three cells, one of them empty
    points, pixels = torch.tensor([0, 2, 5, 1, 4]), torch.tensor([0, 1, 1, 0, 1])  # a pixel may occur twice in a cell
    depth = torch.rand(6, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d, f: LiftSum.apply(d, f, points, pixels, rows), (depth, features))
