"""The Pareto plot as PNG, SVG and PDF.

Drawn in a process of its own: matplotlib takes longer to import than the rest of a report to write.
"""

from __future__ import annotations

import gc
import hashlib
import io
import math
import textwrap
import warnings
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import label_layout
from bench.report.label_layout import Box, LabelPlacer, boxes, line_boxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

PICTURES = tuple(f"{name}.{kind}" for name in ("pareto", "pareto_column") for kind in ("png", "svg", "pdf"))
"""Files, in the order in which they are drawn."""
MEASURED, PUBLISHED, GREY = "#0072B2", "#D55E00", "#595959"
"""From Okabe and Ito's palette, distinguishable with any colour vision."""
MEASURED_TEXT, PUBLISHED_TEXT = "#003d5c", "#8a3b00"
"""The same hues, dark enough to read."""
MAX_LABELS = 40
"""Of measured, and of published points."""
LISTED_WIDTH = 40
"""Characters in a line of the list of cells without a score."""
FAINT = 0.4
"""Opacity of dominated points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """Layout of a figure, in inches and points."""

    panel: tuple[float, float]
    """Width and height of the axes."""
    margins: tuple[float, float, float, float]
    """Left, right, below and above each panel."""
    head: float
    """Height above all panels; 0 for no title, as a paper has a caption."""
    listed: float
    """Width to the right for the list of cells without a score; 0 for no list."""
    font: float
    label: float
    marker: float
    columns: int
    """Panels beside each other."""
    max_failures: int


FULL = Style(
    panel=(6.4, 3.4), margins=(0.68, 0.18, 0.92, 0.06), head=0.85, listed=2.35, font=9, label=7, marker=6, columns=1,
    max_failures=12,
)  # fmt: skip
"""The width of a page, with title, facts and the list of failures."""
GRID = replace(FULL, panel=(3.3, 2.7), margins=(0.68, 0.14, 0.92, 0.1), label=5.5, marker=5, columns=2)
"""The same for several panels."""
COLUMN = Style(
    panel=(2.75, 1.9), margins=(0.47, 0.08, 0.72, 0.05), head=0.0, listed=0.0, font=7, label=5, marker=3.6, columns=1,
    max_failures=4,
)  # fmt: skip
"""3.3 in, one of two columns of a paper, without a title."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotPoint:
    label: str
    x: float
    y: float
    on_front: bool = False
    within_noise: bool = False
    """Dominated, but not significantly."""
    x_low: float | None = None
    """95 % CI; null if unknown."""
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One score against one cost."""

    x_label: str
    y_label: str
    x_log: bool
    lower_cost_is_better: bool
    front_line: bool = True
    """Whether the front is over this cost and score alone, so that a line can show it."""
    measured: list[PlotPoint]
    predicted: list[PlotPoint]
    """Measured score, predicted cost."""
    published: list[PlotPoint]
    baseline: float | None
    """Score of the task's baseline: nothing below it is on a front."""
    baseline_label: str

    @property
    def ours(self) -> list[PlotPoint]:
        """Points of the spec's cells."""
        return self.measured + self.predicted


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Content of the figure."""

    title: str
    subtitle: str
    tag: str
    """Printed across the plot; empty for the paper's scale."""
    panels: list[Panel]
    failures: list[str]
    """Cells without a score, and why."""


