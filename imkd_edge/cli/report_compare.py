"""What `imkd-edge compare` prints."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from imkd_edge.cli.common import out
from imkd_edge.cli.report import make_table


def show_comparison(result: dict[str, Any]) -> None:
    """For each engine the outputs, the first tensor that differs, the boxes and the verdict."""
    for engine, comparison in result["engines"].items():
        on = f"{engine} against {result['reference']}" if engine != result["reference"] else engine
        _show_one_comparison(comparison, f"difference over {result['frames']} frames, {on}", result["tolerance"])


def _show_one_comparison(comparison: dict[str, Any], title: str, tolerance: float) -> None:
    first, boxes = comparison["first_divergence"], comparison["boxes"]
    table = make_table(escape(title), "tensor", ">max", ">mean", ">NMSE")
    for row in comparison["tensors"]:
        if row["output"]:
            table.add_row(
                escape(f"{row['part']}/{row['tensor']}"), *(f"{row[key]:.3g}" for key in ("max", "mean", "nmse"))
            )
    out().print(table)
    where = f"{first['part']}/{first['tensor']}, NMSE {first['nmse']:.3g}" if first else "none"
    out().print(escape(f"first tensor above {tolerance:g}: {where}"))
    apart = f", at most {boxes['max_m']:.2f} m and {boxes['max_score']:.3f} in score apart" if boxes["matched"] else ""
    out().print(f"boxes: {boxes['a']} and {boxes['b']}, {boxes['matched']} matched{apart}")
    verdict = "[green]within tolerance[/]" if comparison["within"] else "[bold red]above tolerance[/]"
    out().print(f"{verdict}: the worst output has NMSE {comparison['worst_output_nmse']:.3g}")
