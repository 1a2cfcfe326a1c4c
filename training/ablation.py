"""The ablation: the rows of a plan x its seeds, each a training and an evaluation; what is finished is never done again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.conditions import condition as condition_of
from imkd_edge.evaluation.run import check_protocol, choose, measure, predict
from imkd_edge.options import EvalOptions
from imkd_edge.training.config import Config, from_dict, merged, read_tree
from imkd_edge.training.evaluate import CheckpointDetector
from imkd_edge.training.main import load_checkpoint, open_dataset, train_stages, train_teacher

PLANS = Path(__file__).parent / "ablations"
SCORE = 0.01  # boxes below it do not count
PLAN_KEYS = {"config": str, "data": str, "split": str, "seeds": list, "metrics": list, "common": dict, "rows": dict}
RESAMPLED = re.compile(r"\w+_(bev|3d)_ap40_(easy|moderate|hard)")


@dataclass(frozen=True)
class Row:
    """One row of the table: a config, and what is done to the sensors when it is measured."""

    name: str
    settings: Config
    tree: dict[str, Any]  # the settings as they are written; keys that a later version adds do not make it another run
    split: str  # that it is measured on
    condition: str = "none"

    def digest(self, seed: int) -> str:
        """Names a run by what its files say and the seed. The code and the place of the data do not count, nor an unused teacher."""
        untaught = () if self.settings.distill.active else ("teacher", "distill")
        tree = {key: value for key, value in self.tree.items() if key not in untaught}
        text = json.dumps([tree, self.split, self.condition, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """What load_plan reads: the rows, how often each is trained, and on what it is measured."""

    name: str
    data: str
    split: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]  # whose intervals are bootstrapped
    common: Config  # what the teacher is made from
    rows: tuple[Row, ...]

    def chosen(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[Row, int]]:
        """Pairs in the order in which they are run: a whole table for the first seed, then for the next."""
        known = {row.name: row for row in self.rows}
        for name in rows:
            if name not in known:
                raise Error(
                    Code.train_config, f"the plan has no row '{name}'", self.name, "choose from: " + ", ".join(known)
                )
        return [(known[name], seed) for seed in seeds or self.seeds for name in rows or known]


def load_plan(name: str | Path, data: str | None = None) -> Plan:
    """Reads a plan: a TOML file, or a shipped one by its name.

    Args:
        name: of the plan.
        data: folder or name of the source instead of the plan's.

    Raises:
        Error: train_config, those of load_config.
    """
    tree, path = read_tree(name, PLANS)
    _check_plan(tree, str(path))
    source = data or tree["data"]
    common = merged(read_tree(tree["config"])[0], tree.get("common", {}))
    place, split = {"data": {"source": source}}, tree.get("split", "val")
    rows = []
    for row, changes in tree["rows"].items():
        condition = changes.pop("condition", "none")
        condition_of(condition)
        written = merged(common, changes)
        settings = from_dict(merged(written, place), f"{path} [rows.{row}]")
        rows.append(Row(row, settings, written, split, condition))
    seeds, metrics = tuple(tree.get("seeds", (0,))), tuple(tree.get("metrics", ()))
    settings = from_dict(merged(common, place), f"{path} [common]")
    return Plan(path.stem, source, split, seeds, metrics, settings, tuple(rows))


def _check_plan(tree: dict[str, Any], where: str) -> None:
    """The plan's own keys; what its configs say is from_dict's to check."""
    if unknown := set(tree) - set(PLAN_KEYS):
        raise Error(
            Code.train_config, f"unknown keys {sorted(unknown)}", where, "known: " + ", ".join(sorted(PLAN_KEYS))
        )
    if missing := {"config", "data", "rows"} - set(tree):
        raise Error(Code.train_config, f"{sorted(missing)} are missing", where, f"start from a file of {PLANS.name}/")
    for key, value in tree.items():
        if not isinstance(value, PLAN_KEYS[key]) or (key in ("rows", "seeds") and not value):
            raise Error(
                Code.train_config,
                f"{key} = {value!r}",
                where,
                f"it must be a {PLAN_KEYS[key].__name__}, with something in it",
            )
    for row, changes in tree["rows"].items():
        if not isinstance(changes, dict):
            raise Error(Code.train_config, f"rows.{row} = {changes!r}", where, "a row is a table, which may be empty")
    if not all(type(seed) is int and seed >= 0 for seed in tree.get("seeds", ())):
        raise Error(Code.train_config, f"seeds = {tree['seeds']}", where, "list whole numbers from 0 on")
    for metric in tree.get("metrics", ()):
        if not isinstance(metric, str) or not RESAMPLED.fullmatch(metric):
            raise Error(
                Code.train_config,
                f"metrics has {metric!r}",
                where,
                "frames are resampled for such as car_3d_ap40_moderate alone",
            )


def ablate(
    plan: Plan,
    out: Path,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    teacher: Path | None = None,
    progress: Callable[[Iterable], Iterable] | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains and measures every pair of row and seed that is not finished, and keeps all results in out/results.json.

    An interrupted run goes on from its checkpoint. Once the teacher is trained, two processes may share `out` if their rows or seeds
    differ; a single run is not spread over processes. One teacher (seed 0) serves every run, so that rows
    differ by what they take from it alone.

    Args:
        plan: see load_plan.
        out: folder of the runs, the teacher, the cache and results.json.
        rows, seeds: some of the plan's; all by default.
        teacher: folder of an earlier run with a teacher and a label encoder of this model.
        progress: wraps batches and frames.
        told: is given a line for each run.

    Returns:
        The content of results.json: {"plan", "split", "runs": [...]}, see measure_run.

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged; those of the source.
    """
    if dist.is_torchelastic_launched():
        raise Error(
            Code.train_config,
            "an ablation is not spread over processes",
            "torchrun",
            "start it without, once per share of the seeds",
        )
    out.mkdir(parents=True, exist_ok=True)
    todo = plan.chosen(rows, seeds)
    check_protocol(
        choose(plan.data, plan.split, plan.common.data.options).source
    )  # what is missing is better missed before the training
    labels = any(row.settings.distill.label > 0 for row, _ in todo)
    done = {entry["digest"] for entry in gather(plan, out)["runs"]}
    for number, (row, seed) in enumerate(todo, 1):
        place, digest = out / row.name / f"seed{seed}", row.digest(seed)
        if digest in done:
            told(f"{number}/{len(todo)} {row.name}, seed {seed}: finished before")
            continue
        told(f"{number}/{len(todo)} {row.name}, seed {seed}")
        if row.settings.distill.active and teacher is None:
            teacher = out  # where it is trained already, this finds it so, or another one than the plan's
            train_teacher(
                plan.common, 0, out, True, open_dataset(plan.common, 0, out / "cache"), progress, labels=labels
            )
        started = time.monotonic()
        resume = (place / "checkpoint.pt").is_file()
        train_stages(row.settings, seed, place, resume, teacher, progress, out / "cache")
        entry = measure_run(plan, row, seed, place, progress)
        if row.settings.distill.active:
            entry["teacher"] = teacher_of(teacher or out)
        write_json(place / "result.json", {**entry, "seconds": round(time.monotonic() - started)})
        gather(plan, out)
    return gather(plan, out)


