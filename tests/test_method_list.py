"""``--methods`` lists what a spec can name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.methods import catalogue


def listed(root: Path, *arguments: str) -> str:
    command = [sys.executable, "run_bench.py", "--methods", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_every_method_is_listed_with_where_it_applies(root: Path) -> None:
    lines = listed(root).splitlines()
    for entry in catalogue():
        heading = next(line for line in lines if line.startswith(f"{entry.name}  "))
        assert entry.kind in heading
    assert any(line.startswith("last_blocks") and line.endswith("needs k") for line in lines)


def test_as_json(root: Path) -> None:
    entries = {entry["name"]: entry for entry in json.loads(listed(root, "--json"))}
    assert set(entries) == {entry.name for entry in catalogue()}
    assert entries["VERA"]["key"] == "peft_type"
    assert entries["VERA"]["fields"]["r"] == 256
    assert entries["lora"]["key"] == "type"
    assert "text models" in entries["PROMPT_TUNING"]["applies_to"]
