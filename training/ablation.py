"""Ablation: rows of a plan x seeds, each a training and an evaluation; finished runs are skipped."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from imkd_edge.bundle.files import strict_json, write_atomically
from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.conditions import condition as condition_of
from imkd_edge.evaluation.run import check_protocol, choose, measure, predict
from imkd_edge.options import EvalOptions, TrainOptions
from imkd_edge.progress import Track
from imkd_edge.sources.files import read_json
from imkd_edge.training.ablation_report import PLOTTED
from imkd_edge.training.checkpoint import CHECKPOINT, LOG, TEACHER, load_checkpoint
from imkd_edge.training.config import Config, from_dict, merged, read_tree
from imkd_edge.training.evaluate import CheckpointDetector
from imkd_edge.training.program import open_dataset, train_stages, train_teacher

PLANS = Path(__file__).parent / "ablations"
RESULT, RESULTS = "result.json", "results.json"  # of a run, and of all
PLAN_KEYS = {"config": str, "data": str, "split": str, "options": dict, "seeds": list, "metrics": list, "common": dict}
PLAN_KEYS |= {"rows": dict, "conditions": list}
RESAMPLED = re.compile(r"\w+_(bev|3d)_ap40_(easy|moderate|hard)")


@dataclass(frozen=True)
class Row:
    """One row of the table: a config, and the condition of the sensors in the evaluation."""

    name: str
    settings: Config
    tree: dict[str, Any]  # the settings as written: a key that a later version adds does not make it another run
    split: str  # of the evaluation
    condition: str = "none"
    options: dict[str, Any] = field(default_factory=dict)  # of the evaluation's reader, over the training's
    conditions: tuple[str, ...] = ()  # further ones, in which the trained row is evaluated too

    def digest(self, seed: int) -> str:
        """Identifies a run by its tree and seed, without code, path of the data, and an unused teacher."""
        unused = () if self.settings.distill.active else ("teacher", "distill")
        tree = {key: value for key, value in self.tree.items() if key not in unused}
        evaluation = [self.split, self.condition, *([self.options] if self.options else []), *self.conditions]
        text = json.dumps([tree, *evaluation, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """Rows, seeds, and the data of the evaluation, as read by load_plan."""

    name: str
    data: str
    split: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]  # with bootstrapped intervals
    common: Config  # of the teacher
    rows: tuple[Row, ...]

    def runs(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[Row, int]]:
        """Pairs of row and seed in the order of execution: every row for the first seed, then for the next.

        Raises:
            Error: train_config for an unknown row.
        """
        known = {row.name: row for row in self.rows}
        for name in rows:
            if name not in known:
                fix = "choose from: " + ", ".join(known)
                raise Error(Code.train_config, f"the plan has no row '{name}'", self.name, fix)
        return [(known[name], seed) for seed in seeds or self.seeds for name in rows or known]


def load_plan(name: str | Path, data: str | None = None) -> Plan:
    """Loads a plan: a TOML file, or a shipped one by its name.

    Args:
        name: path or name.
        data: folder or name of the source; the default is the plan's.

    Raises:
        Error: train_config, those of load_config.
    """
    tree, path = read_tree(name, PLANS)
    _check_plan(tree, str(path))
    source = data or tree["data"]
    base = merged(read_tree(tree["config"])[0], tree.get("common", {}))
    source_tree, split = {"data": {"source": source}}, tree.get("split", EvalOptions.split)
    rows, conditions = [], tuple(tree.get("conditions", ()))
    for further in conditions:
        condition_of(further)
    for row, changes in tree["rows"].items():
        condition = changes.pop("condition", EvalOptions.condition)
        condition_of(condition)
        row_tree = merged(base, changes)
        settings = from_dict(merged(row_tree, source_tree), f"{path} [rows.{row}]")
        rows.append(Row(row, settings, row_tree, split, condition, tree.get("options", {}), conditions))
    seeds, metrics = tuple(tree.get("seeds", (0,))), tuple(tree.get("metrics", ()))
    common = from_dict(merged(base, source_tree), f"{path} [common]")
    return Plan(path.stem, source, split, seeds, metrics, common, tuple(rows))


def _check_plan(tree: dict[str, Any], where: str) -> None:
    """Raises Error train_config for bad keys of the plan itself; from_dict checks its configs."""

    def refuse(problem: str, fix: str) -> NoReturn:
        raise Error(Code.train_config, problem, where, fix)

    if unknown := set(tree) - set(PLAN_KEYS):
        refuse(f"unknown keys {sorted(unknown)}", "known keys: " + ", ".join(sorted(PLAN_KEYS)))
    if missing := {"config", "data", "rows"} - set(tree):
        refuse(f"{sorted(missing)} are missing", f"start from a file of {PLANS.name}/")
    for key, value in tree.items():
        if not isinstance(value, PLAN_KEYS[key]) or (key in ("rows", "seeds") and not value):
            refuse(f"{key} = {value!r}", f"it must be a {PLAN_KEYS[key].__name__}, and not empty")
    for row, changes in tree["rows"].items():
        if not isinstance(changes, dict):
            refuse(f"rows.{row} = {changes!r}", "write a table, which may be empty")
    if not all(type(seed) is int and seed >= 0 for seed in tree.get("seeds", ())):
        refuse(f"seeds = {tree['seeds']}", "list whole numbers from 0 on")
    for metric in tree.get("metrics", ()):
        if not isinstance(metric, str) or not RESAMPLED.fullmatch(metric):
            refuse(f"metrics has {metric!r}", "list metrics of the form car_3d_ap40_moderate; only they are resampled")


def ablate(
    plan: Plan,
    out: Path,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (),
    teacher: Path | None = None,
    progress: Track | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains and evaluates every pair of row and seed that is not finished, and stores all results in out/results.json.

    An interrupted run resumes from its checkpoint. One teacher (seed 0) serves every run, so that rows differ by their
    use of it alone. Once it is trained, two processes may share `out` if their rows or seeds differ; a single run
    cannot use several processes.

    Args:
        plan: see load_plan.
        out: folder of the runs, the teacher, the cache and results.json.
        rows, seeds: subsets of the plan's; all by default.
        teacher: folder of an earlier run with a teacher and a label encoder of this model.
        progress: wraps batches and frames.
        log: takes one line per run.

    Returns:
        The content of results.json: {"plan", "split", "runs": [...]}, see evaluate_run.

    Raises:
        Error: train_config, train_checkpoint, train_no_data, train_diverged; those of the source; write_failed, also
            where a result file of `out` is damaged.
    """
    if dist.is_torchelastic_launched():
        fix = "start it without torchrun, once per subset of the seeds"
        raise Error(Code.train_config, "an ablation cannot use several processes", "torchrun", fix)
    out.mkdir(parents=True, exist_ok=True)
    runs = plan.runs(rows, seeds)
    # Training takes hours; a missing package of the evaluation raises before it.
    check_protocol(choose(plan.data, plan.split, plan.common.data.options).source)

    labels = any(row.settings.distill.label > 0 for row, _ in runs)
    finished = {entry["digest"] for entry in gather(plan, out)["runs"]}
    for number, (row, seed) in enumerate(runs, 1):
        title = f"{number}/{len(runs)} {row.name}, seed {seed}"
        if row.digest(seed) in finished:
            log(f"{title}: finished before")
            continue
        log(title)
        if row.settings.distill.active and teacher is None:
            # A trained teacher is loaded; one of another plan raises.
            _train_common_teacher(plan, out, labels, progress)
            teacher = out
        _run_row(plan, out, row, seed, teacher, progress)
        gather(plan, out)
    return gather(plan, out)


