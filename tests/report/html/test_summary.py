"""What the summary says follows from the records."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import rows_of
from bench.records.record import Memory
from bench.records.scores import Score
from bench.records.store import ResultsFile
from bench.report.html.page_data import axes_of, baselines_json
from bench.report.html.summary import Statement, summary
from tests.analysis.test_eval_sets import record, two  # noqa: F401 - a fixture
from tests.conftest import ROOT
from tests.factories import load_cells, make_estimate
from tests.report.conftest import Case
from tests.report.html.conftest import N_CLOSED, N_OPEN, OOM, Report, above, half

ALL = N_OPEN + N_CLOSED
PAGES = sorted((ROOT / "reports" / "gallery").glob("*/index.html"))


def third(i: int) -> bool:
    return i % 3 == 0


def statements(report: Report) -> list[Statement]:
    return summary(report.groups, ExampleScores(report.folder))


def titled(report: Report, start: str) -> Statement:
    (found,) = [one for one in statements(report) if start in one.title]
    return found


def labels(statement: Statement) -> list[str]:
    return [named.label for named in statement.named]


def test_the_best_is_named_with_its_interval_and_cell(report: Report) -> None:
    report.put(6, above(0))
    best = statements(report)[0]
    assert best.title == f"Best global accuracy: {report.cells[6].label}"
    assert best.text.startswith(f"{100 * (ALL - 1) / ALL:.2f} %, 95 % CI 91.14 to 99.71, n = 60")
    assert best.named[0].cells == (report.cells[6].cell_id,)


def test_ties_with_the_best_are_named_or_that_there_are_none(report: Report) -> None:
    for place in range(OOM):
        report.put(place, half if place < 5 else above(place))
    tied = titled(report, "not told apart")
    assert labels(tied) == [report.cells[place].label for place in (6, 7)]
    assert tied.text.startswith("No significant difference (paired on the test examples")
    for place in range(OOM):
        report.put(place, above(-1) if place == 5 else half)
    assert titled(report, "Told apart from all").text.startswith("All other cells are significantly worse")


def test_the_best_under_a_size_of_gpu_changes_where_the_answer_does(report: Report) -> None:
    """Processes need 4 to 11 GiB; the best needs 11, the best but one 8."""
    for place in range(OOM):
        report.put(place, above(20 - 2 * place))
    under = [one for one in statements(report) if one.title.startswith("Best under")]
    assert [one.title for one in under] == [
        f"Best under 8 GB: {report.cells[4].label}",
        f"Best under 12 GB: {report.cells[7].label}",
    ]
    assert "needs 8.00 GiB of GPU memory" in under[0].text


def test_cells_that_any_constant_answer_equals_are_named(report: Report) -> None:
    """The baseline scores 61.67 %; always yes a third, as always no does."""
    for place in range(OOM):
        report.put(place, third if place == 0 else half if place == 1 else above(1))
    assert labels(titled(report, "not better than question only")) == [report.cells[i].label for i in (1, 0)]
    assert (
        titled(report, "not better than always yes").title == f"{report.cells[0].label} is not better than always yes"
    )


def test_below_the_baseline_that_comes_first_and_nothing_is_recommended(report: Report) -> None:
    for place in range(OOM):
        report.put(place, third)
    found = statements(report)
    assert (found[0].title, found[0].source) == ("No cell is better than question only", report.cells[0].cell_id)
    titles = [one.title for one in found]
    assert [title for title in titles if title.startswith("Highest")]
    assert not [title for title in titles if title.startswith(("Best under", "Cheapest"))]


def test_where_all_fit_the_cell_that_needs_most_is_named_even_below_the_baseline(report: Report) -> None:
    """Only the first cell is better than the baseline; the sixth, which is not, needs most."""
    for place in range(OOM):
        report.put(place, above(0) if place == 0 else half, memory=Memory(), estimate=make_estimate(2.0 + (place == 5)))
    del report.records[report.cells[OOM].cell_id]
    found = titled(report, "Best under 8 GB")
    assert labels(found) == [report.cells[place].label for place in (0, 5)]
    assert found.text == (
        f"Each of the 8 cells whose need is known fits there: {report.cells[5].label} needs most, ≈ 3.75 GiB of GPU"
        " memory. ≈: predicted for a CUDA GPU, not measured. This is the demo's model, not the published one."
    )


def test_the_cheapest_is_not_named_where_all_need_the_same(report: Report) -> None:
    for place in range(OOM):
        report.put(place, above(1), memory=Memory(nvml_process_peak_bytes=2**32))
    found = titled(report, "Cheapest")
    assert found.text.endswith("(the best itself) trains 0.161 % of the parameters; each needs 4.00 GiB of GPU memory."
                              " This is the demo's model, not the published one.")  # fmt: skip


def test_one_cell_alone_is_the_only_one(report: Report) -> None:
    report.put(0, above(1))
    report.cells = report.cells[:1]
    titles = [one.title for one in statements(report)]
    assert titles == [
        f"Only global accuracy: {report.cells[0].label}",
        f"Best under 8 GB: {report.cells[0].label}",
        "Better than question only",
        "The only cell ended well",
    ]


def test_each_task_and_test_set_has_a_summary_of_its_own(two: Case) -> None:  # noqa: F811
    two.put(0, record(two.cells[0], correct=150, params=1))
    two.put(4, record(two.cells[4], correct=300, params=1))
    groups = rows_of(two.spec, two.cells, two.records)
    found = summary(groups, ExampleScores(None))
    titles = [one.title for one in found]
    assert titles[0] == f"llama · Best exact match: {two.cells[0].label}"
    assert f"vit · Best accuracy: {two.cells[4].label}" in titles
    assert "llama · 2 of 3 cells are not better than most common answer" in titles
    assert f"vit · {two.cells[3].label} is not better than majority class" in titles
    assert not any("same test examples: compare" in one.text for one in found)
    floors = baselines_json(groups, axes_of(groups))
    assert {
        (own["called"], round(own["values"]["score"], 2), own["values"]["over_prior"]) for own in floors["own"]
    } == {
        ("Most common answer", 33.33, 0.0),
        ("Majority class", 10.16, 0.0),
    }


def test_a_test_set_without_a_current_result_has_no_baseline(two: Case) -> None:  # noqa: F811
    two.put(0, record(two.cells[0], correct=150, params=1))
    two.put(4, record(two.cells[4], correct=300, params=1))
    stale = {cell.cell_id: "data changed" for cell in two.cells[3:]}
    groups = rows_of(two.spec, two.cells, two.records, stale)
    floors = baselines_json(groups, axes_of(groups))
    assert floors["values"] == {}, "the floor of one test set is not that of another"
    assert [bool(own["values"]) for own in floors["own"]] == [True, True, True, *[False] * (len(groups) - 3)]


def test_failures_are_counted_by_how_they_ended(report: Report) -> None:
    found = titled(report, "ended well")
    assert (found.title, found.text) == ("8 of 10 cells ended well", "1 OOM (train, step 3); 1 not run.")
    assert found.named[0].cells == (report.cells[OOM].cell_id,)


def test_cells_of_other_examples_are_held_against_their_own_baseline(report: Report) -> None:
    """The first cell answers half of its questions; its baseline is low, that of the others is 61.67 %."""
    for place in range(OOM):
        report.put(place, half)
    first = report.records[report.cells[0].cell_id]
    assert first.accuracy is not None
    low = {name: {"global": Score.share(6, 60)} for name in first.accuracy.baselines}
    scores = first.accuracy.scores()
    changes = {"accuracy": None, "scores": scores, "baselines": low}
    report.records[first.cell_id] = first.model_copy(update=changes)
    found = titled(report, "not better than question only")
    assert found.title.startswith("7 of 8 cells")
    assert report.cells[0].label not in labels(found)
    assert "Not all cells were scored on the same test examples" in statements(report)[0].text
    floors = baselines_json(report.groups, axes_of(report.groups))
    assert floors["values"] == {}
    assert [own["values"].get("global") for own in floors["own"]] == [10.0, *[61.66667] * 7, None, None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_committed_pages_have_the_titles_of_their_summaries(page: Path) -> None:
    name = page.parent.name
    (file,) = (ROOT / "results" / "gallery" / name).glob("*.jsonl")
    spec, cells = load_cells(next((ROOT / "specs").rglob(f"{name}.yaml")), file.stem)
    text = html.unescape(page.read_text(encoding="utf-8"))
    for statement in summary(rows_of(spec, cells, ResultsFile(file).read()), ExampleScores(file.parent)):
        assert f"<h3>{statement.title}</h3>" in text
