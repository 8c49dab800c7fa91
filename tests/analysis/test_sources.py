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


@pytest.fixture(autouse=True)
def results(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``results/table1/demo.jsonl`` with two cells and the predictions of the first, in the working directory."""
    monkeypatch.chdir(tmp_path)
    put(root, 0, environment=made_by("a"), predictions="demo/x/predictions.jsonl")
    put(root, 1, environment=made_by("a"))
    job = Path("results/table1/demo/x")
    job.mkdir(parents=True)
    (job / "predictions.jsonl").write_text('{"question_id": "q"}\n')
    (Path("results/table1") / "notes.jsonl").write_text('{"not": "a record"}\n')
    return Path("results")


def made_by(letter: str) -> dict[str, Any]:
    return {"git": {"commit": letter * 40, "dirty": False}}


def put(root: Path, place: int, **changes: Any) -> None:
    cell = load_cells(root / "specs" / "table1.yaml", "demo")[1][place]
    ResultsFile(Path("results/table1/demo.jsonl")).append(make_record(cell, place, **changes))


def git(*arguments: str) -> None:
    config = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *config, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["results", "results/table1", "results/table1/demo.jsonl"])
def test_files_and_folders(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_records(name) as source:
        assert [stored.record.label for stored in source.stored] == ["F-LoRA-LoRA rank=4", "F-LoRA-LoRA rank=8"]
        assert {stored.folder for stored in source.stored} == {Path("results/table1")}
    assert capsys.readouterr().err == ""  # other files are no damaged records


def test_records_that_git_has(root: Path) -> None:
    git("init", "-q")
    git("add", "results")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    put(root, 2)
    Path("results/table1/demo/x/predictions.jsonl").unlink()
    then_name, whole_name = "v1:results/table1/demo.jsonl", "HEAD:results"
    with open_records("results") as now, open_records(then_name) as then, open_records(whole_name) as whole:
        assert (len(now.stored), len(then.stored), len(whole.stored)) == (3, 2, 2)
        folder = then.stored[0].folder
        assert (folder / "demo/x/predictions.jsonl").is_file()
    assert not folder.exists()
    for name, told in (("v2:results", "no revision 'v2'"), ("v1:reports", "that revision has no such file")):
        with pytest.raises(SpecError, match=told), open_records(name):
            pass


def test_an_option_is_no_revision() -> None:
    git("init", "-q")
    with pytest.raises(SpecError, match="no revision '--output=pwned'"), open_records("--output=pwned:results"):
        pass
    assert not Path("pwned").exists()


def test_records_that_one_commit_made(root: Path) -> None:
    put(root, 0, environment=made_by("b"), energy_j=5.0)
    new_name = "results/table1/demo.jsonl@bbbb"
    with open_records("results@aaaa") as old, open_records(new_name) as new, open_records("results") as last:
        assert [record.energy_j for record in old.records] == [8_100.0, 8_100.0]
        assert {record.environment["git"]["commit"][0] for record in old.records} == {"a"}
        assert [record.energy_j for record in new.records] == [5.0]
        assert [record.energy_j for record in last.records][-1] == 5.0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "no such file or folder; write one of"),
        ("results/table1/demo", "no records there"),
        ("results@cccc", "no records there"),
        ("results@no-commit", "'no-commit' is no revision and no start of a commit's hash"),
        ("\x1b[2Jx", r"\\x1b"),
    ],
)
def test_what_is_not_there(name: str, told: str) -> None:
    with pytest.raises(SpecError, match=told), open_records(name):
        pass


def test_what_is_no_records_file_is_left_out_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("results/table1")
    (folder / "folder.jsonl").mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "base.jsonl").write_bytes(b"SQLite format 3\0" + bytes(100))
    (folder / "link.jsonl").symlink_to("nowhere")
    with open_records("results") as source:
        assert len(source.stored) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"warning: {folder}/{name}.jsonl is {kind}, no records file; left out"
        for name, kind in (
            ("base", "an SQLite database"),
            ("folder", "a folder"),
            ("link", "unreadable (No such file or directory)"),
            ("pipe", "a named pipe"),
        )
    ]


def test_a_records_file_with_a_damaged_start_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("results/table1/demo.jsonl")
    file.write_bytes(b"\0\0" + file.read_bytes()[2:])
    with open_records("results") as source:
        assert len(source.stored) == 1
    assert "demo.jsonl:1: damaged line" in capsys.readouterr().err