def _train_common_teacher(plan: Plan, out: Path, labels: bool, progress: Track | None) -> None:
    options = TrainOptions(out=out, seed=0, resume=True, cache=out / "cache")
    dataset = open_dataset(plan.common, options.seed, options.cache)
    train_teacher(plan.common, options, dataset, labels=labels, progress=progress)


def _run_row(plan: Plan, out: Path, row: Row, seed: int, teacher: Path | None, progress: Track | None) -> None:
    """Trains and evaluates one pair and writes its result.json."""
    start, folder = time.monotonic(), out / row.name / f"seed{seed}"
    resume = (folder / CHECKPOINT).is_file()
    options = TrainOptions(out=folder, seed=seed, resume=resume, teacher=teacher, cache=out / "cache")
    train_stages(row.settings, options, progress=progress)
    entry = evaluate_run(plan, row, seed, folder, progress)
    if row.settings.distill.active:
        entry["teacher"] = teacher_record(teacher or out)
    write_json(folder / RESULT, {**entry, "seconds": round(time.monotonic() - start)})


def teacher_record(folder: Path) -> dict[str, Any]:
    """Seed, commit and config sections of the teacher of a run."""
    state = load_checkpoint(folder / TEACHER / CHECKPOINT)
    sections = {section: state["config"][section] for section in ("teacher", "train", "augment")}
    return {"seed": state["seed"], "commit": state["commit"], **sections}


