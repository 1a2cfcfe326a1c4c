"""Samples power, temperatures, clocks, memory and throttling from sysfs and NVML while something runs."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imkd_edge.bench.machine import text
from imkd_edge.bench.throttling import Throttling, number

Readings = dict[str, float]
GPU_NAMES = ("gpu", "ga10b", "gv11b", "gb10b")  # in devfreq, on Jetsons

QUANTITIES = {
    "power_w": "power, W",
    "temperature_c": "temperature, °C",
    "clock_mhz": "clock, MHz",
    "memory_mb": "memory, MB",
}


def label(name: str) -> str:
    """The name of a reading for people: "memory_mb process" as "memory, MB, process"."""
    quantity, _, what = name.partition(" ")
    return ", ".join(part for part in (QUANTITIES.get(quantity, quantity), what) if part)


class Telemetry:
    """Samples in a separate thread; a context manager.

    Args:
        root: folder of /sys and /proc.
        period: s between samples.
        nvml: NVML as a ctypes library; None loads the driver's, if there is one.
    """

    def __init__(self, root: Path | str = "/", period: float = 0.25, nvml: Any = None) -> None:
        self._root, self._period = Path(root), period
        self._nvml = Nvml(nvml) if nvml is not None else Nvml.find()
        self._samples: list[Readings] = []
        self._throttling = Throttling(self._root, self._nvml.clock_reasons)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Telemetry:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()

    def _sample(self) -> None:
        self._samples.append(self.read())
        self._throttling.sample()

    def read(self) -> Readings:
        """One sample: "power_w", "temperature_c NAME", "clock_mhz NAME", "memory_mb process", as far as available."""
        return {**self._power(), **self._temperatures(), **self._clocks(), **self._memory(), **self._nvml.read()}

    def summary(self) -> dict[str, dict[str, float]]:
        """First, last, lowest, mean and highest value of every quantity."""
        names = sorted({name for sample in self._samples for name in sample})
        summary = {}
        for name in names:
            values = [sample[name] for sample in self._samples if name in sample]
            mean = sum(values) / len(values)
            ends = {"first": values[0], "last": values[-1]}
            summary[name] = {**ends, "min": min(values), "mean": mean, "max": max(values)}
        return summary

    def throttling(self) -> dict[str, Any]:
        """Share of the samples in which the device was throttled, and the reasons: see `Throttling.summary`."""
        return self._throttling.summary()

    def power_mode(self) -> str:
        """A Jetson's nvpmodel mode, with its name from nvpmodel.conf; another GPU's power limit; else "unknown"."""
        if status := text(self._root / "var/lib/nvpmodel/status"):
            mode = status.removeprefix("pmode:")
            models = re.findall(r"POWER_MODEL ID=(\d+) NAME=(\S+)", text(self._root / "etc/nvpmodel.conf") or "")
            names = [name for model, name in models if mode.isdigit() and int(model) == int(mode)]
            return f"{mode} {names[0]}" if names else mode
        limit = self._nvml.power_limit()
        return "unknown" if limit is None else f"GPU limited to {limit:.0f} W"

    def _power(self) -> Readings:
        """The power of each rail, and of the module: its input rail VDD_IN where it exists, else the sum of all."""
        rails: Readings = {}
        for monitor in sorted(self._root.glob("sys/class/hwmon/hwmon*")):
            if text(monitor / "name") != "ina3221":
                continue
            for label in sorted(monitor.glob("in*_label")):
                rail, name = label.name[2:-6], text(label) or ""
                volts, amperes = number(monitor / f"in{rail}_input"), number(monitor / f"curr{rail}_input")
                if volts is not None and amperes is not None and name not in ("NC", "sum of shunt voltages"):
                    rails[f"power_w {name}"] = volts * amperes * 1e-6  # mV, mA
        if not rails:
            return {}
        return {**rails, "power_w": rails.get("power_w VDD_IN", sum(rails.values()))}

    def _temperatures(self) -> Readings:
        readings = {}
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            name, value = text(zone / "type"), number(zone / "temp")
            if name and value is not None and value > -40_000:  # a zone without power reads -256 degrees
                readings[f"temperature_c {name}"] = value / 1000
        return readings

    def _clocks(self) -> Readings:
        readings = {}
        for device in sorted(self._root.glob("sys/class/devfreq/*")):
            current, highest = number(device / "cur_freq"), number(device / "max_freq")
            if current is not None and any(name in device.name for name in GPU_NAMES):
                readings["clock_mhz GPU"] = current / 1e6
                if highest is not None:
                    readings["clock_mhz GPU, highest allowed"] = highest / 1e6
        cores = [number(path) for path in self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
        if clocks := [clock for clock in cores if clock is not None]:
            readings["clock_mhz CPU, slowest core"] = min(clocks) / 1000
        return readings

    def _memory(self) -> Readings:
        lines = (text(self._root / "proc/self/status") or "").splitlines()
        resident = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")]
        return {"memory_mb process": resident[0]} if resident else {}


class Nvml:
    """The first GPU through NVML, the driver's library; on a Jetson it has no readings."""

    def __init__(self, library: Any) -> None:
        self._library, self._device = library, ctypes.c_void_p()
        self._ready = (
            library is not None
            and self._call("nvmlInit_v2")
            and self._call("nvmlDeviceGetHandleByIndex_v2", 0, out=self._device)
        )

    @staticmethod
    def find() -> Nvml:
        """NVML of the driver; an object without readings where there is no such library."""
        try:
            return Nvml(ctypes.CDLL("libnvidia-ml.so.1"))
        except OSError:
            return Nvml(None)

    def _call(self, name: str, *arguments: Any, out: Any = None) -> bool:
        call = getattr(self._library, name, None)  # None for a name newer than the driver
        return call is not None and call(*arguments, *([] if out is None else [ctypes.byref(out)])) == 0

    def _value(self, name: str, *arguments: Any) -> int | None:
        value = ctypes.c_uint()
        return value.value if self._call(name, self._device, *arguments, out=value) else None

    def read(self) -> Readings:
        """One sample: power W, temperature °C, clock of the SMs MHz, used memory MiB, as far as the driver has them."""
        if not self._ready:
            return {}
        quantities: dict[str, tuple[Callable[[], int | None], float]] = {
            "power_w": (lambda: self._value("nvmlDeviceGetPowerUsage"), 1e-3),
            "temperature_c GPU": (lambda: self._value("nvmlDeviceGetTemperature", 0), 1.0),
            "clock_mhz GPU": (lambda: self._value("nvmlDeviceGetClockInfo", 1), 1.0),  # of the SMs
            "memory_mb GPU": (self._used_memory, 2.0**-20),
        }
        values = {name: (read(), scale) for name, (read, scale) in quantities.items()}
        return {name: value * scale for name, (value, scale) in values.items() if value is not None}

    def clock_reasons(self) -> int | None:
        """The bits of NVML's reasons for reduced clocks; None where the driver does not report them."""
        bits = ctypes.c_ulonglong()
        # The current name, then the one of older drivers.
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        return bits.value if self._ready and any(self._call(name, self._device, out=bits) for name in names) else None

    def power_limit(self) -> float | None:
        """The enforced power limit, W; None where the driver does not report it."""
        limit = self._value("nvmlDeviceGetEnforcedPowerLimit") if self._ready else None
        return None if limit is None else limit / 1000

    def _used_memory(self) -> int | None:
        memory = (ctypes.c_ulonglong * 3)()  # total, free, used
        return memory[2] if self._call("nvmlDeviceGetMemoryInfo", self._device, out=memory) else None
