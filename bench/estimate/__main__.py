"""``python -m bench.estimate``: estimate cells, one after the other, for ``bench.estimate.pool``.

Reads requests from stdin, a line of JSON each: ``{"cell": {...}, "gpu": "ampere", "max_batch_bytes": null,
"counts_only": false}``. Answers each with a line on stdout, ``{"cell_id": ..., "estimate": {...}}`` or, if it failed,
``{"cell_id": ..., "error": ...}`` with the traceback on stderr. Ends with its input, or with its parent.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from typing import IO, Any

from bench.environment import die_with_parent
from bench.errors import BenchError
from bench.records.costs import Estimate
from bench.spec.cell import Cell


def main() -> int:
    """Serve until the end of stdin."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # libraries print; nothing but the answers may reach the reader
        # before torch is imported: one thread at low priority, and no GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = "1"
        with suppress(OSError, AttributeError):  # AttributeError: Windows
            os.nice(5)
        _serve(sys.stdin, answers)
    return 0


def _serve(requests: IO[str], answers: IO[str]) -> None:
    from bench.estimate.estimator import Estimator

    estimators: dict[str, Estimator] = {}
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {"cell_id": request["cell"]["cell_id"]}
        try:
            if request["gpu"] not in estimators:
                estimators[request["gpu"]] = Estimator(request["gpu"])
            options = {name: request[name] for name in ("max_batch_bytes", "counts_only")}
            try:
                estimate = estimators[request["gpu"]].estimate(Cell.model_validate(request["cell"]), **options)
            except BenchError as refusal:
                estimate = Estimate(refused=[str(refusal)])
            answer["estimate"] = estimate.model_dump(mode="json")
        except Exception as error:
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {error}"
        answers.write(json.dumps(answer, allow_nan=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    sys.exit(main())
