"""Hostile labels come out harmless, and still readable, in every format."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from bench.report import csv_file, latex, markdown, write_report
from bench.report.terminal import print_summary
from bench.report.view import View, Wanted, latex_text, markdown_text, view
from bench.spec.sections import Column
from tests.factories import make_record
from tests.report.conftest import Case

LABELS = [
    r"\input{secret}",
    r"\immediate\write18{touch pwned}",
    "$x^2$ & 100% #1 _under_ ~tilde~ {brace}",
    "back\\slash \\\\[2em] [opt]* --dash--",
    "a|b||c `code` **bold** ![img](http://evil.example/x.png)",
    "<script>alert(1)</script> &amp; <!-- hidden -->",
    "see https://evil.example or www.evil.example or me@evil.example",
    '=HYPERLINK("http://evil.example","x")',
    "@SUM(1+1)|cmd",
    "-1+2 \t tab \r\n newline [red]markup[/red]",
]
FORMS = ["table", "view", "transposed"]
SAFE_PLACES = {"title": "# =cmd|' /C calc'!A0 $\\frac{$ <b>t</b>", "source": r"A \& B, [1](javascript:alert(1)) 50%"}


@pytest.fixture
def hostile(paper: Case) -> Case:
    """Every row's part, axis value and label is hostile, and so are title, headers, source and device."""
    places = [{"parts": cell.parts | {"vit": label}, "labels": {"rank": label}, "label": label}
              for cell, label in zip(paper.cells, LABELS, strict=True)]  # fmt: skip
    paper.cells = [cell.model_copy(update=place) for cell, place in zip(paper.cells, places, strict=True)]
    for i, cell in enumerate(paper.cells):
        paper.put(i, make_record(cell, i, environment={"device": LABELS[i % 3]}))
    assert paper.spec.published is not None
    rows = [{"vit": label, "global": 50.0, "open": 1, "closed": 1} for label in LABELS]
    paper.respec(
        title=SAFE_PLACES["title"],
        columns=[Column(value="vit", header="=a|b"), Column(value="rank", header="\\b_{c}"), *paper.spec.columns[4:]],
        published=paper.spec.published.model_copy(update={"source": SAFE_PLACES["source"], "rows": rows}),
    )
    return paper


def one_line(label: str) -> str:
    return " ".join(label.split())


def walk(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def view_of(case: Case, metrics: list[str], *, transpose: bool) -> View:
    """Rows in groups by a hostile part; a hostile axis labels them."""
    wanted = Wanted(columns=["rank", *metrics], group_by="vit", transpose=transpose, published=True)
    return view(case.spec, case.scale, case.cells, case.records, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_markdown_shows_every_label_as_it_is(hostile: Case, form: str) -> None:
    table = hostile.table()
    text = markdown.render(table)
    if form != "table":
        text = markdown_text(view_of(hostile, ["global"], transpose=form == "transposed"))
    tokens = walk(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text))
    if form == "table":
        cells = [token for token in tokens if token.type in ("td_open", "th_open")]
        assert len(cells) == (len(table.rows) + 1) * (len(table.columns) + 2 * sum(c.published for c in table.columns))
    allowed = {"text", "strong_open", "strong_close", "em_open", "em_close", "softbreak", "hardbreak", "html_inline"}
    inline = [child for token in tokens if token.type == "inline" for child in token.children or []]
    assert {child.type for child in inline} <= allowed
    assert {child.content for child in inline if child.type == "html_inline"} <= {"<!-- -->"}
    assert not [token for token in tokens if token.type in ("html_block", "code_block", "fence", "list_item_open")]
    shown = ["".join(c.content for c in token.children or [] if c.type == "text") for token in tokens]
    for label in LABELS:
        assert one_line(label) in shown
    assert "://" not in text.replace("\\://", "")
    assert "www." not in text


def test_csv_has_no_formula_and_keeps_its_numbers(hostile: Case) -> None:
    rows = list(csv.reader(io.StringIO(csv_file.render(hostile.table()))))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + 10 + 3
    numbers = 0
    for cell in (cell for row in rows for cell in row):
        try:
            float(cell)
            numbers += 1
        except ValueError:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "|", "%")), cell
        assert "\n" not in cell
        assert "\r" not in cell
    assert any(cell.startswith("-") for row in rows for cell in row)  # negative deviations stay numbers
    assert numbers > 100
    assert [row[3].removeprefix("'") for row in rows[1:11]] == [one_line(label) for label in LABELS]


