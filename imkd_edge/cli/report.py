"""Results as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from imkd_edge.bundle.contract import Contract
from imkd_edge.cli.common import log, out, print_json

_TRAFFIC = {side: f"{side}-hand traffic" for side in ("right", "left")} | {"unknown": "side of traffic unknown"}


def make_table(title: str, *columns: str) -> Table:
    """A table; a column whose name starts with ">" holds numbers and is right-aligned."""
    table = Table(
        title=Text.from_markup(title, overflow="ignore") if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    if isinstance(table.title, Text):
        table.title.no_wrap = True  # one line, however narrow the table
    for column in columns:
        numeric = column.startswith(">")
        name = column.lstrip(">")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return table


def _name(bundle: Any) -> str:
    """The bundle's name, for a title: a long path would be wrapped in its middle."""
    return PurePath(str(bundle)).name


def show_frame(record: dict[str, Any]) -> None:
    """The detections of one frame, the times of its stages, and the health of its sensors."""
    detections = record["detections"]
    untrained = any(entry["velocity"] is None for entry in detections)
    speed_column = () if untrained else (">speed m/s",)
    table = make_table(
        f"frame {escape(str(record['frame']))}: {len(detections)} detections",
        "class",
        *(">score", ">x m", ">y m", ">dist. m", ">l×w×h m", ">heading °"),
        *speed_column,
    )
    for entry in detections:
        x, y, _ = entry["center"]
        size = "×".join(f"{value:.1f}" for value in entry["size"])
        values = [entry["score"], x, y, math.hypot(x, y)]
        columns = [f"{values[0]:.2f}", *(f"{value:.1f}" for value in values[1:])]
        speed = [] if untrained else [f"{math.hypot(*entry['velocity']):.1f}"]
        table.add_row(escape(entry["label"]), *columns, size, str(heading(entry["yaw"])), *speed)
    out().print(table)
    show_stages(record["timings_us"])
    show_health(record["health"])


def heading(yaw: float) -> int:
    """Whole degrees, -179 to 180: neither -0 nor -180 is printed."""
    degrees = round(math.degrees(yaw))
    return degrees + 360 if degrees <= -180 else degrees


def show_stages(timings_us: dict[str, float]) -> None:
    """One row of the stages and the total."""
    table = make_table("time in ms", *(f">{name}" for name in timings_us))
    table.add_row(*(f"{value / 1000:.2f}" for value in timings_us.values()))
    out().print(table)


def show_health(health: dict[str, Any]) -> None:
    """The mode, and every sensor that is not ok."""
    sensors = health["sensors"]
    failing = [f"{name} {state}" for name, state in sensors.items() if state != "ok"]
    unlike = ", but unlike those of the training" if health["mode"] == "partial" and not failing else ""
    past = f", {health['past_frames']} past frames" if health["past_frames"] else ""
    healthy = f"{len(sensors) - len(failing)} of {len(sensors)} sensors ok"
    out().print(
        f"health: [bold]{health['mode']}[/], {healthy}"
        + (f" ([red]{escape(', '.join(failing))}[/])" if failing else "")
        + unlike
        + past
    )
    for warning in health["warnings"]:
        out().print(f"[yellow]{warning['code']}[/] {escape(warning['text'])}")


def show_line(record: dict[str, Any]) -> None:
    """One frame on one line."""
    counts: dict[str, int] = {}
    for entry in record["detections"]:
        counts[entry["label"]] = counts.get(entry["label"], 0) + 1
    objects = ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing"
    total = record["timings_us"]["total"]
    out().print(
        f"{escape(str(record['frame']))}: {escape(objects)} | {total / 1000:.1f} ms | health {record['health']['mode']}"
    )


