"""results.json -> table and plot: mean and standard error over seeds, and gains over the baseline, paired by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {  # metric -> head of its column; a metric without a value has no column
    "car_bev_ap40_moderate": "BEV",
    "car_bev_ap40_moderate_0-20m": "BEV 0-20",
    "car_bev_ap40_moderate_20-40m": "BEV 20-40",
    "car_bev_ap40_moderate_40m-": "BEV 40-",
    "car_bev_ap40_moderate_no_radar": "BEV no returns",
    "car_bev_ap40_moderate_radar": "BEV returns",
    "car_bev_ap40_moderate_radar_weak": "BEV weak",
    "car_bev_ap40_moderate_radar_middle": "BEV middle",
    "car_bev_ap40_moderate_radar_strong": "BEV strong",
    "car_3d_ap40_moderate": "3D",
    "car_3d_ap40_moderate_0-20m": "3D 0-20",
    "car_3d_ap40_moderate_20-40m": "3D 20-40",
    "car_3d_ap40_moderate_40m-": "3D 40-",
    "car_center_ap_2m": "2 m",
    "car_mae_x": "x m",
    "car_mae_y": "y m",
    "car_mae_z": "z m",
    "car_mae_yaw": "yaw rad",
    "car_turned": "reversed",
    "mAP": "mAP",
    "NDS": "NDS",
    "mAVE": "mAVE",
    "mATE": "mATE",
    "mAOE": "mAOE",
    "vehicle_iou": "IoU",
}
NUSCENES = ("mAP", "NDS", "mAVE")
PLOTTED = ("car_bev_ap40_moderate", "car_3d_ap40_moderate", *NUSCENES)
Runs = list[dict[str, Any]]


def report(results: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Writes out/table.md and out/plot.png.

    Args:
        results: of ablation.ablate.
        out: existing folder.

    Returns:
        The rows of `summary`.
    """
    rows = summary(results["runs"])
    teachers = {json.dumps(run["teacher"], sort_keys=True) for run in results["runs"] if "teacher" in run}
    note = f"\nThe runs used {len(teachers)} different teachers; see results.json.\n" if len(teachers) > 1 else ""
    (out / "table.md").write_text(table(rows) + conditions_table(results["runs"]) + note)
    if rows:
        plot(rows, out / "plot.png")
    return rows


def summary(runs: Runs) -> list[dict[str, Any]]:
    """Summarises the runs of each row of the plan, in its order.

    Returns:
        {"row", "seeds", "metrics": {name: {"mean", "sem", ...}}} per row. Against the first row, over the seeds of
        both: "gain", "gain_sem", and for resampled metrics "gain_low", "gain_high" (95 %). sem is nan for one seed.
    """
    rows: dict[str, Runs] = {}
    for run in runs:
        rows.setdefault(run["row"], []).append(run)
    baseline = {run["seed"]: run for run in next(iter(rows.values()), [])}
    return [
        {"row": name, "seeds": [run["seed"] for run in row_runs], "metrics": _metrics(row_runs, baseline)}
        for name, row_runs in rows.items()
    ]


