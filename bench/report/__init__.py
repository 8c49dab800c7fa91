"""Tables and plots of a spec's results: only specs and records go in, and the same input gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import csv_file, draw, latex, markdown
from bench.report.draw import Plot
from bench.report.groups import group_cells
from bench.report.model import Table
from bench.report.pareto import build_plot
from bench.report.table import table_of

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.record import CellRecord
    from bench.spec.models import Spec

__all__ = ["Table", "build_table", "write_report"]

Records = Mapping[str, "CellRecord"] | Iterable["CellRecord"]
"""By ``cell_id``, or in any order; the last of a cell counts."""
_TABLES = {"table.md": markdown.render, "table.tex": latex.render, "table.csv": csv_file.render}
_PLOTS = ("pareto.png", "pareto.svg")


def build_table(spec: Spec, scale: str, cells: Sequence[Cell], records: Records) -> Table:
    """The table that all exporters print. Raises SpecError for a column that is no part, axis or metric."""
    return table_of(spec, scale, group_cells(spec, cells, _by_id(records)))


def write_report(spec: Spec, scale: str, cells: Sequence[Cell], records: Records, out_dir: Path) -> list[Path]:
    """Write tables and plots into ``out_dir``, each file replaced at once; plots that would not change are kept."""
    groups = group_cells(spec, cells, _by_id(records))
    table = table_of(spec, scale, groups)
    out_dir.mkdir(parents=True, exist_ok=True)
    drawing = _start_drawing(build_plot(spec, scale, groups), out_dir)
    for name, render in _TABLES.items():
        _replace(out_dir / name, render(table).encode())
    if drawing:
        for name, picture in zip(_PLOTS, _finish_drawing(*drawing), strict=True):
            _replace(out_dir / name, picture)
    return [out_dir / name for name in (*_TABLES, *_PLOTS)]


def _by_id(records: Records) -> Mapping[str, CellRecord]:
    return records if isinstance(records, Mapping) else {record.cell_id: record for record in records}


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _start_drawing(plot: Plot, out_dir: Path) -> tuple[subprocess.Popen[bytes], bytes] | None:
    """A process that draws, with what it is to be told; null if the pictures there already show this plot."""
    script = Path(draw.__file__)
    told = json.dumps(asdict(plot), allow_nan=False, sort_keys=True)
    digest = hashlib.sha256("\0".join([told, script.read_text("utf-8"), version("matplotlib")]).encode()).hexdigest()
    paths = [out_dir / name for name in _PLOTS]
    if all(path.is_file() and digest.encode() in path.read_bytes() for path in paths):
        return None
    process = subprocess.Popen(
        [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return process, json.dumps({"plot": json.loads(told), "digest": digest}).encode()


def _finish_drawing(process: subprocess.Popen[bytes], told: bytes) -> tuple[bytes, bytes]:
    out, err = process.communicate(told)
    if process.returncode:
        raise RuntimeError(f"drawing the Pareto plot failed:\n{err.decode(errors='replace')}")
    length, _, pictures = out.partition(b"\n")
    return pictures[: int(length)], pictures[int(length) :]
