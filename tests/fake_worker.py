"""Stands in for ``python -m bench.worker``: goes through the phases in no time and misbehaves where the label says.

``kill@train`` is killed in training, ``hang@load`` stops there (``deaf``: and ignores SIGTERM), ``orphan@eval`` starts
a process in a session of its own and hangs, ``leave@eval`` starts one and ends well, ``exit@train`` and ``torn@eval``
leave no valid result, ``hang_after`` hangs when it has written its result.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.environment import die_with_parent

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def main(cell_file: Path, result_file: Path) -> int:
    cell = json.loads(cell_file.read_bytes())
    act, _, where = cell["label"].partition(" ")[0].partition("@")
    note(cell, "start")
    print(f"log of {cell['label']}", flush=True)
    if os.environ.get("FAKE_ORPHANS") and os.getpid() % 3 == 0:
        subprocess.Popen([sys.executable, "-S", "-E", "-c", SLEEPER], start_new_session=True)
    for phase in ("setup", "load", "train", "eval"):
        for step in range(3 if phase in ("train", "eval") else 1):
            beside = result_file.with_name("beside")
            beside.write_text(json.dumps({"phase": phase, "done": step, "total": 3, "note": "loss 0.5"}))
            beside.replace(result_file.with_name("progress.json"))
            time.sleep(0.3 if act == "slow" else float(os.environ.get("FAKE_PAUSE_S", "0")))
        if phase == where and (code := misbehave(act, result_file)) is not None:
            return code
    write_result(cell, result_file)
    note(cell, "end")
    if act == "hang_after":
        time.sleep(600)
    return 0


def misbehave(act: str, result_file: Path) -> int | None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act in ("orphan", "leave"):
        subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    if act in ("hang", "orphan", "deaf"):
        if act == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if act == "torn":
        result_file.write_text('{"cell_id": "')
        return 0
    if act == "exit":
        print(os.environ.get("FAKE_LAST_WORDS", "the last line of the log"), flush=True)
        return 3
    return None


def write_result(cell: dict[str, object], result_file: Path) -> None:
    copied = ("cell_id", "spec", "scale", "label", "labels", "parts", "seed")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    record = {key: cell[key] for key in copied} | {
        "status": os.environ.get("FAKE_STATUS", "ok"),
        "data_digest": os.environ["FAKE_DATA_DIGEST"],
        "memory": {"foreign_bytes": int(os.environ.get("FAKE_FOREIGN", "0"))},
        "environment": {"device": os.environ.get("FAKE_DEVICE", "cpu"), "made_at": time.time_ns()},
        "notes": json.loads(os.environ.get("FAKE_DATA_NOTES", "null")),
        "settings": cell,
        "started_at": moment,
        "finished_at": moment,
    }
    beside = result_file.with_name("beside")
    beside.write_text(json.dumps(record))
    beside.replace(result_file)


def note(cell: dict[str, object], event: str) -> None:
    """One line per event, for the tests to count."""
    line = {"event": event, "label": cell["label"], "pid": os.getpid(), "at": time.monotonic()}
    variables = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONHASHSEED")
    line |= {key: os.environ.get(key) for key in variables}
    with Path(os.environ["FAKE_NOTES"]).open("a") as notes:
        notes.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    die_with_parent(os.environ.get("BENCH_PARENT"))
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
