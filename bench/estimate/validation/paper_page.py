"""The page about the comparison with the paper's Memory column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.estimate.gpus import GPUS, cublas_of
from bench.estimate.validation.output import MIB, gib, made_with, percent, table
from bench.estimate.validation.paper import MEAN_LIMIT, WORST_LIMIT, Errors, Row, lengths_of
from bench.records.costs import Estimate, PredictedMemory, PredictedPhase

_TEXT = """# Predicted memory against the Memory column of the MILE paper's Tables 1 to 4

`python -m bench.estimate.validation paper`. {made_with} No GPU was used.

**Result: mean absolute error {mean}, worst {worst}** (limits {mean_limit} and {worst_limit}), for the {gpu} generation.

{table}
GiB. *Process* is the highest reserved peak, here always that of training, and the context of {context} GiB; *error* is
its deviation from the printed number. Batch 20, 480 pixels, fp32, AdamW, gradients dropped between forward and backward
as in the released code. Training batches, question x answer tokens from the {source}: {batches}.
Evaluation: {evaluation} question tokens, {beams} beams of {new} new tokens.

## What the column is, nobody says
The paper names neither the GPU nor how memory was read. The released training script does not read it; the utilities
that it builds on, BLIP's, print what is allocated at most, and its requirements hold `nvitop`, which shows what
`nvidia-smi` shows: all that the process takes on the GPU. We compare with the latter, in GiB, since it is what must fit
on a card; it is also the reading that fits best, which proves nothing. The others:

{readings}
Do not conclude from this table that the estimate is right to within its mean error on any GPU: that is for
`python -m bench.estimate.validation gpu` to say.

## Where the constants come from
None was chosen or changed to fit this column.

- **Context**, {context} GiB: {context_source}.
- **Rounding and segment sizes** of the allocator: `c10/core/AllocatorConfig.h` of PyTorch 2.15.
- **cuBLAS workspace**, {workspace} MiB, and cuBLASLt's: the defaults of the installed PyTorch, which until 2.14 keeps
  one for each thread, as the paper's did (2.1 by the requirements of the released code).
- **Lengths**: the longest question and answer of the annotations, and the first three different batches before it.
- **Kernels**: what PyTorch 2.15 chooses for the model as its authors wrote it (eager attention).

## Why more is reserved than allocated
The first step's activations leave large free blocks. Gradients and the optimizer's state, which come after them and
stay, take pieces of these; what remains of a block is too small for the next step's activations, so new ones are
reserved. Batches of other lengths do the same. How much it comes to depends on the order of the batches:

{fragmentation}
GiB, training, allocated / reserved.
"""


def lines(
    found: Sequence[Row],
    estimates: Sequence[Estimate],
    readings: Mapping[str, Errors],
    fragmented: Mapping[str, Mapping[str, PredictedPhase]],
) -> list[dict[str, Any]]:
    """Those of ``paper.jsonl``: a row each, and at the end what concerns all."""
    ours = next(iter(readings.values()))
    rows: list[dict[str, Any]] = [
        {
            "spec": row.table,
            "label": row.cell.label,
            "printed_gib": row.printed,
            "error": error,
            "estimate": estimate.model_dump(mode="json"),
        }
        for row, estimate, error in zip(found, estimates, ours.by_row, strict=True)
    ]
    summary = {
        "readings": {name: {"mean": each.mean, "worst": each.worst} for name, each in readings.items()},
        "fragmentation": {
            label: {name: phase.model_dump(mode="json") for name, phase in phases.items()}
            for label, phases in fragmented.items()
        },
    }
    return [*rows, summary]


def page(found: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """``paper.md`` from its lines."""
    *rows, summary = found
    readings, assumed = summary["readings"], rows[0]["estimate"]["assumed"]
    ours = next(iter(readings.values()))
    train, evaluation = lengths_of(assumed)
    gpu = GPUS[assumed["gpu"]]
    return _TEXT.format(
        made_with=made_with(environment),
        mean=f"{100 * ours['mean']:.2f} %",
        worst=percent(ours["worst"]),
        mean_limit=f"{100 * MEAN_LIMIT:g} %",
        worst_limit=f"{100 * WORST_LIMIT:g} %",
        gpu=assumed["gpu"],
        table=_rows(rows),
        context=gib(rows[0]["estimate"]["memory"]["context_bytes"]),
        context_source=assumed["context_from"],
        workspace=f"{cublas_of(gpu, torch.__version__).workspace_bytes / MIB:.3f}",
        batches=", ".join(f"{each.question_tokens} x {each.answer_tokens}" for each in train),
        source=assumed["lengths_from"],
        evaluation=evaluation.question_tokens,
        beams=assumed["num_beams"],
        new=assumed["max_new_tokens"],
        readings=table(
            ["reading", "mean absolute error", "worst"],
            [[name, f"{100 * each['mean']:.1f} %", percent(each["worst"])] for name, each in readings.items()],
        ),
        fragmentation=_fragmentation(summary["fragmentation"]),
    )


def _fragmentation(by_label: Mapping[str, Mapping[str, Any]]) -> str:
    def pair(phase: Mapping[str, int]) -> str:
        return f"{gib(phase['allocated_peak_bytes'])} / {gib(phase['reserved_peak_bytes'])}"

    names = list(next(iter(by_label.values())))
    return table(
        ["steps", *by_label], [[name, *(pair(phases[name]) for phases in by_label.values())] for name in names]
    )


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    headers = ["row", "printed", "allocated", "reserved", "reserved in evaluation", "process", "error"]
    cells = []
    for row in rows:
        memory = PredictedMemory.model_validate(row["estimate"]["memory"])
        assert memory.train is not None
        numbers = (
            memory.train.allocated_peak_bytes,
            memory.train.reserved_peak_bytes,
            memory.eval.reserved_peak_bytes,
            memory.process_peak_bytes,
        )
        printed = f"{row['printed_gib']:.2f}"
        cells.append([f"{row['spec']}: {row['label']}", printed, *map(gib, numbers), percent(row["error"])])
    return table(headers, cells)