def test_csv_numbers_that_are_labels_stay_numbers() -> None:
    assert [csv_file.cell(value) for value in (-4, -0.5, 0, None, True, "-4", "＝1")] == [
        "-4", "-0.5", "0", "", "true", "'-4", "'＝1",
    ]  # fmt: skip


DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx,xcolor}
\begin{document}
\input{table.tex}
\end{document}
"""


def compile_tex(folder: Path) -> tuple[str, str]:
    """The log and the text of the page."""
    for tool in ("pdflatex", "pdftotext"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    (folder / "main.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    subprocess.run(["pdftotext", "-layout", "main.pdf"], cwd=folder, check=True, timeout=60)
    return done.stdout, (folder / "main.txt").read_text()


@pytest.mark.parametrize("form", FORMS)
def test_latex_compiles_and_runs_nothing(hostile: Case, tmp_path: Path, form: str) -> None:
    text = latex.render(hostile.table())
    if form != "table":
        text = latex_text(view_of(hostile, ["memory", "global"], transpose=form == "transposed"))
    (tmp_path / "secret.tex").write_text("CANARY")
    (tmp_path / "table.tex").write_text(text)
    log, page = compile_tex(tmp_path)
    assert "CANARY" not in page
    assert "Overfull" not in log
    assert not (tmp_path / "pwned").exists()
    if form != "table":
        assert form == "transposed" or r"\input{secret}" in page, "ten such columns are too narrow to read"
        return
    for words in (r"\input{secret}", r"\immediate\write18{touch", "$x^2$ & 100%", "{brace}", "--dash--", "**bold**"):
        assert words in page.replace("ˆ", "^").replace("˜", "~"), words


@pytest.mark.parametrize("times", [1, 6])
def test_latex_of_ordinary_and_long_tables_fits_the_page(paper: Case, tmp_path: Path, times: int) -> None:
    table = paper.fill().table()
    (tmp_path / "table.tex").write_text(latex.render(replace(table, rows=table.rows * times)))
    log, page = compile_tex(tmp_path)
    assert "too large" not in log
    assert times > 1 or "Overfull" not in log
    assert "20.34" in page
    assert page.count("LoRA") >= times * 18


@pytest.mark.parametrize(
    ("words", "tex"),
    [
        ("F-LoRA 4", "F-LoRA 4"),
        ("a--b", "a-{}-b"),
        ("é", r"\'{e}"),
        ("ﬁ ①", "fi 1"),
        ("漢", "{[}U+6F22{]}"),
        ("−0.5 ± 0.1", r"\ensuremath{-}0.5 \ensuremath{\pm} 0.1"),
        ("\\", r"\textbackslash{}"),
    ],
)
def test_latex_escapes(words: str, tex: str) -> None:
    assert latex.escape(words) == tex


def test_every_unicode_plane_compiles(paper: Case, tmp_path: Path) -> None:
    sample = "".join(chr(code) for code in [*range(32, 0x250), *range(0x370, 0x400), 0x2014, 0x4E2D, 0x1F600, 0x202E])
    cells = [paper.cells[0].model_copy(update={"parts": {"vit": sample[i : i + 30]}, "label": str(i)})
             for i in range(0, len(sample), 30)]  # fmt: skip
    paper.cells = cells
    paper.respec(columns=[Column(value="vit"), Column(value="global")])
    (tmp_path / "table.tex").write_text(latex.render(paper.table()))
    log, _ = compile_tex(tmp_path)
    assert "Missing character" not in log


def test_plots_take_any_label(hostile: Case, tmp_path: Path) -> None:
    paths = write_report(hostile.spec, hostile.scale, hostile.cells, hostile.records, tmp_path / "out").files
    root = ET.fromstring(next(path for path in paths if path.suffix == ".svg").read_bytes())
    assert root.tag.endswith("svg")
    assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "foreignObject", "image", "a")]


def test_the_terminal_shows_markup_as_it_is(hostile: Case) -> None:
    console = Console(width=400, file=io.StringIO(), color_system=None)
    print_summary(console, hostile.table())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]markup[/red]" in shown
    assert "\x1b" not in shown
