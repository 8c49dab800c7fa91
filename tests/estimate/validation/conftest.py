"""Tables 1 to 4 in small: a cell each, with annotations and a printed memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.estimate.estimator import estimate
from bench.estimate.validation import paper
from tests.estimate.conftest import make_cell as make_cell

TABLE: dict[str, Any] = {
    "model": {
        "family": "miss",
        "preset": "tiny",
        "vision": {"hidden_size": 64, "num_hidden_layers": 2},
        "text": {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 100, "dropout": 0.1},
    },
    "train": {"steps": 4, "batch_size": 4, "optimizer": {"lr": 1e-3}},
    "evaluate": {"batch_size": 4, "num_beams": 2, "max_new_tokens": 3},
    "methods": {"LoRA": {"type": "lora", "r": 4}},
}
PARTS = (("F", "T", "LoRA"), ("T", "LoRA", "LoRA"), ("F", "F", "T"), ("LoRA", "F", "LoRA"))
QUESTIONS = (
    "is it a lung ?",
    "where is the left kidney in this image ?",
    "what organ is bright ?",
    "is it the liver ?",
)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates without a pool of processes, which take seconds to start."""
    monkeypatch.setattr(paper, "estimate_all", lambda cells, gpu: {c.cell_id: estimate(c, gpu=gpu) for c in cells})


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A folder with table1.yaml ... table4.yaml and their data."""
    data = tmp_path / "annotations"
    data.mkdir()
    for split in ("train", "test"):
        records = [
            {"qid": i, "img_name": f"{i}.jpg", "question": QUESTIONS[i % 4], "answer": "yes", "q_lang": "en"}
            | {"answer_type": "CLOSED"}
            for i in range(12)
        ]
        (data / f"{split}.json").write_text(json.dumps(records))
    folder = tmp_path / "specs"
    folder.mkdir()
    for number, parts in enumerate(PARTS, start=1):
        named = dict(zip(("vit", "jtm", "dec"), parts, strict=True))
        spec = TABLE | {
            "data": {"name": "slake", "root": str(data)},
            "parts": named,
            "published": {"source": "a paper", "rows": [named | {"memory": 0.6}]},
        }
        with (folder / f"table{number}.yaml").open("w") as file:
            YAML().dump(spec, file)
    return folder