def draw(plot: Plot, style: Style | None = None) -> Figure:
    """The figure with its labels; ``style``: null for that of a page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = style or (FULL if len(plot.panels) == 1 else GRID)
    columns = min(style.columns, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    left, right, below, above = style.margins
    listed = style.listed if plot.failures else 0.0
    width = columns * (left + style.panel[0] + right) + listed
    height = rows * (below + style.panel[1] + above) + style.head
    figure = Figure(figsize=(width, height), dpi=150 if style.listed else 300)
    FigureCanvasAgg(figure)
    for place, panel in enumerate(plot.panels):
        row, column = divmod(place, columns)
        x, y = (
            column * (left + style.panel[0] + right) + left,
            (rows - 1 - row) * (below + style.panel[1] + above) + below,
        )
        size = (x / width, y / height, style.panel[0] / width, style.panel[1] / height)
        last = not row and column == columns - 1
        _panel(figure.add_axes(size), plot, panel, style, plot.failures if last else [])
    if style.head:
        _head(figure, plot, width, height)
    return figure


def _panel(axes: Axes, plot: Plot, panel: Panel, style: Style, failures: list[str]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if panel.x_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(panel.x_label, fontsize=style.font)
    axes.set_ylabel(panel.y_label, fontsize=style.font)
    axes.tick_params(labelsize=style.font)
    axes.spines["right"].set_visible(bool(failures))
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.16, 0.16)
    _series(axes, plot, panel, style)
    if plot.tag:
        size = min(64, 420 / len(plot.tag)) * style.panel[0] / FULL.panel[0]
        across: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 24, "alpha": 0.07, "zorder": 0}
        axes.text(0.5, 0.5, plot.tag, transform=axes.transAxes, fontsize=size, color="black", **across)
    if panel.baseline is not None and panel.ours:  # shade what is no better than the baseline
        low, high = axes.get_ylim()
        axes.axhspan(min(low, panel.baseline), panel.baseline, color="black", alpha=0.05, linewidth=0, zorder=0)
        axes.set_ylim(low, high)
    _labels(axes, plot, panel, style, _failures(axes, failures, style))


def _series(axes: Axes, plot: Plot, panel: Panel, style: Style) -> None:
    size = style.marker
    ours: dict[str, Any] = {"marker": "o", "markersize": size, "zorder": 4}
    theirs: dict[str, Any] = {"marker": "D", "markersize": size - 1, "zorder": 3, "markerfacecolor": "white"}
    _points(axes, panel, panel.measured, "Measured", MEASURED, **ours)
    _points(axes, panel, panel.predicted, "Cost predicted", MEASURED, front="--", markerfacecolor="white", **ours)
    _points(axes, panel, panel.published, "Published", PUBLISHED, **theirs)
    if near := [point for point in panel.ours if point.within_noise]:
        axes.plot([p.x for p in near], [p.y for p in near], "o", color=MEASURED, zorder=4, markersize=size + 4,
                  markerfacecolor="none", markeredgewidth=0.8, label="Dominated, but not significantly")  # fmt: skip
    if panel.baseline is not None:
        label = f"{panel.baseline_label} (baseline)"
        axes.axhline(panel.baseline, color=GREY, linewidth=1, linestyle=(0, (5, 3)), label=label)
    if not panel.ours:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", color=GREY)
    if not plot.tag:
        published = {point.label: point for point in panel.published}
        for p in panel.ours:
            if q := published.get(p.label):
                axes.plot([p.x, q.x], [p.y, q.y], color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    if axes.get_legend_handles_labels()[0]:
        below = -(style.font * 3.1) / (style.panel[1] * 72)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncol=3 if style.panel[0] > 5 else 2, frameon=False,
                    fontsize=style.font - 1, handlelength=1.6, columnspacing=1.2, borderpad=0.2)  # fmt: skip


def _points(
    axes: Axes, panel: Panel, points: list[PlotPoint], name: str, color: str, front: str = "-", **style: Any
) -> None:
    """Draw points, faint where significantly dominated, with error bars, and their front."""
    bright = [p for p in points if p.on_front or p.within_noise]
    faint = [p for p in points if not (p.on_front or p.within_noise)]
    for shown, opacity in ((bright, 1.0), (faint, FAINT)):
        if not shown:
            continue
        label = name if shown is bright or not bright else None
        if not panel.front_line:
            label = f"{name}, on the front over all" if shown is bright else name
        axes.plot([p.x for p in shown], [p.y for p in shown], linestyle="none", color=color, label=label, alpha=opacity,
                  **style)  # fmt: skip
        bar: dict[str, Any] = {"linewidth": 0.8, "colors": color, "alpha": 0.6 * opacity, "zorder": 2}
        if upright := [(p.x, p.y_low, p.y_high) for p in shown if p.y_low is not None and p.y_high is not None]:
            axes.vlines(*zip(*upright, strict=True), **bar)
        if lying := [(p.y, p.x_low, p.x_high) for p in shown if p.x_low is not None and p.x_high is not None]:
            axes.hlines(*zip(*lying, strict=True), **bar)
    best = sorted((p.x, p.y) for p in points if p.on_front)
    if len(best) > 1 and panel.front_line:
        steps: Any = "steps-post" if panel.lower_cost_is_better else "steps-pre"
        axes.plot(*zip(*best, strict=True), drawstyle=steps, color=color, linestyle=front, linewidth=1.2, alpha=0.75,
                  label=f"{name}: Pareto front", zorder=2)  # fmt: skip


def _head(figure: Figure, plot: Plot, width: float, height: float) -> None:
    """Draw title and facts, wrapped to the width of the figure."""
    tag = f"{plot.tag}: " if plot.tag else ""
    title = textwrap.fill(tag + plot.title, int(width * 11.5), break_on_hyphens=False)
    figure.text(0.02, 1 - 0.13 / height, title, fontsize=10, fontweight="bold", va="top")
    subtitle = textwrap.fill(plot.subtitle, int(width * 15.5), break_on_hyphens=False)
    lines = 1 + title.count("\n")
    figure.text(0.02, 1 - (0.16 + 0.19 * lines) / height, subtitle, fontsize=8, color=GREY, va="top")


def _failures(axes: Axes, failures: list[str], style: Style) -> list[Text]:
    """Draw crosses and names of the cells without a score, beside the axes or inside at the bottom; the texts drawn."""
    shown = failures[: style.max_failures]
    if len(failures) > len(shown):
        shown = [*shown[:-1], f"and {len(failures) - len(shown) + 1} more"]
    beside = bool(style.listed)
    x, align, size = (1.0 + 0.15 / style.panel[0], "left", 7.0) if beside else (0.98, "right", style.label)
    if beside:
        shown = [textwrap.fill(failure, LISTED_WIDTH, subsequent_indent="  ") for failure in shown]
    line, gap = (size * 1.2) / (style.panel[1] * 72), (size * 0.7) / (style.panel[1] * 72)
    heights = [line * (1 + failure.count("\n")) + gap for failure in shown]
    if shown and beside:
        axes.text(x, 1.0, "No score", transform=axes.transAxes, fontsize=8, fontweight="bold", va="center")
    top = 1.0 - line if beside else sum(heights)
    texts = []
    for failure, height in zip(shown, heights, strict=True):
        y = top - (line + gap) / 2
        axes.plot([1.0], [y], "x", color="black", transform=axes.transAxes, clip_on=False, markersize=style.marker)
        texts.append(axes.text(x, y + line / 2, failure, transform=axes.transAxes, fontsize=size, va="top", ha=align))
        top -= height
    return texts


def _labels(axes: Axes, plot: Plot, panel: Panel, style: Style, occupied: list[Text]) -> None:
    """Draw labels near their points; without room for all, those of the front first."""
    axes.get_xlim()  # matplotlib sets the limits when they are first asked for
    to_pixels = axes.transData.transform
    pixels = to_pixels([(p.x, p.y) for p in panel.ours + panel.published] or [(0, 0)])
    half = style.marker * 1.3 * axes.figure.dpi / 150
    taken = [Box(x - half, y - half, x + half, y + half) for x, y in pixels]
    taken += [Box(*text.get_window_extent().extents) for text in occupied]
    ends = [end for p in panel.ours for end in _ends(p)]
    thin = Box(-1.5, -1.5, 1.5, 1.5)
    bars = boxes(to_pixels(ends)) + thin if ends else ()
    labels = LabelPlacer(axes, taken=boxes(taken), lines=boxes([*line_boxes(axes), *bars]))
    narrow = not style.listed
    crowded = len(panel.ours) > (6 if narrow else MAX_LABELS)
    near = 14.0 if crowded else 200.0
    order = sorted(panel.ours, key=lambda p: (not p.on_front, not p.within_noise, p.x, p.y, p.label))
    for point in order[:MAX_LABELS]:
        must = point.on_front or not crowded
        labels.place(point.label, (point.x, point.y), MEASURED_TEXT, style.label, must=must, near=near)
    if narrow and panel.ours:
        return
    named = set() if plot.tag else {point.label for point in panel.ours}
    for point in sorted(panel.published, key=lambda p: (not p.on_front, p.x, p.y, p.label))[:MAX_LABELS]:
        if point.label not in named:
            labels.place(point.label, (point.x, point.y), PUBLISHED_TEXT, style.label - 1, must=False)


def _ends(point: PlotPoint) -> tuple[tuple[float, float], ...]:
    """Ends of the error bars; the point itself where an interval is unknown."""
    left, right = (point.x if x is None else x for x in (point.x_low, point.x_high))
    low, high = (point.y if y is None else y for y in (point.y_low, point.y_high))
    return (point.x, low), (point.x, high), (left, point.y), (right, point.y)


def render(plot: Plot, digest: str) -> list[bytes]:
    """``PICTURES`` in their order, the same bytes for the same plot; all carry ``digest``."""
    _set_up()
    # A date would make the bytes of two drawings differ.
    about: dict[str, dict[str, str | None]] = {
        "png": {"Description": digest},
        "svg": {"Description": digest, "Date": None},
        "pdf": {"Subject": digest, "CreationDate": None, "ModDate": None},
    }
    pictures = []
    for style in (None, COLUMN):
        figure = draw(plot, style)
        for kind, metadata in about.items():
            out = io.BytesIO()
            figure.savefig(out, format=kind, metadata=metadata)
            pictures.append(out.getvalue())
    return pictures


def _set_up() -> None:
    import matplotlib as mpl

    mpl.rcdefaults()  # a user's matplotlibrc must not change the pictures
    mpl.rcParams.update({"svg.hashsalt": "pareto", "text.parse_math": False, "font.size": 9, "axes.spines.top": False,
                         "pdf.fonttype": 42, "font.family": "DejaVu Sans", "axes.linewidth": 0.6})  # fmt: skip


@cache
def warm_up() -> None:
    """Import matplotlib and cut its fonts, which takes longer than a drawing, before there is something to draw."""
    from matplotlib.figure import Figure

    gc.disable()  # the process ends soon, with little garbage
    warnings.filterwarnings("ignore", message="Glyph")  # a label's exotic character is drawn as a box
    _set_up()
    figure = Figure()
    figure.text(0.5, 0.5, "fonts")
    for kind in ("png", "svg", "pdf"):
        figure.savefig(io.BytesIO(), format=kind)


def digest(plot: Plot) -> str:
    """SHA-256 of all that determines the pictures: plot, drawing code and matplotlib's version."""
    code = [Path(__file__).read_bytes(), Path(label_layout.__file__).read_bytes()]
    content = repr(plot).encode(errors="backslashreplace")
    return hashlib.sha256(b"\0".join([content, *code, _matplotlib_version()])).hexdigest()


def _matplotlib_version() -> bytes:
    # Importing matplotlib, or asking its metadata, takes longer than the tables.
    spec = find_spec("matplotlib")
    path = Path(spec.origin).with_name("_version.py") if spec and spec.origin else None
    return path.read_bytes() if path and path.is_file() else b""
