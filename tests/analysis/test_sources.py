"""Records from files and folders, from git, and those that one commit of the program made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.errors import SpecError
from bench.records.store import ResultsFile
from bench.sources import open_records
from tests.factories import load_cells, make_record

FOLDER = Path("results/table1")


@pytest.fixture(autouse=True)
def _results(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``results/table1/demo.jsonl`` with two cells and the predictions of the first, in the working directory."""
    monkeypatch.chdir(tmp_path)
    put(root, 0, "a", predictions="demo/x/predictions.jsonl")
    put(root, 1, "a")
    (FOLDER / "demo/x").mkdir(parents=True)
    (FOLDER / "demo/x/predictions.jsonl").write_text('{"question_id": "q"}\n')
    (FOLDER / "notes.jsonl").write_text('{"not": "a record"}\n')


def put(root: Path, index: int, commit: str, **changes: Any) -> None:
    cell = load_cells(root / "specs" / "table1.yaml", "demo")[1][index]
    changes["environment"] = {"git": {"commit": commit * 40, "dirty": False}}
    ResultsFile(FOLDER / "demo.jsonl").append(make_record(cell, index, **changes))


def git(*arguments: str) -> None:
    config = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *config, *arguments], check=True, capture_output=True)


def count(name: str) -> int:
    with open_records(name) as source:
        return len(source.stored)


@pytest.mark.parametrize("name", ["results", "results/table1", "results/table1/demo.jsonl"])
def test_files_and_folders(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_records(name) as source:
        assert [record.label for record in source.records] == ["F-LoRA-LoRA rank=4", "F-LoRA-LoRA rank=8"]
        assert {stored.folder for stored in source.stored} == {FOLDER}
    assert capsys.readouterr().err == "", "other JSON lines are no damaged records"


def test_records_that_git_has(root: Path) -> None:
    git("init", "-q")
    git("add", "results")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    put(root, 2, "b")
    (FOLDER / "demo/x/predictions.jsonl").unlink()
    with open_records("v1:results/table1/demo.jsonl") as then:
        assert (count("results"), len(then.stored), count("HEAD:results")) == (3, 2, 2)
        folder = then.stored[0].folder
        assert (folder / "demo/x/predictions.jsonl").is_file()
    assert not folder.exists()
    for name, message in (
        ("v2:results", "no revision 'v2'"),
        ("v1:reports", "that revision has no such file"),
        ("--output=pwned:results", "no revision '--output=pwned'"),
    ):
        with pytest.raises(SpecError, match=message):
            count(name)
    assert not Path("pwned").exists()


def test_records_that_one_commit_made(root: Path) -> None:
    put(root, 0, "b", energy_j=5.0)
    for name, energies in (
        ("results@aaaa", [8_100.0, 8_100.0]),
        ("results/table1/demo.jsonl@bbbb", [5.0]),
        ("results", [8_100.0, 5.0]),
    ):
        with open_records(name) as source:
            assert [record.energy_j for record in source.records] == energies


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such file or folder; write one of"),
        ("results/table1/demo", "no records there"),
        ("results@cccc", "no records there"),
        ("results@no-commit", "'no-commit' is no revision and no start of a commit's hash"),
        ("\x1b[2Jx", r"\\x1b"),
    ],
)
def test_what_does_not_exist(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        count(name)


def test_other_files_are_left_out_with_a_warning_each(capsys: pytest.CaptureFixture[str]) -> None:
    (FOLDER / "folder.jsonl").mkdir()
    os.mkfifo(FOLDER / "pipe.jsonl")
    (FOLDER / "base.jsonl").write_bytes(b"SQLite format 3\0" + bytes(100))
    (FOLDER / "link.jsonl").symlink_to("nowhere")
    assert count("results") == 2
    kinds = {
        "base": "an SQLite database",
        "folder": "a folder",
        "link": "unreadable (No such file or directory)",
        "pipe": "a named pipe",
    }
    warnings = [
        f"warning: {FOLDER}/{name}.jsonl is {kind}, not a records file; left out" for name, kind in kinds.items()
    ]
    assert capsys.readouterr().err.splitlines() == warnings


def test_a_records_file_with_a_damaged_start_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    file = FOLDER / "demo.jsonl"
    file.write_bytes(b"\0\0" + file.read_bytes()[2:])
    assert count("results") == 1
    assert "demo.jsonl:1: damaged line" in capsys.readouterr().err
