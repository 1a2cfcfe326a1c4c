"""What `compare` and `quantize` found, as tables."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from imkd_edge.cli.common import out
from imkd_edge.cli.report import make_table, show_numbers


def show_comparison(result: dict[str, Any]) -> None:
    """For each engine the outputs, the first tensor that differs, the boxes, the fidelity and the verdict."""
    for engine, comparison in result["engines"].items():
        on = f"{engine} against {result['reference']}" if engine != result["reference"] else engine
        _show_tensors(comparison, f"difference over {result['frames']} frames, {on}", result["tolerance"])
        if comparison["fidelity"] is not None:
            _show_fidelity(comparison["fidelity"], "frames of the source")
        _show_verdict(comparison, result["gate"])


def _show_tensors(comparison: dict[str, Any], title: str, tolerance: float) -> None:
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


def _show_fidelity(fidelity: dict[str, Any], of: str) -> None:
    title = f"fidelity on {fidelity['frames']} {of}"
    table = make_table(title, "", ">loss", ">agree, %", ">fap, %", ">objects")
    for name, row in {"all": fidelity, **fidelity["by"]}.items():
        values = ("" if row[key] is None else f"{row[key]:{form}}" for key, form in _COLUMNS)
        table.add_row(escape(name), *values, f"{row['objects']:.0f}" if "objects" in row else "")
    out().print(table)


_COLUMNS = (("loss", ".3f"), ("agree", ".1f"), ("fap", ".1f"))


def _show_verdict(comparison: dict[str, Any], gate: float) -> None:
    verdict = "[green]within[/]" if comparison["within"] else "[bold red]not within[/]"
    if comparison["fidelity"] is None:
        out().print(f"{verdict} the tolerance: the worst output has NMSE {comparison['worst_output_nmse']:.3g}")
    else:
        out().print(f"{verdict} the gate: loss {comparison['fidelity']['loss']:.3f}, allowed {gate:g}")


def show_quantization(result: dict[str, Any]) -> None:
    """The bundle, its fidelity, and the layers that the gate put back to float."""
    fidelity, returned = result["fidelity"], result["returned"]
    weights = f", {result['weight_bits']} for the camera's weights" if result["weight_bits"] else ""
    method = f"{result['name']}, {result['bits']} bits{weights}"
    trained = {"training": result["training"]} if result["training"] else {}
    kept = ("bytes", "float_bytes", "int8_share", "frames", "unusable", "metrics")
    numbers = {"bundle": result["bundle"], "method": method, **trained, **{key: result[key] for key in kept}}
    show_numbers("INT8 bundle", numbers)
    _show_fidelity(fidelity, "frames not calibrated on")
    if returned:
        table = make_table("put back to float by the gate", "layer", ">modelled error", ">predicted, us")
        for item in returned:
            name = escape(f"{item['part']}/{item['layer']}")
            table.add_row(name, f"{item['error']:.2g}", f"{item['microseconds']:.1f}")
        out().print(table)
    loss = "unknown" if fidelity["loss"] is None else f"{fidelity['loss']:.3f}"
    verdict = "[green]accepted[/]" if result["accepted"] else "[bold red]not accepted[/]"
    out().print(f"{verdict}: loss {loss}, allowed {result['gate']:g}")
