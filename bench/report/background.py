"""The plot's pictures from a process of their own, so that matplotlib is imported while the rest goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Thread
from typing import Any

from bench.report import label_layout, pareto_plot, processes
from bench.report.pareto_plot import Plot

SCRIPT = Path(pareto_plot.__file__)
ROOT = SCRIPT.parents[2]
"""Where the script finds this package, installed or not."""
_IMPORTABLE = {"PYTHONPATH": str(ROOT)}


def warm_up() -> None:
    """Start a process before it is known what there is to draw."""
    processes.warm_up(str(SCRIPT), environ=_IMPORTABLE)


def digest(plot: Plot) -> str:
    """SHA-256 of all that determines the pictures: plot, drawing code and matplotlib's version."""
    told = json.dumps(plot, default=_fields, allow_nan=False, sort_keys=True).encode()
    code = [SCRIPT.read_bytes(), Path(label_layout.__file__).read_bytes()]
    return hashlib.sha256(b"\0".join([told, *code, _matplotlib_version()])).hexdigest()


class Drawing:
    """A plot being drawn from now on; ``digest`` is its own."""

    def __init__(self, plot: Plot, digest: str) -> None:
        self._told = json.dumps({"plot": plot, "digest": digest}, default=_fields, allow_nan=False).encode()
        self._process = processes.start(str(SCRIPT), environ=_IMPORTABLE)
        self._answer: bytes | Exception = b""
        # The plot of a thousand cells is more than a pipe holds: a thread hands it over while the report goes on.
        self._thread = Thread(target=self._converse, daemon=True)
        self._thread.start()

    def _converse(self) -> None:
        try:
            self._answer = processes.communicate(self._process, self._told, "drawing the Pareto plot")
        except Exception as problem:
            self._answer = problem

    def pictures(self) -> list[bytes]:
        """``draw.PICTURES`` in their order. Raises RuntimeError if drawing failed."""
        self._thread.join()
        if isinstance(self._answer, Exception):
            raise self._answer
        lengths, _, pictures = self._answer.partition(b"\n")
        ends = list(accumulate(map(int, lengths.split()), initial=0))
        return [pictures[start:end] for start, end in pairwise(ends)]


def _fields(part: Any) -> dict[str, Any]:
    """Of a dataclass, for JSON; ``asdict`` copies all that is in it."""
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _matplotlib_version() -> bytes:
    """As its own file states it: importing matplotlib, or asking its metadata, takes longer than the tables."""
    found = find_spec("matplotlib")
    stated = Path(found.origin).with_name("_version.py") if found and found.origin else None
    return stated.read_bytes() if stated and stated.is_file() else b""