def _contract_rows(contract: Contract | None) -> Iterator[tuple[str, str]]:
    """What a bundle was trained on, one fact a row."""
    if contract is None:
        yield "contract", "no contract: unknown what it was trained on; measure it with imkd-edge contract"
        return

    def span(values: tuple[float, float], unit: str = "") -> str:
        low, high = (f"{value:g}" for value in values)
        return (low if low == high else f"{low} to {high}") + unit

    cameras, radars = contract.cameras, contract.radars
    yield "trained on", f"{contract.data}, {_TRAFFIC[contract.traffic]}; {contract.frames} of its frames were measured"
    yield "trained cameras", f"{span(cameras.number)}, lenses {', '.join(cameras.lenses) or 'none'}"
    view = f"{span(cameras.field_of_view)}° wide, {span(cameras.width)} × {span(cameras.height)} px"
    yield "", f"{view}, {span(cameras.mounting)} m above the ground"
    yield "trained radars", f"{span(radars.number)}, velocity {', '.join(radars.velocity) or 'none'}"
    rate = f"{radars.rate:g} sweeps/s" if radars.rate else "unknown rate"
    yield "", f"intensity {span(radars.intensity)} dB ({radars.unit}), {span(radars.points)} points a sweep, {rate}"
    yield "", f"{span(radars.mounting)} m above the ground"
    yield "ground plane", "not z = 0 in every rig" if contract.ground_plane else "z = 0 in every rig"
    for item in contract.classes:
        size = _size(item.size)
        yield f"trained {item.name}", f"{item.objects} objects, median {size} m" if item.objects else "no object"
        if item.smallest and item.largest:
            yield "", f"from {_size(item.smallest)} to {_size(item.largest)} m"
    yield "velocity", "trained" if contract.trained.velocity else "not trained: null in results"


def _size(size: tuple[float, float, float]) -> str:
    return " × ".join(f"{value:.2f}" for value in size)


def show_contract(bundle: str, contract: Contract) -> None:
    """A contract as a table."""
    table = make_table(f"contract of {escape(_name(bundle))}", "what", "value")
    for what, value in _contract_rows(contract):
        table.add_row(escape(what), escape(value))
    out().print(table)


def _class_rows(spec: Any) -> Iterator[tuple[str, str]]:
    """The classes, and what their boxes are held to."""
    yield "classes", ", ".join(entry.name for entry in spec.head.classes)
    names = [entry.name for entry in spec.head.classes if entry.exclusive]
    yield "exclusive", f"{', '.join(names)}: of two boxes at one spot the better stays" if names else "no class"
    what = "box sizes kept"
    for entry in spec.head.classes:
        low = f"from {_size(entry.min_size)} m" if entry.min_size else ""
        high = f"to {_size(entry.max_size)} m" if entry.max_size else ""
        if low or high:
            yield what, f"{entry.name} {low} {high}".replace("  ", " ").strip()
            what = ""


def show_card(card: dict[str, Any], spec: Any, contract: Contract | None, signature: str) -> None:
    """What is in a bundle."""
    facts = make_table(f"bundle {escape(_name(card['path']))}", "what", "value")
    facts.add_row("path", escape(str(card["path"])))
    facts.add_row("signature", escape(signature))
    if card["revision"]:
        facts.add_row("revision", str(card["revision"]))
    image, grid, depth = spec.image, spec.grid, spec.depth
    facts.add_row("model", escape(spec.name))
    facts.add_row("cameras", f"{spec.cameras} of {image.width} × {image.height} px, features every {image.stride} px")
    facts.add_row("depth", f"{depth.bins} bins, {depth.min:g} to {depth.max:g} m, {depth.spacing}")
    sides = f"x {grid.x_min:g} to {grid.x_max:g} m, y {grid.y_min:g} to {grid.y_max:g} m"
    facts.add_row("bird's-eye view", f"{sides}, cells of {grid.cell:g} m: {grid.width()} × {grid.height()}")
    radar = spec.radar
    features = f"{len(radar.features)} features, sweeps up to {radar.max_age:g} s old"
    facts.add_row("radar grid", f"cells of {radar.cell:g} m, {features}")
    if spec.history.frames:
        facts.add_row(
            "past frames",
            f"{spec.history.frames}, one every {spec.history.interval:g} s, {spec.history.channels} channels",
        )
    for what, value in _class_rows(spec):
        facts.add_row(what, escape(value))
    if spec.segmentation:
        facts.add_row("segmentation", "vehicles")
    facts.add_row("score threshold", f"{spec.head.score_threshold:g}")
    for what, value in _contract_rows(contract):
        facts.add_row(escape(what), escape(value))
    metrics = card.get("metrics", {})
    as_eval_prints = {"dataset", "split", "frames"} <= metrics.keys() and isinstance(metrics.get("metrics"), dict)
    if as_eval_prints:
        frames = f"{metrics['dataset']}, split {metrics['split']}, {metrics['frames']} frames"
        facts.add_row("measured on", escape(frames))
        metrics = metrics["metrics"]
    origin = {key: value for key, value in card.get("provenance", {}).items() if key not in ("config", "parts")}
    _add_numbers(facts, {**metrics, **origin})
    out().print(facts)
    files = make_table("files, all verified", "name", ">kB", ">M parameters", ">GFLOPs per frame", "sha256")
    parts = card.get("provenance", {}).get("parts", {})  # counted at export; absent from older bundles
    for name, entry in card["files"].items():
        files.add_row(name, f"{entry['bytes'] / 1000:.1f}", *_cost(parts, name), entry["sha256"][:16] + "...")
    out().print(files)


