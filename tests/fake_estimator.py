"""Stands in for ``python -m bench.estimate``: answers at once and misbehaves where the cell's label says.

``kill`` is killed, ``exit`` ends with code 3, ``fail`` answers that the estimate failed, ``slow`` takes a moment,
``hang`` takes ten minutes, ``big`` needs 40 GiB, ``refuse`` has parameters but no memory. The seed stands in
``assumed``, with the process and the options.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.record import MEMORY_KINDS, Estimate, Flops, Params, PredictedMemory, PredictedPhase
from bench.worker.parent import die_with_parent

GIB = 2**30


def phase(peak: int) -> PredictedPhase:
    kinds = dict.fromkeys(MEMORY_KINDS, 0) | {"weights": peak // 4, "activations": peak - peak // 4}
    return PredictedPhase(allocated_peak_bytes=peak, reserved_peak_bytes=peak + GIB // 4, by_kind=kinds)


def estimate(cell: dict[str, Any], request: dict[str, Any]) -> Estimate:
    act = cell["label"].partition(" ")[0]
    peak = (40 if act == "big" else 4) * GIB
    memory = PredictedMemory(train=phase(peak), eval=phase(GIB), context_bytes=GIB // 2)
    return Estimate(
        params=Params(trainable=500_000, total=2_000_000, pct=25.0, stored=500_000, by_part={}),
        memory=None if act == "refuse" else memory,
        flops=Flops(train_forward=10**12, train_backward=10**12, train_step=2 * 10**12, eval_sample=3 * 10**9),
        adapter_bytes=2_000_000,
        assumed={"gpu": request["gpu"], "seed": cell["seed"], "pid": os.getpid()},
        max_batch=None if request["max_batch_bytes"] is None else request["max_batch_bytes"] // GIB,
        refused=["8-bit optimizers keep their state in a library's own kernels"] if act == "refuse" else [],
    )


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
        act = cell["label"].partition(" ")[0]
        if "FAKE_NOTES" in os.environ:
            with Path(os.environ["FAKE_NOTES"]).open("a") as notes:
                notes.write(f"{os.getpid()} {cell['label']}\n")
        misbehave(act)
        answer: dict[str, Any] = {"cell_id": cell["cell_id"]}
        if act == "fail":
            print("Traceback: division by zero", file=sys.stderr, flush=True)
            answer["error"] = "ZeroDivisionError: division by zero"
        else:
            answer["estimate"] = estimate(cell, request).model_dump(mode="json")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    main()
