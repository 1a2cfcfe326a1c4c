"""Newly built engines on this GPU: the bundle's golden drive through them, beside the exporter's results.

TensorRT computes in float16 and INT8: two boxes of nearly equal scores may change places, and one whose score is near
the threshold may come or go. So boxes are paired by what they say, and a few may lack a counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle.format import Bundle
from imkd_edge.checks.differences import Difference
from imkd_edge.checks.selftest import CPU_TOLERANCE, comparable, golden_results, stored_values, tensor_differences
from imkd_edge.engines.build import NO_GPU, engine_folder
from imkd_edge.errors import Error
from imkd_edge.result import Result

BOX, SCORE = 0.2, 0.03  # largest differences of two boxes that are a pair: of each value (m, rad, m/s), of the score
UNPAIRED = 0.05  # largest share of boxes without a counterpart; one may always lack it
HEATMAP = 0.01  # largest mean square difference of the heat map's logits, of their mean square
INPUTS = ("images", "radar_grid")  # of our ops, which differ no more than on the CPU


@dataclass
class Tally:
    """What was compared in all frames so far."""

    expected: int = 0  # boxes of the exporter
    paired: int = 0  # of them with a counterpart
    lost: int = 0  # of them without one, though above the threshold for sure
    new: int = 0  # boxes of the same kind without one among the exporter's
    box: float = 0.0  # largest differences of pairs
    score: float = 0.0
    heatmap: Difference = field(default_factory=lambda: Difference("bev", "heatmap", True))

    def add_boxes(self, golden: Mapping[str, np.ndarray], result: Result, threshold: float) -> None:
        """Pairs the boxes of a frame, the most similar first; one near the threshold needs no counterpart.

        Args:
            golden: boxes (M, 9) float32 in m, rad, m/s, scores (M,) float32, labels (M,) int32 of the exporter.
            threshold: of the scores.
        """
        scores = golden["scores"]
        ours, theirs = comparable(result.boxes, golden["boxes"][:, None])  # (expected, boxes, 9)
        apart = np.abs(ours - theirs).max(2, initial=0.0)
        others = np.abs(result.scores - scores[:, None])
        apart[(golden["labels"][:, None] != result.labels) | ~(others <= SCORE) | ~(apart <= BOX)] = np.inf
        found, kept = np.zeros(len(scores), bool), np.zeros(len(result.scores), bool)
        for i, j in zip(*np.unravel_index(np.argsort(apart, axis=None, kind="stable"), apart.shape), strict=True):
            if apart[i, j] < np.inf and not found[i] and not kept[j]:
                found[i] = kept[j] = True
                self.box, self.score = max(self.box, apart[i, j]), max(self.score, float(others[i, j]))
        self.expected += len(scores)
        self.paired += int(found.sum())
        self.lost += int((~found & (scores > threshold + SCORE)).sum())
        self.new += int((~kept & (result.scores > threshold + SCORE)).sum())

    def verdict(self) -> str:
        """What `check_engines` returns."""
        heatmap = self.heatmap.nmse
        pairs = f"{self.paired} of {self.expected} boxes are the exporter's, {self.new} are new"
        if not heatmap <= HEATMAP:
            return f"failed: the heat map's error is {heatmap:.2g} of its power, allowed {HEATMAP:g}; {pairs}"
        if max(self.lost, self.new) > max(1.0, UNPAIRED * self.expected):  # one that moved is lost and new
            limits = f"within {BOX:g} m, rad, m/s and {SCORE:g} of the score"
            return f"failed: {pairs}, {limits}; allowed are {UNPAIRED:.0%} without a counterpart".replace("%", " %")
        return (
            f"passed: {pairs}; boxes differ by {self.box:.2g} m at most, scores by {self.score:.2g}, "
            f"the heat map by {heatmap:.2g} of its power"
        )


def check_engines(build: Mapping[str, Any]) -> str:
    """Runs the bundle's golden drive through newly built engines on this GPU.

    Args:
        build: from `build_engines`.

    Returns:
        "passed: ...", "failed: ..." or "not run: ...", with the reason.
    """
    if reason := _why_not_run(build):
        return f"not run: {reason}"
    try:
        return compare(Bundle.load(build["bundle"]), engine="tensorrt", device="cuda")
    except Error as error:
        return f"failed: {error}"


def compare(bundle: Bundle, **options: Any) -> str:
    """The verdict on a golden drive; options: engine, threads and device of the Detector."""
    tally = Tally()
    for frame, result, detector in golden_results(bundle, **options):
        tensors = detector.tensors()
        differences = tensor_differences(frame, detector, tensors)
        for name in INPUTS:
            if not differences[name] <= CPU_TOLERANCE[name]:
                return f"failed: {name} differs by {differences[name]:.3g}, allowed {CPU_TOLERANCE[name]:g}"
        tally.add_boxes(frame.arrays, result, bundle.spec.head.score_threshold)
        values, stored = stored_values(frame, "heatmap", tensors["heatmap"])
        tally.heatmap.add(stored, values)
    return tally.verdict()


def _why_not_run(build: Mapping[str, Any]) -> str:
    """The reason why no Detector can run the engines here; empty where one can."""
    first, builder = build["engines"][0], build["builder"]
    if first["key"]["gpu"] == NO_GPU.name:
        return "no GPU"
    if builder != "tensorrt":
        return f"no Detector runs what {builder} builds"
    expected = engine_folder(Bundle.load(build["bundle"]))
    if Path(first["path"]).parent.absolute() != expected:
        return f"a Detector looks for engines in {expected.name} beside the bundle"
    try:
        _core.require_cuda()
    except Error as error:
        return error.what
    return "" if "tensorrt" in _core.native_engines() else "this build of the core has no TensorRT"
