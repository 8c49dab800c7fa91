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


def die_with_parent(parent: str | None) -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed runner leaves no worker behind.

    ``parent`` is the process id the runner passes: a runner that died before we asked would be missed without it.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the runner has ended")


def main(arguments: list[str]) -> int:
    """Run the cell of ``arguments[0]`` and write its record to ``arguments[1]``."""
    if len(arguments) != 2:
        print("usage: python -m bench.worker CELL.json RESULT.json", file=sys.stderr)
        return 2
    cell_file, result_file = Path(arguments[0]), Path(arguments[1])

    # torch takes seconds to import: only after the parent can end us.
    from bench.cell import Cell
    from bench.store import write_atomic
    from bench.worker.run import run_cell

    try:
        cell = Cell.model_validate_json(cell_file.read_bytes())
        record = run_cell(cell, result_file.parent)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    write_atomic(result_file, record.model_dump_json(by_alias=True).encode())
    return 0


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    sys.exit(main(sys.argv[1:]))
