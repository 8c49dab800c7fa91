"""What users see and scripts rely on, kept in files: a change of structure changes none of it.

A test compares with its file under ``tests/golden/kept``. Write a file anew only for a change that is meant, by its
name (or ``all``), and say the reason in the commit: ``UPDATE_GOLDEN=cell_ids.json python -m pytest tests/golden``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

KEPT = Path(__file__).with_name("kept")
UPDATE = os.environ.get("UPDATE_GOLDEN", "")


def kept(name: str, found: Any) -> Any:
    """The content of a golden file, to be compared with ``found``: text, or of a ``.json`` file its content.

    Where ``UPDATE_GOLDEN`` names the file, ``found`` is written to it and the test skipped.
    """
    path = KEPT / name
    if UPDATE in (name, "all"):
        path.write_text(found if isinstance(found, str) else _lines(found, 2) + "\n", encoding="utf-8", newline="")
        pytest.skip(f"{name} was written anew")
    text = path.read_bytes().decode()
    return json.loads(text) if path.suffix == ".json" else text


def _lines(content: Any, depth: int) -> str:
    """JSON with a line for each key of the outer ``depth`` mappings, so that a difference shows the key it is of."""
    if not depth or not isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return (
        "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(value, depth - 1)}" for key, value in content.items()) + "\n}"
    )


def bench(folder: Path, *arguments: str, code: int = 0) -> str:
    """Stdout of the command line program run in ``folder``, with no home, terminal, GPU or results of the user's."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "120", "NO_COLOR": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_bench.py"), *arguments],
        cwd=folder,
        env=environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode()
