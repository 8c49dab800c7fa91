"""The files: the same bytes for the same input, replaced at once, plots redrawn only when they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import OutputError, SpecError
from bench.records.record import Status
from bench.report import background, check_folder, processes, warm_up, write_report
from bench.report.html import vega_bundle
from bench.report.pareto_plot import PICTURES, Panel, Plot, Point, draw
from tests.factories import failed_record, make_record
from tests.report.conftest import Case

NAMES = ["index.html", "table.md", "table.tex", "table.csv", *PICTURES]


def write(case: Case, folder: Path) -> dict[str, bytes]:
    paths = write_report(case.spec, case.scale, case.cells, case.records, folder).files
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    return {path.name: path.read_bytes() for path in paths}


def test_the_same_input_gives_the_same_bytes(demo: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.fill(cuda=False).put(6, failed_record(demo.cells[6], Status.OOM, "train", 3))
    first = write(demo, tmp_path / "a")
    settings = tmp_path / "mpl"
    settings.mkdir()
    (settings / "matplotlibrc").write_text("lines.linewidth: 9\nfigure.facecolor: red\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(settings / "matplotlibrc"))
    demo.records = dict(reversed(demo.records.items()))
    assert write(demo, tmp_path / "b") == first


def test_plots_are_redrawn_only_when_they_change(demo: Case, tmp_path: Path) -> None:
    first = write(demo.fill(cuda=False), tmp_path / "out")
    stamps = {name: (tmp_path / "out" / name).stat().st_ino for name in NAMES}
    assert write(demo, tmp_path / "out") == first
    kept = {name for name in NAMES if (tmp_path / "out" / name).stat().st_ino == stamps[name]}
    assert kept == {*PICTURES, "index.html"}
    demo.put(0, make_record(demo.cells[0], 7, cuda=False))
    changed = write(demo, tmp_path / "out")
    assert {name for name in NAMES if changed[name] != first[name]} == set(NAMES)


def test_a_plot_that_fails_leaves_the_tables(demo: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no fonts')")
    monkeypatch.setattr(background, "SCRIPT", script)
    with pytest.raises(RuntimeError, match="no fonts"):
        write_report(demo.spec, demo.scale, demo.cells, demo.records, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.html",
        "table.csv",
        "table.md",
        "table.tex",
    ]


def test_processes_warmed_up_are_used_or_ended(demo: Case, tmp_path: Path) -> None:
    warm_up()
    warm = list(processes._running)
    first = write(demo, tmp_path / "out")
    assert [process.returncode for process in warm] == [0, 0]
    warm_up()
    warm = list(processes._running)
    assert write(demo, tmp_path / "out") == first
    assert len(warm) == 2
    assert None not in [process.returncode for process in warm]
    assert processes._running == []


def test_a_plot_of_a_thousand_cells_is_drawn_while_the_report_goes_on() -> None:
    """Plot and pictures are each more than a pipe holds, so that someone must write and read."""
    points = [Point(label=f"rank={i}", x=i, y=i % 7, y_low=i % 7 - 1.0, y_high=i % 7 + 1.0) for i in range(1000)]
    panel = Panel(
        x_label="x", y_label="y", x_log=False, lower_cost_is_better=True, measured=points, predicted=[], published=[],
        baseline=None, baseline_label="",
    )  # fmt: skip
    plot = Plot(title="t", subtitle="s", tag="", panels=[panel], failures=[])
    drawn = background.Drawing(plot, background.digest(plot))
    drawn._thread.join(timeout=100)
    assert drawn._process.returncode == 0
    assert [len(picture) > 1000 for picture in drawn.pictures()] == [True] * len(PICTURES)


def test_no_label_covers_another() -> None:
    """Ten cells in five pairs, as in Table 1, two of them at the same place."""
    places = [
        (5, 20),
        (5, 20),
        (26, 49),
        (26.1, 49),
        (7.2, 55),
        (7.4, 57),
        (26.9, 62),
        (27.2, 62),
        (27.6, 79),
        (28, 79),
    ]
    points = [Point(label=f"LoRA-LoRA-LoRA rank={i}", x=x, y=y) for i, (x, y) in enumerate(places)]
    panel = Panel(
        x_label="x", y_label="y", x_log=False, lower_cost_is_better=True, measured=points, predicted=[], published=[],
        baseline=54.0, baseline_label="Question only",
    )  # fmt: skip
    figure = draw(Plot(title="t", subtitle="s", tag="", panels=[panel], failures=[]))
    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("LoRA")]
    boxes = [text.get_window_extent().shrunk(1.0, 0.85) for text in labels]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = figure.axes[0].bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize("place", ["file", "page", "read-only"])
def test_a_place_that_cannot_be_written_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    out = tmp_path / "reports" / "s"
    if place == "file":
        out.parent.write_text("")
    elif place == "page":
        (out / "table.tex").mkdir(parents=True)
    else:
        monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    named = {"file": r"reports is no folder", "page": r"table\.tex is a folder", "read-only": r"is read-only"}[place]
    with pytest.raises(SpecError, match=rf"{named}; .*choose another --reports"):
        check_folder(out)


def test_a_report_that_cannot_be_written_keeps_the_records(demo: Case, tmp_path: Path) -> None:
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"index\.html: Is a directory; the records are kept: .*--report-only"):
        write(demo, tmp_path / "out")
    assert not processes._running


def test_a_missing_package_is_named(demo: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vega_bundle, "BUNDLE", "import no_such_package")
    with pytest.raises(
        OutputError, match=r"bundling the plotting library failed: ModuleNotFoundError: .*no_such_packa"
    ):
        write(demo, tmp_path / "out")


def test_a_process_that_hangs_is_given_up(demo: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vega_bundle, "BUNDLE", "import time; time.sleep(600)")
    monkeypatch.setattr(processes, "LIMIT_S", 1.0)
    with pytest.raises(RuntimeError, match="took longer than 1 s"):
        write(demo, tmp_path / "out")
    assert not processes._running
