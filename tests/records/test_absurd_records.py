"""Records with a right checksum and absurd values: left out with a warning, or shown by every reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.records.store import ResultsFile, checksum
from tests.factories import load_cells, make_record


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table1" / "demo.jsonl"


def put(root: Path, file: Path, place: str, value: Any, scores: dict[str, Any] | None = None) -> None:
    """A record whose value at a dotted place is this one."""
    cell = load_cells(root / "specs" / "table1.yaml", "demo")[1][0]
    content = make_record(cell).model_dump(mode="json", by_alias=True) | {"scores": scores or {}}
    inner = content
    *steps, last = place.split(".")
    for step in steps:
        inner = inner[step]
    inner[last] = value
    line = json.dumps({"checksum": checksum(content)} | content, separators=(",", ":"))
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as out:
        out.write(line + "\n")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("memory.train.allocated_peak_bytes", -1),
        ("memory.host_rss_peak_bytes", 10**30),
        ("time.train_s", -0.5),
        ("time.step_median_s", 1e300),
        ("energy_j", -1.0),
        ("params.pct", 101),
        ("params.trainable", -7),
        ("seed", -1),
        ("accuracy.open.correct", 10**6),
        ("accuracy.closed.n", -1),
        ("environment.device", {"a": 1}),
        ("environment.versions", "2.14"),
        ("environment.git", []),
        ("adapter_bytes", 2**63),
        ("loss_curve", [{"step": 0, "loss": 1e305, "lr": 0.1}]),
        ("scores", {"f1": {"value": 1e305, "n": 3, "correct": None}}),
        ("scores", {"f1": {"value": 0.5, "n": 3, "correct": 4}}),
    ],
)
def test_what_cannot_be_is_left_out_with_a_warning(root: Path, file: Path, place: str, value: Any) -> None:
    warnings: list[str] = []
    put(root, file, place, value)
    assert ResultsFile(file, warn=warnings.append).read() == {}
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{file}:1: not a record of schema 1, ignored ({place.split('.')[0]}")


def test_infinity_is_a_damaged_line(root: Path, file: Path) -> None:
    warnings: list[str] = []
    put(root, file, "energy_j", 1.5)
    file.write_text(file.read_text().replace('"energy_j":1.5', '"energy_j":1e999'))
    assert ResultsFile(file, warn=warnings.append).read() == {}
    assert "damaged line" in warnings[0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("labels", {"rank": [{"a": None}], "x" * 3000: -1}),
        ("parts", {}),
        ("environment", {"cores": True, "torch_threads": 1e308, "git": {"commit": 5, "dirty": "2026"}, "versions": {}}),
        ("settings", {"train": [], "model": None, "data": {"name": {}}}),
        ("time.train_s", 1e18),
        ("params", {"trainable": 2**62, "total": 0, "pct": 0.0, "stored": 0, "by_part": {}}),
        ("accuracy.open", {"correct": 0, "n": 0}),
        ("memory.train.allocated_peak_bytes", 0),
        ("loss_curve", [{"step": 0, "loss": -1e300, "lr": 0.0}] * 3),
        ("started_at", "never"),
        ("predictions", "\u0000../../etc/passwd"),
        ("scores", {"nothing": {"value": 1e300, "n": 0, "correct": None}}),
        ("label", "\u001b[31m\ud800"),
    ],
)
def test_what_is_odd_is_shown_by_every_reader(
    root: Path, file: Path, place: str, value: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(root, file, place, value)
    monkeypatch.setattr("bench.report.background.start", lambda job, *_: lambda: [b""] * 6 if "draw" in job else "")
    spec, results = str(root / "specs" / "table1.yaml"), str(file.parents[1])
    reports = str(file.parent / "reports")
    runner = CliRunner()
    for arguments, codes in (
        ([spec, "--scale", "demo", "--list", "--results", results], (0,)),
        ([spec, "--scale", "demo", "--report-only", "--results", results, "--reports", reports], (0,)),
        (["compare", results, str(root / "results" / "gallery" / "table1"), "--allow-missing"], (0, 1, 2)),
        (["compare", "--published", spec, "--scale", "demo", "--results", results], (0, 1)),
        (["export", results, "-o", str(file.parent / "all.csv")], (0,)),
        (["export", results, "-o", str(file.parent / "all.parquet")], (0, 2)),
    ):
        done = runner.invoke(app, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), arguments
        assert done.exit_code in codes, (arguments, done.output)
    capsys.readouterr()
