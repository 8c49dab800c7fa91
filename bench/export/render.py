"""A grid as Markdown and LaTeX."""

from __future__ import annotations

import re

from bench.export.view import Grid, Text
from bench.report import latex, markdown

_PREAMBLE = r"""% {what}
% Take it in with \input; needs \usepackage{{booktabs}} and \usepackage{{graphicx}}.
"""


def markdown_text(grid: Grid) -> str:
    """GitHub-flavoured; a group's heading is a row of its own."""
    tag = f"**{markdown.escape(grid.tag)}**: " if grid.tag else ""
    lines = [f"# {tag}{markdown.escape(grid.title)}", "", f"{tag}{markdown.escape(grid.caption)}", ""]
    lines.append(_line([markdown.escape(header) for header in grid.headers]))
    lines.append(_line(["---:" if numeric else "---" for numeric in grid.numeric]))
    for section in grid.sections:
        if section.heading:
            lines.append(_line([f"*{markdown.escape(section.heading)}*", *[""] * (len(grid.headers) - 1)]))
        lines += [_line([_marked(entry) for entry in row]) for row in section.rows]
    lines += ["", *(f"{markdown.escape(note)}  " for note in grid.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _marked(entry: Text) -> str:
    words = markdown.escape(entry.words)
    return f"**{words}**" if entry.bold else words


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex_text(grid: Grid) -> str:
    """A ``table`` with booktabs rules, scaled down where it is wider than the line; a group's heading spans it."""
    align = "".join("r" if numeric else "l" for numeric in grid.numeric)
    lines = [
        _PREAMBLE.format(what=re.sub(r"[^ -~]", "?", f"{grid.tag + ': ' if grid.tag else ''}{grid.spec}"))
        + r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{_caption(grid)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.-]', '-', grid.spec)}}}",
        r"\medskip\footnotesize\setlength{\tabcolsep}{4pt}%",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        " & ".join(map(latex.escape, grid.headers)) + r" \\",
        *_body(grid),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *_notes(grid),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _body(grid: Grid) -> list[str]:
    lines = []
    for section in grid.sections:
        lines.append(r"\midrule")
        if section.heading:
            heading = latex.escape(section.heading)
            lines.append(rf"\multicolumn{{{len(grid.headers)}}}{{@{{}}l@{{}}}}{{\textit{{{heading}}}}} \\")
        lines += [" & ".join(map(_tex, row)) + r" \\" for row in section.rows]
    return lines


def _tex(entry: Text) -> str:
    words = latex.escape(entry.words)
    return rf"\textbf{{{words}}}" if entry.bold else words


def _caption(grid: Grid) -> str:
    title = re.sub(r"^Table \S{1,4}[:.] ", "", grid.title).rstrip(".")  # LaTeX numbers the table itself
    tag = rf"\textbf{{{latex.escape(grid.tag)}}}: " if grid.tag else ""
    return f"{tag}{latex.escape(f'{title}. {grid.caption}')}"


def _notes(grid: Grid) -> list[str]:
    if not grid.notes:
        return []
    words = " ".join(map(latex.escape, grid.notes))
    return [rf"\par\smallskip\begin{{minipage}}{{\linewidth}}\scriptsize\raggedright {words}\end{{minipage}}"]
