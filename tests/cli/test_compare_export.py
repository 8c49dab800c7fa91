"""``compare`` and ``export`` on the command line: exit codes, counted parameters, files, wrong arguments.

What they print is kept in tests/golden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.records.record import Status
from bench.records.store import ResultsFile
from bench.spec.cell import Cell
from tests.cli.test_run import SPEC, bench
from tests.factories import load_cells, make_record


@pytest.fixture(autouse=True)
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two results folders: in ``b`` the first of two cells runs out of memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    cells = load_cells(root / "specs" / "table1.yaml", "demo")[1][:2]
    for name in ("a", "b"):
        for place, cell in enumerate(cells):
            status = Status.OOM if (name, place) == ("b", 0) else Status.OK
            ResultsFile(Path(name) / "table1" / "demo.jsonl").append(make_record(cell, place, status=status))
    return tmp_path


def test_comparisons_end_with_what_ci_needs_to_know() -> None:
    same, worse, better = bench("compare", "a", "a"), bench("compare", "a", "b"), bench("compare", "b", "a")
    assert (same.exit_code, worse.exit_code, better.exit_code) == (0, 1, 0)
    assert "2 cells compared" in same.stdout
    words = worse.stdout.split()
    assert words[(at := words.index("status")) : at + 6] == ["status", "(seed", "42)", "ok", "oom", "worse"]
    assert "\x1b" not in worse.stdout
    assert worse.stderr == ""


def test_parameters_are_counted_without_a_run(root: Path, tmp_path: Path) -> None:
    """All that the paper prints of them, exactly; the records at hand are of the demo alone."""
    specs = [root / "specs" / f"table{number}.yaml" for number in (2, 4)]
    done = bench("compare", "--published", *map(str, specs), "--results", "a", "--json")
    for found in json.loads(done.stdout):
        verdicts = {(one["metric"] == "params", one["verdict"]) for one in found["verdicts"]}
        assert (found["scale"], found["counted"], found["exit_code"]) == ("paper", 4, 0)
        assert verdicts == {(True, "reproduced"), (False, "not measured")}
    assert done.exit_code == 0
    off = tmp_path / "off.yaml"
    off.write_text(specs[1].read_text(encoding="utf-8").replace("params: 0.102", "params: 0.103"), encoding="utf-8")
    assert bench("compare", "--published", str(off)).exit_code == 1


def put_other_data(results: str, cells: Sequence[Cell]) -> None:
    """The first cell's result is of other data than the second one's, which is newer."""
    for place, cell in enumerate(cells[:2]):
        one = make_record(cell, place, data_digest=str(place) * 64, finished_at=f"2026-01-0{1 + place}T00:00:00Z")
        ResultsFile(Path(results) / cell.spec / f"{cell.scale}.jsonl").append(one)


def test_parameters_of_a_stale_cell_are_counted(root: Path) -> None:
    """Those of its record count no longer; another stale cell's scores stay out all the same."""
    spec = root / "specs" / "table4.yaml"
    cells = load_cells(spec)[1]
    put_other_data("p", cells)
    found = json.loads(bench("compare", "--published", str(spec), "--results", "p", "--json").stdout)
    first = {one["metric"]: one["verdict"] for one in found["verdicts"] if one["label"] == cells[0].label}
    assert (found["counted"], first.pop("params")) == (len(cells) - 1, "reproduced")
    assert set(first.values()) == {"not measured"}


def test_exports_of_a_spec_say_what_is_stale(root: Path) -> None:
    spec = root / "specs" / "table4.yaml"
    put_other_data("p", load_cells(spec)[1])
    chosen = ("--results", "p", "--format", "csv", "--columns", "status,stale")
    assert bench("export", str(spec), *chosen).stdout.splitlines() == ["status,stale", "ok,data changed", "ok,"]
    assert bench("export", "p", *chosen).stdout.splitlines() == ["status,stale", "ok,", "ok,"], "no spec, no cells"