def _cost(parts: Any, name: str) -> tuple[str, str]:
    """Millions of parameters and GFLOPs of a part; empty where the bundle lacks them."""
    try:
        return f"{parts[name]['parameters'] / 1e6:.3f}", f"{parts[name]['gflops']:.2f}"
    except (KeyError, TypeError):
        return "", ""


def _add_numbers(table: Table, tree: dict[str, Any]) -> None:
    for key, value in _flat(tree):
        table.add_row(escape(key), escape(f"{value:.4g}" if isinstance(value, float) else str(value)))


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def show_engines(result: dict[str, Any]) -> None:
    """Which engines were built and why, which still fit, and the golden drive's self-test."""
    table = make_table(
        escape(f"{_name(result['bundle'])}, by {result['builder']}"), "part", "state", ">MB", ">s", "file"
    )
    for entry in result["engines"]:
        state = f"built: {'; '.join(entry['why'])}" if entry["built"] else "kept"
        table.add_row(
            entry["part"],
            escape(state),
            f"{entry['bytes'] / 1e6:.1f}",
            f"{entry['seconds']:.1f}",
            escape(entry["path"]),
        )
    out().print(table)
    for entry in result["engines"]:
        for warning in entry["warnings"]:
            log().print(f"[yellow]warning:[/] {entry['part']}: {escape(warning)}")
    key = result["engines"][0]["key"]
    out().print(
        escape(f"for {key['tensorrt']}, CUDA {key['cuda']}, driver {key['driver']}, GPU {key['gpu']}, sm {key['sm']}")
    )
    out().print(f"golden drive: {escape(result['self_test'])}")


def show_prediction(result: dict[str, Any]) -> None:
    """Predicted stage times, what limits each, the slowest layers and the assumptions."""
    table = make_table(
        escape(f"{_name(result['bundle'])} on {result['device']}: PREDICTED, not measured"),
        "stage",
        ">ms",
        "limited by",
        ">kernels",
    )
    for name, stage in result["stages_ms"].items():
        table.add_row(name, f"{stage['ms']:.2f}", stage["limited_by"], str(stage["kernels"]))
    table.add_row("total", f"{result['total_ms']:.2f}", "", f"{result['fps']:.0f} frames/s")
    out().print(table)
    layers = [(row["us"], part, row["name"]) for part, rows in result["layers"].items() for row in rows]
    text = ", ".join(f"{part} {name} {us:.0f} us" for us, part, name in sorted(layers, reverse=True)[:5])
    out().print(escape(f"slowest layers, predicted: {text}"))
    out().print(f"predicted with {result['int8_share']:.0%} of the multiply-adds in INT8; assumed:")
    for assumption in result["assumptions"]:
        out().print(escape(f"  {assumption}"))


