"""Files of exports: every shape, packed or not, and broken in every way that files are broken."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from windlass.errors import InputError
from windlass.gateway.history import shapes
from windlass.gateway.history.shapes import Broken, Found, Item
from windlass.gateway.history.source import Export

ROWS = [{"id": "a", "text": 'one\n"two"'}, {"id": "b", "text": "ü€😀"}, {"id": "c", "text": "]},{["}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
TABLE = 'id,text\r\na,"one\n""two"""\r\nb,ü€😀\r\nc,"]},{["\r\n'
SHAPES = {
    "lines": LINES,
    "lines with gaps": "\n\n" + LINES.replace("\n", "\r\n \r\n") + "\n",
    "array": json.dumps(ROWS, ensure_ascii=False),
    "array over lines": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "wrapped": json.dumps({"object": "list", "data": ROWS, "total": 3}, ensure_ascii=False),
    "wrapped over lines": json.dumps({"total": 3, "meta": {"data": [1]}, "data": ROWS}, indent=1, ensure_ascii=False),
    "table": TABLE,
    "table with semicolons": TABLE.replace("id,text", "id;text").replace("a,", "a;").replace("b,", "b;")
    .replace('c,"', 'c;"'),
}  # fmt: skip


def _read(path: Path, data: bytes) -> list[Item]:
    path.write_bytes(data)
    return list(Export(path).rows())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_rows(tmp_path: Path, shape: str, packed: bool, encoding: str) -> None:
    data = SHAPES[shape].encode(encoding)
    found = _read(tmp_path / "export", gzip.compress(data) if packed else data)
    assert [item.row for item in found if isinstance(item, Found)] == ROWS
    assert len(found) == len(ROWS)


def test_a_single_object_over_many_lines_is_one_row(tmp_path: Path) -> None:
    assert _read(tmp_path / "one.json", json.dumps(ROWS[0], indent=2).encode()) == [Found(1, ROWS[0])]
    assert _read(tmp_path / "in.json", json.dumps({"data": ROWS[0]}, indent=2).encode()) == [Found(1, ROWS[0])]


def test_broken_lines_are_told_with_their_number_and_the_others_are_read(tmp_path: Path) -> None:
    lines = ["{broken", '{"id": 1}', "[1]", "{" * 5 + "}", '{"a":' * 100_000, '{"id": 2}', '{"id": "\udcff"}', '{"id":']
    found = _read(tmp_path / "x", "\n".join(lines).encode(errors="surrogateescape"))
    good = [item.line for item in found if isinstance(item, Found)]
    assert good == [2, 6, 7], "a byte that is no UTF-8 is refused where its field is read"
    assert [item.line for item in found if isinstance(item, Broken)] == [1, 3, 4, 5, 8]


def test_a_broken_array_gives_what_stands_before_and_says_that_the_rest_is_unread(tmp_path: Path) -> None:
    for data in ('[{"id":1},{"id":2},{"id"', '[{"id":1},{"id":2} {"id":3}]', '[{"id":1},{"id":2},{"id":NIX}]'):
        found = _read(tmp_path / "x", data.encode())
        assert [item.row for item in found if isinstance(item, Found)] == [{"id": 1}, {"id": 2}]
        assert isinstance(found[-1], Broken)
        assert found[-1].rest


def test_a_packed_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    data = gzip.compress("".join(f'{{"id":"{number * 7919:x}"}}\n' for number in range(50_000)).encode())
    found = _read(tmp_path / "x.gz", data[: len(data) // 2])
    assert len(found) > 1_000
    assert isinstance(found[-1], Broken)
    assert found[-1].rest


def test_rows_of_a_table_that_do_not_fit_their_head_line_are_told(tmp_path: Path) -> None:
    found = _read(tmp_path / "x.csv", b'a,b\n1,2\n1\n\n1,2,3\n"1\n1",2\n3,4\n')
    assert [item.row for item in found if isinstance(item, Found)] == [
        {"a": "1", "b": "2"}, {"a": "1\n1", "b": "2"}, {"a": "3", "b": "4"}
    ]  # fmt: skip
    assert [item.line for item in found if isinstance(item, Broken)] == [3, 5]


def test_rows_beyond_measure_are_skipped_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "ROW_CHARS", 1_000)
    long = '{"id":"' + "x" * 5_000 + '"}'
    found = _read(tmp_path / "x", f'{{"id":1}}\n{long}\n{{"id":2}}\n'.encode())
    assert [type(item) for item in found] == [Found, Broken, Found]
    found = _read(tmp_path / "y", f'a,b\n1,"{"x" * 5_000}"\n3,4\n'.encode())
    assert [item.row for item in found if isinstance(item, Found)][-1:] == [{"a": "3", "b": "4"}]


@pytest.mark.parametrize("shape", ["lines", "array", "table"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, shape: str) -> None:
    row = {"id": "x" * 40, "text": "y" * 2_000}
    body = json.dumps(row)
    data = {
        "lines": f"{body}\n" * 5_000,
        "array": f"[{','.join([body] * 5_000)}]",
        "table": "id,text\n" + f"{row['id']},{row['text']}\n" * 5_000,
    }[shape]
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(data.encode(), 1))
    del data
    tracemalloc.start()
    try:
        count = sum(isinstance(item, Found) for item in Export(path).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5_000
    assert peak < 5_000_000, "of 10 MB"


@pytest.mark.parametrize("data", [b"", b"\n\n  \n", b"\xff\xfe", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_rows(tmp_path: Path, data: bytes) -> None:
    assert _read(tmp_path / "x", data) == []


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nope"):
        Export(tmp_path / "nope")
    for never_ends in (tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="is no file"):
            Export(never_ends)


def test_any_bytes_are_read_to_an_end(tmp_path: Path) -> None:
    for data in (bytes(range(256)) * 50, b"{" * 50_000, b"[" * 50_000, b'"' * 1_001, b"\x00" * 5_000, b"[1,2", b"{}"):
        for item in _read(tmp_path / "x", data):
            assert isinstance(item, Found | Broken)
