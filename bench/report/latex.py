r"""The table as LaTeX, to be taken in with ``\input``: measured values, the published ones small and grey beneath."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from bench import format
from bench.report.model import Entry, Table, TableRow

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\`{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    format.DASH: r"\textemdash{}",
    "–": r"\textendash{}",
    format.MINUS: r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "→": r"\ensuremath{\rightarrow}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    format.PREDICTED: r"$\approx$",
    "µ": r"\ensuremath{\mu}",
    "μ": r"\ensuremath{\mu}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "λ": r"\ensuremath{\lambda}",
    "°": r"\ensuremath{^\circ}",
    "…": r"\ldots{}",
    "†": r"\ensuremath{^\dagger}",
    "’": "{'}",
    "‘": "{`}",
    "“": "{``}",
    "”": "{''}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def escape(words: str) -> str:
    """Printed as it is by any LaTeX engine: no command, comment, ligature or character that pdfLaTeX lacks."""
    tex = "".join(_character(c) for c in unicodedata.normalize("NFC", words))
    return re.sub(r"-(?=-)|,(?=,)|'(?=')", r"\g<0>{}", tex)


def _character(c: str) -> str:
    if c in _TEX:
        return _TEX[c]
    if c.isascii():
        return c
    base, *marks = list(unicodedata.normalize("NFD", c))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in _ACCENTS:
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    plain = unicodedata.normalize("NFKC", c)
    if plain.isascii() and plain.isprintable():
        return escape(plain)
    return f"{{[}}U+{ord(c):04X}{{]}}"


def framed(table: Table, *, packages: Sequence[str], align: str, body: Sequence[str], notes: Sequence[str]) -> str:
    """A float with booktabs rules around the lines of a table, scaled down where it is wider or higher than the page.

    ``align``: a letter per column; ``notes``: set small below the table."""
    needs = ", ".join(rf"\usepackage{{{package}}}" for package in packages)
    what = f"{table.tag + ': ' if table.tag else ''}{table.spec}, scale {table.scale}"
    title = re.sub(r"^Table \S{1,4}[:.] ", "", table.title).rstrip(".")  # LaTeX numbers the table itself
    tag = rf"\textbf{{{escape(table.tag)}}}: " if table.tag else ""
    below = " ".join(map(escape, notes))
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
        *(
            [rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\scriptsize\raggedright {below}\end{{minipage}}"]
            if notes
            else []
        ),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def render(table: Table) -> str:
    """The whole table, with the published values beneath ours."""
    body = [_header(table), r"\midrule"]
    for before, row in zip([None, *table.rows], table.rows, strict=False):
        if row.baseline and not (before and before.baseline):
            body.append(r"\midrule")
        body += _lines(table, row)
    published = any(column.published for column in table.columns)
    return framed(
        table,
        packages=("booktabs", "graphicx", "xcolor"),
        align="".join("l" if column.metric is None else "r" for column in table.columns) + "l" * table.with_status,
        body=body,
        notes=["Grey: published value (deviation)."] * published + list(table.footnotes),
    )


def _header(table: Table) -> str:
    names = [escape(column.header) for column in table.columns] + ["Status"] * table.with_status
    return " & ".join(names) + r" \\"


def _lines(table: Table, row: TableRow) -> list[str]:
    cells = [_value(entry) for entry in row.entries]
    if row.baseline:
        cells = _baseline_name(table, row) + [escape(e.text) for e in row.entries[_leading_labels(table) :]]
    cells += [escape(row.status)] * table.with_status
    if row.stale:
        cells = [rf"{{\color{{black!50}}{cell}}}" for cell in cells]
    lines = [" & ".join(cells) + r" \\"]
    if any(column.published for column in table.columns) and not row.baseline:
        small = [_published(entry) for entry in row.entries] + [""] * table.with_status
        lines.append(" & ".join(small) + r" \\[2pt]")
    return lines


def _leading_labels(table: Table) -> int:
    """How many columns of labels stand before the first metric."""
    return next((i for i, column in enumerate(table.columns) if column.metric), len(table.columns))


def _baseline_name(table: Table, row: TableRow) -> list[str]:
    width = _leading_labels(table)
    return [rf"\multicolumn{{{width}}}{{@{{}}l}}{{{escape(row.label)}}}"] if width else []


def _value(entry: Entry) -> str:
    """The deviation over the seeds small, the best value bold."""
    main, _, deviation = entry.text.partition(" ± ") if entry.std is not None else (entry.text, "", "")
    shown = rf"\textbf{{{escape(main)}}}" if entry.best else escape(main)
    return rf"{shown}\,{{\scriptsize\ensuremath{{\pm}}{escape(deviation)}}}" if deviation else shown


def _published(entry: Entry) -> str:
    if entry.published is None:
        return ""
    against = f" ({entry.deviation_text})" if entry.deviation_text != format.DASH else ""
    return rf"{{\scriptsize\color{{black!60}}{escape(entry.published_text + against)}}}"
