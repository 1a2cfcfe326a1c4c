"""Ablation: rows x seeds, resumable, and a table whose numbers follow from the runs."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from helpers import killed_after_the_first_save, write_toy_config
from imkd_edge.errors import Error
from imkd_edge.training import ablation, ablation_report
from imkd_edge.training.ablation import ablate, load_plan
from imkd_edge.training.run import Run

PLAN = """config = "{config}"
data = "synth"
split = "train"
seeds = [0, 1]
[common.distill]
fused = 0.0
[rows.baseline]
model = {{ gates = false }}
[rows.fused]
distill = {{ fused = 0.3, intensity = "density" }}
[rows.radar]
condition = "no_camera"
data = {{ sensors = "radar" }}
"""
MORE = """lidar = true
[teacher]
channels = 16
epochs = 1
label_epochs = 1
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    config = write_toy_config(folder / "toy.toml", MORE)
    config.write_text(config.read_text().replace("epochs = 3", "epochs = 1"))
    (folder / "plan.toml").write_text(PLAN.format(config=config))
    return load_plan(folder / "plan.toml")


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    return out, ablate(plan, out, seeds=[0])


def test_every_row_is_trained_with_its_own_config(finished):
    out, results = finished
    runs = {run["row"]: run for run in results["runs"]}
    assert list(runs) == ["baseline", "fused", "radar"]
    assert runs["baseline"]["config"]["model"]["gates"] is False and runs["fused"]["config"]["model"]["gates"] is True
    assert runs["fused"]["config"]["distill"]["intensity"] == "density"
    losses = {row: run["curve"][0]["losses"] for row, run in runs.items()}
    assert "distill_fused" in losses["fused"] and "distill_fused" not in losses["radar"]
    for run in runs.values():
        assert run["seed"] == 0 and run["commit"] and len(run["curve"]) == 1
        assert {"mAP", "NDS", "mAVE"} <= set(run["metrics"])
    assert json.loads((out / "results.json").read_text()) == results


def test_finished_runs_are_skipped_and_results_json_suffices_for_it(plan, finished, tmp_path, monkeypatch):
    out, results = finished
    monkeypatch.setattr(ablation, "train_stages", lambda *_, **__: pytest.fail("trained again"))
    assert ablate(plan, out, seeds=[0]) == results
    (tmp_path / "results.json").write_text((out / "results.json").read_text())
    assert ablate(plan, tmp_path, seeds=[0])["runs"] == results["runs"]


def test_an_interrupted_run_is_resumed(plan, finished, tmp_path, monkeypatch):
    _, results = finished
    with killed_after_the_first_save():
        ablate(plan, tmp_path, rows=["baseline"], seeds=[0])
    monkeypatch.setattr(Run, "train_epoch", lambda *_: pytest.fail("the epoch was finished before"))
    again = ablate(plan, tmp_path, rows=["baseline"], seeds=[0])["runs"]
    assert [run["metrics"] for run in again] == [results["runs"][0]["metrics"]]


