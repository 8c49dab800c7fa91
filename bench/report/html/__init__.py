"""One self-contained HTML file per spec that opens offline: what people decide from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import not_regular

if TYPE_CHECKING:
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import Row
    from bench.report.model import Table
    from bench.spec.sections import Spec

PAGE = "index.html"
_STAMP = re.compile(rb'<meta name="report" content="([0-9a-f]{64}) (with|without) its images">')


def page(spec: Spec, table: Table, groups: Sequence[Row], examples: ExampleScores, kept: Path) -> bytes | None:
    """The page, or null if the one at ``kept`` says the same already.

    ``groups``, ``table`` and ``examples`` are of the same spec, records and scale. Same input, same bytes; images are
    shown where the data set of the records is here.
    """
    from bench.report.html import content, render
    from bench.report.html.thumbnails import start

    found = content.collect(spec, table, groups, examples)
    digest = content.digest(found)
    stamp = _stamp(kept)
    if stamp == (digest, True):
        return None
    cells = {cell.cell_id: cell for group in groups for cell in group.cells}
    thumbnails = start(found.questions.shown, cells)
    if stamp == (digest, False) and not thumbnails().images:
        return None
    bundle = start_bundling()
    whole = content.finish(found, thumbnails)
    complete = bool(thumbnails().images) or not found.pictured
    return render.html(whole, bundle(), digest=digest, complete=complete)


def start_bundling() -> Callable[[], str]:
    """Begin to bundle the plotting library; the returned function waits for its script."""
    from bench.report import background

    return background.start("bundling the plotting library", background.vega_bundle)


def _stamp(path: Path) -> tuple[str, bool] | None:
    """Digest of the page there, and whether it shows what images it can; null if there is none."""
    try:
        if not_regular(path):
            return None
        with path.open("rb") as file:
            stamp = _STAMP.search(file.read(2048))
    except OSError:
        return None
    return (stamp[1].decode(), stamp[2] == b"with") if stamp else None
