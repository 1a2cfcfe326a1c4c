"""bench: versions of the machine, throttling and memory, read from test folders and test drivers."""

from __future__ import annotations

import ctypes
import html
import mmap
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from imkd_edge.bench import bench, environment, machine, page
from imkd_edge.bench.memory import Usage, heap_bytes, memory_line, per_frame
from imkd_edge.bench.telemetry import Nvml, Telemetry
from imkd_edge.bench.throttling import Throttling, throttling_line
from imkd_edge.engines.gpu import Gpu
from imkd_edge.errors import Code, Error
from imkd_edge.options import BenchOptions, RunOptions

DPKG = """Package: nvidia-l4t-core
Status: install ok installed
Version: 36.4.3-20250107174145

Package: nvidia-jetpack
Status: {status}
Architecture: arm64
Version: 6.2+b77
Description: of Version: 9
"""
TEGRA = (
    "# R35 (release), REVISION: 6.0, GCID: 37391689, BOARD: generic, EABI: aarch64, DATE: Wed Aug 28 09:12:41 UTC 2024"
)


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes text files below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# ---- versions ----
def test_versions_of_an_orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_gpu", lambda: Gpu("Orin", "87", "12.6", "540.4.0"))
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS\t: 62.50\n",
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu4/cpufreq/scaling_governor": "performance\n",
            "etc/nv_tegra_release": TEGRA,
            "var/lib/dpkg/status": DPKG.format(status="install ok installed"),
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
            "usr/lib/aarch64-linux-gnu/libnvinfer.so.10": "",
            "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
            "usr/lib/aarch64-linux-gnu/libnvinfer_plugin.so.8.6.2": "",
        },
    )
    result = environment(tmp_path)
    expected = {
        "cpu": "ARMv8 Processor rev 1 (v8l)",
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "cpu governor": "performance, schedutil",
        "gpu": "Orin, sm 87",
        "cuda driver": "12.6, 540.4.0",
        "cuda runtime": "12.6.11",
        "tensorrt": "10.3.0",
        "l4t": "R35.6.0",  # of the release file: the running system; the package may be newer
        "jetpack": "6.2+b77",
    }
    assert {name: result[name] for name in expected} == expected


def test_l4t_falls_back_to_its_package_unless_that_is_removed(tmp_path: Path) -> None:
    write(tmp_path, {"var/lib/dpkg/status": DPKG.format(status="deinstall ok config-files")})
    result = environment(tmp_path)
    assert result["l4t"] == "R36.4.3" and result["jetpack"] == "unknown"


def test_missing_versions_are_absent_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> Gpu:
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", "install one")

    monkeypatch.setattr(machine, "find_gpu", no_driver)
    monkeypatch.setattr(machine.metadata, "version", _nothing_installed)
    result = environment(tmp_path)
    absent = ("gpu", "cuda driver", "cuda runtime", "tensorrt", "l4t", "jetpack", "numpy", "onnxruntime", "imkd-edge")
    assert {name: result[name] for name in absent} == dict.fromkeys(absent, "absent")
    assert result["board"] == result["cpu governor"] == "unknown" and all(result.values())


def _nothing_installed(package: str) -> str:
    raise metadata.PackageNotFoundError(package)


def test_commit_of_a_checkout_is_marked_dirty_after_a_change(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert machine._commit(tmp_path) == "unknown"
    git("init", "--quiet")
    write(tmp_path, {"a": "1"})
    git("add", "a")
    git("commit", "--quiet", "--message", "one")
    assert machine._commit(tmp_path) == git("rev-parse", "HEAD")[:12]
    write(tmp_path, {"a": "2"})
    assert machine._commit(tmp_path) == git("rev-parse", "HEAD")[:12] + "-dirty"


# ---- throttling ----
THERMAL, HWMON = "sys/class/thermal/cooling_device", "sys/class/hwmon/hwmon3/"


def test_throttling_counts_states_counters_and_nvml_but_no_fans(tmp_path: Path) -> None:
    names = ["pwm-fan", "cpufreq-cpu0", "gpu-throttle-alert", "hot-surface-alert"]
    write(tmp_path, {f"{THERMAL}{i}/type": f"{name}\n" for i, name in enumerate(names)})
    write(
        tmp_path,
        {f"{THERMAL}{i}/cur_state": "0\n" for i in range(4)}
        | {f"{THERMAL}0/cur_state": "3\n", f"{THERMAL}3/cur_state": "1\n"},
    )
    write(tmp_path, {f"{HWMON}name": "soctherm_oc\n", f"{HWMON}oc1_event_cnt": "0\n", f"{HWMON}oc3_event_cnt": "37\n"})
    bits = iter([0x1, 0x2 | 0x10 | 0x100, 0x4, 0x24])  # idle; user limits; power; power and heat
    throttling = Throttling(tmp_path, lambda: next(bits))
    throttling.sample()  # the first sample: its 37 events are earlier ones
    write(tmp_path, {f"{THERMAL}1/cur_state": "2\n"})
    throttling.sample()
    write(tmp_path, {f"{THERMAL}1/cur_state": "0\n", f"{HWMON}oc3_event_cnt": "40\n"})
    throttling.sample()
    throttling.sample()
    assert throttling.summary() == {
        "told_by": ["NVML", "cooling devices", "event counters"],
        "samples": 4,
        "share": 0.75,
        "reasons": {
            "GPU: heat, slowed by software": 0.25,
            "GPU: power limit": 0.5,
            "cpufreq-cpu0": 0.25,
            "oc3: instantaneous over-current": 0.25,
        },
    }
    line = throttling_line(throttling.summary())
    assert (
        line.startswith("throttled in 75 % of 4 samples of NVML, cooling devices, event counters: GPU: heat")
        and "power limit in 50 %" in line
    )


def test_no_throttling_differs_from_no_source(tmp_path: Path) -> None:
    unreported, unthrottled = Throttling(tmp_path, lambda: None), Throttling(tmp_path, lambda: 0)
    for throttling in (unreported, unthrottled):
        throttling.sample()
    assert unreported.summary() == {"told_by": [], "samples": 1, "share": None, "reasons": {}}
    assert unthrottled.summary() == {"told_by": ["NVML"], "samples": 1, "share": 0.0, "reasons": {}}
    assert throttling_line(unreported.summary()) == "throttling: no source on this machine reports it"
    assert throttling_line(unthrottled.summary()) == "throttling: none in 1 samples of NVML"


class OldDriver:
    """Has the clock reasons under their older name only, and a power limit."""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, out: Any) -> int:
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: Any, out: Any) -> int:
        out._obj.value = 0x40 | 1 << 40
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, device: Any, out: Any) -> int:
        out._obj.value = 285_000  # mW
        return 0


