"""``--forget``: remove what is known of cells, records and job folders, so that a run begins with none of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.execution.processes import end_leftovers
from bench.records.store import ResultsFile, write_error
from bench.spec.cell import Cell


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much was removed."""

    records: int
    folders: int
    cell_ids: frozenset[str] = frozenset()
    """Cells of which anything was stored."""

    def __str__(self) -> str:
        """``3 records and 1 job folder``."""
        return (
            f"{self.records} record{'s' * (self.records != 1)} and {self.folders} job folder{'s' * (self.folders != 1)}"
        )


def forget(cells: Sequence[Cell], *, results: Path, warn: Callable[[str], None]) -> Forgotten:
    """Remove the cells' lines from ``<scale>.jsonl`` in ``results``, older ones too, and their folders beside it.

    Every other line stays as it is, damaged ones among them. Folders go first: what is cut off can be done again, and
    no folder brings a record back. Raises RecordError (locked, no records file, cannot be written).
    """
    ids, scale = {cell.cell_id for cell in cells}, cells[0].scale
    file = ResultsFile(results / f"{scale}.jsonl", warn=warn)
    if not results.is_dir():
        return Forgotten(0, 0)
    with file.lock():
        file.history()  # a file that cannot be read is told before anything is removed
        end_leftovers(results / scale)  # of a runner that was killed: they would write into the folders
        folders = [path for path in _folders(results / scale) if path.name.partition(".")[0] in ids]
        for folder in folders:
            try:
                shutil.rmtree(folder)
            except OSError as problem:
                raise write_error(problem, folder, "no record was removed") from problem
        removed = file.remove(ids)
    gone = {*removed, *(folder.name.partition(".")[0] for folder in folders)}
    return Forgotten(len(removed), len(folders), frozenset(gone))


def _folders(scale: Path) -> list[Path]:
    return sorted(path for path in scale.iterdir() if path.is_dir()) if scale.is_dir() else []
