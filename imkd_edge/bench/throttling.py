"""Whether the device slowed itself down while something ran, and why, as far as it tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Bits of NVML's clocks-event reasons that mean "slower than asked for"; idle, and limits that somebody chose, are none.
NVML_REASONS = {
    0x04: "GPU: power limit",
    0x08: "GPU: hardware slowdown",
    0x20: "GPU: heat, slowed by software",
    0x40: "GPU: heat, slowed by hardware",
    0x80: "GPU: power brake",
}
OVER_CURRENT = {
    "oc1": "under-voltage",
    "oc2": "average over-current",
    "oc3": "instantaneous over-current",
}  # of an Orin's soctherm_oc
COOLING = re.compile(r"cpufreq|devfreq|throttle|processor|powerclamp", re.IGNORECASE)  # and not fans, or a hot surface


class Throttling:
    """Looks at cooling devices, event counters and NVML, each time that it is told to.

    Args:
        root: where /sys lies.
        reasons: NVML's bits as of now; None where there is no NVML or it does not tell.
    """

    def __init__(self, root: Path, reasons: Callable[[], int | None]) -> None:
        self._reasons = reasons
        self._states = _cooling_devices(root)
        self._counters = _counters(root)
        self._counted: dict[str, int] = {}
        self._told_by = {
            name for name, there in (("cooling devices", self._states), ("event counters", self._counters)) if there
        }
        self._samples: list[set[str]] = []

    def look(self) -> None:
        """Takes a sample; a counter tells by having risen since the last one, so the first sample knows nothing of it."""
        found = {name for name, path in self._states.items() if (number(path) or 0) > 0}
        for name, path in self._counters.items():
            count = number(path)
            if count is not None and count > self._counted.get(name, count):
                found.add(name)
            self._counted[name] = self._counted.get(name, 0) if count is None else count
        if (bits := self._reasons()) is not None:
            self._told_by.add("NVML")
            found |= {name for bit, name in NVML_REASONS.items() if bits & bit}
        self._samples.append(found)

    def summary(self) -> dict[str, Any]:
        """ "told_by": who was asked; "samples": how often; "share" of them with any reason, None where nobody tells; "reasons": the share
        of each."""
        count = len(self._samples)
        if not self._told_by or not count:
            return {"told_by": [], "samples": count, "share": None, "reasons": {}}
        reasons = Counter(name for sample in self._samples for name in sample)
        share = sum(bool(sample) for sample in self._samples) / count
        return {
            "told_by": sorted(self._told_by),
            "samples": count,
            "share": share,
            "reasons": {name: times / count for name, times in sorted(reasons.items())},
        }


def throttling_line(found: dict[str, Any]) -> str:
    """A summary in words."""
    if found["share"] is None:
        return "throttling: nothing here tells"
    asked = f"{found['samples']} samples of {', '.join(found['told_by'])}"
    if not found["reasons"]:
        return f"throttling: none in {asked}"
    reasons = ", ".join(f"{name} in {100 * share:.0f} %" for name, share in found["reasons"].items())
    return f"throttled in {100 * found['share']:.0f} % of {asked}: {reasons}"


def number(path: Path) -> int | None:
    """The integer that a file of the system holds; None where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cooling_devices(root: Path) -> dict[str, Path]:
    found = {}
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        try:
            kind = (device / "type").read_text().strip()
        except OSError:
            continue
        if COOLING.search(kind) and number(device / "cur_state") is not None:
            found[kind if kind not in found else f"{kind} ({device.name})"] = device / "cur_state"
    return found


def _counters(root: Path) -> dict[str, Path]:
    """Of a Jetson's power supply, and of a PC's first processor."""
    found = {}
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")):
        alarm = path.name.split("_")[0]
        found[f"{alarm}: {OVER_CURRENT.get(alarm, 'over-current')}"] = path
    package = root / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    if package.is_file():
        found["CPU: heat"] = package
    return found
