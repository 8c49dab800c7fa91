"""Stands in for ``python -m bench.estimate``: answers at once and misbehaves where the cell's label, or what
``FAKE_ACTS`` has for it, says.

``kill`` is killed, ``exit`` ends with code 3, ``fail`` answers that the estimate failed, ``slow`` takes a moment,
``hang`` takes ten minutes, ``big`` needs 40 GiB, ``refuse`` has parameters but no memory. The seed stands in
``assumed``, with the GPU.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.environment import die_with_parent
from bench.records.costs import Estimate
from tests.factories import GIB, make_estimate


def estimate(cell: dict[str, Any], request: dict[str, Any], act: str) -> Estimate:
    found = make_estimate(
        40.0 if act == "big" else 4.0,
        assumed={"gpu": request["gpu"], "seed": cell["seed"]},
        max_batch=None if request["max_batch_bytes"] is None else request["max_batch_bytes"] // GIB,
    )
    refused = ["8-bit optimizers keep their state in a library's own kernels"]
    return found.model_copy(update={"memory": None, "refused": refused}) if act == "refuse" else found


def misbehave(act: str) -> None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "exit":
        print("Traceback: no such operation on meta", file=sys.stderr, flush=True)
        sys.exit(3)
    if act in ("slow", "hang"):
        time.sleep(0.3 if act == "slow" else 600)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        cell = request["cell"]
        act = json.loads(os.environ.get("FAKE_ACTS", "{}")).get(cell["label"], cell["label"].partition(" ")[0])
        if "FAKE_NOTES" in os.environ:
            with Path(os.environ["FAKE_NOTES"]).open("a") as notes:
                notes.write(f"{os.getpid()} {cell['label']}\n")
        misbehave(act)
        answer: dict[str, Any] = {"cell_id": cell["cell_id"]}
        if act == "fail":
            print("Traceback: division by zero", file=sys.stderr, flush=True)
            answer["error"] = "ZeroDivisionError: division by zero"
        else:
            answer["estimate"] = estimate(cell, request, act).model_dump(mode="json")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    main()
