"""How many threads PyTorch uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imkd_edge.engines.onnxruntime import cores


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and afterwards with as many as before; 0 is one per core."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
