"""Order of the frames of an epoch: each once, or drawn by shares of the classes, or of the labelled frames."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy

import numpy as np

from imkd_edge.sources.base import Source


def class_shares(labels: Sequence[Collection[str]]) -> np.ndarray:
    """Expected share of each frame in a class-balanced epoch, after CBGS (Zhu et al. 2019, arXiv 1908.09492).

    Every class has an equal part of the epoch, spread evenly over the frames that show it; the frames that show none
    have such a part together, too.

    Args:
        labels: of each frame, the classes of its objects.

    Returns:
        (N,) float64, sum 1.
    """
    groups = [set(found) or {""} for found in labels]
    counts: dict[str, int] = {}
    for group in groups:
        for name in group:
            counts[name] = counts.get(name, 0) + 1
    return np.array([sum(1 / counts[name] for name in group) for group in groups]) / len(counts)


def with_labelled_share(shares: np.ndarray, labelled: np.ndarray, share: float) -> np.ndarray:
    """The shares scaled so that the labelled frames have `share` of the epoch together, and the others the rest.

    Args:
        shares: (N,), sum 1.
        labelled: (N,) bool, of both kinds.
    """
    return shares * np.where(labelled, share / shares[labelled].sum(), (1 - share) / shares[~labelled].sum())


def epoch_order(count: int, rng: np.random.Generator, shares: np.ndarray | None = None) -> list[int]:
    """Indices of the frames of an epoch, as many as there are frames, in random order.

    Args:
        count: number of frames.
        rng: of this epoch.
        shares: of each frame, sum 1: a frame appears floor(share * count) times or once more. None: each once.
    """
    if shares is None:
        return rng.permutation(count).tolist()
    shuffled = rng.permutation(count)
    edges = np.concatenate([[0.0], np.cumsum(shares[shuffled])])
    ticks = (np.arange(count) + rng.random()) / count * edges[-1]
    drawn = shuffled[np.searchsorted(edges, ticks, side="right") - 1]
    return rng.permutation(drawn).tolist()


def without_sensors(source: Source) -> Source:
    """A copy of a source whose samples leave out what is slow to read, as far as its reader allows."""
    result = copy(source)
    for name in ("images", "lidar"):
        if hasattr(result, name):
            setattr(result, name, False)
    return result
