"""``python -m bench.estimate`` as the pool starts it, and the command line above both: the real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.environment import child_environ
from bench.estimate.pool import ESTIMATOR, estimate_all
from bench.records.costs import Estimate
from tests.estimate.test_pool import lives
from tests.sweeps import make_cell, wait_until

SPEC = """\
model: {family: miss, preset: tiny}
data: {name: easy_vqa}
train: {steps: 2, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4, num_beams: 1, max_new_tokens: 2}
methods: {LoRA: {type: lora, r: 4}}
matrix: {axes: {parts: [{vit: F, jtm: LoRA, dec: LoRA}, {vit: F, jtm: T, dec: LoRA}]}}
"""


def request(**changes: Any) -> str:
    content = {
        "cell": make_cell("ok").model_dump(mode="json"),
        "gpu": "ampere",
        "max_batch_bytes": None,
        "counts_only": False,
    }
    return json.dumps(content | changes) + "\n"


def test_answers_one_line_each_whatever_libraries_print(tmp_path: Path) -> None:
    """``sitecustomize`` stands in for a library that prints as the estimator is imported, from Python and below it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, os\n"
        "build = builtins.__build_class__\n"
        "def noisy(function, name, *bases, **options):\n"
        "    if name == 'Estimator': print('noise', flush=True); os.system('echo more noise')\n"
        "    return build(function, name, *bases, **options)\n"
        "builtins.__build_class__ = noisy\n"
    )
    environ = child_environ()
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environ.get("PYTHONPATH", "")])
    broken = make_cell("broken").model_dump(mode="json") | {"parts": {"vit": "F", "jtm": "F", "wrong": "T"}}
    told = request() + request(cell=broken) + request(gpu="none") + request()
    done = subprocess.run(ESTIMATOR, input=told, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = map(json.loads, done.stdout.splitlines())
    assert "noise" in done.stderr
    assert "more noise" in done.stderr
    estimate = Estimate.model_validate(first["estimate"])
    assert (estimate.params is not None, estimate.memory is not None, estimate.refused) == (True, True, [])
    assert second["cell_id"] == broken["cell_id"]
    assert "error" in second or second["estimate"]["refused"]
    assert third["error"].startswith("KeyError")
    assert "Traceback" in done.stderr
    assert fourth == first, "a failure leaves the next estimate as it was"


def test_the_pool_and_the_estimator_agree() -> None:
    cell = make_cell("ok")
    [estimate] = estimate_all([cell], gpu="hopper", max_batch_bytes=2**40).values()
    assert estimate.assumed["gpu"] == "hopper"
    assert estimate.memory is not None
    assert estimate.max_batch is not None or estimate.refused


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_estimate_leaves_no_process(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(SPEC)
    command = [sys.executable, str(root / "run_bench.py"), str(spec), "--estimate"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    us = psutil.Process(process.pid)
    wait_until(us.children)
    started = us.children()
    os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
    _, err = process.communicate(timeout=20)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert err.endswith("interrupted\n") is (number is signal.SIGINT)
    assert "Traceback" not in err
    wait_until(lambda: not any(lives(child.pid) for child in started))