def test_exports() -> None:
    done = bench("export", "a", "b", "-o", "out/all.csv")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "wrote out/all.csv\n")
    assert len(Path("out/all.csv").read_text().splitlines()) == 5
    assert [path.name for path in Path("out").iterdir()] == ["all.csv"]
    assert bench("export", "a", "-o", "all.parquet").exit_code == 0
    assert Path("all.parquet").read_bytes().startswith(b"PAR1")
    printed = bench("export", "a", "--format", "csv", "--columns", "label,status")
    assert printed.stdout.splitlines() == ["label,status", "F-LoRA-LoRA rank=4,ok", "F-LoRA-LoRA rank=8,ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare",), "compare takes two sets of records, A and B, and got 0"),
        (("compare", "a"), "and got 1"),
        (("compare", "a", "b", "--against", "x"), "--against compares the cells of one set of records"),
        (("compare", "a", "--against", "x"), "--against 'x': a has no such cell"),
        (("compare", "--published", "s.yaml", "--against", "x"), "--against is for the comparison of two sets"),
        (("compare", "a", "nowhere"), "nowhere: no such file or folder; write one of"),
        (("compare", "a", "b", "--tolerance", "memory"), "--tolerance step_time=10%"),
        (("compare", "a", "b", "--tolerance", "memry=1"), "did you mean 'memory'"),
        (("compare", "a", "b", "--metrics", "globl"), "did you mean 'global'"),
        (("compare", "a", "b", "--only", "X*"), "no cell of a has such a label"),
        (("compare", "a", "b", "--alpha", "5"), "between 0 and 1"),
        (("compare", "a", "b", "--scale", "demo"), "--scale is for the comparison of a spec's records"),
        (("compare", "--published"), "name a spec that has published numbers"),
        (("compare", "--published", "s.yaml"), "the spec has no published numbers"),
        (("compare", "--published", "s.yaml", "--all"), "--all is for the comparison of two sets of records"),
        (("compare", "--published", "z.yaml"), "no such file"),
        (("compare", "a", "b", "--jsn"), "No such option"),
        (("export", "a"), "name a file with -o"),
        (("export", "-o", "x.csv"), "name what to export"),
        (("export", "a", "-o", "x.xlsx"), "no such format"),
        (("export", "a", "--format", "cvs"), "did you mean 'csv'"),
        (("export", "a", "--format", "parquet"), "name a file with -o"),
        (("export", "a", "-o", "x.tex"), "is of one spec"),
        (("export", "a", "-o", "x.csv", "--digits", "3"), "--digits is for tables"),
        (("export", "a", "-o", "x.csv", "--scale", "demo"), "--scale says which cells of a spec are meant"),
        (("export", "a", "-o", "x.csv", "--columns", "statis"), "did you mean 'status'"),
        (("export", "s.yaml", "-o", "x.csv"), "no records of its cells"),
        (("export", "s.yaml", "-o", "x.md", "--seeds", "1,x"), "whole numbers"),
        (("export", "a", "-o", "a/table1"), "name a file with -o"),
        (("export", "a", "-o", "s.yaml/x.csv"), "cannot be written"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str) -> None:
    Path("s.yaml").write_text(SPEC)
    result = bench(*arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_spec_file_of_the_same_name_still_runs() -> None:
    for name in ("compare", "export"):
        Path(name).write_text(f"name: my-{name}\n{SPEC}")
        assert bench(f"./{name}", "--list").exit_code == 0
        assert f"runs as ./{name}" in bench(name, *(["-o", "x.csv"] if name == "export" else [])).stderr
    assert bench("--list", "compare").exit_code == 0


@pytest.mark.parametrize("name", ["compare", "export"])
def test_help(name: str) -> None:
    text = bench(name, "--help").stdout
    for word in (
        f"{name} [OPTIONS]",
        "Examples:",
        "REV:PATH",
        "PATH@COMMIT",
        "Exit codes",
        "--json" if name == "compare" else "-o",
    ):
        assert word in text
    assert "\x1b" not in text
    assert f"run_bench.py {name}" in bench("--help").stdout
