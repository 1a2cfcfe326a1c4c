"""PCD files, binary with padding as pcl_ros writes them and ascii, and headers and lines that lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imkd_edge.errors import Error
from imkd_edge.sources.pcd import pcd_bytes, read_pcd

NUMPY = {"F": "<f", "I": "<i", "U": "<u"}
FIELD = st.sampled_from([("F", 4), ("F", 8), *((kind, size) for kind in "IU" for size in (1, 2, 4, 8))])
PADDED = [  # x y z, 4 bytes, rcs, ring, 10 bytes: 32 a point
    *(("x", "F", 4, 1), ("y", "F", 4, 1), ("z", "F", 4, 1), ("_", "U", 1, 4)),
    *(("rcs", "F", 4, 1), ("ring", "U", 2, 1), ("_", "U", 1, 10)),
]


def header(columns: list[tuple], points: int | str, **changes: str) -> bytes:
    """The header of fields (name, TYPE, SIZE, COUNT)."""
    names, kinds, sizes, counts = (" ".join(map(str, column)) for column in zip(*columns, strict=True))
    lines = {"VERSION": "0.7", "FIELDS": names, "SIZE": sizes, "TYPE": kinds, "COUNT": counts}
    lines |= {"WIDTH": points, "HEIGHT": "1", "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": points, "DATA": "binary"}
    return "".join(f"{key} {value}\n" for key, value in (lines | changes).items()).encode()


def read(folder: Path, data: bytes, *fields: str) -> np.ndarray:
    path = folder / "a.pcd"
    path.write_bytes(data)
    return read_pcd(path, fields)


def test_padding_is_skipped(tmp_path):
    """Three points of 32 bytes, composed byte by byte."""
    rows = b""
    for i in range(3):
        rows += np.array([1 + i, 2, 3], "<f4").tobytes() + b"\xff" * 4 + np.float32(7 * i).tobytes()
        rows += np.uint16(40 + i).tobytes() + b"\xee" * 10
    points = read(tmp_path, header(PADDED, 3) + rows, "x", "rcs")
    assert points.dtype.names == ("x", "y", "z", "rcs", "ring")
    assert points["x"].tolist() == [1, 2, 3] and points["rcs"].tolist() == [0, 7, 14]
    assert points["ring"].tolist() == [40, 41, 42] and points["z"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("cut", [1, 10, 31, 32, 95])
def test_truncated_padding_is_truncation(tmp_path, cut):
    with pytest.raises(Error, match=r"E0304.*POINTS 3 needs 96 bytes"):
        read(tmp_path, header(PADDED, 3) + bytes(96 - cut), "x")


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ([("x", "F", 4, 1), ("_", "U", 1, 0)], "COUNT 0"),
        ([("x", "F", 4, 1), ("_", "U", 1, -1)], "COUNT -1"),
        ([("x", "F", 4, 1), ("_", "U", 1, 4097)], "COUNT 4097"),
        ([("x", "F", 4, 1), ("_", "U", 8, 513)], "COUNT 513"),
        ([("x", "F", 4, 1), ("_", "U", 1, 10**30)], "COUNT 1000"),
        ([("x", "F", 4, 1), ("_", "U", 3, 1)], "SIZE 3"),
        ([("x", "F", 4, 1), ("_", "F", 1, 4)], "SIZE 1"),
        ([("x", "F", 4, 1), ("_", "X", 1, 4)], "TYPE X"),
        ([("x", "F", 4, 2)], "COUNT 2"),
        ([("x", "F", 4, 1), ("x", "F", 4, 1)], "twice"),
        ([("_", "U", 1, 4)], "no field but padding"),
        ([("y", "F", 4, 1), ("_", "U", 1, 4)], "no field x"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, columns, what):
    with pytest.raises(Error, match=f"E0304.*{what}"):
        read(tmp_path, header(columns, 1) + bytes(100), "x")


@pytest.mark.parametrize("points", [10**9, 10**18, 10**40, -1, "1e3", ""])
def test_a_count_beyond_the_file_allocates_nothing(tmp_path, points):
    with pytest.raises(Error, match="E0304"):
        read(tmp_path, header(PADDED, points) + bytes(320), "x")


def test_padding_cannot_be_asked_for(tmp_path):
    with pytest.raises(Error, match="no field _"):
        read(tmp_path, header(PADDED, 1) + bytes(32), "_")


def test_no_points_are_no_fault(tmp_path):
    assert len(read(tmp_path, header(PADDED, 0), "x")) == 0


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(st.tuples(FIELD, st.integers(0, 12)), min_size=1, max_size=8),
    points=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_any_layout_is_read_as_numpy_reads_each_field(tmp_path, fields, points, seed):
    """Fields with 0 to 12 bytes of padding after each; the reference cuts every field out of the bytes by itself."""
    columns, offsets, size = [], [], 0
    for i, ((kind, width), gap) in enumerate(fields):
        columns.append((f"f{i}", kind, width, 1))
        offsets.append(size)
        columns += [("_", "U", 1, gap)] if gap else []
        size += width + gap
    data = np.random.default_rng(seed).bytes(points * size)
    result = read(tmp_path, header(columns, points) + data, "f0")
    assert len(result) == points and result.dtype.names == tuple(f"f{i}" for i in range(len(fields)))
    for i, (((kind, width), _), offset) in enumerate(zip(fields, offsets, strict=True)):
        cells = b"".join(data[p * size + offset : p * size + offset + width] for p in range(points))
        assert result[f"f{i}"].tobytes() == np.frombuffer(cells, f"{NUMPY[kind]}{width}").tobytes()


def damage(good: bytearray, data: st.DataObject) -> None:
    """Replaces, cuts or doubles one to four runs of bytes."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(good) - 1))
        good[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"9", b"-", b"\n"])
        )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, data):
    """Bytes replaced, cut or doubled anywhere in a good file: an array within its bytes, or Error E0304."""
    good = bytearray(header(PADDED, 3) + bytes(range(96)))
    damage(good, data)
    try:
        points = read(tmp_path, bytes(good), "x")
    except Error as error:
        assert str(error.code) == "E0304" and error.fix
    else:
        assert len(points) * points.dtype.itemsize <= len(good)


