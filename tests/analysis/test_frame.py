"""Records as flat files: every column documented, every value as in the record, the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import torch
from pandas import DataFrame

from bench.analysis.frame import csv_bytes, parquet_bytes, to_frame
from bench.errors import SpecError
from bench.metrics import task_scores
from bench.records.columns import columns, describe
from bench.records.record import CellRecord, Failure, Status
from bench.records.scores import Score
from bench.report.columns_page import render
from bench.sources import open_records
from bench.spec.schema import record_schema
from bench.training.device import describe_environment
from tests.factories import load_cells, make_estimate, make_record


@pytest.fixture(scope="module")
def gallery(root: Path) -> list[CellRecord]:
    with open_records(str(root / "results" / "gallery")) as source:
        return source.records


@pytest.fixture
def record(root: Path) -> CellRecord:
    cell = load_cells(root / "specs" / "table1.yaml", "demo")[1][0]
    return make_record(cell, estimate=make_estimate(), settings=cell.model_dump(mode="json"))


def value(flat: DataFrame, name: str, row: int = 0) -> Any:
    found = flat[name].tolist()[row]
    return None if found is pd.NA else found


def test_the_page_of_columns_is_current(root: Path) -> None:
    """If not: python -m bench.report.columns_page > docs/columns.md"""
    assert (root / "docs" / "columns.md").read_text(encoding="utf-8") == render()


def test_every_column_says_what_it_means_and_in_which_unit() -> None:
    without = {"schema_version", "seed", "error.step", "environment.cores", "environment.torch_threads"}
    for column in columns():
        assert column.meaning.strip(". "), column.name
        assert column.unit or column.kind not in ("integer", "number") or column.name in without, column.name


def test_every_field_of_a_record_has_a_column() -> None:
    top = {column.group for column in columns()}
    assert top == set(record_schema()["properties"]) - {"accuracy"} | {"stale"}


def test_all_that_a_worker_notes_of_its_environment_is_documented(record: CellRecord) -> None:
    noted = describe_environment(torch.device("cpu"))
    unknown = {key: "" for key, value in noted.items() if value is None and key != "git"}
    revision = {"git": {"commit": "a" * 40, "dirty": False}}
    flat = to_frame([record.model_copy(update={"environment": noted | unknown | revision})])
    names = [name for name in flat.columns if name.startswith("environment.")]
    assert {"environment.tested_versions.python", "environment.tested_versions.below.torch"} <= set(names)
    assert [name for name in names if describe(name).name == "environment.<place>"] == []


def test_every_column_of_the_gallery_is_documented(gallery: list[CellRecord]) -> None:
    names = list(to_frame(gallery).columns)
    assert len(names) == len(set(names)) > 200
    for name in names:
        column = describe(name)
        assert column.name != "environment.<place>", name
        assert column.fixed is (column.name == name), name
    always = [column.name for column in columns() if column.fixed and column.group != "environment"]
    assert [name for name in names if name in always] == always


def test_values_are_those_of_the_record(record: CellRecord) -> None:
    flat = to_frame([record])
    assert value(flat, "cell_id") == record.cell_id
    assert value(flat, "labels.rank") == 4
    assert value(flat, "parts.jtm") == "LoRA"
    assert value(flat, "memory.train.allocated_peak_bytes") == record.memory.train.allocated_peak_bytes
    assert value(flat, "memory.load.allocated_peak_bytes") is None
    assert value(flat, "estimate.memory.train.by_kind.activations") == 3 * 2**30
    assert value(flat, "settings.train.optimizer.lr") == 1e-3
    assert value(flat, "settings.methods.LoRA.r") == 4
    assert json.loads(str(value(flat, "settings.model.image.std"))) == [5, 5, 5]
    assert value(flat, "params.by_part.vit.total") == 1
    assert json.loads(str(value(flat, "loss_curve"))) == []


def test_scores_are_in_the_same_columns_whichever_program_wrote_them(record: CellRecord) -> None:
    assert record.accuracy is not None
    older, newer = record, record.model_copy(update={"scores": {"accuracy": Score.share(3, 4)}, "accuracy": None})
    flat = to_frame([older, newer])
    share = record.accuracy.closed
    assert value(flat, "scores.closed.correct") == share.correct
    assert value(flat, "scores.closed.value") == share.correct / share.n
    assert value(flat, "baselines.always_no.closed.correct") == 180
    assert [value(flat, "scores.accuracy.value", row) for row in (0, 1)] == [None, 0.75]
    assert value(flat, "scores.closed.value", 1) is None
    assert set(record.accuracy.scores()) <= set(task_scores())


def test_a_column_has_one_type(record: CellRecord) -> None:
    ranks: tuple[list[Any], ...] = [4, 4.5, None], [4, "all", {"a": [1]}], [True, False, None], [2**70, 1, None]
    for raw, kind, shown in zip(
        ranks,
        ("Float64", "string", "boolean", "string"),
        ([4.0, 4.5, None], ["4", "all", None], [True, False, None], [str(2**70), "1", None]),
        strict=True,
    ):
        flat = to_frame([record.model_copy(update={"labels": {"rank": rank}}) for rank in raw])
        assert (str(flat["labels.rank"].dtype), [value(flat, "labels.rank", row) for row in range(3)]) == (kind, shown)
    assert value(to_frame([record.model_copy(update={"labels": {"rank": {"a": [1]}}})]), "labels.rank.a") == "[1]"


def test_a_name_with_dots_is_no_place(record: CellRecord) -> None:
    flat = to_frame([record.model_copy(update={"labels": {"a.b": 1, "a": {"b": 2}}})])
    assert (value(flat, "labels.'a.b'"), value(flat, "labels.a.b")) == (1, 2)


def test_chosen_columns(record: CellRecord) -> None:
    flat = to_frame([record], ["label", "params.*", "label", "scores.global.value"])
    assert list(flat.columns)[:3] == ["label", "params.trainable", "params.total"]
    assert flat.columns[-1] == "scores.global.value"
    with pytest.raises(SpecError, match=r"did you mean 'params\.pct'"):
        to_frame([record], ["params.pc"])


HOSTILE = ["=1+1", " @SUM(1)", "-3", "a,b\n\"c\"", "\ud800", "|x", "plain"]  # fmt: skip


def test_csv_keeps_every_value_and_runs_nothing(record: CellRecord) -> None:
    failure = Failure(type="E", message="m", log_tail='line 1\nline 2, "quoted"')
    records = [
        record.model_copy(update={"label": text, "status": Status.ERROR, "error": failure, "energy_j": -0.1})
        for text in HOSTILE
    ]
    flat = to_frame(records)
    rows = list(csv.DictReader(io.StringIO(csv_bytes(flat).decode(), newline="")))
    assert [row["label"] for row in rows] == [
        "'=1+1", "' @SUM(1)", "'-3", 'a,b\n"c"', "\\ud800", "'|x", "plain",
    ]  # fmt: skip
    assert rows[0]["error.log_tail"] == failure.log_tail
    assert (rows[0]["energy_j"], rows[0]["time.step_median_s"], rows[0]["time.load_s"]) == ("-0.1", "0.12", "")
    assert record.params is not None
    assert float(rows[0]["params.pct"]) == record.params.pct


def test_parquet_is_typed_and_says_what_its_columns_mean(gallery: list[CellRecord]) -> None:
    flat = to_frame(gallery)
    table = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(flat)))
    assert table.num_rows == len(gallery)
    assert table.column("cell_id").to_pylist() == [record.cell_id for record in gallery]
    for name, kind in (("params.total", "int64"), ("memory.load.reserved_peak_bytes", "int64"), ("energy_j", "double"),
                       ("labels.rank", "int64"), ("environment.git.dirty", "bool"), ("task", "string")):  # fmt: skip
        assert str(table.schema.field(name).type) == kind, name
    metadata = table.schema.field("time.step_median_s").metadata
    assert metadata[b"unit"] == b"s"
    assert metadata[b"description"].decode() == "Measured times. Median of the timed training steps."
    for name in flat.columns:
        assert table.column(name).to_pylist() == [None if one is pd.NA else one for one in flat[name].tolist()]


def test_lone_surrogates_do_not_stop_parquet(record: CellRecord) -> None:
    table = pyarrow.parquet.read_table(
        io.BytesIO(parquet_bytes(to_frame([record.model_copy(update={"label": "\ud800"})])))
    )
    assert table.column("label").to_pylist() == ["\\ud800"]


def test_the_same_records_give_the_same_bytes(gallery: list[CellRecord]) -> None:
    again = [CellRecord.model_validate(record.model_dump(mode="json", by_alias=True)) for record in gallery]
    assert csv_bytes(to_frame(gallery)) == csv_bytes(to_frame(again))
    assert parquet_bytes(to_frame(gallery)) == parquet_bytes(to_frame(again))


def test_without_pyarrow(record: CellRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecError, match=re.escape("peft-freeze-bench[parquet]")):
        parquet_bytes(to_frame([record]))


@pytest.mark.benchmark
def test_a_thousand_records_take_less_than_five_seconds(gallery: list[CellRecord]) -> None:
    records = (gallery * 40)[:1000]
    before = time.process_time()
    flat = to_frame(records)
    csv_bytes(flat)
    parquet_bytes(flat)
    assert time.process_time() - before < 5
