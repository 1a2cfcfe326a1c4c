"""The proof on a GPU, as far as it runs without one: on the fake CUDA runtime, and what it says without a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "gpu"))

import differences  # noqa: E402
import entries  # noqa: E402
import kernels  # noqa: E402
import machine  # noqa: E402
import page  # noqa: E402
import parts  # noqa: E402
import programs  # noqa: E402
import prove  # noqa: E402

from imkd_edge import _core  # noqa: E402

BUILD = Path(os.environ.get("IMKD_TEST_BUILD", ROOT / "build" / "tests"))
built = pytest.mark.skipif(
    not list(BUILD.glob("tests/cpp/cuda_on_device*.so")),
    reason=f"no cuda_on_device in {BUILD}: the CUDA ops are NOT tested (make test builds it)",
)


def run(*options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    command = [sys.executable, str(ROOT / "tests" / "gpu" / "prove.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def make_context(out: Path, seconds: float = 600, **more) -> parts.Context:
    return parts.Context(out=out, build=BUILD, fake=True, deadline=time.monotonic() + seconds, **more)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/bash\n" + text)
    (folder / name).chmod(0o755)


# ---- a machine that lacks something ----
def test_without_a_gpu_it_says_what_is_missing_and_exits_with_3(tmp_path) -> None:
    result = run("--json-include", str(tmp_path), "--out", str(tmp_path / "out"), path=str(tmp_path))
    assert result.returncode == 3 and result.stdout == ""
    for text in ("no GPU", "no cmake", f"no nlohmann/json.hpp in {tmp_path}", "--json-include DIR"):
        assert text in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_nvcc_it_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "nvcc", lambda: None)
    assert any("no nvcc" in lack for lack in machine.missing(None))


@pytest.mark.parametrize(("version", "lacks"), [("2.13.6", True), ("3.0.1", False), ("", False)])
def test_a_pybind11_too_old_for_the_bindings_is_named(monkeypatch, version: str, lacks: bool) -> None:
    monkeypatch.setattr(machine, "pybind11_version", lambda: version)
    assert any("pybind11 2.13.6 is too old" in lack for lack in machine.missing(None)) == lacks


def test_a_gpu_is_what_nvidia_smi_reports(tmp_path, monkeypatch) -> None:
    program(tmp_path, "nvidia-smi", 'echo "NVIDIA H200, 580.159.03, 9.0"; echo "NVIDIA H200, 580.159.03, 9.0"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.gpu() == {"gpu": "NVIDIA H200", "driver": "580.159.03", "capability": "9.0"}
    about = machine.describe(fake=False, named_commit=None)
    assert re.fullmatch(r"NVIDIA H200, driver 580\.159\.03, CUDA .+, commit .+", about["label"])
    context = parts.Context(tmp_path, tmp_path, False, 0.0, about["capability"], json_folder=Path("/usr/include"))
    assert {"-DCMAKE_CUDA_ARCHITECTURES=90", "-DIMKD_CUDA=ON"} <= set(parts.configure_command(context))


@pytest.mark.parametrize("options", [["--minutes", "0"], ["--repeats", "0"], ["--parts", "none"]])
def test_options_that_make_no_sense_are_refused(options, capsys) -> None:
    with pytest.raises(SystemExit) as error:
        prove.main(["--fake", *options])
    assert error.value.code == 2 and options[0] in capsys.readouterr().err


# ---- on the fake runtime ----
@built
def test_the_page_and_the_json_name_the_machine_and_every_part(tmp_path) -> None:
    tool = 'while [[ $1 == --* ]]; do [[ $1 == --target* ]] || name=$2; shift 2; done\n"$@" || exit\n'
    program(tmp_path / "bin", "compute-sanitizer", tool + 'echo "========= ERROR SUMMARY: 0 errors"')
    cases = "fwd and (warped or ties) or random"
    options = ["--fake", "--build", str(BUILD), "--cases", cases, "--repeats", "1", "--out", str(tmp_path)]
    small = ["--minutes", "60", "--bundles", "tiny", "--models", "tiny", "--steps", "2"]
    result = run(*options, *small, path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stdout + result.stderr

    proof = json.loads((tmp_path / "prove.json").read_text())
    skipped = {"data": "skipped", "tensorrt": "skipped"}
    statuses = {name: part["status"] for name, part in proof["parts"].items()}
    assert statuses == dict.fromkeys(prove.PARTS, "passed") | skipped
    assert all(proof["parts"][name]["reason"] for name in skipped)
    assert all(part["measured_on"] == proof["machine"]["label"] for part in proof["parts"].values())
    assert proof["fake"] and "fake CUDA runtime" in proof["machine"]["gpu"]
    ops = proof["parts"]["ops"]["ops"]
    assert (ops["warp_bev"]["cases"], ops["warp_bev"]["passed"]) == (30, 30)
    assert ops["decode"]["cases"] == 4 and set(ops) == {"warp_bev", "decode", "random poses"}
    assert ops["warp_bev"]["differences"]["float32 absolute"] == 0
    tools = proof["parts"]["sanitizer"]["tools"]
    assert set(tools) == set(parts.TOOLS)
    assert all(record["cases"] == 3 and "0 errors" in record["summary"][0] for record in tools.values())
    timed = proof["parts"]["kernels"]["ops"]
    assert set(timed) == {"preprocess_images", "lift_table", "lift", "voxelize_radar", "warp_bev", "decode"}
    assert all(op["us"] == 250 for op in timed.values())  # the fake runtime's 0.25 ms between any two events

    drive = proof["parts"]["detector"]["results"]["tiny"]
    assert drive["graph_changes_no_bit"] and drive["replayed"] > 3 and drive["boxes"] > 20
    times = proof["parts"]["end_to_end"]["results"]["tiny"]["variants"]
    graphs = {"graph": True, "no graph": False, "ops, graph": True, "ops, no graph": False}
    assert {name: variant["replayed"] > 0 for name, variant in times.items()} == graphs
    streams = proof["parts"]["streams"]["results"]
    assert {"torch", "cupy"} < set(streams) and all(record["equal"] == 3 for record in streams.values())
    codes = [record["code"] for record in proof["parts"]["faults"]["results"].values()]
    assert codes == ["E0504", "E0202", "no error", "E0512", "E0512"]
    one, two = (proof["parts"][name]["results"]["tiny"] for name in ("training", "several_gpus"))
    assert (one["processes"], one["steps"], len(one["cpu"]["losses"]), two["processes"]) == (1, 2, 2, 2)

    text = (tmp_path / "prove.md").read_text()
    measured = [name for name in proof["parts"] if f"\n## {name}\n" in text]
    assert set(measured) == set(prove.PARTS) - {"build", "data", "tensorrt"}
    assert text.count(proof["machine"]["label"]) == len(measured) + 1 and "the times mean nothing" in text
    assert "| warp_bev | passed | 30 | 30 | 0 | 0 | none |" in text and "ERROR SUMMARY: 0 errors" in text
    assert "| tensorrt | skipped |" in text and "give --data FOLDER" in text


@built
def test_what_a_sanitizer_reports_is_a_failure(tmp_path, monkeypatch) -> None:
    text = 'echo "========= Invalid __global__ write of size 4 bytes"; echo "========= ERROR SUMMARY: 1 error"; exit 9'
    program(tmp_path / "bin", "compute-sanitizer", text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    record = parts.sanitizer(make_context(tmp_path))
    assert record["status"] == "failed" and {r["status"] for r in record["tools"].values()} == {"failed"}
    assert "Invalid __global__ write" in record["tools"]["memcheck"]["reports"][0]


def test_a_sanitizer_that_the_machine_refuses_is_no_failure(tmp_path, monkeypatch) -> None:
    program(tmp_path / "bin", "compute-sanitizer", 'echo "========= Error: Device not supported"; exit 9')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    record = parts.sanitizer(make_context(tmp_path))
    assert record["status"] == "skipped" and "Device not supported" in record["reason"]


def test_without_a_module_the_build_fails_and_the_other_parts_are_still_tried(tmp_path) -> None:
    result = run("--fake", "--build", str(tmp_path), "--out", str(tmp_path), "--parts", "build", "ops", "kernels")
    assert result.returncode == 1
    proof = json.loads((tmp_path / "prove.json").read_text())
    assert {part["status"] for part in proof["parts"].values()} == {"failed"}
    assert "make test" in proof["parts"]["build"]["reason"] and "no module" in proof["parts"]["kernels"]["tail"]


def test_parts_beyond_the_time_are_skipped_out_loud(tmp_path) -> None:
    result = run("--fake", "--minutes", "0.000000001", "--out", str(tmp_path))
    assert result.returncode == 1 and result.stdout.count("the time is up") == len(prove.PARTS)
    assert (tmp_path / "prove.md").read_text().count("the time is up") == len(prove.PARTS)


def test_a_command_ends_with_the_time_and_its_children_with_it(tmp_path) -> None:
    mark = tmp_path / "late"
    start = time.monotonic()
    with pytest.raises(parts.OutOfTime):
        parts.execute(make_context(tmp_path, 1.0), ["bash", "-c", f"(sleep 4; touch {mark}) & wait"], "log")
    assert time.monotonic() - start < 4
    time.sleep(4)
    assert not mark.exists()


def test_a_part_has_its_share_and_what_others_left(tmp_path) -> None:
    context = make_context(tmp_path, 100)
    both, shares = ["ops", "end_to_end"], prove.SHARES
    expected = 100 * shares["ops"] / (shares["ops"] + shares["end_to_end"])
    assert prove.share_of(context, "ops", both).remaining() == pytest.approx(expected, abs=1)
    assert prove.share_of(context, "end_to_end", both).remaining() == pytest.approx(100, abs=1)
    assert set(shares) == set(prove.PARTS)
    most = list(prove.PARTS)[1:]
    assert prove.share_of(context, "faults", most).remaining() == pytest.approx(prove.LEAST, abs=1)
    short = make_context(tmp_path, 10)
    assert prove.share_of(short, "faults", most).remaining() == pytest.approx(10, abs=1)


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(programs, "NETWORKS", ("torch", "no_such_library"))
    monkeypatch.setattr(programs, "TRAINING", ("no_such_library",))
    for part in (programs.detector, programs.streams, programs.faults, programs.end_to_end, programs.training):
        record = part(make_context(tmp_path))
        assert record["status"] == "skipped" and "no_such_library is not installed" in record["reason"]


def test_one_gpu_is_too_few_for_several(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(programs, "gpu_count", lambda: 1)
    record = programs.several_gpus(replace(make_context(tmp_path), fake=False))
    assert record["status"] == "skipped" and "needs two" in record["reason"]


def test_a_program_that_dies_is_a_failure_with_its_output(tmp_path) -> None:
    command = [sys.executable, "-c", "print('the last words'); raise SystemExit(3)"]
    record = programs.run_program(make_context(tmp_path), "dying", command)
    assert record["status"] == "failed" and "exit status 3" in record["reason"] and "last words" in record["tail"]


@pytest.mark.parametrize(("end", "seconds"), [("raise SystemExit(3)", 600), ("import time; time.sleep(60)", 3)])
def test_a_program_that_ends_early_keeps_what_it_measured(tmp_path, end: str, seconds: float) -> None:
    text = f'import sys; open(sys.argv[1], \'w\').write(\'{{"a": {{"status": "passed"}}}}\'); {end}'
    record = programs.run_program(make_context(tmp_path, seconds), "early", [sys.executable, "-c", text, "FILE"])
    assert record["status"] == "failed" and record["reason"] and record["results"] == {"a": {"status": "passed"}}


def test_an_entry_that_fails_ends_no_other_and_each_is_written_at_once(tmp_path) -> None:
    file, seen = tmp_path / "found.json", []

    def look() -> dict:
        seen.append(json.loads(file.read_text()) if file.is_file() else {})
        return {"status": "passed"}

    entries.write_each(file, [("a", look), ("b", lambda: 1 / 0), ("c", look)])
    assert seen == [{}, {"a": {"status": "passed"}, "b": {"status": "failed", "reason": seen[1]["b"]["reason"]}}]
    found = json.loads(file.read_text())
    assert list(found) == ["a", "b", "c"] and "ZeroDivisionError" in found["b"]["reason"]


@pytest.mark.parametrize("name", [name for name in page.TABLES if name not in ("ops", "sanitizer", "kernels")])
def test_an_entry_that_measured_nothing_is_on_the_page_with_its_reason(name: str) -> None:
    part = {"status": "failed", "seconds": 1.0, "measured_on": "here"}
    part["results"] = {"tiny": {"status": "failed", "reason": "KeyError:\n'x'"}}
    about = {"label": "here", "host": "host"}
    proof = {"status": "failed", "fake": False, "date": "now", "machine": about, "parts": {name: part}}
    assert "- tiny failed: KeyError: 'x'" in page.page(proof)


@pytest.mark.parametrize(("statuses", "status"), [(["passed", "failed"], "failed"), (["skipped"], "skipped")])
def test_results_without_a_pass_are_no_pass(tmp_path, statuses: list[str], status: str) -> None:
    results = {str(i): {"status": s, "reason": "r"} for i, s in enumerate(statuses)}
    text = f"import sys; open(sys.argv[1], 'w').write({json.dumps(results)!r})"
    record = programs.run_program(make_context(tmp_path), "mixed", [sys.executable, "-c", text, "FILE"])
    assert record["status"] == status and record["results"] == results


def test_an_exception_in_a_part_is_its_record(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(prove.PARTS, "ops", lambda context: 1 / 0)
    record = prove.run_part(make_context(tmp_path), "ops", "here")
    assert record["status"] == "failed" and "ZeroDivisionError" in record["reason"] and "run_part" in record["tail"]


# ---- the records ----
def test_after_a_fault_of_the_gpu_the_cases_that_did_not_run_are_named(tmp_path) -> None:
    test = tmp_path / "test_some.py"
    test.write_text(
        "import numpy as np\nfrom differences import equal\n"
        "def test_a(): assert equal(np.float32([1, 2]), np.float32([1, 2]))\n"
        "def test_b(): assert equal(np.float32([1, 2]), np.float32([1, 2.5]))\n"
        "def test_c(): raise RuntimeError('an illegal memory access was encountered')\n"
        "def test_d(): pass\n"
    )
    lines = tmp_path / "lines.jsonl"
    env = make_context(tmp_path).environment(IMKD_RECORD=str(lines))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "record", str(test)]
    subprocess.run(command, env=env, capture_output=True, cwd=tmp_path)
    record = parts.summarize(*parts.read_cases(lines))
    assert (record["status"], record["cases"], record["passed"], record["failed"]) == ("failed", 4, 1, 2)
    assert record["not_run"] == ["test_d"] and [f["case"] for f in record["failures"]] == ["test_b", "test_c"]
    assert record["differences"]["float32 absolute"] == 0.5 and record["differences"]["float32 relative"] == 0.2


def test_a_fault_of_the_gpu_costs_its_own_op_only(tmp_path, monkeypatch) -> None:
    cases = ["test_images_x", "test_the_lift_x", "test_the_lift_y", "test_a_warped_map", "test_new"]
    asked = []

    def run_cases(context: parts.Context, name: str, prefix: list[str], **env: str) -> parts.Cases:
        asked.append(env["IMKD_RECORD_OPS"])
        selected = [case for case in cases if parts.op_of(case) in env["IMKD_RECORD_OPS"].split(",")]
        ran = selected[:2] if len(asked) == 1 else selected  # the first process loses the GPU in the first lift
        outcome = {"test_the_lift_x": "failed"}
        records = [{"case": c, "outcome": outcome.get(c, "passed"), "message": "m", "differences": {}} for c in ran]
        return selected, records, {"exit_status": 2}

    monkeypatch.setattr(parts, "run_cases", run_cases)
    record = parts.ops(make_context(tmp_path))
    statuses = {op: result["status"] for op, result in record["ops"].items()}
    assert statuses == {"preprocess_images": "passed", "lift": "failed", "warp_bev": "passed", "other": "passed"}
    assert record["ops"]["lift"]["not_run"] == ["test_the_lift_y"] and asked[1:] == ["warp_bev,other"]
    assert record["status"] == "failed"


def test_a_process_that_dies_in_its_first_case_costs_that_op_only(tmp_path, monkeypatch) -> None:
    def run_cases(context: parts.Context, name: str, prefix: list[str], **env: str) -> parts.Cases:
        selected = [c for c in ("test_images_x", "test_the_lift_x") if parts.op_of(c) in env["IMKD_RECORD_OPS"]]
        lived = [{"case": c, "outcome": "passed", "differences": {}} for c in selected[:1] if c == "test_the_lift_x"]
        return selected, lived, {"exit_status": -11}

    monkeypatch.setattr(parts, "run_cases", run_cases)
    record = parts.ops(make_context(tmp_path))
    assert {op: result["status"] for op, result in record["ops"].items()} == {
        "preprocess_images": "failed",
        "lift": "passed",
    }
    assert record["ops"]["preprocess_images"]["not_run"] == ["test_images_x"] and record["status"] == "failed"
    assert "before or in `test_images_x`: exit status -11, see ops-0.log" in page.ops_table(record)


def test_a_failed_case_is_on_the_page(tmp_path) -> None:
    largest = {"float32 absolute": 0.5}
    case = {"case": "test_x[1]", "outcome": "failed", "message": "assert False", "differences": largest}
    part = {"ops": {"lift": parts.summarize(["test_x[1]", "test_x[2]"], [case])}}
    text = page.ops_table(part)
    assert "| lift | failed | 2 | 0 | 1 | 1 | float32 absolute 0.5 |" in text
    assert "`test_x[1]` failed: assert False" in text


def test_no_case_at_all_is_not_a_pass() -> None:
    assert parts.summarize([], [])["status"] == "failed"
    assert parts.worst({"a": {"status": "passed"}, "b": {"status": "failed"}}) == "failed"


def test_shares_of_a_copy_computed_by_hand() -> None:
    op = kernels.op_times({"cold": [10.0, 30.0, 20.0], "queued": [8.0]}, 2_000_000, {"bytes_per_s": 1e12})
    assert (op["us"], op["us_least"], op["us_most"], op["us_queued"]) == (20, 10, 30, 8)
    assert op["bytes_per_s"] == pytest.approx(1e11) and op["share_of_copy"] == pytest.approx(0.1)

    class Module:
        @staticmethod
        def measure_copy(size: int, repeats: int) -> list[float]:
            return [900.0] * 3 + [500.0] * (repeats - 3)

    assert kernels.copy_speed(Module, 10**9, 5)["bytes_per_s"] == pytest.approx(4e12)  # 1 GB read, 1 GB written


def test_differences_are_kept_by_kind_only_while_recording(monkeypatch) -> None:
    monkeypatch.setattr(differences, "largest", {})
    assert differences.equal(np.array([1, np.nan], np.float32), np.array([1, np.nan], np.float32), equal_nan=True)
    assert differences.largest == {}
    monkeypatch.setattr(differences, "recording", True)
    assert not differences.equal(np.array([1, 4], np.float16), np.array([1, 5], np.float16))
    assert not differences.close(np.array([1, np.nan], np.float32), np.array([1, 2], np.float32))
    assert differences.nmse(np.array([3.0, 0.0]), np.array([3.0, 1.0])) == pytest.approx(0.1)
    assert differences.largest == {
        "float16 absolute": 1,
        "float16 relative": 0.2,
        "float32 absolute": 0,
        "float32 relative": 0,
        "NaN or infinite in one of two": 1,
        "normalised mean square error": pytest.approx(0.1),
    }


# ---- with nvcc ----
@pytest.mark.slow
def test_the_cuda_loop_and_the_ops_build_for_a_gpu_without_tensorrt(tmp_path) -> None:
    if machine.nvcc() is None:
        pytest.skip("no nvcc: the module of the proof on a GPU is NOT built")
    if not os.environ.get("IMKD_BUILD_FOR_GPU"):
        pytest.skip("minutes of nvcc: IMKD_BUILD_FOR_GPU=1 builds the module of the proof on a GPU")
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "nlohmann").symlink_to(machine.json_include(None) / "nlohmann")
    context = parts.Context(tmp_path, tmp_path / "build", False, time.monotonic() + 3000, "9.0", headers)
    core = Path(_core.__file__)  # to build the bindings again takes minutes
    context.build.mkdir()
    (context.build / core.name).symlink_to(core)
    record = parts.build(context, targets=(parts.MODULE,))
    assert record["status"] == "passed", record
    code = "import imkd_edge, imkd_edge._core as core; print(imkd_edge.__file__, core.__file__)"
    command = [sys.executable, "-c", code]
    where = subprocess.run(command, capture_output=True, text=True, env=context.environment(), cwd=tmp_path)
    assert where.stdout.count(str(tmp_path)) == 2, where.stderr
    assert list((tmp_path / "build" / "tests" / "cpp").glob("cuda_on_device*.so"))

    # Without a GPU the built module loads, and each case says that there is none.
    record = parts.ops(replace(context, cases="warped and fwd and identity"))["ops"]["warp_bev"]
    assert record["cases"] == 5
    assert record["passed"] == 5 or all("cudaMalloc" in failure["message"] for failure in record["failures"])
