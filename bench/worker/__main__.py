"""``python -m bench.worker CELL.json RESULT.json``: run one cell and write its record.

Exit code 0 whenever a record was written, whatever its status; otherwise the parent makes the record.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bench.environment import die_with_parent


def main(arguments: list[str]) -> int:
    """Run the cell of ``arguments[0]`` and write its record to ``arguments[1]``."""
    if len(arguments) != 2:
        print("usage: python -m bench.worker CELL.json RESULT.json", file=sys.stderr)
        return 2
    cell_file, result_file = map(Path, arguments)

    # torch takes seconds to import: only after the process is tied to its parent.
    from bench.spec.cell import Cell
    from bench.worker.run import run_and_estimate

    try:
        cell = Cell.model_validate_json(cell_file.read_bytes())
        run_and_estimate(cell, result_file.parent, result_file)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    sys.exit(main(sys.argv[1:]))