def test_clock_reasons_of_an_older_driver(tmp_path: Path) -> None:
    assert Nvml(OldDriver()).clock_reasons() == 0x40 | 1 << 40 and Nvml(None).clock_reasons() is None
    with Telemetry(tmp_path, period=60, nvml=OldDriver()) as telemetry:
        pass
    assert telemetry.throttling()["reasons"] == {"GPU: heat, slowed by hardware": 1.0}
    assert telemetry.power_mode() == "GPU limited to 285 W"


def test_power_mode_of_a_jetson_has_its_name(tmp_path: Path) -> None:
    modes = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=3 NAME=MODE_50W >\n"
    modes += "< PM_CONFIG DEFAULT=3 >\n"
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0003\n", "etc/nvpmodel.conf": modes})
    assert Telemetry(tmp_path, nvml=OldDriver()).power_mode() == "0003 MODE_50W"


# ---- memory ----
def test_heap_counts_allocated_but_not_freed_memory() -> None:
    if (before := heap_bytes()) is None:
        pytest.skip("no glibc 2.33: the heap is NOT measured")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    # one block with a mapping of its own, and 2000 in an arena
    blocks = [libc.malloc(size) for size in [64 << 20] + [2000] * 2000]
    growth = (heap_bytes() or 0) - before
    for block in blocks:
        libc.free(block)
    rest = (heap_bytes() or 0) - before
    assert 67_108_864 + 4_000_000 <= growth < 67_108_864 + 4_000_000 + 1_000_000
    assert abs(rest) < 1_000_000


def test_minor_faults_count_pages_first_touched() -> None:
    pages = 300
    with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        before = Usage.now()
        for page_number in range(pages):
            memory[page_number * mmap.PAGESIZE] = 1
        first = Usage.now()
        for page_number in range(pages):
            memory[page_number * mmap.PAGESIZE] = 2
        second = Usage.now()
    assert first.minor_faults - before.minor_faults >= pages > second.minor_faults - first.minor_faults


def test_growth_is_per_frame() -> None:
    growth = per_frame(Usage(1000, 5), Usage(3000, 25), 10)
    assert growth == {"heap_growth_bytes_per_frame": 200.0, "minor_faults_per_frame": 2.0}
    assert memory_line(growth) == "heap: +200.0 bytes in use per frame; pages first touched: 2.00 per frame"
    assert per_frame(Usage(None, 5), Usage(None, 5), 10)["heap_growth_bytes_per_frame"] is None
    assert "not reported" in memory_line(per_frame(Usage(None, 5), Usage(None, 5), 10))


# ---- the report ----
def test_report_has_versions_power_mode_throttling_and_memory(run: Any, random_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    result = run("bench", random_bundle, "--frames", 5, "--warmup", 1, "--html", path, "--json").json
    names = {"power mode", "system", "cpu", "imkd-edge", "commit", "python", "numpy", "onnxruntime"}
    names |= {"cuda driver", "cuda runtime", "tensorrt", "jetpack", "l4t"}
    assert names <= result["environment"].keys() and all(result["environment"].values())
    assert result["throttling"].keys() == {"told_by", "samples", "share", "reasons"}
    assert result["throttling"]["samples"] >= 2
    assert result["memory"].keys() == {"heap_growth_bytes_per_frame", "minor_faults_per_frame"}
    throttled, memory = throttling_line(result["throttling"]), memory_line(result["memory"])
    for line in (throttled, memory, f"commit: {result['environment']['commit']}"):
        assert html.escape(line) in path.read_text()
    text = run("bench", random_bundle, "--frames", 3, "--warmup", 1).text
    assert "throttl" in text and "pages first touched" in text and "power mode" in text


def test_page_shows_the_reasons_of_throttling(random_bundle: Path) -> None:
    result = bench(str(random_bundle), "synth", BenchOptions(frames=3, warmup=0), run=RunOptions())
    throttling = {"told_by": ["NVML"], "samples": 8, "share": 0.5, "reasons": {"GPU: power limit": 0.5}}
    text = page.page({**result, "throttling": throttling})
    assert "throttled in 50 % of 8 samples of NVML: GPU: power limit in 50 %" in text