def test_a_missing_split_is_reported_before_any_training(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "train_stages", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(Error, match="nights"):
        ablate(replace(plan, split="nights"), tmp_path)


def test_a_teacher_of_another_plan_is_refused_and_the_right_one_is_recorded(plan, finished):
    out, results = finished
    teachers = {run["row"]: run.get("teacher") for run in results["runs"]}
    assert teachers["baseline"] is None and teachers["fused"]["commit"]
    assert teachers["fused"]["teacher"] == plan.common.to_dict()["teacher"]
    common = replace(plan.common, teacher=replace(plan.common.teacher, rate=1e-4))
    with pytest.raises(Error, match=r"train\.rate is 0\.0001, and the checkpoint has") as error:
        ablate(replace(plan, common=common), out, rows=["fused"], seeds=[5])
    assert error.value.code == "E0602"


def test_a_changed_row_is_another_run(plan):
    row = plan.rows[1]
    same = replace(row, tree=json.loads(json.dumps(row.tree)))
    other = replace(row, tree={**row.tree, "distill": {**row.tree["distill"], "fused": 0.4}})
    assert same.digest(0) == row.digest(0) != row.digest(1)
    others = [other, replace(row, split="val"), replace(row, condition="dark"), replace(row, conditions=("dark",))]
    assert len({row.digest(0), *(changed.digest(0) for changed in others)}) == 5


def test_a_trained_row_is_evaluated_under_further_conditions(plan, finished, tmp_path):
    out, _ = finished
    rows = [replace(row, conditions=("no_camera", "no_radar")) for row in plan.rows if row.name == "baseline"]
    for row in rows:  # trained before, so only evaluated
        (tmp_path / row.name).mkdir()
        shutil.copytree(out / row.name / "seed0", tmp_path / row.name / "seed0")
        (tmp_path / row.name / "seed0" / "result.json").unlink()
    run = ablate(replace(plan, rows=tuple(rows)), tmp_path, seeds=[0])["runs"][0]
    assert set(run["conditions"]) == {"no_camera", "no_radar"}
    alone = replace(rows[0], condition="no_radar", conditions=())
    expected = ablation.evaluate_run(plan, alone, 0, tmp_path / "baseline" / "seed0")["metrics"]
    assert run["conditions"]["no_radar"] == pytest.approx({k: expected[k] for k in ("mAP", "NDS", "mAVE")}, abs=1e-3)


def test_a_run_without_distillation_does_not_depend_on_the_teacher(plan):
    for row, same in zip(plan.rows, (True, False)):
        other = replace(row, tree={**row.tree, "teacher": {"radar": True}})
        assert row.settings.distill.active != same and (other.digest(0) == row.digest(0)) == same


def test_results_of_a_seed_outside_the_plan_stay(plan, finished, tmp_path):
    _, results = finished
    extra = {**results["runs"][0], "seed": 7, "digest": plan.rows[0].digest(7)}
    (tmp_path / "results.json").write_text(json.dumps({"runs": [extra]}))
    assert [run["seed"] for run in ablate(plan, tmp_path, rows=["baseline"], seeds=[7])["runs"]] == [7]


@pytest.mark.parametrize("content", ["{", '{"runs": 3}', '{"plan": "x"}', '{"runs": [{"row": "baseline"}]}', "[1]"])
def test_a_damaged_results_json_is_named_before_anything_is_trained(plan, tmp_path, monkeypatch, content):
    (tmp_path / "results.json").write_text(content)
    monkeypatch.setattr(ablation, "train_stages", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(Error, match=r"results\.json"):
        ablate(plan, tmp_path, rows=["baseline"], seeds=[0])
    assert (tmp_path / "results.json").read_text() == content


def test_torchrun_is_refused(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(Error, match="cannot use several processes"):
        ablate(plan, tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('config = "tiny"\n', "missing"),
        (PLAN.format(config="tiny") + "[more]\n", "more"),
        (PLAN.format(config="tiny").replace("no_camera", "fog"), "fog"),
        (PLAN.format(config="tiny").replace("[0, 1]", '[0]\nconditions = ["fog"]'), "fog"),
        (PLAN.format(config="tiny").replace("sensors =", "senses ="), "senses"),
        (PLAN.format(config="tiny").replace("[0, 1]", "3"), "seeds = 3"),
        (PLAN.format(config="tiny").replace("[0, 1]", "[0, -1]"), "seeds"),
        (PLAN.format(config="tiny").replace("[0, 1]", '[0]\nmetrics = ["mAP"]'), "mAP"),
        (
            PLAN.format(config="tiny")
            .replace("[rows.fused]", "[rows]\nnumber = 1\n[rows.fused]")
            .replace("[rows.baseline]\n", ""),
            "number",
        ),
        (PLAN.format(config="tiny").replace('config = "tiny"', "config = 3"), "config = 3"),
    ],
)
def test_a_bad_plan_is_refused(text, problem, tmp_path):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(Error, match=problem):
        load_plan(tmp_path / "plan.toml")


def test_an_unknown_row_is_refused(plan, tmp_path):
    with pytest.raises(Error, match="no row 'magic'"):
        ablate(plan, tmp_path, rows=["magic"])


def test_the_shipped_plans_are_complete():
    for path in ablation.PLANS.glob("*.toml"):
        plan = load_plan(path.stem)
        first = plan.rows[0]
        assert len(plan.seeds) >= 3 and first.name in ("baseline", "reference")
        assert not first.settings.distill.has_terms
        assert first.name == "reference" or not (first.settings.distill.inherit or first.settings.model.gates)


def test_results_hold_no_path_of_the_data():
    for path in (ablation.PLANS.parent / "results").glob("*.json"):
        runs = json.loads(path.read_text())["runs"]
        assert runs and all(run["config"]["data"]["source"] in ("astyx", "synth", "folder") for run in runs)


def run(row, seed, value, samples):
    metrics = {"car_bev_ap40_moderate": value, "car_mae_z": value / 100}
    return {"row": row, "seed": seed, "metrics": metrics, "bootstrap": {"car_bev_ap40_moderate": samples}}


RUNS = [
    run("baseline", 0, 30.0, [29.0, 31.0]),
    run("baseline", 1, 34.0, [33.0, 35.0]),
    run("terms", 0, 33.0, [30.0, 36.0]),
    run("terms", 1, 35.0, [33.0, 37.0]),
    run("late", 1, 36.0, [36.0, 36.0]),
]


def test_gains_are_paired_by_seed():
    baseline, terms, late = (row["metrics"]["car_bev_ap40_moderate"] for row in ablation_report.summary(RUNS))
    assert baseline["mean"] == 32 and baseline["sem"] == pytest.approx(2)  # sd sqrt(8) over sqrt(2)
    assert terms["gain"] == 2 and terms["gain_sem"] == pytest.approx(1)  # +3 and +1
    gains = [(1 + 0) / 2, (5 + 2) / 2]  # per resample: the mean of the seeds' differences
    low, high = np.percentile(gains, [2.5, 97.5])
    assert (terms["gain_low"], terms["gain_high"]) == pytest.approx((low, high))
    assert late["gain"] == 2 and math.isnan(late["gain_sem"])  # against seed 1 alone


def test_a_metric_that_the_first_row_lacks_has_no_gain():
    runs = json.loads(json.dumps(RUNS))
    del runs[0]["bootstrap"]["car_bev_ap40_moderate"]
    runs[2]["metrics"]["vehicle_iou"] = runs[3]["metrics"]["vehicle_iou"] = 0.5
    metrics = ablation_report.summary(runs)[1]["metrics"]
    assert metrics["vehicle_iou"]["mean"] == 0.5 and "gain" not in metrics["vehicle_iou"]
    assert metrics["car_bev_ap40_moderate"]["gain"] == 2


def test_table_and_plot_show_every_row(tmp_path):
    rows = ablation_report.report({"runs": RUNS}, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert [row["row"] for row in rows] == ["baseline", "terms", "late"]
    assert "| baseline | 2 | 32.0 ± 2.0 | 0.320 ± 0.020 |" in table and "| terms | +2.0 ± 1.0 [" in table
    assert (tmp_path / "plot.png").stat().st_size > 5000 and "teachers" not in table


def test_the_table_has_means_of_each_condition(tmp_path):
    for index, one in enumerate(runs := json.loads(json.dumps(RUNS[:3]))):
        one["conditions"] = {"night": {"car_bev_ap40_moderate": 10.0 + index}}
    ablation_report.report({"runs": runs}, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| BEV | seeds | none | night |" in table
    assert "| baseline | 2 | 32.0 | 10.5 |" in table and "| terms | 1 | 33.0 | 12.0 |" in table


def test_a_table_of_runs_with_several_teachers_notes_it(tmp_path):
    commits = ["a1", "a1", "a1", "b2", "b2"]
    runs = [{**run, "teacher": {"seed": 0, "commit": commit}} for run, commit in zip(RUNS, commits)]
    ablation_report.report({"runs": runs}, tmp_path)
    assert "2 different teachers" in (tmp_path / "table.md").read_text()