def evaluate_run(plan: Plan, row: Row, seed: int, folder: Path, progress: Track | None = None) -> dict[str, Any]:
    """The record of a trained run: row, seed, digest, commit, config, curve (a line per epoch), metrics, bootstrap."""
    selection = choose(plan.data, plan.split, {**row.settings.data.options, **row.options})
    kind = selection.source.kind
    options = EvalOptions(split=plan.split, per_range=kind == "astyx", condition=row.condition)
    detect = CheckpointDetector(folder / CHECKPOINT, options.score, selection.source)
    predictions = predict(selection, detect, options, progress)
    conditions = {}
    for name in row.conditions:
        changed = replace(options, condition=name)
        metrics = measure(predict(selection, detect, changed, progress), changed)
        conditions[name] = {metric: metrics[metric] for metric in PLOTTED if metric in metrics}
    samples = {}
    if kind == "astyx":
        from imkd_edge.evaluation import kitti

        samples = kitti.bootstrap(predictions.frames, predictions.names, plan.metrics, kitti.RESAMPLES, kitti.CHUNK)
    return {
        "row": row.name,
        "seed": seed,
        "digest": row.digest(seed),
        "commit": load_checkpoint(folder / CHECKPOINT)["commit"],
        "torch": torch.__version__,
        # Results are shared, so they hold the kind of the source, not its path.
        "config": merged(row.settings.to_dict(), {"data": asdict(row.settings.data.without_paths(kind))}),
        "curve": [json.loads(line) for line in (folder / LOG).read_text().splitlines()],
        "metrics": measure(predictions, options),
        **({"conditions": conditions} if conditions else {}),
        "bootstrap": samples,
    }


def gather(plan: Plan, out: Path) -> dict[str, Any]:
    """Collects every finished run of the plan's present rows into out/results.json.

    A results.json without the folders of its runs is enough to skip them.
    """
    rows = {row.name: row for row in plan.rows}
    order = {name: index for index, name in enumerate(rows)}
    path = out / RESULTS
    files = [*([path] if path.is_file() else []), *sorted(out.glob(f"*/seed*/{RESULT}"))]
    entries = [entry for file in files for entry in _entries(file)]
    current = [e for e in entries if e["row"] in rows and e["digest"] == rows[e["row"]].digest(e["seed"])]
    unique = {entry["digest"]: entry for entry in current}
    ordered = sorted(unique.values(), key=lambda entry: (order[entry["row"]], entry["seed"]))
    results = {"plan": plan.name, "split": plan.split, "runs": [_rounded(entry) for entry in ordered]}
    write_json(path, results)
    return results


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, (strict_json(content) + "\n").encode())


def _entries(path: Path) -> list[dict[str, Any]]:
    """The runs that a result file holds; raises Error write_failed where it is damaged."""
    fix = "remove the file; what other files of the folder hold is kept, and the rest trained again"
    content = read_json(path, Code.write_failed, fix)
    try:
        entries = content["runs"] if path.name == RESULTS else [content]
        if all({"row", "seed", "digest"} <= set(entry) for entry in entries):
            return list(entries)
    except (TypeError, KeyError):
        pass
    raise Error(Code.write_failed, "no results of an ablation", str(path), fix)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value
