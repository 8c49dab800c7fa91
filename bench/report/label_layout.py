"""Placement of labels beside the points of a plot, where they cover as little as possible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    Boxes = NDArray[np.float64]
    """(n, 4): a ``Box`` in each row."""

MAX_CROSSING = 26.0
"""Distance in points that a label moves farther off rather than cross a line."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, others: Boxes) -> float:
        """Total area shared with each of the others."""
        import numpy as np

        width = np.minimum(self.x1, others[:, 2]) - np.maximum(self.x0, others[:, 0])
        height = np.minimum(self.y1, others[:, 3]) - np.maximum(self.y0, others[:, 1])
        both = (width > 0) & (height > 0)
        areas: list[float] = (width[both] * height[both]).tolist()
        return sum(areas)


@dataclass(slots=True)
class LabelPlacer:
    """Places one label after another."""

    axes: Axes
    taken: Boxes
    """Markers, and the labels placed so far."""
    lines: Boxes
    """Lines and error bars, which a label should not cross."""

    def place(
        self, text: str, at: tuple[float, float], color: str, size: float, *, must: bool, near: float = 200.0
    ) -> None:
        """Place a label beside ``at``; without room within ``near`` points only if it ``must`` be there."""
        import numpy as np

        label = self.axes.annotate(
            text, at, (0, 0), textcoords="offset points", fontsize=size, color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip
        figure = self.axes.get_figure()
        assert figure is not None
        scale = figure.dpi / 72
        extent = label.get_window_extent()
        width, height = float(extent.width), float(extent.height) * 0.9  # letters are lower than their line
        x, y = (float(value) for value in self.axes.transData.transform(label.xy))
        best = (math.inf, math.inf, 0.0, 0.0, Box(x, y, x, y))
        for dx, dy in _offsets(width / scale, height / scale):
            distance = abs(dy) + 2 * (dx > 0)
            if distance >= best[0] or (distance > near and not must):
                break
            box = Box(x + dx * scale, y + dy * scale, x + dx * scale + width, y + dy * scale + height)
            covered = self._covered(box)
            if distance + covered * 10 < best[0]:
                crossed = min(box.overlap(self.lines) * 2, MAX_CROSSING)
                best = min(best, (distance + covered * 10 + crossed, covered, dx, dy, box))
        cost, covered, dx, dy, box = best
        if (covered or cost == math.inf) and not must:
            label.remove()
            return
        self.taken = np.vstack([self.taken, box])
        label.set_position((dx, dy))
        if label.arrow_patch is not None and abs(dy) < 14 and not -width / scale < dx < 0:
            label.arrow_patch.set_visible(False)

    def _covered(self, box: Box) -> float:
        """Area over markers, other labels or, counted double, outside the axes, where it would be cut off."""
        x0, y0, x1, y1 = self.axes.bbox.extents
        inside = boxes([(x0 + 5, y0 + 5, x1 - 5, y1 - 5)])
        outside = (box.x1 - box.x0) * (box.y1 - box.y0) - box.overlap(inside)
        return max(0.0, 2 * outside - 1e-6) + box.overlap(self.taken)


def boxes(rows: ArrayLike) -> Boxes:
    # One array, as a label is compared with a thousand boxes at once.
    import numpy as np

    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Offsets of a label's lower left corner from its point, in points, the nearest first."""
    beside = [(x, away - height / 2) for x in (6.0, -6.0 - width) for away in (0, 6, -6, 12, -12, 20, -20, 30, -30)]
    far = [(x, float(away * sign)) for x in (6.0, -6.0 - width) for away in (42, 56, 72, 90, 110) for sign in (1, -1)]
    above = [(-width / 2, sign * away - height / 2) for away in (10, 18, 28, 40, 56, 72, 90) for sign in (1, -1)]
    return sorted(beside + above + far, key=lambda offset: abs(offset[1]))


def line_boxes(axes: Axes) -> list[Box]:
    """The horizontal and vertical pieces of all lines drawn, as thin boxes."""
    pieces = []
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
            pieces.append(Box(min(ax, bx) - 1.5, min(ay, by) - 1.5, max(ax, bx) + 1.5, max(ay, by) + 1.5))
    return pieces
