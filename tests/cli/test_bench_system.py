"""bench: the machine and its versions, throttling and memory, from file trees and drivers of our own."""

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
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# ---- versions ----
def test_an_orin_tells_all_its_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = environment(tmp_path)
    expected = {
        "cpu": "ARMv8 Processor rev 1 (v8l)",
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "cpu governor": "performance, schedutil",
        "gpu": "Orin, sm 87",
        "cuda driver": "12.6, 540.4.0",
        "cuda runtime": "12.6.11",
        "tensorrt": "10.3.0",
        "l4t": "R35.6.0",  # the file speaks of what runs, the package of what is installed
        "jetpack": "6.2+b77",
    }
    assert {name: found[name] for name in expected} == expected


def test_without_the_release_file_the_package_tells_and_a_removed_one_does_not(tmp_path: Path) -> None:
    write(tmp_path, {"var/lib/dpkg/status": DPKG.format(status="deinstall ok config-files")})
    found = environment(tmp_path)
    assert found["l4t"] == "R36.4.3" and found["jetpack"] == "unknown"


def test_what_is_not_there_is_said_to_be_absent_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> Gpu:
        raise Error(Code.device_unavailable, "no NVIDIA driver", "libcuda.so.1", "install one")

    monkeypatch.setattr(machine, "find_gpu", no_driver)
    monkeypatch.setattr(machine.metadata, "version", _nothing_installed)
    found = environment(tmp_path)
    absent = ("gpu", "cuda driver", "cuda runtime", "tensorrt", "l4t", "jetpack", "numpy", "onnxruntime", "imkd-edge")
    assert {name: found[name] for name in absent} == dict.fromkeys(absent, "absent")
    assert found["board"] == found["cpu governor"] == "unknown" and all(found.values())


def _nothing_installed(package: str) -> str:
    raise metadata.PackageNotFoundError(package)


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
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


def test_states_counters_and_nvml_are_reasons_and_fans_are_none(tmp_path: Path) -> None:
    names = ["pwm-fan", "cpufreq-cpu0", "gpu-throttle-alert", "hot-surface-alert"]
    write(tmp_path, {f"{THERMAL}{i}/type": f"{name}\n" for i, name in enumerate(names)})
    write(
        tmp_path,
        {f"{THERMAL}{i}/cur_state": "0\n" for i in range(4)}
        | {f"{THERMAL}0/cur_state": "3\n", f"{THERMAL}3/cur_state": "1\n"},
    )
    write(tmp_path, {f"{HWMON}name": "soctherm_oc\n", f"{HWMON}oc1_event_cnt": "0\n", f"{HWMON}oc3_event_cnt": "37\n"})
    bits = iter([0x1, 0x2 | 0x10 | 0x100, 0x4, 0x24])  # idle; chosen limits; power; power and heat
    throttling = Throttling(tmp_path, lambda: next(bits))
    throttling.sample()  # 37 events were before
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


def test_a_device_that_was_never_slowed_differs_from_one_that_does_not_tell(tmp_path: Path) -> None:
    silent, awake = Throttling(tmp_path, lambda: None), Throttling(tmp_path, lambda: 0)
    for throttling in (silent, awake):
        throttling.sample()
    assert silent.summary() == {"told_by": [], "samples": 1, "share": None, "reasons": {}}
    assert awake.summary() == {"told_by": ["NVML"], "samples": 1, "share": 0.0, "reasons": {}}
    assert throttling_line(silent.summary()) == "throttling: no source on this machine reports it"
    assert throttling_line(awake.summary()) == "throttling: none in 1 samples of NVML"


class OldDriver:
    """Knows the reasons by their former name alone, and the limit of its power."""

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


def test_an_older_driver_is_asked_by_the_older_name(tmp_path: Path) -> None:
    assert Nvml(OldDriver()).clock_reasons() == 0x40 | 1 << 40 and Nvml(None).clock_reasons() is None
    with Telemetry(tmp_path, period=60, nvml=OldDriver()) as telemetry:
        pass
    assert telemetry.throttling()["reasons"] == {"GPU: heat, slowed by hardware": 1.0}
    assert telemetry.power_mode() == "GPU limited to 285 W"


def test_a_jetsons_power_mode_has_its_name(tmp_path: Path) -> None:
    modes = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=3 NAME=MODE_50W >\n< PM_CONFIG DEFAULT=3 >\n"
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0003\n", "etc/nvpmodel.conf": modes})
    assert Telemetry(tmp_path, nvml=OldDriver()).power_mode() == "0003 MODE_50W"


# ---- memory ----
def test_memory_that_is_kept_is_growth_and_memory_given_back_is_none() -> None:
    if (before := heap_bytes()) is None:
        pytest.skip("no glibc 2.33: the heap is NOT measured")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    blocks = [
        libc.malloc(size) for size in [64 << 20] + [2000] * 2000
    ]  # one is mapped alone, the others lie in an arena
    grown = (heap_bytes() or 0) - before
    for block in blocks:
        libc.free(block)
    left = (heap_bytes() or 0) - before
    assert 67_108_864 + 4_000_000 <= grown < 67_108_864 + 4_000_000 + 1_000_000
    assert abs(left) < 1_000_000


def test_pages_first_touched_are_counted() -> None:
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
    found = per_frame(Usage(1000, 5), Usage(3000, 25), 10)
    assert found == {"heap_growth_bytes_per_frame": 200.0, "minor_faults_per_frame": 2.0}
    assert memory_line(found) == "heap: +200.0 bytes in use per frame; pages first touched: 2.00 per frame"
    assert per_frame(Usage(None, 5), Usage(None, 5), 10)["heap_growth_bytes_per_frame"] is None
    assert "not reported" in memory_line(per_frame(Usage(None, 5), Usage(None, 5), 10))


# ---- the report ----
def test_every_report_has_versions_power_mode_throttling_and_memory(
    run: Any, random_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bench.html"
    result = run("bench", random_bundle, "--frames", 5, "--warmup", 1, "--html", path, "--json").json
    named = {
        "power mode",
        "imkd-edge",
        "commit",
        "python",
        "numpy",
        "onnxruntime",
        "cuda driver",
        "cuda runtime",
        "tensorrt",
        "jetpack",
        "l4t",
    }
    assert named | {"system", "cpu"} <= result["environment"].keys() and all(result["environment"].values())
    assert (
        result["throttling"].keys() == {"told_by", "samples", "share", "reasons"}
        and result["throttling"]["samples"] >= 2
    )
    assert result["memory"].keys() == {"heap_growth_bytes_per_frame", "minor_faults_per_frame"}
    text = path.read_text()
    for line in (
        throttling_line(result["throttling"]),
        memory_line(result["memory"]),
        f"commit: {result['environment']['commit']}",
    ):
        assert html.escape(line) in text
    said = run("bench", random_bundle, "--frames", 3, "--warmup", 1).text
    assert "throttl" in said and "pages first touched" in said and "power mode" in said


def test_the_page_shows_what_throttled(random_bundle: Path) -> None:
    result = bench(str(random_bundle), "synth", BenchOptions(frames=3, warmup=0), run=RunOptions())
    told = {"told_by": ["NVML"], "samples": 8, "share": 0.5, "reasons": {"GPU: power limit": 0.5}}
    assert "throttled in 50 % of 8 samples of NVML: GPU: power limit in 50 %" in page.page(
        {**result, "throttling": told}
    )
