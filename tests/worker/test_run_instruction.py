"""The scale ``instruction`` of Tables 1-4 runs: files of the layout of the authors' data, a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import CellRecord
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.worker.run import run_cell
from tests.datasets.conftest import picture, write_json

SETS = (
    "model={family: miss, preset: tiny, vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}, "
    "text: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}, image: {size: 16}, weights: null}",
    "train.epochs=2",
    "run.device=cpu",
    "run.threads=1",
)


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, str]:
    """``--set`` of the roots of an instruction file about images of both data sets, and of SLAKE."""
    records = [_record(f"vqa-rad/synpic{n}.jpg", n, f"is organ {n} seen") for n in range(7)]
    records += [_record(f"slake/slake_{n}.png", 50 + n, f"is lung {n} seen") for n in range(2)]
    folder, slake = tmp_path / "instruction", tmp_path / "slake"
    for record in records:
        picture(folder / "image" / record["img_name"])
    write_json(folder / "instruction_data.json", records)
    for split, number in (("train", 0), ("test", 1)):
        picture(slake / "imgs" / f"xmlab{number}" / "source.jpg")
        questions = [("is it red ?", "no"), ("what organ is it ?", "left lung")]
        write_json(slake / f"{split}.json", [_slake(number, i, *both) for i, both in enumerate(questions)])
    return f"data.root={folder}", f"data.test_root={slake}"


def _record(image: str, qid: int, question: str) -> dict[str, Any]:
    option = "Option:{(a)Yes; (b)No}"
    pool = [f"<image>Question:{{{question}}}{option} Answer:", f"<image>{option} Short answer to {{{question}}}:"]
    return {"img_name": image, "qid": qid, "answer": "Yes" if qid % 2 else "No", "question_pool": pool}


def _slake(image: int, number: int, question: str, answer: str) -> dict[str, Any]:
    kind = "CLOSED" if answer == "no" else "OPEN"
    name = f"xmlab{image}/source.jpg"
    known = {"img_name": name, "qid": 10 * image + number, "q_lang": "en", "answer_type": kind}
    return known | {"question": question, "answer": answer}


def first_cell(root: Path, table: int, sets: tuple[str, ...]) -> Cell:
    return expand(read_spec(root / f"specs/table{table}.yaml").resolve("instruction", [*SETS, *sets]))[0]


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_a_cell_of_each_table_runs(root: Path, tmp_path: Path, data: tuple[str, str], table: int) -> None:
    cell = first_cell(root, table, data)
    record: CellRecord = run_cell(cell, tmp_path / "job")
    assert record.error is None
    assert record.status == "ok"
    lines = [json.loads(line) for line in (tmp_path / "job" / "predictions.jsonl").read_text().splitlines()]
    assert [line["question"] for line in lines] == ["is it red ?", "what organ is it ?"], "SLAKE's, as they are"
    assert [line["answer_type"] for line in lines] == ["closed", "open"]
