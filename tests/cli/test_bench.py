"""bench: counts and percentiles, telemetry, the gate and the page."""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Reader, open_in_browser

from imkd_edge.bench import frames, page
from imkd_edge.bench.telemetry import Telemetry
from imkd_edge.detector import Detector
from imkd_edge.errors import Code, Error
from imkd_edge.options import BenchOptions, RunOptions


def bench(bundle: Path, threads: int = 0, **options: Any) -> dict[str, Any]:
    return frames.bench(str(bundle), "synth", BenchOptions(**options), run=RunOptions(threads=threads))


class Clock:
    """Replaces `time` in `bench.frames`: only sleep and infer take time."""

    def __init__(self, infer_s: list[float]) -> None:
        self.now, self._durations = 100.0, list(infer_s)

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def infer(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.now += self._durations.pop(0) if self._durations else 0.01
            return real(*args, **options)

        return call


def test_every_frame_is_counted_and_percentiles_are_observed_values(random_bundle: Path) -> None:
    result = bench(random_bundle, frames=30, warmup=2, threads=1)
    times = result["series"]["total_ms"]
    assert len(times) == 30 and result["total_ms"]["max"] == max(times) and result["total_ms"]["p50"] in times
    assert result["jitter_ms"] == pytest.approx(np.mean([abs(b - a) for a, b in itertools.pairwise(times)]))
    assert result["fps"] == pytest.approx(30 / result["series"]["at_s"][-1])
    assert result["deadline"] is None and result["stage_frames"] == 30


def test_waiting_for_the_previous_frame_counts_as_latency(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(
        [0.01, 0.01, 0.35, 0.02, 0.02, 0.02]
    )  # a frame each 0.1 s; the third takes until after the sixth is due
    monkeypatch.setattr(frames, "time", clock)
    monkeypatch.setattr(Detector, "infer", clock.infer(Detector.infer))
    result = bench(random_bundle, frames=8, warmup=0, rate=10, threads=1)
    assert result["series"]["total_ms"] == pytest.approx([10, 10, 350, 270, 190, 110, 20, 10])
    assert result["series"]["at_s"] == pytest.approx([0.01, 0.11, 0.55, 0.57, 0.59, 0.61, 0.62, 0.71], abs=1e-6)
    assert result["deadline"] == {"rate": 10, "deadline_ms": 100, "missed": 4, "share": 0.5}


def test_gate_is_the_99th_percentile(run: Any, random_bundle: Path) -> None:
    assert run("bench", random_bundle, "--frames", 5, "--warmup", 1, "--max-p99", 10_000, "--json").code == 0
    outcome = run("bench", random_bundle, "--frames", 5, "--warmup", 1, "--max-p99", 0.001)
    assert outcome.code == 1 and "above 0.001" in outcome.stderr
    with pytest.raises(Error) as raised:
        bench(random_bundle, frames=1, rate=0)
    assert raised.value.code == "E0104"


@pytest.mark.parametrize("option", ["--max-p99", "--rate"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_limit_that_is_not_finite_is_refused(run: Any, option: str, value: str) -> None:
    outcome = run("bench", "tiny", "--frames", 1, option, value)
    assert outcome.code == 2 and "finite" in outcome.stderr and outcome.stdout == ""


@pytest.mark.parametrize("mode", [["--predict", "thor"], ["--ops"]], ids=["predict", "ops"])
@pytest.mark.parametrize(
    "option",
    [
        ["--max-p99", "0"],
        ["--html", "x.html"],
        ["--rate", "20"],
        ["--device", "cpu"],
        ["--frames", "9"],
        ["--warmup", "0"],
    ],
    ids=lambda option: option[0],
)
def test_options_that_another_mode_would_ignore_are_refused(
    run: Any, tmp_path: Path, monkeypatch: Any, mode: list[str], option: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("bench", "tiny", *mode, *option)
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0104]") and f"/ {option[0]} /" in outcome.stderr
    assert outcome.stdout == "" and not list(tmp_path.iterdir())


def test_two_modes_at_once_and_a_precision_without_its_mode_are_refused(run: Any) -> None:
    for arguments, option in ((["--ops", "--predict", "thor"], "--ops"), (["--precision", "int8"], "--precision")):
        outcome = run("bench", "tiny", *arguments)
        assert outcome.code == 2 and f"/ {option} /" in outcome.stderr


def test_more_frames_than_the_limit_is_a_usage_error(run: Any) -> None:
    assert run("bench", "tiny", "--frames", 100_000_000_000).code == 2


# ---- telemetry ----
def system(root: Path, **files: str) -> Path:
    """Writes the files of a system; "__" in a name separates folders."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def orin(root: Path) -> Path:
    """The files of an AGX Orin that telemetry reads."""
    hwmon, zone, gpu = (
        "sys__class__hwmon__hwmon1__",
        "sys__class__thermal__thermal_zone",
        "sys__class__devfreq__17000000.gpu__",
    )
    rails = {
        "in1_label": "VDD_GPU_SOC",
        "in1_input": "20000",
        "curr1_input": "600",
        "in2_label": "VDD_CPU_CV",
        "in2_input": "19000",
    }
    rails |= {"curr2_input": "100", "in3_label": "NC", "in3_input": "1", "curr3_input": "1", "name": "ina3221"}
    system(root, **{hwmon + name: value for name, value in rails.items()})
    system(
        root,
        **{"sys__class__hwmon__hwmon0__name": "pwmfan", f"{zone}0__type": "gpu-thermal", f"{zone}0__temp": "51500"},
    )
    system(root, **{f"{zone}1__type": "cv0-thermal", f"{zone}1__temp": "-256000", f"{zone}2__type": "cpu-thermal"})
    system(
        root,
        **{gpu + "cur_freq": "918000000", gpu + "max_freq": "1300500000", "sys__class__devfreq__host1x__cur_freq": "1"},
    )
    cpu = "sys__devices__system__cpu__cpu"
    system(root, **{f"{cpu}0__cpufreq__scaling_cur_freq": "2201600", f"{cpu}1__cpufreq__scaling_cur_freq": "729600"})
    return system(root, var__lib__nvpmodel__status="pmode:0003", proc__self__status="Name: x\nVmRSS:\t  204800 kB")


class NoLibrary:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 999  # NVML_ERROR_UNKNOWN


def test_sensors_of_a_jetson(tmp_path: Path) -> None:
    telemetry = Telemetry(orin(tmp_path), nvml=NoLibrary())
    assert telemetry.read() == pytest.approx(
        {
            "power_w VDD_GPU_SOC": 12.0,
            "power_w VDD_CPU_CV": 1.9,
            "power_w": 13.9,
            "temperature_c gpu-thermal": 51.5,
            "clock_mhz GPU": 918.0,
            "clock_mhz GPU, highest allowed": 1300.5,
            "clock_mhz CPU, slowest core": 729.6,
            "memory_mb process": 200.0,
        }
    )
    assert telemetry.power_mode() == "0003"


def test_power_is_that_of_the_input_rail_where_there_is_one(tmp_path: Path) -> None:
    hwmon = "sys__class__hwmon__hwmon0__"
    files = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000"}
    files |= {"in2_label": "VDD_CPU_GPU_CV", "in2_input": "5000", "curr2_input": "800"}
    telemetry = Telemetry(system(tmp_path, **{hwmon + name: value for name, value in files.items()}), nvml=NoLibrary())
    assert telemetry.read()["power_w"] == pytest.approx(10.0)
    assert telemetry.power_mode() == "unknown"


def test_gpu_of_a_desktop_is_read_through_nvml(tmp_path: Path) -> None:
    class Library:
        def nvmlInit_v2(self) -> int:
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, index: int, out: Any) -> int:
            return 0

        def nvmlDeviceGetPowerUsage(self, device: Any, out: Any) -> int:
            out._obj.value = 71_250  # mW
            return 0

        def nvmlDeviceGetTemperature(self, device: Any, sensor: int, out: Any) -> int:
            out._obj.value = 44
            return 0

        def nvmlDeviceGetClockInfo(self, device: Any, kind: int, out: Any) -> int:
            assert kind == 1  # NVML_CLOCK_SM
            return 3  # NVML_ERROR_NOT_SUPPORTED

        def nvmlDeviceGetMemoryInfo(self, device: Any, out: Any) -> int:
            ctypes.memmove(out, (ctypes.c_ulonglong * 3)(8 << 30, 6 << 30, 2 << 30), 24)
            return 0

    values = Telemetry(tmp_path, nvml=Library()).read()
    assert values == pytest.approx({"power_w": 71.25, "temperature_c GPU": 44, "memory_mb GPU": 2048})


def test_telemetry_samples_in_the_background(tmp_path: Path) -> None:
    orin(tmp_path)
    with Telemetry(tmp_path, period=0.01, nvml=NoLibrary()) as telemetry:
        (tmp_path / "new").write_text("40000\n")
        # replaced in one step, because the thread may read the file at any time
        (tmp_path / "new").replace(tmp_path / "sys/class/hwmon/hwmon1/in1_input")
        while telemetry.summary()["power_w"]["last"] < 25:  # until the thread has read the new value
            time.sleep(0.01)
    power = telemetry.summary()["power_w"]
    assert power["first"] == pytest.approx(13.9) and power["last"] == power["max"] == pytest.approx(25.9)
    assert 13.9 < power["mean"] < 25.9


# ---- the page ----
def test_page_is_self_contained_and_holds_the_result(run: Any, random_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    result = run("bench", random_bundle, "--frames", 40, "--warmup", 1, "--rate", 200, "--html", path, "--json").json
    assert "series" not in result
    text = path.read_text()
    reader = Reader(text)
    assert not reader.fetched and "http" not in text and "@import" not in text
    assert reader.tags.count("svg") == 3 and reader.tags.count("rect") == 80 + 7
    assert json.loads(re.search(r'<script type="application/json" id="result">(.*?)</script>', text)[1]) == result
    assert f"{result['total_ms']['p99']:.2f}" in text


@pytest.mark.parametrize("path", ["file/bench.html", "file/new/bench.html", "folder"])
def test_path_of_a_page_is_checked_before_the_run(run: Any, tmp_path: Path, monkeypatch: Any, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(
        "imkd_edge.bench.bench", lambda *arguments, **more: pytest.fail("the benchmark ran before the check")
    )
    outcome = run("bench", "tiny", "--html", tmp_path / path)
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_result_is_printed_although_its_page_cannot_be_written(
    run: Any, random_bundle: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def fail(*arguments: Any) -> None:
        raise Error(Code.write_failed, "No space left on device")

    monkeypatch.setattr("imkd_edge.bench.write_page", fail)
    outcome = run(
        "bench", random_bundle, "--frames", 3, "--warmup", 0, "--html", tmp_path / "new" / "bench.html", "--json"
    )
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]") and outcome.json["frames"] == 3


def test_histogram_counts_every_frame() -> None:
    values = [1.0] * 10 + [2.0] * 5 + [9.0]
    svg = page.histogram(values, {"p50": 1.0, "p99": 9.0, "p99.9": 9.0}, bins=8)
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', svg)]
    assert heights == pytest.approx([180, 90, 0, 0, 0, 0, 0, 18], abs=0.11)


def test_names_in_the_page_are_escaped(random_bundle: Path) -> None:
    result = bench(random_bundle, frames=3, warmup=0)
    Reader(page.page({**result, "bundle": "</script><b>x", "environment": {"a": "<i>"}}))
    assert "<b>x" not in page.page({**result, "bundle": "<b>x"})


def test_page_opens_in_a_browser(random_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    page.write_page(bench(random_bundle, frames=20, warmup=0), path)
    open_in_browser(path, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