def teacher_of(folder: Path) -> dict[str, Any]:
    """Seed, commit and the sections that made the teacher in folder/teacher."""
    state = load_checkpoint(folder / "teacher" / "checkpoint.pt")
    made = {section: state["config"][section] for section in ("teacher", "train", "augment")}
    return {"seed": state["seed"], "commit": state["commit"], **made}


def measure_run(
    plan: Plan, row: Row, seed: int, place: Path, progress: Callable[[Iterable], Iterable] | None = None
) -> dict[str, Any]:
    """The record of a trained run: its row, seed, digest, commit, config, curve (a line per epoch), metrics, bootstrap samples."""
    chosen = choose(plan.data, plan.split, row.settings.data.options)
    detect = CheckpointDetector(place / "checkpoint.pt", SCORE, chosen.source)
    options = EvalOptions(split=plan.split, per_range=chosen.source.kind == "astyx", condition=row.condition)
    predictions = predict(chosen, detect, options, progress)
    samples = {}
    if chosen.source.kind == "astyx":
        from imkd_edge.evaluation import kitti

        samples = kitti.bootstrap(predictions.frames, predictions.names, plan.metrics, kitti.RESAMPLES, kitti.CHUNK)
    return {
        "row": row.name,
        "seed": seed,
        "digest": row.digest(seed),
        "commit": load_checkpoint(place / "checkpoint.pt")["commit"],
        "torch": torch.__version__,
        "config": merged(
            row.settings.to_dict(), {"data": {"source": chosen.source.kind}}
        ),  # results are shared; a folder's path is not
        "curve": [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()],
        "metrics": measure(predictions, options),
        "bootstrap": samples,
    }


def gather(plan: Plan, out: Path) -> dict[str, Any]:
    """Everything finished, of this plan's present rows, joined and kept in out/results.json; results.json alone is enough to go on from."""
    rows = {row.name: (place, row) for place, row in enumerate(plan.rows)}
    kept = out / "results.json"
    found = json.loads(kept.read_text())["runs"] if kept.is_file() else []
    found += [json.loads(path.read_text()) for path in sorted(out.glob("*/seed*/result.json"))]
    known = [
        entry
        for entry in found
        if entry["row"] in rows and entry["digest"] == rows[entry["row"]][1].digest(entry["seed"])
    ]
    runs = {entry["digest"]: entry for entry in known}
    ordered = sorted(runs.values(), key=lambda entry: (rows[entry["row"]][0], entry["seed"]))
    results = {"plan": plan.name, "split": plan.split, "runs": [_rounded(entry) for entry in ordered]}
    write_json(kept, results)
    return results


def write_json(path: Path, content: Any) -> None:
    """Written beside and renamed."""
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(content) + "\n")
    os.replace(beside, path)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value
