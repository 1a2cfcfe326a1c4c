"""A short form of `python tests/soak.py`: memory and handles stay flat while everything changes."""

from __future__ import annotations

from pathlib import Path

from soak import GROWTH, Part, growth, growth_in_use, handles_grew, small_drive

FRAMES, RENEW = 4000, 100


def test_memory_and_handles_stay_flat_while_everything_changes(tmp_path: Path) -> None:
    parts = small_drive(tmp_path).run(FRAMES, RENEW)
    assert [part.frames for part in parts] == [FRAMES // 10 * (i + 1) for i in range(10)]
    assert growth(parts) <= GROWTH, parts
    assert not growth_in_use(parts) > GROWTH, parts  # nan without glibc 2.33
    assert not handles_grew(parts), parts


def test_growth_and_handles_that_stay_open_are_seen() -> None:
    """Shows that the check can fail."""
    first, later = Part(10, 100.0, 60.0, 5, 3, 1, 1), Part(20, 101.5, 61.0, 6, 3, 1, 1)
    assert min(growth([first, later]), growth_in_use([first, later])) > GROWTH and handles_grew([first, later])
