"""``python -m bench.worker CELL.json RESULT.json``: run one cell and write its record.

Exit code 0 whenever a record was written, whatever its status; otherwise the parent makes the record.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed runner leaves no worker behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get("BENCH_PARENT")
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the runner ended before this worker began")  # too early for the signal


def main(arguments: list[str]) -> int:
    """Run the cell of ``arguments[0]`` and write its record to ``arguments[1]``."""
    if len(arguments) != 2:
        print("usage: python -m bench.worker CELL.json RESULT.json", file=sys.stderr)
        return 2
    cell_file, result_file = Path(arguments[0]), Path(arguments[1])

    # torch takes seconds to import: only after the parent can end us.
    from bench.cell import Cell
    from bench.worker.files import write_atomically
    from bench.worker.run import run_cell

    try:
        cell = Cell.model_validate_json(cell_file.read_bytes())
        record = run_cell(cell, result_file.parent)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    write_atomically(result_file, record.model_dump_json(by_alias=True).encode())
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(sys.argv[1:]))
