"""Freeze, train or adapt each part of a model, and see what every choice costs and gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.versions import __version__

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["__version__", "load"]


def load(source: str | Path, *, scale: str | None = None, results: str | Path = "results") -> DataFrame:
    """Stored records as a DataFrame, one row each; ``docs/columns.md`` describes the columns.

    ``source``: a records file or a folder of them, ``REV:PATH`` or ``PATH@COMMIT`` as ``compare --help`` describes, or
    a spec file: then the records of its cells at ``scale`` under ``results``. Raises BenchError if there are none.
    """
    # Imported here, since `import bench` and `--help` must do without pandas.
    from bench.commands import frame_of, loader

    return frame_of([str(source)], loader(scale, None, None, Path(results)))
