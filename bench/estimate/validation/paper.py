"""Predictions for the 23 rows of the MILE paper's Tables 1 to 4, beside the memory that it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bench import metrics
from bench.errors import BenchError
from bench.estimate.autocast import autocast_on_meta
from bench.estimate.gpus import GPUS
from bench.estimate.meta_cuda_kernels import cuda_kernels
from bench.estimate.meta_run import MetaRun
from bench.estimate.operations import Operations
from bench.estimate.pool import estimate_all
from bench.estimate.validation.cases import FixedLengths
from bench.plugins.contracts import InputLengths
from bench.records.costs import Estimate, PredictedMemory, PredictedPhase
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.units import UNITS

TABLES = ("table1", "table2", "table3", "table4")
MEAN_LIMIT, WORST_LIMIT = 0.05, 0.12
"""Largest mean and largest single absolute error, relative, of reserved memory and context against the column."""
FRAGMENTED = ("F-T-LoRA rank=4", "T-T-LoRA rank=4")
"""Rows that show what the order of the batches does to reserved memory."""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of the paper."""

    table: str
    cell: Cell
    printed: float
    """Value of its Memory column."""


def read_rows(specs: Path, sets: Sequence[str]) -> list[PaperRow]:
    """All rows with a printed memory. Raises SpecError for a spec or ``--set`` that is wrong."""
    rows = []
    for table in TABLES:
        resolved = read_spec(specs / f"{table}.yaml").resolve("paper", sets)
        published = resolved.spec.published
        for cell in expand(resolved):
            key = (cell.parts | cell.labels).items()
            line = next(line for line in (published.rows if published else ()) if key <= line.items())
            printed = metrics.get("memory").published(line["memory"])
            assert printed is not None
            rows.append(PaperRow(table=table, cell=cell, printed=printed))
    return rows


def memory_of(estimate: Estimate) -> tuple[PredictedMemory, PredictedPhase]:
    """Predicted memory and its training phase. Raises BenchError where the prediction was refused."""
    if estimate.memory is None or estimate.memory.train is None:
        raise BenchError(f"no prediction: {'; '.join(estimate.refused)}")
    return estimate.memory, estimate.memory.train


def predict(rows: Sequence[PaperRow], gpu: str) -> list[Estimate]:
    """The estimate of each row, by the processes that ``--estimate`` uses. Raises BenchError if one fails."""
    estimates = estimate_all([row.cell for row in rows], gpu=gpu)
    in_order = [estimates[row.cell.cell_id] for row in rows]
    for estimate in in_order:
        memory_of(estimate)
    return in_order


def errors(rows: Sequence[PaperRow], predicted: Sequence[int], unit: str = "GiB") -> list[float]:
    """Relative errors of predicted bytes against the column, read in that unit."""
    return [nbytes / UNITS[unit] / row.printed - 1 for row, nbytes in zip(rows, predicted, strict=True)]


def mean_and_worst(row_errors: Sequence[float]) -> dict[str, float]:
    """``mean``: mean absolute error; ``worst``: the largest in size, with its sign."""
    return {"mean": mean(map(abs, row_errors)), "worst": max(row_errors, key=abs)}


def readings(
    rows: Sequence[PaperRow], estimates: Sequence[Estimate], from_spec: Sequence[Estimate]
) -> dict[str, list[float]]:
    """Errors by the possible meanings of the column and ways of prediction; those of an estimate first."""
    memories = [memory_of(estimate) for estimate in estimates]
    process = [memory.process_peak_bytes for memory, _ in memories]
    with_longest = [memory_of(estimate)[0].process_peak_bytes for estimate in from_spec]
    return {
        "reserved + context, GiB (what nvidia-smi shows of the process)": errors(rows, process),
        "reserved + context, column in GB of 10^9 bytes": errors(rows, process, "GB"),
        "reserved alone, GiB": errors(rows, [m.process_peak_bytes - m.context_bytes for m, _ in memories]),
        "allocated alone, GiB": errors(rows, [train.allocated_peak_bytes for _, train in memories]),
        "reserved + context, lengths from the spec": errors(rows, with_longest),
    }


def fragmentation(cell: Cell, lengths: Sequence[InputLengths], gpu: str) -> dict[str, PredictedPhase]:
    """Training with the longest batch alone and with others before it, as an estimate takes them, or after it."""
    *others, longest = lengths
    sequences = {
        "the longest batch, one step": (longest,),
        "the longest batch, two steps": (longest,) * 2,
        "the longest batch, four steps": (longest,) * 4,
        "different batches, then the longest, as in an estimate": (*others, longest),
        "the longest batch, then different ones and it again": (longest, *others, longest),
    }
    phases = {}
    for name, sequence in sequences.items():
        with cuda_kernels(GPUS[gpu]), autocast_on_meta():
            phase, _ = MetaRun(cell, Operations(GPUS[gpu]), FixedLengths(sequence)).train()
        assert phase is not None
        phases[name] = phase
    return phases


def lengths_of(assumed: Mapping[str, Any]) -> tuple[tuple[InputLengths, ...], InputLengths]:
    """Lengths of the batches that an estimate trained and evaluated with."""
    train = tuple(InputLengths(question_tokens=q, answer_tokens=a) for q, a in assumed["batches"])
    evaluation = InputLengths(
        question_tokens=assumed["eval_question_tokens"], answer_tokens=assumed["eval_answer_tokens"]
    )
    return train, evaluation


def lines(
    rows: Sequence[PaperRow],
    estimates: Sequence[Estimate],
    by_reading: Mapping[str, Sequence[float]],
    fragmented: Mapping[str, Mapping[str, PredictedPhase]],
) -> list[dict[str, Any]]:
    """The lines of ``paper.jsonl``: a line per row, and a summary at the end."""
    ours = next(iter(by_reading.values()))
    per_row: list[dict[str, Any]] = [
        {
            "spec": row.table,
            "label": row.cell.label,
            "printed_gib": row.printed,
            "error": error,
            "estimate": estimate.model_dump(mode="json"),
        }
        for row, estimate, error in zip(rows, estimates, ours, strict=True)
    ]
    summary = {
        "readings": {name: mean_and_worst(each) for name, each in by_reading.items()},
        "fragmentation": {
            label: {name: phase.model_dump(mode="json") for name, phase in phases.items()}
            for label, phases in fragmented.items()
        },
    }
    return [*per_row, summary]