def test_written_files_are_read_back(tmp_path):
    points = np.zeros(4, [("x", "<f4"), ("n", "<u2")])
    points["x"], points["n"] = [1, 2, 3, 4], 9
    assert np.array_equal(read(tmp_path, pcd_bytes(points), "x", "n"), points)


# ---- ascii ----
ASCII = [("x", "F", 4, 1), ("rcs", "F", 8, 1), ("ring", "U", 1, 1), ("time", "I", 8, 1)]
LINES = ["1.5 -2 0 -9223372036854775808", "1e-3 nan 255 9007199254740993", "-0.25 12.125 7 3"]


def ascii_file(lines: list[str], columns: list[tuple] = ASCII, points: int | None = None, end: str = "\n") -> bytes:
    count = len(lines) if points is None else points
    text = header(columns, count, DATA="ascii") + "".join(f"{line}\n" for line in lines).encode()
    return text.replace(b"\n", end.encode())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ascii_values_are_read_in_the_fields_types(tmp_path, end):
    points = read(tmp_path, ascii_file(LINES, end=end), "x", "time")
    assert [points.dtype[name].str for name in points.dtype.names] == ["<f4", "<f8", "|u1", "<i8"]
    assert points["x"].tolist() == [1.5, float(np.float32(0.001)), -0.25]
    assert points["rcs"][0] == -2 and np.isnan(points["rcs"][1]) and points["rcs"][2] == 12.125
    # beyond what a double holds
    assert points["ring"].tolist() == [0, 255, 7] and points["time"].tolist() == [-(2**63), 2**53 + 1, 3]


def test_ascii_padding_and_empty_lines_are_skipped(tmp_path):
    columns = [("x", "F", 4, 1), ("_", "U", 1, 3), ("y", "F", 4, 1)]
    points = read(tmp_path, ascii_file(["1 0 0 0 2", "", "3 9 nonsense 9 4"], columns, 2), "x", "y")
    assert points["x"].tolist() == [1, 3] and points["y"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("lines", "points", "line", "what"),
    [
        (["1 2 3 4", "1 2 3"], 2, 12, "3 values of 4"),
        (["1 2 3 4 5"], 1, 11, "5 values of 4"),
        (["1,2,3,4"], 1, 11, "1 values of 4"),
        (["1 2 3 4", "1 two 3 4"], 2, 12, "'two' is no number"),
        (["1 2 3 4", "", "1 2 3 4.5"], 2, 13, "'4.5' is no whole number"),
        (["1 2 256 4"], 1, 11, "256 is not between 0 and 255"),
        (["1 2 -1 4"], 1, 11, "-1 is not between 0 and 255"),
        (["1 2 3 9223372036854775808"], 1, 11, "is not between"),
        (["1_0 2 3 4"], 1, 11, "'1_0' is no number"),
        (["1 2 3 4_0"], 1, 11, "'4_0' is no whole number"),
        (["1 2 3 4"], 2, 11, "POINTS is 2, and 1 lines"),
        (["1 2 3 4", "1 2 3 4"], 1, 12, "POINTS is 1, and 2 lines"),
        (["1 2 3 4", "\xff 2 3 4"], 2, 12, "is no number"),
        ([], 10**18, 10, "POINTS is 1000000000000000000, and 0 lines"),
    ],
)
def test_a_bad_ascii_line_is_named(tmp_path, lines, points, line, what):
    """The header has ten lines."""
    with pytest.raises(Error, match="E0304") as fault:
        read(tmp_path, ascii_file(lines, points=points), "x")
    assert what in fault.value.what and fault.value.where == f"{tmp_path / 'a.pcd'}:{line}" and fault.value.fix


@pytest.mark.parametrize("word", ["two", "1_0", "1,5", "0x10", "1e", "1d5", "--1"])
def test_floats_alone_name_their_bad_line_too(tmp_path, word):
    columns = [("x", "F", 4, 1), ("y", "F", 4, 1)]
    assert read(tmp_path, ascii_file(["1 2", "+.5 -1e3"], columns), "x", "y")["y"].tolist() == [2, -1000]
    with pytest.raises(Error, match=r"E0304.*a\.pcd:12"):
        read(tmp_path, ascii_file(["1 2", f"1 {word}"], columns), "x", "y")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.floats(width=32), st.integers(-(2**15), 2**15 - 1)), max_size=6))
def test_any_ascii_values_are_read_as_the_same_binary_ones(tmp_path, rows):
    columns = [("x", "F", 4, 1), ("n", "I", 2, 1)]
    result = read(tmp_path, ascii_file([f"{x!r} {n}" for x, n in rows], columns), "x", "n")
    data = b"".join(np.array(x, "<f4").tobytes() + np.array(n, "<i2").tobytes() for x, n in rows)
    expected = read(tmp_path, header(columns, len(rows)) + data, "x", "n")
    for name in ("x", "n"):
        np.testing.assert_array_equal(result[name], expected[name])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_ascii_file_is_read_or_refused_and_nothing_else(tmp_path, data):
    good = bytearray(ascii_file(LINES))
    damage(good, data)
    try:
        points = read(tmp_path, bytes(good), "x")
    except Error as error:
        assert str(error.code) == "E0304" and error.fix
    else:
        assert len(points) <= len(good)
