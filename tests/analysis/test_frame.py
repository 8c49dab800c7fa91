"""Records as a frame: every column documented, every value as in the record, the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
import torch

import bench
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


def values(frame: pd.DataFrame, name: str) -> list[Any]:
    return [None if value is pd.NA else value for value in frame[name].tolist()]


# --- columns ---------------------------------------------------------------------------------------------------


def test_the_page_of_columns_is_current(root: Path) -> None:
    """If not: python -m bench.report.columns_page > docs/columns.md"""
    assert (root / "docs" / "columns.md").read_text(encoding="utf-8") == render()


def test_every_field_of_a_record_has_a_column_with_meaning_and_unit() -> None:
    assert {column.group for column in columns()} == set(record_schema()["properties"]) - {"accuracy"} | {"stale"}
    without = {"schema_version", "seed", "error.step", "environment.cores", "environment.torch_threads"}
    for column in columns():
        assert column.meaning.strip(". "), column.name
        assert column.unit or column.kind not in ("integer", "number") or column.name in without, column.name


def test_all_that_a_worker_notes_of_its_environment_is_documented(record: CellRecord) -> None:
    noted = describe_environment(torch.device("cpu"))
    unknown = {key: "" for key, value in noted.items() if value is None and key != "git"}
    revision = {"git": {"commit": "a" * 40, "dirty": False}}
    frame = to_frame([record.model_copy(update={"environment": noted | unknown | revision})], ["environment.*"])
    assert {"environment.tested_versions.python", "environment.tested_versions.below.torch"} <= set(frame.columns)
    assert [name for name in frame.columns if describe(name).name == "environment.<key>"] == []


def test_every_column_of_the_gallery_is_documented(gallery: list[CellRecord]) -> None:
    names = list(to_frame(gallery).columns)
    assert len(names) == len(set(names)) > 200
    for name in names:
        column = describe(name)
        assert column.name != "environment.<key>", name
        assert column.fixed is (column.name == name), name
    always = [column.name for column in columns() if column.fixed and column.group != "environment"]
    assert [name for name in names if name in always] == always


def test_chosen_columns(record: CellRecord) -> None:
    frame = to_frame([record], ["label", "params.*", "label", "scores.global.value"])
    assert list(frame.columns)[:3] == ["label", "params.trainable", "params.total"]
    assert frame.columns[-1] == "scores.global.value"
    with pytest.raises(SpecError, match=r"did you mean 'params\.pct'"):
        to_frame([record], ["params.pc"])


# --- values ----------------------------------------------------------------------------------------------------


def test_values_are_those_of_the_record(record: CellRecord) -> None:
    expected = {
        "cell_id": record.cell_id,
        "labels.rank": 4,
        "parts.jtm": "LoRA",
        "memory.train.allocated_peak_bytes": record.memory.train.allocated_peak_bytes,
        "memory.load.allocated_peak_bytes": None,
        "estimate.memory.train.by_kind.activations": 3 * 2**30,
        "settings.train.optimizer.lr": 1e-3,
        "settings.methods.LoRA.r": 4,
        "params.by_part.vit.total": 1,
        "loss_curve": "[]",
    }
    frame = to_frame([record])
    assert {name: values(frame, name)[0] for name in expected} == expected
    assert json.loads(values(frame, "settings.model.image.std")[0]) == [5, 5, 5]


def test_scores_are_in_the_same_columns_whichever_program_wrote_them(record: CellRecord) -> None:
    assert record.accuracy is not None
    newer = record.model_copy(update={"scores": {"accuracy": Score.share(3, 4)}, "accuracy": None})
    frame, share = to_frame([record, newer]), record.accuracy.closed
    assert values(frame, "scores.closed.correct") == [share.correct, None]
    assert values(frame, "scores.closed.value") == [share.correct / share.n, None]
    assert values(frame, "scores.accuracy.value") == [None, 0.75]
    assert values(frame, "baselines.always_no.closed.correct")[0] == 180
    assert set(record.accuracy.scores()) <= set(task_scores())


@pytest.mark.parametrize(
    ("raw", "dtype", "shown"),
    [
        ([4, 4.5, None], "Float64", [4.0, 4.5, None]),
        ([4, "all", {"a": [1]}], "string", ["4", "all", None]),
        ([True, False, None], "boolean", [True, False, None]),
        ([2**70, 1, None], "string", [str(2**70), "1", None]),
        ([2**53 + 1, None, 0], "Int64", [2**53 + 1, None, 0]),
    ],
)
def test_a_column_has_one_type(record: CellRecord, raw: list[Any], dtype: str, shown: list[Any]) -> None:
    frame = to_frame([record.model_copy(update={"labels": {"rank": rank}}) for rank in raw])
    assert (str(frame["labels.rank"].dtype), values(frame, "labels.rank")) == (dtype, shown)


def test_a_key_with_dots_is_no_path(record: CellRecord) -> None:
    frame = to_frame([record.model_copy(update={"labels": {"a.b": 1, "a": {"b": [2]}}})])
    assert (values(frame, "labels.'a.b'"), values(frame, "labels.a.b")) == ([1], ["[2]"])


# --- files -----------------------------------------------------------------------------------------------------


def test_csv_keeps_every_value_and_runs_nothing(record: CellRecord) -> None:
    hostile = {
        "=1+1": "'=1+1",
        " @SUM(1)": "' @SUM(1)",
        "-3": "'-3",
        'a,b\n"c"': 'a,b\n"c"',
        "\ud800": "\\ud800",
        "|x": "'|x",
        "plain": "plain",
    }
    failure = Failure(type="E", message="m", log_tail='line 1\nline 2, "quoted"')
    changes = {"status": Status.ERROR, "error": failure, "energy_j": -0.1}
    frame = to_frame([record.model_copy(update={"label": text} | changes) for text in hostile])
    rows = list(csv.DictReader(io.StringIO(csv_bytes(frame).decode(), newline="")))
    assert [row["label"] for row in rows] == list(hostile.values())
    names = ("error.log_tail", "energy_j", "time.step_median_s", "time.load_s")
    assert [rows[0][name] for name in names] == [failure.log_tail, "-0.1", "0.12", ""]
    assert record.params is not None
    assert float(rows[0]["params.pct"]) == record.params.pct
    texts = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(frame))).column("label").to_pylist()
    assert texts == [text.encode("utf-8", "backslashreplace").decode() for text in hostile]


def test_parquet_is_typed_and_documents_its_columns(gallery: list[CellRecord]) -> None:
    frame = to_frame(gallery)
    table = pyarrow.parquet.read_table(io.BytesIO(parquet_bytes(frame)))
    for name, kind in (("params.total", "int64"), ("memory.load.reserved_peak_bytes", "int64"), ("energy_j", "double"),
                       ("labels.rank", "int64"), ("environment.git.dirty", "bool"), ("task", "string")):  # fmt: skip
        assert str(table.schema.field(name).type) == kind, name
    metadata = table.schema.field("time.step_median_s").metadata
    assert metadata[b"unit"] == b"s"
    assert metadata[b"description"].decode() == "Measured times. Median of the timed training steps."
    names = list(frame.columns)
    assert [table.column(name).to_pylist() for name in names] == [values(frame, name) for name in names]
    assert values(frame, "cell_id") == [record.cell_id for record in gallery]


def test_the_same_records_give_the_same_bytes(gallery: list[CellRecord]) -> None:
    again = [CellRecord.model_validate(record.model_dump(mode="json", by_alias=True)) for record in gallery]
    assert csv_bytes(to_frame(gallery)) == csv_bytes(to_frame(again))
    assert parquet_bytes(to_frame(gallery)) == parquet_bytes(to_frame(again))


def test_without_pyarrow(record: CellRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SpecError, match=re.escape("peft-freeze-bench[parquet]")):
        parquet_bytes(to_frame([record]))


def test_load_reads_folders_and_specs(root: Path) -> None:
    folder = root / "results" / "gallery"
    of_folder = bench.load(folder / "table5")
    of_spec = bench.load(root / "specs" / "table5.yaml", scale="demo", results=folder)
    assert values(of_folder, "cell_id") == values(of_spec, "cell_id")
    with pytest.raises(SpecError, match="no such file or folder"):
        bench.load("nowhere")


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "specs/table1.yaml --list",
        "compare results/gallery/table5 results/gallery/table5",
        "specs/table5.yaml --report-only --scale demo --results results/gallery --reports",
    ],
)
def test_only_frames_import_pandas(root: Path, tmp_path: Path, arguments: str) -> None:
    words = [*arguments.split(), *[str(tmp_path)] * arguments.endswith("--reports")]
    program = (
        "import sys, bench; assert 'bench.commands' not in sys.modules\n"
        f"sys.argv = ['run_bench.py', *{words!r}]\n"
        "from bench.start import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'pandas' not in sys.modules and 'scipy.stats' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.benchmark
def test_a_thousand_records_take_less_than_five_seconds(gallery: list[CellRecord]) -> None:
    records = (gallery * 40)[:1000]
    before = time.process_time()
    frame = to_frame(records)
    csv_bytes(frame)
    parquet_bytes(frame)
    assert time.process_time() - before < 5
