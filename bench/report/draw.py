"""Draws the Pareto plot. Run as a script it reads a ``Plot`` on stdin and writes PNG and SVG to stdout.

A process of its own: matplotlib takes longer to import than the rest of a report to write, so it works beside it,
and settings of the user's own matplotlib cannot change the result.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED, PUBLISHED, GREY = "#0072B2", "#D55E00", "#595959"
"""From Okabe and Ito's palette, told apart with any colour vision."""
MEASURED_TEXT, PUBLISHED_TEXT = "#003d5c", "#8a3b00"
"""The same hues, dark enough to read."""
MOST_FAILURES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    label: str
    x: float
    y: float
    on_front: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """All that is drawn."""

    title: str
    subtitle: str
    tag: str
    """Printed across the plot; empty for the paper's scale."""
    x_label: str
    y_label: str
    x_log: bool
    lower_cost_is_better: bool
    measured: list[Point]
    predicted: list[Point]
    """Measured score, predicted cost."""
    published: list[Point]
    baseline: float | None
    baseline_label: str
    """Score of answering without the image."""
    failures: list[str]
    """Cells without a score, and why."""

    @property
    def ours(self) -> list[Point]:
        """The points of our own cells."""
        return self.measured + self.predicted


def draw(plot: Plot) -> Figure:
    """The figure, with labels placed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(9.6 if plot.failures else 7.4, 5.2), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.185, 0.58 if plot.failures else 0.88, 0.645))
    if plot.x_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.16, 0.16)
    _series(axes, plot)
    _words(figure, axes, plot)
    _labels(axes, plot)
    return figure


def _series(axes: Axes, plot: Plot) -> None:
    _points(axes, plot, plot.measured, "Measured", MEASURED, marker="o", markersize=6, zorder=4)
    _points(
        axes, plot, plot.predicted, "Cost predicted", MEASURED, front="--",
        marker="o", markerfacecolor="white", markersize=6, zorder=4,
    )  # fmt: skip
    _points(
        axes, plot, plot.published, "Published", PUBLISHED, marker="D", markerfacecolor="white", markersize=5, zorder=3
    )
    if plot.baseline is not None:
        axes.axhline(plot.baseline, color=GREY, linewidth=1, linestyle=(0, (5, 3)), label=plot.baseline_label)
    if not plot.ours:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", color=GREY)
    if not plot.tag:
        _links(axes, plot)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncol=3, frameon=False, fontsize=8)


def _links(axes: Axes, plot: Plot) -> None:
    """Join what was measured and what was published of one cell."""
    published = {point.label: point for point in plot.published}
    for ours in plot.ours:
        if theirs := published.get(ours.label):
            axes.plot([ours.x, theirs.x], [ours.y, theirs.y], color="#999999", linewidth=0.8, linestyle=":", zorder=1)


def _points(axes: Axes, plot: Plot, points: list[Point], name: str, color: str, front: str = "-", **style: Any) -> None:
    if not points:
        return
    axes.plot([p.x for p in points], [p.y for p in points], linestyle="none", color=color, label=name, **style)
    best = sorted((p.x, p.y) for p in points if p.on_front)
    if len(best) > 1:
        axes.plot(
            *zip(*best, strict=True),
            drawstyle="steps-post" if plot.lower_cost_is_better else "steps-pre",
            color=color,
            linestyle=front,
            linewidth=1.2,
            alpha=0.75,
            label=f"{name}: Pareto front",
            zorder=2,
        )


def _words(figure: Figure, axes: Axes, plot: Plot) -> None:
    tag = f"{plot.tag}: " if plot.tag else ""
    title = textwrap.fill(tag + plot.title, 112 if plot.failures else 84, break_on_hyphens=False)
    figure.text(0.02, 0.975, title, fontsize=10, fontweight="bold", va="top")
    subtitle = textwrap.fill(plot.subtitle, 130 if plot.failures else 118, break_on_hyphens=False)
    figure.text(0.02, 0.895 if "\n" in title else 0.93, subtitle, fontsize=8, color=GREY, va="top")
    if plot.tag:
        size = min(64, 420 / len(plot.tag))
        across: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 24, "alpha": 0.07, "zorder": 0}
        axes.text(0.5, 0.5, plot.tag, transform=axes.transAxes, fontsize=size, color="black", **across)
    shown = plot.failures[:MOST_FAILURES]
    if len(plot.failures) > len(shown):
        shown = [*shown[:-1], f"and {len(plot.failures) - len(shown) + 1} more"]
    if shown:
        axes.text(1.045, 1.0, "No score", transform=axes.transAxes, fontsize=8, fontweight="bold", va="center")
    for index, failure in enumerate(shown, start=1):
        y = 1.0 - index * 0.07
        axes.plot([1.0], [y], "x", color="black", transform=axes.transAxes, clip_on=False, markersize=6, zorder=4)
        axes.text(1.045, y, failure, transform=axes.transAxes, fontsize=7, va="center")


def _labels(axes: Axes, plot: Plot) -> None:
    """Put every label at the best place near its point; a published point's is left out where there is no room."""
    figure = axes.get_figure()
    assert figure is not None
    axes.get_xlim()  # settles the limits
    pixels = axes.transData.transform([(p.x, p.y) for p in plot.ours + plot.published] or [(0, 0)])
    labels = Labels(axes, taken=[Box(x - 8, y - 8, x + 8, y + 8) for x, y in pixels], lines=_line_boxes(axes))
    for point in sorted(plot.ours, key=lambda p: (not p.on_front, p.x, p.y, p.label)):
        labels.place(point, MEASURED_TEXT, 7, must=True)
    named = set() if plot.tag else {point.label for point in plot.ours}
    for point in sorted(plot.published, key=lambda p: (not p.on_front, p.x, p.y, p.label)):
        if point.label not in named:
            labels.place(point, PUBLISHED_TEXT, 6, must=False)


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Area in both."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(slots=True)
class Labels:
    """Places labels one after another where they cover nothing, or as little as possible."""

    axes: Axes
    taken: list[Box]
    """Markers, and the labels placed so far."""
    lines: list[Box]
    """What a label had better not cross."""

    def place(self, point: Point, color: str, size: float, *, must: bool) -> None:
        label = self.axes.annotate(
            point.label, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=size, color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
        figure = self.axes.get_figure()
        assert figure is not None
        scale = figure.dpi / 72
        extent = label.get_window_extent()
        width, height = float(extent.width), float(extent.height) * 0.9
        x, y = (float(value) for value in self.axes.transData.transform(label.xy))
        best = (math.inf, math.inf, 0.0, 0.0, Box(x, y, x, y))
        for dx, dy in _offsets(width / scale, height / scale):
            distance = abs(dy) + 2 * (dx > 0)
            if distance >= best[0]:
                break
            box = Box(x + dx * scale, y + dy * scale, x + dx * scale + width, y + dy * scale + height)
            covered = self._covered(box)
            if distance + covered * 10 < best[0]:
                best = min(best, (distance + covered * 10 + self._crossed(box) * 2, covered, dx, dy, box))
        _, covered, dx, dy, box = best
        if covered and not must:
            label.remove()
            return
        self.taken.append(box)
        label.set_position((dx, dy))
        if label.arrow_patch is not None and abs(dy) < 14 and not -width / scale < dx < 0:
            label.arrow_patch.set_visible(False)

    def _covered(self, box: Box) -> float:
        """Area over markers, other labels or, counted double, outside the axes, where it would be cut off."""
        x0, y0, x1, y1 = self.axes.bbox.extents
        outside = (box.x1 - box.x0) * (box.y1 - box.y0) - box.overlap(Box(x0 + 5, y0 + 5, x1 - 5, y1 - 5))
        return max(0.0, 2 * outside - 1e-6) + sum(box.overlap(other) for other in self.taken)

    def _crossed(self, box: Box) -> float:
        return sum(box.overlap(line) for line in self.lines)


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Places of a label's lower left corner against its point, in points, the nearest first."""
    beside = [(x, away - height / 2) for x in (6.0, -6.0 - width) for away in (0, 6, -6, 12, -12, 20, -20, 30, -30)]
    far = [(x, float(away * sign)) for x in (6.0, -6.0 - width) for away in (42, 56, 72, 90, 110) for sign in (1, -1)]
    above = [(-width / 2, sign * away - height / 2) for away in (10, 18, 28, 40, 56, 72, 90) for sign in (1, -1)]
    return sorted(beside + above + far, key=lambda place: abs(place[1]))


def _line_boxes(axes: Axes) -> list[Box]:
    """The horizontal and vertical pieces of all lines drawn, as thin boxes."""
    boxes = []
    for line in axes.get_lines():
        if line.get_linestyle() in ("None", ":"):
            continue
        vertices: Any = line.get_path().transformed(line.get_transform()).vertices
        corners: list[list[float]] = vertices.tolist()
        if line.get_drawstyle() != "default":
            post = line.get_drawstyle() == "steps-post"
            turns = [[b[0], a[1]] if post else [a[0], b[1]] for a, b in pairwise(corners)]
            corners = [corner for pair in zip(corners, turns, strict=False) for corner in pair] + corners[-1:]
        for (ax, ay), (bx, by) in pairwise(corners):
            boxes.append(Box(min(ax, bx) - 1.5, min(ay, by) - 1.5, max(ax, bx) + 1.5, max(ay, by) + 1.5))
    return boxes


def render(plot: Plot, digest: str) -> tuple[bytes, bytes]:
    """PNG and SVG, the same bytes for the same plot; both carry ``digest``."""
    import matplotlib as mpl

    mpl.rcdefaults()
    mpl.rcParams.update({"svg.hashsalt": "pareto", "text.parse_math": False, "font.size": 9, "axes.spines.top": False,
                         "axes.spines.right": bool(plot.failures), "font.family": "DejaVu Sans"})  # fmt: skip
    figure = draw(plot)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Description": digest})
    figure.savefig(svg, format="svg", metadata={"Description": digest, "Date": None})
    return png.getvalue(), svg.getvalue()


def main() -> None:
    """Serve one plot: JSON on stdin; the PNG's length in a line, PNG and SVG on stdout."""
    import warnings

    warnings.filterwarnings("ignore", message="Glyph")  # a label's exotic character is drawn as a box
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print; nothing but the pictures may reach the reader
    import matplotlib.backends.backend_svg  # the slow part, done while the caller finds out what to draw
    import matplotlib.figure  # noqa: F401

    told = sys.stdin.read()
    if not told:
        return
    data = json.loads(told)
    fields: dict[str, Any] = data["plot"]
    for series in ("measured", "predicted", "published"):
        fields[series] = [Point(**point) for point in fields[series]]
    png, svg = render(Plot(**fields), data["digest"])
    with out:
        out.write(f"{len(png)}\n".encode() + png + svg)


if __name__ == "__main__":
    main()