def _metrics(runs: Runs, baseline: dict[int, dict[str, Any]]) -> dict[str, dict[str, float]]:
    result = {}
    for name in COLUMNS:
        values = [run["metrics"].get(name) for run in runs]
        if any(value is None for value in values):
            continue
        entry = dict(zip(("mean", "sem"), _mean(values)))
        pairs = [(run, baseline[run["seed"]]) for run in runs if run["seed"] in baseline]
        pairs = [(run, base) for run, base in pairs if name in base["metrics"]]
        if pairs:
            entry |= zip(("gain", "gain_sem"), _mean([a["metrics"][name] - b["metrics"][name] for a, b in pairs]))
            samples = [(a["bootstrap"], b["bootstrap"]) for a, b in pairs]
            gains = [np.subtract(a[name], b[name]) for a, b in samples if name in a and name in b]
            if gains:
                low, high = np.nanpercentile(np.mean(gains, axis=0), [2.5, 97.5])
                entry |= {"gain_low": float(low), "gain_high": float(high)}
        result[name] = entry
    return result


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the latter is nan for a single value."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard error of every metric, then the paired gains of resampled or of nuScenes' metrics."""
    if not rows:
        return "No run is finished.\n"
    names = [name for name in COLUMNS if all(name in row["metrics"] for row in rows)]
    digits = {name: 1 if "ap40" in name or "center" in name else 3 for name in names}
    lines = ["| row | seeds | " + " | ".join(COLUMNS[n] for n in names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [_plus_minus(row["metrics"][n]["mean"], row["metrics"][n]["sem"], digits[n]) for n in names]
        lines.append(f"| {row['row']} | {len(row['seeds'])} | " + " | ".join(cells) + " |")

    resampled = [n for n in names if "gain_low" in rows[0]["metrics"][n]]
    compared = resampled or [n for n in NUSCENES if n in names]
    lines += ["", f"| against {rows[0]['row']}, paired by seed | " + " | ".join(COLUMNS[n] for n in compared) + " |"]
    lines.append("|---" * (len(compared) + 1) + "|")
    for row in rows[1:]:
        cells = [_gain(row["metrics"][n], digits[n]) for n in compared]
        lines.append(f"| {row['row']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def conditions_table(runs: Runs) -> str:
    """Markdown: means of the first plotted metric by condition, of the runs that have some; "" without any."""
    rows: dict[str, Runs] = {}
    for run in runs:
        if "conditions" in run:
            rows.setdefault(run["row"], []).append(run)
    if not rows:
        return ""
    first = next(iter(rows.values()))[0]
    metric = next(name for name in PLOTTED if name in first["metrics"])
    conditions = list(first["conditions"])
    digits = 1 if "ap40" in metric else 3
    lines = [f"| {COLUMNS[metric]} | seeds | none | " + " | ".join(conditions) + " |"]
    lines.append("|---" * (len(conditions) + 3) + "|")
    for name, row_runs in rows.items():
        values = [[run["metrics"][metric], *(run["conditions"][c][metric] for c in conditions)] for run in row_runs]
        cells = [f"{mean:.{digits}f}" for mean in np.mean(values, axis=0)]
        lines.append(f"| {name} | {len(row_runs)} | " + " | ".join(cells) + " |")
    return "\n" + "\n".join(lines) + "\n"


def _plus_minus(mean: float, error: float, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def _gain(entry: dict[str, float], digits: int) -> str:
    if "gain" not in entry:
        return "–"
    error = "" if math.isnan(entry["gain_sem"]) else f" ± {entry['gain_sem']:.{digits}f}"
    interval = f" [{entry['gain_low']:+.{digits}f}, {entry['gain_high']:+.{digits}f}]" if "gain_low" in entry else ""
    return f"{entry['gain']:+.{digits}f}{error}{interval}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots gains over the first row: dots, bars of one standard error over seeds, thin 95 % intervals over frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = rows[0]["metrics"]
    names = [name for name in PLOTTED if name in first]
    figure = Figure(figsize=(4 * len(names) + 2, 0.34 * len(rows) + 1.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names):
        _plot_gains(axis, [row["metrics"].get(name, {}) for row in rows[1:]])
        mean = _plus_minus(first[name]["mean"], first[name]["sem"], 1 if "ap40" in name else 3)
        unit = ", %" if "ap40" in name else ", m/s" if name == "mAVE" else ""
        title = f"car {COLUMNS[name]} AP40" if "ap40" in name else COLUMNS[name]
        axis.set_title(f"{title}{unit}: {rows[0]['row']} {mean}", fontsize=10)
        axis.set_xlabel(f"difference{unit} ({'left' if name == 'mAVE' else 'right'} is better)")
    axes[0].set_yticks(range(len(rows) - 1), [f"{row['row']} ({len(row['seeds'])})" for row in rows[1:]])
    axes[0].invert_yaxis()

    resampled = any("gain_low" in first[name] for name in names)
    intervals = "; thin: 95 % over resampled frames" if resampled else ""
    legend = f"(n): seeds, paired with {rows[0]['row']}'s; bar: one standard error over seeds{intervals}"
    figure.supxlabel(legend, fontsize=9)
    figure.savefig(path, dpi=120)


def _plot_gains(axis: Any, entries: Sequence[dict[str, float]]) -> None:
    """Plots the gains of one metric from top to bottom; a row without a gain stays empty."""
    axis.axvline(0, color="0.6", linewidth=1)
    for y, entry in enumerate(entries):
        if "gain" not in entry:
            continue
        error = 0 if math.isnan(entry["gain_sem"]) else entry["gain_sem"]
        if "gain_low" in entry:
            axis.plot([entry["gain_low"], entry["gain_high"]], [y, y], color="0.7", linewidth=1)
        axis.errorbar(entry["gain"], y, xerr=error, fmt="o", color="C0", capsize=3, linewidth=2)
    axis.locator_params(axis="x", nbins=6)
    axis.grid(axis="x", alpha=0.3)
