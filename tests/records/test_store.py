"""Records survive torn lines, flipped bytes, full disks and other runners."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import RecordError
from bench.files import write_atomic
from bench.records.record import CellRecord, LossPoint, Status
from bench.records.store import ResultsFile, encode


def record(cell_id: str, **changes: object) -> CellRecord:
    fields = {"cell_id": cell_id, "spec": "s", "scale": "demo", "label": f"cell {cell_id}", "seed": 1}
    fields |= {"labels": {"rank": 4}, "parts": {"vit": "F"}, "status": Status.OK}
    return CellRecord.model_validate(fields | changes)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def results(tmp_path: Path, warnings: list[str]) -> ResultsFile:
    return ResultsFile(tmp_path / "s" / "demo.jsonl", warn=warnings.append)


def add(results: ResultsFile, content: bytes) -> None:
    """Write to the file what no runner wrote."""
    results.path.parent.mkdir(exist_ok=True)
    with results.path.open("ab") as file:
        file.write(content)


def test_what_is_appended_is_read_back(results: ResultsFile, warnings: list[str]) -> None:
    assert results.read() == {}
    first = record("a", loss_curve=[LossPoint(step=0, loss=0.1 + 0.2, lr=1e-5)], settings={"Größe": "5 µm\n\u2028 \\"})
    results.append(first)
    results.append(record("b"))
    assert list(results.read().values()) == [first, record("b")]
    assert not warnings
    assert results.path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("status", [status for status in Status if not status.is_result])
def test_a_failure_hides_no_result_and_both_are_kept(results: ResultsFile, status: Status) -> None:
    for one in (Status.CRASHED, Status.OK, status):
        results.append(record("a", status=one))
    assert results.read()["a"].status is Status.OK
    assert [one.status for one in results.history()] == [Status.CRASHED, Status.OK, status]
    results.append(record("a", status=Status.OOM))
    assert results.read()["a"].status is Status.OOM, "a later result counts"


def test_what_json_has_no_text_for_is_written(results: ResultsFile) -> None:
    results.append(record("a", settings={"x": [float("nan"), float("inf")]}, labels={"x": "\ud800"}))
    assert b'"x":[null,null]' in results.path.read_bytes()
    assert results.read()["a"].settings == {"x": [None, None]}
    assert json.loads(results.path.read_text(encoding="utf-8"))["labels"]["x"] == "\ud800"


@pytest.mark.parametrize("kept", [1, 17, -2])
def test_a_torn_last_line_is_dropped_and_not_glued_to(results: ResultsFile, warnings: list[str], kept: int) -> None:
    results.append(record("a"))
    add(results, encode(record("b"))[:kept])
    assert set(results.read()) == {"a"}
    assert len(warnings) == 1
    assert f"{results.path}:2: the last line is torn" in warnings[0]
    results.append(record("c"))
    assert set(results.read()) == {"a", "c"}


def test_a_record_that_only_lacks_its_newline_counts(results: ResultsFile, warnings: list[str]) -> None:
    results.append(record("a"))
    results.path.write_bytes(results.path.read_bytes()[:-1])
    assert set(results.read()) == {"a"}
    results.append(record("b"))
    assert set(results.read()) == {"a", "b"}
    assert not warnings


def test_any_flipped_byte_costs_at_most_its_own_record(results: ResultsFile, warnings: list[str]) -> None:
    for name in "abc":
        results.append(record(name))
    good = results.path.read_bytes()
    lengths = [len(line) for line in good.splitlines(keepends=True)]
    owners = [name for name, length in zip("abc", lengths, strict=True) for _ in range(length)]
    originals = {name: record(name) for name in "abc"}
    for place, owner in enumerate(owners):
        for bit in (0x01, 0x80):
            results.path.write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
            warnings.clear()
            found = results.read()
            assert {name: value for name, value in originals.items() if name != owner}.items() <= found.items()
            assert found.items() <= originals.items(), "a damaged record was believed"
            assert set(found) == set("abc") or any("damaged" in text or "torn" in text for text in warnings)


def test_a_damaged_line_is_named_and_stays_in_the_file(results: ResultsFile, warnings: list[str]) -> None:
    results.append(record("a"))
    results.append(record("b"))
    damaged = results.path.read_bytes().replace(b'"label":"cell a"', b'"label":"cell x"')
    results.path.write_bytes(damaged)
    assert set(results.read()) == {"b"}
    assert warnings == [
        f"{results.path}:1: damaged line (its checksum does not match), ignored; "
        "its cell will be run again; the line stays in the file"
    ]
    results.append(record("a"))
    assert set(results.read()) == {"a", "b"}
    assert results.path.read_bytes().startswith(damaged)


def test_of_many_damaged_lines_three_are_named_and_the_rest_is_counted(
    results: ResultsFile, warnings: list[str]
) -> None:
    results.append(record("a"))
    add(results, b"rubbish\n" * 1000)
    assert set(results.read()) == {"a"}
    assert [text.split(": ")[0] for text in warnings] == [f"{results.path}{place}" for place in (":2", ":3", ":4", "")]
    assert warnings[-1] == f"{results.path}: 997 more lines with such a problem"


def test_a_newer_schema_is_refused(results: ResultsFile) -> None:
    results.append(record("a"))
    results.append(record("b", schema_version=99))
    with pytest.raises(RecordError, match=r"demo\.jsonl:2: written by a newer version .*schema 99.*update"):
        results.read()


def limit_file_size(size: int) -> Callable[[], None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_short_write_is_undone(results: ResultsFile, room: int) -> None:
    results.append(record("a"))
    before = results.path.read_bytes()
    restore = limit_file_size(len(before) + room)
    try:
        with pytest.raises(RecordError, match=r"disk full: .*the 1 before it are kept; free some space"):
            results.append(record("b"))
    finally:
        restore()
    assert results.path.read_bytes() == before
    results.append(record("b"))
    assert set(results.read()) == {"a", "b"}


def fill(results: ResultsFile, written: list[str]) -> None:
    for number in range(100):
        results.append(record(f"{number}"))
        written.append(f"{number}")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_really_full_disk(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        results = ResultsFile(tmp_path / "demo.jsonl")
        written: list[str] = []
        with pytest.raises(RecordError, match="disk full"):
            fill(results, written)
        assert len(written) > 1
        assert list(results.read()) == written
        assert results.path.read_bytes().endswith(b"\n")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_is_read_back_must_agree(results: ResultsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    results.append(record("a"))
    pread = os.pread

    def lying(descriptor: int, size: int, start: int) -> bytes:
        return pread(descriptor, size, start).replace(b"cell b", b"cell x")

    monkeypatch.setattr(os, "pread", lying)
    with pytest.raises(RecordError, match="read back differs"):
        results.append(record("b"))
    assert set(results.read()) == {"a"}


def runner(results: ResultsFile, act: str) -> subprocess.Popen[bytes]:
    """A process that holds the lock while it acts."""
    program = f"""import os, pathlib, sys
