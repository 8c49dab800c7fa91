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
from bench.estimate.estimator import Attempt
from bench.estimate.gpus import GPUS
from bench.estimate.meta_cuda_kernels import cuda_kernels
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
_SCALE = "paper"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the paper."""

    table: str
    cell: Cell
    printed: float
    """Its Memory column."""


def rows(specs: Path, sets: Sequence[str]) -> list[Row]:
    """All rows with a printed memory. Raises SpecError for a spec or ``--set`` that is wrong."""
    found = []
    for table in TABLES:
        resolved = read_spec(specs / f"{table}.yaml").resolve(_SCALE, sets)
        published = resolved.spec.published
        for cell in expand(resolved):
            where = (cell.parts | cell.labels).items()
            line = next(line for line in (published.rows if published else ()) if where <= line.items())
            printed = metrics.get("memory").published(line["memory"])
            assert printed is not None
            found.append(Row(table=table, cell=cell, printed=printed))
    return found


def memory_of(estimate: Estimate) -> PredictedMemory:
    """Raises BenchError where it was refused."""
    if estimate.memory is None or estimate.memory.train is None:
        raise BenchError(f"no prediction: {'; '.join(estimate.refused)}")
    return estimate.memory


def predict(found: Sequence[Row], gpu: str) -> list[Estimate]:
    """The estimate of each row, by the processes that ``--estimate`` uses. Raises BenchError if one fails."""
    estimates = estimate_all([row.cell for row in found], gpu=gpu)
    in_order = [estimates[row.cell.cell_id] for row in found]
    for estimate in in_order:
        memory_of(estimate)
    return in_order


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of one reading of the predictions against the column, relative."""

    by_row: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean absolute error."""
        return mean(map(abs, self.by_row))

    @property
    def worst(self) -> float:
        """The largest in size, with its sign."""
        return max(self.by_row, key=abs)


def errors(found: Sequence[Row], predicted: Sequence[int], unit: str = "GiB") -> Errors:
    """Of predicted bytes against the column, read in that unit."""
    pairs = zip(found, predicted, strict=True)
    return Errors(by_row=tuple(nbytes / UNITS[unit] / row.printed - 1 for row, nbytes in pairs))


def readings(found: Sequence[Row], estimates: Sequence[Estimate], from_spec: Sequence[Estimate]) -> dict[str, Errors]:
    """What the column could mean, and what the prediction could be made of; the first is the one we stand by."""
    memories, longest = [memory_of(e) for e in estimates], [memory_of(e) for e in from_spec]
    process = [memory.process_peak_bytes for memory in memories]
    return {
        "reserved + context, GiB (what nvidia-smi shows of the process)": errors(found, process),
        "reserved + context, column in GB of 10^9 bytes": errors(found, process, "GB"),
        "reserved alone, GiB": errors(found, [m.process_peak_bytes - m.context_bytes for m in memories]),
        "allocated alone, GiB": errors(found, [_train(m).allocated_peak_bytes for m in memories]),
        "reserved + context, lengths from the spec": errors(found, [m.process_peak_bytes for m in longest]),
    }


def _train(memory: PredictedMemory) -> PredictedPhase:
    assert memory.train is not None
    return memory.train


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
    found = {}
    for name, sequence in sequences.items():
        with cuda_kernels(GPUS[gpu]), autocast_on_meta():
            phase, _ = Attempt(cell, Operations(GPUS[gpu]), FixedLengths(sequence)).train()
        assert phase is not None
        found[name] = phase
    return found


def lengths_of(assumed: Mapping[str, Any]) -> tuple[tuple[InputLengths, ...], InputLengths]:
    """Of the batches that an estimate trained and evaluated with."""
    train = tuple(InputLengths(question_tokens=q, answer_tokens=a) for q, a in assumed["batches"])
    evaluation = InputLengths(
        question_tokens=assumed["eval_question_tokens"], answer_tokens=assumed["eval_answer_tokens"]
    )
    return train, evaluation
