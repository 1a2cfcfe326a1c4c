"""The demo: one frame from sensors to a picture on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imkd_edge.detector import Detector
from imkd_edge.sources.select import select
from imkd_edge.view.save import write_frame

WARM_UP = 3  # runs before the one that is shown: the first ones allocate


def run_demo(
    bundle: str,
    source: str,
    frame: str | None,
    out: Path,
    threads: int = 0,
    theme: str = "dark",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Detects objects in one frame and writes `out`/overview.png and result.json, both or neither.

    Args:
        bundle: folder or shipped name.
        source: anything that open_source understands.
        frame: name or number; None is the first of the source's split "val", or the first of all.
        out: folder to write; an older result in it is replaced.
        threads: of the ops and the engine, 0 is one per core.
        theme: colours of the picture, "dark" or "light".
        options: of the source's reader.

    Returns:
        The frame's result as written to result.json.

    Raises:
        Error: of the source, the bundle, or write_failed.
    """
    samples = select(source, names=[] if frame is None else [frame], options=options)
    validation = getattr(samples.source, "splits", {}).get("val") if frame is None else None
    sample = samples.source[(validation or samples.names)[0]]
    with Detector(bundle, sample.rig, threads=threads) as detector:
        for _ in range(WARM_UP):
            detector.infer_sample(sample)
        result = detector.infer_sample(sample)
        record = result.to_dict()
        write_frame(out, sample, result, detector.spec, bundle, record, theme)
    return record
