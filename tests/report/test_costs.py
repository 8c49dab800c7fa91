"""What ``--estimate`` prints and hands to programs: the estimate's own numbers, nothing lost, nothing cut off."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bench.analysis.costs import Costs, compare
from bench.records.costs import Estimate
from bench.records.record import CellRecord, Memory, PhaseMemory, Status
from bench.report.costs import print_costs
from tests.factories import GIB, make_estimate, make_record
from tests.report.conftest import Case


def costs(
    case: Case,
    *found: Estimate,
    records: dict[str, CellRecord] | None = None,
    budget_bytes: int | None = None,
) -> list[Costs]:
    cells = case.cells[: len(found)]
    estimates = {cell.cell_id: one for cell, one in zip(cells, found, strict=True)}
    return compare(cells, estimates, records or {}, budget_bytes=budget_bytes)


def flops(train_step: int | None) -> dict[str, Any]:
    return {"flops": {"train_forward": train_step, "train_backward": 0, "train_step": train_step, "eval_sample": 5}}


def printed(shown: list[Costs], *, width: int = 100, terminal: bool = False, scale: str = "paper") -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    print_costs(console, "Table 1", scale, "predicted for an ampere GPU", shown)
    return out.getvalue()


def row(text: str, grid: str, label: str) -> list[str]:
    """The values of a cell in one of the tables."""
    lines = text.partition(grid)[2].splitlines()
    return next(line for line in lines if line.startswith(label)).removeprefix(label).split()


def test_numbers_are_those_of_the_estimate(paper: Case) -> None:
    text = printed(costs(paper, make_estimate(5.3), make_estimate(26.5, **flops(8 * 10**12))))
    label = paper.cells[0].label
    assert row(text, "Parameters", label) == ["25.000", "0.500", "0.500", "2.00", "2.000", "3.000", "0.25"]
    assert row(text, "Peak GPU memory", label) == ["5.30", "5.55", "1.00", "1.25", "6.05"]
    assert row(text, "Kinds of memory", label) == ["1.325", "0.000", "0.000", "3.975", "0.000", "0.000", "5.300"]
    assert row(text, "Peak GPU memory", paper.cells[1].label)[0] == "26.50"
    assert "Measured" not in text
    assert "Fits" not in text
    assert "Largest" not in text
    assert "CUDA context (512 MiB)" in text
    assert text.startswith("Table 1\nScale: paper; predicted for an ampere GPU.\n")
    assert printed(costs(paper, make_estimate()), scale="demo").startswith("DEMO: Table 1\nScale: demo;")


def test_budget_and_largest_batch(paper: Case) -> None:
    shown = costs(paper, make_estimate(5.0), make_estimate(30.0), make_estimate(memory=None), budget_bytes=24 * GIB)
    text = printed(shown)
    assert "24 GiB" in text
    assert row(text, "Peak GPU memory", paper.cells[0].label)[-2:] == ["yes", "+18.25"]
    assert row(text, "Peak GPU memory", paper.cells[1].label)[-2:] == ["no", "−6.75"]
    assert row(text, "Peak GPU memory", paper.cells[2].label) == ["—"] * 7
    budgets = [one.as_json()["budget"] for one in shown]
    assert budgets[0] == {"bytes": 24 * GIB, "fits": True, "margin_bytes": 24 * GIB - 5 * GIB - GIB * 3 // 4}
    assert budgets[1]["fits"] is False
    assert budgets[2] == {"bytes": 24 * GIB, "fits": None, "margin_bytes": None}
    text = printed(costs(paper, make_estimate(max_batch=0), make_estimate(max_batch=1024), make_estimate()))
    assert [row(text, "Peak GPU memory", cell.label)[-1] for cell in paper.cells[:3]] == ["0", "1,024", "—"]


def test_measured_peaks_stand_beside_the_predicted(paper: Case) -> None:
    phase = PhaseMemory(allocated_peak_bytes=5 * GIB, reserved_peak_bytes=6 * GIB)
    memory = Memory(train=phase, nvml_process_peak_bytes=7 * GIB)
    record = make_record(paper.cells[0], memory=memory)
    shown = costs(paper, make_estimate(5.5), make_estimate(5.5), records={record.cell_id: record})
    text = printed(shown)
    assert row(text, "Measured", paper.cells[0].label) == ["5.00", "+10.0", "6.00", "−4.2", "7.00", "−10.7"]
    assert paper.cells[1].label not in text.partition("Measured")[2]
    first, second = (one.as_json() for one in shown)
    assert first["measured"] == {
        "train_allocated_peak_bytes": 5 * GIB,
        "train_reserved_peak_bytes": 6 * GIB,
        "nvml_process_peak_bytes": 7 * GIB,
    }
    assert first["relative_error"]["train_allocated_peak_bytes"] == pytest.approx(0.1)
    assert first["relative_error"].keys() == first["measured"].keys()
    assert (second["measured"], second["relative_error"]) == (None, None)
    for changes in ({"status": Status.OOM}, {"memory": Memory()}):
        unfinished = record.model_copy(update=changes)
        [one] = costs(paper, make_estimate(), records={record.cell_id: unfinished})
        assert one.as_json()["measured"] is None


def test_relative_times_are_of_the_costliest_shown(paper: Case) -> None:
    shown = costs(paper, make_estimate(**flops(3)), make_estimate(**flops(4)), make_estimate(**flops(None)))
    assert [one.relative_train_time for one in shown] == [0.75, 1.0, None]
    assert costs(paper, make_estimate(flops=None))[0].relative_train_time is None


def test_small_models_are_told_in_smaller_units(paper: Case) -> None:
    small = [make_estimate(gib, **flops(5 * 10**9)) for gib in (0.25, 0.125)]
    memories = [one.memory for one in small if one.memory]
    small = [
        one.model_copy(update={"memory": memory.model_copy(update={"eval": memories[0].train})})
        for one, memory in zip(small, memories, strict=True)
    ]
    text = printed(costs(paper, *small, budget_bytes=GIB))
    assert "(GFLOPs)" in text.partition("Peak")[0]
    assert "Peak GPU memory (MiB)" in text
    assert row(text, "Peak", paper.cells[1].label) == ["128.0", "384.0", "256.0", "512.0", "1,024.0", "yes", "0.0"]
    assert row(text, "Kinds of memory", paper.cells[0].label)[-1] == "256.00"


def test_a_cell_that_trains_nothing_has_dashes(paper: Case) -> None:
    memory = make_estimate().memory
    assert memory is not None
    nothing = make_estimate(memory=memory.model_copy(update={"train": None}), adapter_bytes=None, **flops(None))
    text = printed(costs(paper, nothing))
    label = paper.cells[0].label
    assert row(text, "Peak GPU memory", label) == ["—", "—", "1.00", "1.25", "1.75"]
    assert row(text, "Kinds of memory", label) == ["—"] * 7
    assert row(text, "Parameters", label)[-4:] == ["—", "—", "0.000", "—"]


def test_assumptions_are_told_once_if_equal_and_refusals_by_name(paper: Case) -> None:
    assumed = {"batch_size": 20, "lengths_from": "annotations", "batches": [[24, 35]]}
    text = printed(
        costs(
            paper,
            make_estimate(assumed=assumed | {"precision": "fp32"}),
            make_estimate(assumed=assumed | {"precision": "bf16"}),
            make_estimate(assumed=assumed | {"precision": "bf16"}, memory=None, refused=["8-bit [bold]state[/]"]),
            Estimate(refused=["the process that estimated it ended"]),
        ),
        width=200,
    )
    one, two, three, four = (cell.label for cell in paper.cells[:4])
    assert f"precision fp32 ({one}) / bf16 ({two}, {three})" in text
    assert text.count("batch size 20") == text.count("lengths from annotations") == 1
    assert "batches [[24, 35]]" in text
    assert f"Not modelled ({three}): 8-bit [bold]state[/]" in text
    assert f"Not modelled ({four}): the process that estimated it ended" in text
    text = printed(costs(paper, make_estimate(assumed={"a": 1, "source": "x" * 80, "b": 2})), width=120)
    assert "Assumed: a 1; b 2." in text
    assert f"\nAssumed: source {'x' * 80}." in text, "a long one has a line of its own"


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_cut_off_at_any_width(paper: Case, width: int, terminal: bool) -> None:
    record = make_record(paper.cells[3])
    estimates = [make_estimate(float(gib), max_batch=7) for gib in range(10)]
    text = printed(
        costs(paper, *estimates, records={record.cell_id: record}, budget_bytes=24 * GIB),
        width=width,
        terminal=terminal,
    )
    assert "…" not in text
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= max(width, 0 if terminal else 120)
    for cell in paper.cells:
        assert cell.label in text
    for value in ("5.75", "6.25", "+17.25"):
        assert value in text
    if not terminal or width >= 120:
        values = row(text, "Peak GPU memory", paper.cells[5].label)
        assert values == ["5.00", "5.25", "1.00", "1.25", "5.75", "yes", "+18.25", "7"]


def test_json_is_whole(paper: Case) -> None:
    [one] = costs(paper, make_estimate(max_batch=3))
    shown = json.loads(json.dumps(one.as_json(), allow_nan=False))
    assert list(shown) == [
        "cell_id", "label", "labels", "parts", "seed", "estimate", "budget", "measured", "relative_error",
        "relative_train_time",
    ]  # fmt: skip
    assert Estimate.model_validate(shown["estimate"]) == one.estimate
    assert (shown["budget"], shown["relative_train_time"]) == (None, 1.0)
