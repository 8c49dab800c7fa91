r"""LaTeX, to include with ``\input``: measured values, and published ones small and grey below them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from bench import format
from bench.report.table import Table, TableRow, Value

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "`": r"\`{}", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_TEXT = {
    format.DASH: r"\textemdash{}", "–": r"\textendash{}", format.PREDICTED: r"$\approx$", "…": r"\ldots{}",
    "’": "{'}", "‘": "{`}", "“": "{``}", "”": "{''}",
    "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_MATH = {
    format.MINUS: "-", "±": r"\pm", "×": r"\times", "→": r"\rightarrow", "≤": r"\leq", "≥": r"\geq", "°": r"^\circ",
    format.FLAG: r"^\dagger", "µ": r"\mu", "μ": r"\mu", "α": r"\alpha", "β": r"\beta", "λ": r"\lambda",
}  # fmt: skip
_TEX = _SPECIAL | _TEXT | {character: rf"\ensuremath{{{tex}}}" for character, tex in _MATH.items()}
_MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_ACCENTS = dict(zip(_MARKS, "`'^~=u.\"rHvc", strict=True))


def escape(words: str) -> str:
    """ASCII that any LaTeX engine prints as ``words``, without commands, comments and ligatures."""
    tex = "".join(_character(c) for c in unicodedata.normalize("NFC", words))
    # Empty groups keep ``--``, ``,,`` and ``''`` from becoming ligatures.
    return re.sub(r"-(?=-)|,(?=,)|'(?=')", r"\g<0>{}", tex)


def _character(c: str) -> str:
    if c in _TEX or c.isascii():
        return _TEX.get(c, c)
    base, *marks = list(unicodedata.normalize("NFD", c))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    plain = unicodedata.normalize("NFKC", c)
    if plain.isascii() and plain.isprintable():
        return escape(plain)
    return f"{{[}}U+{ord(c):04X}{{]}}"


def framed(table: Table, *, packages: Sequence[str], align: str, body: Sequence[str], notes: Sequence[str]) -> str:
    """A float with booktabs rules around the lines of a table, scaled down to fit the page.

    ``align``: a letter per column; ``notes``: printed small below the table."""
    needs = ", ".join(rf"\usepackage{{{package}}}" for package in packages)
    what = f"{table.tag + ': ' if table.tag else ''}{table.spec}, scale {table.scale}"
    title = re.sub(r"^Table \S{1,4}[:.] ", "", table.title).rstrip(".")  # LaTeX numbers the table itself
    tag = rf"\textbf{{{escape(table.tag)}}}: " if table.tag else ""
    below = " ".join(map(escape, notes))
    small = rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\scriptsize\raggedright {below}\end{{minipage}}"
    lines = [
        "% " + re.sub(r"[^ -~]", "?", what),
        rf"% Take it in with \input; needs {needs}.",
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{tag}{escape(f'{title}. {table.caption}')}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.-]', '-', table.spec)}}}",
        r"\medskip\footnotesize\setlength{\tabcolsep}{4pt}%",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0\relax>.7\textheight\sbox0{\resizebox*{!}{.7\textheight}{\usebox0}}\fi",
        r"\usebox0",
        *([small] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def line(cells: Sequence[str], end: str = r" \\") -> str:
    """A line of a table from cells in LaTeX."""
    return " & ".join(cells) + end


def render(table: Table) -> str:
    body = [line([escape(column.header) for column in table.columns] + ["Status"] * table.with_status), r"\midrule"]
    for before, row in zip([None, *table.rows], table.rows, strict=False):
        if row.baseline and not (before and before.baseline):
            body.append(r"\midrule")
        body += _lines(table, row)
    return framed(
        table,
        packages=("booktabs", "graphicx", "xcolor"),
        align="".join("l" if column.metric is None else "r" for column in table.columns) + "l" * table.with_status,
        body=body,
        notes=["Grey: published value (deviation)."] * table.with_published + list(table.footnotes),
    )


def _lines(table: Table, row: TableRow) -> list[str]:
    cells = [_measured(value) for value in row.values]
    if row.baseline:
        # The name spans the columns of labels before the first metric.
        labels = next((i for i, column in enumerate(table.columns) if column.metric), len(table.columns))
        name = [rf"\multicolumn{{{labels}}}{{@{{}}l}}{{{escape(row.label)}}}"] if labels else []
        cells = name + [escape(value.text) for value in row.values[labels:]]
    cells += [escape(row.status)] * table.with_status
    if row.stale:
        cells = [rf"{{\color{{black!50}}{cell}}}" for cell in cells]
    if row.baseline or not table.with_published:
        return [line(cells)]
    return [line(cells), line([_published(value) for value in row.values] + [""] * table.with_status, r" \\[2pt]")]


def _measured(value: Value) -> str:
    """The measured value, bold if best, with a small standard deviation."""
    main, _, deviation = value.text.partition(" ± ") if value.std is not None else (value.text, "", "")
    shown = rf"\textbf{{{escape(main)}}}" if value.best else escape(main)
    return rf"{shown}\,{{\scriptsize\ensuremath{{\pm}}{escape(deviation)}}}" if deviation else shown


def _published(value: Value) -> str:
    if value.published is None:
        return ""
    against = f" ({value.deviation_text})" if value.deviation_text != format.DASH else ""
    return rf"{{\scriptsize\color{{black!60}}{escape(value.published_text + against)}}}"