from bench.records.store import ResultsFile
with ResultsFile(pathlib.Path(sys.argv[1])).lock():
    {act}"""
    argv = [sys.executable, "-c", program, str(results.path)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_two_runners_are_kept_apart(results: ResultsFile) -> None:
    with runner(results, "print('in', flush=True); sys.stdin.read()") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(RecordError, match=rf"in use by another run \(process {other.pid} on .*--results"):
            results.append(record("a"))
        other.communicate(b"")
    with results.lock(), results.lock():
        results.append(record("b"))
    assert set(results.read()) == {"b"}


def test_a_killed_owner_leaves_no_lock(results: ResultsFile) -> None:
    with runner(results, "os.kill(os.getpid(), 9)") as other:
        assert other.wait() == -9
    results.append(record("a"))
    assert set(results.read()) == {"a"}


def test_write_atomic_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    restore = limit_file_size(2)
    try:
        with pytest.raises(OSError, match="too large"):
            write_atomic(path, b"newer")
    finally:
        restore()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"checksum":"' * 80_000,
        b'{"checksum":"a","x":' * 50_000,
        b'{"checksum":"","x":[' * 50_000,
        b'{"checksum":"' + b'","x":' + b"[" * 200_000 + b"\n",
    ],
)
def test_a_long_or_deep_line_is_read_in_linear_time(results: ResultsFile, warnings: list[str], line: bytes) -> None:
    results.append(record("a"))
    add(results, line + b"\n")
    results.append(record("b"))
    began = time.process_time()
    assert set(results.read()) == {"a", "b"}
    assert time.process_time() - began < 5, "quadratic: minutes"
    assert len(warnings) == 1


def test_records_glued_to_a_torn_one_are_found(results: ResultsFile) -> None:
    whole = encode(record("b"))
    torn = encode(record("a"))
    for kept in range(1, len(torn) - 1):
        results.path.parent.mkdir(exist_ok=True)
        results.path.write_bytes(torn[:kept] + whole)
        assert set(results.read()) == {"b"}, torn[:kept][-20:]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"SQLite format 3\0" + bytes(4096), "an SQLite database"),
        (os.urandom(200) + b"\xff\xfe", "binary data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"label,seed\n", "a text that begins with 'label,seed'"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(results: ResultsFile, content: bytes, kind: str) -> None:
    add(results, content)
    with pytest.raises(RecordError, match=rf"demo\.jsonl is {kind}.*, not a records file: move it away"):
        results.read()
    assert results.path.read_bytes() == content


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a socket", "a device"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    results: ResultsFile, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.path.parent.mkdir()
    monkeypatch.chdir(results.path.parent)  # a socket's path may not be long
    if kind == "a folder":
        results.path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(results.path)
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(results.path.name)
    else:
        results.path.symlink_to("/dev/zero")
    with pytest.raises(RecordError, match=rf"demo\.jsonl is {kind}, not a records file"):
        results.read()


def test_a_file_of_zeros_after_a_power_cut_is_damaged(results: ResultsFile, warnings: list[str]) -> None:
    add(results, bytes(4096))
    assert results.read() == {}
    assert "damaged" in warnings[0] or "torn" in warnings[0]
    results.append(record("a"))
    assert set(results.read()) == {"a"}
