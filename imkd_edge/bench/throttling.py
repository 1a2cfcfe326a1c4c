"""Detects whether and why the device was throttled while something ran."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Bits of NVML's clocks-event reasons that mean throttling; idle clocks and limits set by a user are left out.
NVML_REASONS = {
    0x04: "GPU: power limit",
    0x08: "GPU: hardware slowdown",
    0x20: "GPU: heat, slowed by software",
    0x40: "GPU: heat, slowed by hardware",
    0x80: "GPU: power brake",
}
# Alarms of an Orin's soctherm_oc.
OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
# Cooling devices that throttle, unlike fans and the alert of a hot surface.
COOLING = re.compile(r"cpufreq|devfreq|throttle|processor|powerclamp", re.IGNORECASE)


class Throttling:
    """Samples cooling devices, event counters and NVML.

    Args:
        root: folder of /sys.
        reasons: returns NVML's present bits, or None without NVML.
    """

    def __init__(self, root: Path, reasons: Callable[[], int | None]) -> None:
        self._reasons = reasons
        self._states = _cooling_devices(root)
        self._counters = _counters(root)
        self._counts: dict[str, int] = {}
        files = {"cooling devices": self._states, "event counters": self._counters}
        self._sources = {name for name, paths in files.items() if paths}
        self._samples: list[set[str]] = []

    def sample(self) -> None:
        """Takes a sample; a counter is a reason if it has risen since the previous one, so never in the first."""
        reasons = {name for name, path in self._states.items() if (number(path) or 0) > 0}
        for name, path in self._counters.items():
            count = number(path)
            if count is not None and count > self._counts.get(name, count):
                reasons.add(name)
            self._counts[name] = self._counts.get(name, 0) if count is None else count
        if (bits := self._reasons()) is not None:
            self._sources.add("NVML")
            reasons |= {name for bit, name in NVML_REASONS.items() if bits & bit}
        self._samples.append(reasons)

    def summary(self) -> dict[str, Any]:
        """The share of samples with throttling.

        Returns:
            "told_by": the sources; "samples": their number; "share": of the samples with a reason, None without a
            source; "reasons": the share of each.
        """
        count = len(self._samples)
        if not self._sources or not count:
            return {"told_by": [], "samples": count, "share": None, "reasons": {}}
        reasons = Counter(name for sample in self._samples for name in sample)
        share = sum(bool(sample) for sample in self._samples) / count
        return {
            "told_by": sorted(self._sources),
            "samples": count,
            "share": share,
            "reasons": {name: times / count for name, times in sorted(reasons.items())},
        }


def throttling_line(summary: dict[str, Any]) -> str:
    """The result of `Throttling.summary` as a line of text."""
    if summary["share"] is None:
        return "throttling: no source on this machine reports it"
    samples = f"{summary['samples']} samples of {', '.join(summary['told_by'])}"
    if not summary["reasons"]:
        return f"throttling: none in {samples}"
    reasons = ", ".join(f"{name} in {100 * share:.0f} %" for name, share in summary["reasons"].items())
    return f"throttled in {100 * summary['share']:.0f} % of {samples}: {reasons}"


def number(path: Path) -> int | None:
    """The integer in a system file; None where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cooling_devices(root: Path) -> dict[str, Path]:
    """Name -> file with the state of each cooling device that throttles."""
    states: dict[str, Path] = {}
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        try:
            kind = (device / "type").read_text().strip()
        except OSError:
            continue
        if COOLING.search(kind) and number(device / "cur_state") is not None:
            states[kind if kind not in states else f"{kind} ({device.name})"] = device / "cur_state"
    return states


def _counters(root: Path) -> dict[str, Path]:
    """Name -> event counter of a Jetson's power supply or of a PC's first processor."""
    counters = {}
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")):
        alarm = path.name.split("_")[0]
        counters[f"{alarm}: {OVER_CURRENT.get(alarm, 'over-current')}"] = path
    package = root / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    if package.is_file():
        counters["CPU: heat"] = package
    return counters
