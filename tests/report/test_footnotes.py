"""Warnings of scores on training data and of cut texts, wherever a table is printed."""

from __future__ import annotations

import csv
import io

from bench.analysis.rows import Row, rows_of
from bench.records.record import CutCount, Overlap
from bench.report import captions, csv_file, latex, markdown
from bench.report.pareto import build_plot
from bench.report.table import Table
from tests.factories import make_record
from tests.report.conftest import Case


def told(table: Table) -> list[str]:
    return [row["note"] for row in csv.DictReader(io.StringIO(csv_file.render(table))) if row["status"] != "baseline"]


def groups_of(case: Case) -> list[Row]:
    return rows_of(case.spec, case.cells, case.records)


def on_training(case: Case) -> Case:
    data = case.cells[0].data.model_copy(update={"train_split": "train+validate", "test_split": "validate"})
    cells = [cell.model_copy(update={"data": data}) for cell in case.cells]
    return Case(spec=case.spec, cells=cells)


def test_scores_on_the_training_split_say_so_everywhere(paper: Case) -> None:
    case = on_training(paper).fill()
    table = case.table()
    assert table.tag == "PAPER, TRAINING SPLIT"
    assert "(validate split, which is trained on: not held-out scores)" in table.caption
    assert "Scored on the training split (validate)." in table.footnotes
    assert all(note.startswith("scored on the training split (validate)") for note in told(table))
    for rendered in (markdown.render(table), latex.render(table)):
        assert "TRAINING SPLIT" in rendered
        assert "not held-out scores" in rendered
        assert "Scored on the training split" in rendered
    plot = build_plot(case.spec, case.scale, groups_of(case))
    assert plot.tag == "PAPER, TRAINING SPLIT"
    assert "not held-out scores" in plot.subtitle


def test_an_overlap_has_counts(paper: Case) -> None:
    paper.fill()
    for place in (0, 1):
        record = make_record(paper.cells[place], place, overlap=Overlap(same=12, n=1061, images="contents"))
        paper.put(place, record)
    table = paper.table()
    assert table.tag == ""
    labels = ", ".join(row.label for row in table.rows[:2])
    assert f"12 of 1,061 test examples are also in training in {labels}." in table.footnotes
    said = [note.startswith("12 of 1,061 test examples are also in training") for note in told(table)]
    assert said == [True, True] + [False] * (len(said) - 2)


def test_cut_texts_have_counts_and_held_out_data_no_note(paper: Case) -> None:
    table = paper.fill().table()
    assert captions.tag(paper.scale, groups_of(paper)) == ""
    assert not any("training" in note for note in table.footnotes)
    cut = {"train_questions": CutCount(cut=560, n=1000), "test_questions": CutCount(cut=0, n=10)}
    notes = paper.fill(texts_cut=cut).table().footnotes
    assert "Longer than the model takes, and cut: 560 of 1,000 training texts." in notes
