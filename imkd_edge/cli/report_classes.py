"""The metrics of `evaluation.classes` as tables that fit 100 columns."""

from __future__ import annotations

import math
from typing import Any

from rich.markup import escape
from rich.table import Table

from imkd_edge.cli.common import out
from imkd_edge.cli.report import make_table
from imkd_edge.evaluation.classes import OVERLAPS
from imkd_edge.evaluation.distance import DISTANCES, ERRORS
from imkd_edge.evaluation.objects import RANGES, key_of, range_name


def show_classes(title: str, result: dict[str, Any]) -> None:
    """A row for each class and range: AP by centre distance, AP by overlap; and the errors of each class."""
    metrics, names = result["metrics"], list(result["classes"])
    out().print(f"[bold]{escape(title)}[/]\n")
    keys = ["objects", *(f"ap_{limit:g}m" for limit in DISTANCES), "AP"]
    heads = [">objects", *(f">{limit:g} m" for limit in DISTANCES), ">mean"]
    table = make_table("average precision by the distance of centres, 0 to 1", "class", "range", *heads)
    _add_classes(table, metrics, names, keys)
    table.add_row("[bold]mAP[/]", "", *[""] * (len(heads) - 1), _number(metrics["mAP"]))
    out().print(table)

    kinds = [(kind, 100 * overlap) for kind in ("bev", "3d") for overlap in OVERLAPS]
    heads = [f">{kind.upper()} {overlap:.0f} %" for kind, overlap in kinds]
    table = make_table("average precision at 40 recalls, percent, by the least overlap", "class", "range", *heads)
    _add_classes(table, metrics, names, [f"{kind}_ap40_iou{overlap:.0f}" for kind, overlap in kinds])
    out().print(table)

    table = make_table("mean errors within 2 m", "class", ">ATE m", ">ASE 1 - IoU", ">AOE rad", ">AVE m/s")
    table.columns[0].overflow = "fold"
    for name in names:
        table.add_row(escape(name), *(_number(metrics[f"{key_of(name)}_{key}"]) for key in ERRORS))
    table.add_row("[bold]mean[/]", *(_number(metrics[f"m{key}"]) for key in ERRORS))
    out().print(table)


def _add_classes(table: Table, metrics: dict[str, Any], names: list[str], keys: list[str]) -> None:
    table.columns[0].overflow = "fold"
    for name in names:
        for suffix in ("", *(f"_{range_name(interval)}" for interval in RANGES)):
            if f"{key_of(name)}_AP{suffix}" in metrics:
                values = (metrics.get(f"{key_of(name)}_{key}{suffix}") for key in keys)
                label = "" if suffix else escape(name)
                table.add_row(label, suffix[1:] or "all", *(_number(value) for value in values))


def _number(value: float | None) -> str:
    """Three digits; "-" where there is no value."""
    if value is None or not math.isfinite(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if value < 10 else f"{value:.1f}"
