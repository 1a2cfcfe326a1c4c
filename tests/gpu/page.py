"""The page of the proof on a GPU, in Markdown."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]


def table(header: str, rows: list[list[Any]]) -> str:
    columns = header.split("|")
    lines = [header, "|".join(["---"] * len(columns)), *("|".join(str(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {line.replace('|', ' | ')} |" for line in lines)


def ops_table(part: Record) -> str:
    rows = []
    for op, record in part.get("ops", {}).items():
        differences = sorted(record.get("differences", {}).items())
        largest = ", ".join(f"{name} {value:.2g}" for name, value in differences if value)
        counts = [record.get(name, 0) for name in ("cases", "passed", "failed")]
        rows.append([op, record["status"], *counts, len(record.get("not_run", [])), largest or "none"])
    text = table("op|status|cases|passed|failed|not run|largest differences from the CPU op", rows)
    for op, record in part.get("ops", {}).items():
        text += "".join(f"\n- {op}: `{f['case']}` failed: {f['message']}" for f in record.get("failures", []))
        if record.get("not_run"):
            end = f"exit status {record.get('exit_status')}, see {record.get('log')}"
            text += f"\n- {op}: the process ended before or in `{record['not_run'][0]}`: {end}"
    return text


def sanitizer_table(part: Record) -> str:
    rows = []
    for name, record in part.get("tools", {}).items():
        said = "; ".join(line.strip("= ") for line in record.get("summary", [])) or record.get("reason", "no summary")
        rows.append([name, record["status"], record.get("cases", 0), record.get("passed", 0), said])
    return table("tool|status|cases|passed|summary", rows) if rows else ""


def kernels_table(part: Record) -> str:
    if "copy" not in part:
        return ""
    copy = part["copy"]
    rows = [["copy of device memory", f"{copy['us']:.1f}", "", "", 2 * copy["bytes"], gb(copy["bytes_per_s"]), "100 %"]]
    for name, op in part["ops"].items():
        spread = f"{op['us_least']:.1f} to {op['us_most']:.1f}"
        share = f"{op['share_of_copy']:.0%}".replace("%", " %")
        queued = f"{op['us_queued']:.1f}"
        rows.append([name, f"{op['us']:.1f}", spread, queued, op["bytes"], gb(op["bytes_per_s"]), share])
    caption = (
        f"{part['model']}, median of {part['repeats']}, caches emptied before each launch; queued: the mean of "
        f"{part['repeats']} launches one after the other. Bytes are those of cpp/budget.json.\n\n"
    )
    return caption + table("op|us|least to most|us queued|bytes moved|GB/s|share of the copy", rows)


def gb(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.1f}"


def measured(part: Record, key: str) -> list[tuple[str, Record]]:
    """The entries of a part that have this key: not those that were skipped, or failed before they measured it."""
    return [(name, record) for name, record in part.get("results", {}).items() if key in record]


def reasons(part: Record) -> str:
    """Why entries were skipped or failed, as the records say."""
    lines = [f"- {name} {record['status']}: {record['reason']}" for name, record in measured(part, "reason")]
    return "\n".join(" ".join(line.split()) for line in lines)


def detector_table(part: Record) -> str:
    rows = []
    for name, record in measured(part, "differences"):
        beyond = ", ".join(f"{key} {value:.3g}" for key, value in record["beyond_tolerance"].items()) or "none"
        apart = f"{record['differences']['boxes']:.2g} m, score {record['differences']['scores']:.2g}"
        replayed = f"{record['replayed']} of {record['frames']}"
        equal = "yes" if record["graph_changes_no_bit"] else "no"
        rows.append([name, record["status"], record["boxes"], apart, beyond, replayed, equal])
    header = (
        "bundle|status|boxes|largest difference from the exporter's CPU|beyond tolerance|replayed|equal without graph"
    )
    return table(header, rows) if rows else ""


def data_table(part: Record) -> str:
    rows = []
    for name, record in measured(part, "worst"):
        apart = f"{record['worst']['position_m']:.2g} m, score {record['worst']['score']:.2g}"
        different = ", ".join(record["different"]) or "none"
        rows.append([name, record["status"], record["frames"], record["boxes"], apart, different])
    return (
        table("data|status|frames|boxes|largest difference from the CPU|frames with other objects", rows)
        if rows
        else ""
    )


def plain_table(part: Record) -> str:
    """For parts whose records hold words and counts."""
    rows = []
    for name, record in part.get("results", {}).items():
        note = ", ".join(f"{k} {v}" for k, v in record.items() if k not in ("status", "reason"))
        rows.append([name, record["status"], note])
    return table("case|status|note", rows) if rows else ""


def end_to_end_table(part: Record) -> str:
    rows = []
    for name, record in measured(part, "variants"):
        for variant, times in record["variants"].items():
            row = [f"{times[key]:.3f}" for key in ("p50_ms", "p99_ms")]
            rows.append([name, variant, record["status"], times["frames"], *row, times["replayed"]])
    notes = []
    for name, record in measured(part, "variants"):
        median = {variant: times["p50_ms"] for variant, times in record["variants"].items()}
        if {"ops, graph", "ops, no graph"} <= set(median):
            saved = 1e3 * (median["ops, no graph"] - median["ops, graph"])
            notes.append(f"- {name}: without its networks a graph saves {saved:.0f} us of launches and gaps per frame")
        if "gpu_memory_mib" in record:
            notes.append(f"- {name}: {record['gpu_memory_mib']:.0f} MiB of PyTorch's GPU memory")
    text = table("model, FP16|variant|status|frames|p50, ms|p99, ms|replayed", rows) if rows else ""
    return "\n\n".join([text, "\n".join(notes)]) if notes else text


def training_table(part: Record) -> str:
    rows = []
    for name, record in measured(part, "losses"):
        losses = " ".join(f"{loss:.3f}" for loss in record["losses"][:5])
        cpu = " ".join(f"{loss:.3f}" for loss in record.get("cpu", {}).get("losses", []))
        memory = f"{record['gpu_memory_mib']:.0f}" if "gpu_memory_mib" in record else ""
        step = f"{record['ms_per_step']:.1f}"
        rows.append([name, record["status"], record["processes"], record["steps"], step, memory, losses, cpu])
    header = "model, bfloat16|status|processes|steps|ms per step|MiB of the GPU|first losses|on the CPU, float32"
    return table(header, rows) if rows else ""


TABLES = {
    "ops": ops_table,
    "detector": detector_table,
    "data": data_table,
    "streams": plain_table,
    "faults": plain_table,
    "sanitizer": sanitizer_table,
    "kernels": kernels_table,
    "end_to_end": end_to_end_table,
    "training": training_table,
    "several_gpus": training_table,
    "tensorrt": end_to_end_table,
}


def page(proof: Record) -> str:
    """Every section names the GPU, the driver, CUDA and the commit that its numbers belong to."""
    machine = proof["machine"]
    lines = ["# What the CUDA side does on a GPU", ""]
    lines += [f"**{proof['status']}** on {machine['label']} ({machine['host']}), {proof['date']}."]
    if proof["fake"]:
        lines += ["", "The kernels ran on the CPU under the fake CUDA runtime: the times mean nothing."]
    lines += ["", table("part|status|seconds|note", [summary(name, part) for name, part in proof["parts"].items()])]
    for name, part in proof["parts"].items():
        text = "\n\n".join(filter(None, (TABLES[name](part) if name in TABLES else "", reasons(part))))
        if text:
            lines += ["", f"## {name}", "", f"Measured on {part['measured_on']}.", "", text]
        if "tail" in part:
            lines += ["", f"## Output of {name}", "", "```", part["tail"], "```"]
    return "\n".join([*lines, ""])


def summary(name: str, part: Record) -> list[Any]:
    note = part.get("reason") or part.get("note") or ""
    return [name, part["status"], f"{part['seconds']:.1f}", str(note).replace("|", "/").replace("\n", " ")]
