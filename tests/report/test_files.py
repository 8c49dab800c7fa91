"""The files: the same bytes for the same input, replaced at once, plots redrawn only when they change."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import pytest

from bench.errors import OutputError, SpecError
from bench.records.record import Status
from bench.report import background, check_folder, pareto_plot, warmed_up, write_report
from bench.report.pareto_plot import PICTURES, Panel, Plot, PlotPoint, draw
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


def fail(*_: object) -> None:
    raise SystemError("no fonts")


def hang() -> None:
    time.sleep(600)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lack_a_package() -> None:
    importlib.import_module("no_such_package")


def test_a_plot_that_fails_leaves_the_tables(demo: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto_plot, "render", fail)
    with pytest.raises(RuntimeError, match="drawing the Pareto plot failed: no fonts"):
        write(demo, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["index.html", "table.csv", "table.md", "table.tex"]


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (hang, RuntimeError, "took longer than 1 s"),
        (be_killed, OutputError, "bundling the plotting library was killed; run the same command with --report-only"),
        (lack_a_package, OutputError, "bundling the plotting library failed: ModuleNotFoundError: .*no_such_package"),
    ],
)
def test_a_process_that_fails_ends_the_report(
    demo: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[[], None],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(background, "vega_bundle", function)
    monkeypatch.setattr(background, "LIMIT_S", 1.0 if function is hang else 100.0)
    with pytest.raises(error, match=message):
        write(demo, tmp_path / "out")
    assert not active_children()


def test_processes_warmed_up_are_used_or_ended(demo: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with warmed_up(out):
        assert len(active_children()) == 2
        first = write(demo, out)
    with warmed_up(out):
        assert not active_children(), "there are pictures to keep"
        assert write(demo, out) == first
    with warmed_up(tmp_path):
        pass
    assert not active_children()


ORPHANS = """
import os, signal
from multiprocessing import active_children
from pathlib import Path
from bench.report import warmed_up
if __name__ == "__main__":
    with warmed_up(Path("nowhere")):
        print(*[child.pid for child in active_children()], flush=True)
        os.killpg(0, signal.SIGINT) if {interrupted} else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("interrupted", [True, False])
def test_processes_end_with_their_parent(tmp_path: Path, interrupted: bool) -> None:
    script = tmp_path / "killed.py"
    script.write_text(ORPHANS.format(interrupted=interrupted))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False, start_new_session=True
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        for _ in range(200):
            if not Path("/proc", str(pid)).exists():
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"process {pid} outlives its parent")
    assert done.stderr.count("KeyboardInterrupt") == interrupted, "a process of its own says nothing"


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
    points = [PlotPoint(label=f"LoRA-LoRA-LoRA rank={i}", x=x, y=y) for i, (x, y) in enumerate(places)]
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
    assert not active_children()
