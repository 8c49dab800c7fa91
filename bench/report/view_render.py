"""A grid as Markdown and LaTeX."""

from __future__ import annotations

from bench.report import latex, markdown
from bench.report.view import Grid, Text


def markdown_text(grid: Grid) -> str:
    """GitHub-flavoured; a group's heading is a row of its own."""
    tag = f"**{markdown.escape(grid.of.tag)}**: " if grid.of.tag else ""
    lines = [f"# {tag}{markdown.escape(grid.of.title)}", "", f"{tag}{markdown.escape(grid.of.caption)}", ""]
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
    """A ``table`` with booktabs rules; a group's heading spans it."""
    return latex.framed(
        grid.of,
        packages=("booktabs", "graphicx"),
        align="".join("r" if numeric else "l" for numeric in grid.numeric),
        body=[" & ".join(map(latex.escape, grid.headers)) + r" \\", *_body(grid)],
        notes=grid.notes,
    )


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