def show_bench(result: dict[str, Any]) -> None:
    """Percentiles of the total and of each stage, and the system's telemetry."""
    from imkd_edge.bench.memory import memory_line
    from imkd_edge.bench.telemetry import label
    from imkd_edge.bench.throttling import throttling_line

    run = f"{result['frames']} frames, {result['engine']} on {result['device']}, {result['threads']} threads"
    title = f"{_name(result['bundle'])}: {run}"
    columns = list(result["total_ms"])
    table = make_table(escape(title), "ms", *(f">{name}" for name in columns))
    for name, values in {**result["stages_ms"], "total": result["total_ms"]}.items():
        table.add_row(name, *(f"{values[column]:.2f}" for column in columns))
    out().print(table)
    out().print(f"outside the two networks: {100 * result['share_outside_networks']:.1f} % of the time (median)")
    out().print(
        f"{result['fps']:.1f} frames/s, times of consecutive frames differ by {result['jitter_ms']:.2f} ms on average"
    )
    if deadline := result["deadline"]:
        missed = f"{deadline['missed']} of {result['frames']} frames ({100 * deadline['share']:.2f} %)"
        out().print(f"{missed} missed their deadline, {deadline['deadline_ms']:.1f} ms from when they were due")
    for name, value in result["telemetry"].items():
        values = f"first {value['first']:.1f}, last {value['last']:.1f}, mean {value['mean']:.1f}"
        out().print(escape(f"{label(name)}: {values}"))
    out().print(escape(throttling_line(result["throttling"])))
    out().print(escape(memory_line(result["memory"])))
    if result["energy_mj_per_frame"] is not None:
        out().print(f"energy per frame: {result['energy_mj_per_frame']:.0f} mJ")
    _show_environment(result["environment"])


def show_ops(result: dict[str, Any]) -> None:
    """Our ops beside the usual code for the same task, and beside a plain copy of their bytes."""
    title = f"{_name(result['bundle'])}, medians (99th percentiles) of {result['repeats']} turns, ms"
    numbers = (">ours", ">theirs", ">ratio", ">largest diff.", ">floor", ">× floor")
    table = make_table(escape(title), "op", ">threads", "reference", *numbers)
    for row in result["ops"]:
        times = (f"{row[side]['p50']:.3f} ({row[side]['p99']:.3f})" for side in ("ours_ms", "reference_ms"))
        rest = (row["difference"], row["floor_ms"], row["times_floor"])
        optional = ("" if value is None else f"{value:.3g}" for value in rest)
        table.add_row(row["op"], str(row["threads"]), row["reference"], *times, f"{row['ratio']:.2f}", *optional)
    out().print(table)
    counted = {row["op"]: row["bytes"] for row in result["ops"] if row["bytes"]}
    copies = ", ".join(f"{value:.1f} GB/s on {threads} threads" for threads, value in result["copy_gb_per_s"].items())
    out().print(f"the floor is a plain copy (read and written): {copies}, of")
    for op, moved in counted.items():
        parts = " + ".join(f"{value:,} {name}" for name, value in moved.items())
        out().print(f"  {op}: {sum(moved.values()):,} bytes = {parts}")
    if (others := result["others_cores"]) is not None and others > 0.1:
        out().print(f"[bold red]other processes kept {others:.1f} cores busy meanwhile: do not quote these numbers[/]")
    _show_environment(result["environment"])


def _show_environment(environment: dict[str, Any]) -> None:
    out().print(escape(", ".join(f"{key} {value}" for key, value in environment.items())))


def show_numbers(title: str, values: dict[str, Any]) -> None:
    """Names and numbers; a group of numbers takes one row each."""
    table = make_table(escape(title), "name", ">value")
    name, value = table.columns
    name.no_wrap, value.no_wrap, value.overflow = True, False, "fold"  # a long path must not push the names out
    _add_numbers(table, values)
    out().print(table)


def show_result(title: str, values: dict[str, Any], json: bool) -> None:
    """Names and numbers as a table or as JSON, at the end of a verb."""
    if json:
        print_json(values)
    else:
        show_numbers(title, values)
        log().print("done")
