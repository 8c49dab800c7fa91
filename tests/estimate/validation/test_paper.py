"""The comparison with a paper's Memory column, on small tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.estimate.validation import __main__ as command
from bench.estimate.validation import paper

REAL = Path(__file__).resolve().parents[3] / "specs"


def test_the_rows_are_the_papers() -> None:
    rows = paper.read_rows(REAL, [])
    assert len(rows) == 23
    assert [row.printed for row in rows[:3]] == [5.19, 5.21, 26.63]
    assert set(paper.FRAGMENTED) < {row.cell.label for row in rows}


def test_errors_are_signed_and_the_worst_is_the_largest_in_size(specs: Path) -> None:
    rows = paper.read_rows(specs, [])
    errors = paper.errors(rows, [round(factor * 0.6 * 2**30) for factor in (1.1, 0.8, 1, 1)])
    assert paper.mean_and_worst(errors) == {
        "mean": pytest.approx(0.075, abs=1e-6),
        "worst": pytest.approx(-0.2, abs=1e-6),
    }
    assert paper.errors(rows, [600_000_000] * 4, "GB") == pytest.approx([0] * 4, abs=1e-9)


def test_writes_lines_and_a_page(specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "FRAGMENTED", ("F-T-LoRA",))
    code = command.main(["paper", "--specs", str(specs), "--out", str(tmp_path / "out")])
    lines = [json.loads(line) for line in (tmp_path / "out" / "paper.jsonl").read_text().splitlines()]
    environment, *rows, summary = lines
    assert environment["environment"]["versions"]["torch"]
    assert [row["label"] for row in rows] == ["F-T-LoRA", "T-LoRA-LoRA", "F-F-T", "LoRA-F-LoRA"]
    assert all(row["estimate"]["assumed"]["lengths_from"] == "annotations" for row in rows)
    ours, *others = summary["readings"].values()
    assert code == (0 if ours["mean"] <= 0.05 and abs(ours["worst"]) <= 0.12 else 1)
    assert ours["mean"] < others[-1]["mean"], "longer texts need more"
    phases = summary["fragmentation"]["F-T-LoRA"]
    assert phases["the longest batch, one step"]["allocated_peak_bytes"] > 0
    page = (tmp_path / "out" / "paper.md").read_text()
    assert f"{100 * ours['mean']:.2f} %" in page
    assert "table4: LoRA-F-LoRA | 0.60 |" in page
    assert str(tmp_path) not in page + json.dumps(lines), "where the data lie is nobody's business"


def test_without_annotations_it_says_what_to_give(
    specs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (specs.parent / "annotations").iterdir():
        file.unlink()
    assert command.main(["paper", "--specs", str(specs), "--out", str(tmp_path / "out")]) == 2
    assert "--set data.root=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
