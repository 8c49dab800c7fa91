"""The page about the comparison with a real GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.estimate.validation.gpu import ALLOCATED_LIMIT, PHASES, RESERVED_LIMIT
from bench.estimate.validation.output import gib, made_with, mib, percent, table

_TEXT = """# Predicted memory against a real GPU

`python -m bench.estimate.validation gpu`. {made_with}

The 23 cells of the MILE paper's Tables 1 to 4 at their batch size, random weights, generated inputs; training and
evaluation each from an emptied cache and with reset peaks, a process for every cell. Predicted for the {generation}
generation.

**Result: {verdict}.** Limits, for each phase: allocated {allocated}, reserved {reserved}.

{table}
GiB, predicted / measured.

{context}
"""


def page(rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """``gpu.md``."""
    verdicts = [value for row in rows for value in _verdicts(row)]
    ended = [row["measured"]["status"] for row in rows]
    others = {status: ended.count(status) for status in sorted(set(ended) - {"ok"})}
    rest = "".join(f"; {count} cells ended {status} and are not compared" for status, count in others.items())
    return _TEXT.format(
        made_with=made_with(environment),
        generation=rows[0]["estimate"]["assumed"]["gpu"],
        verdict=f"{sum(verdicts)} of {len(verdicts)} peaks hold{rest}",
        allocated=f"{100 * ALLOCATED_LIMIT:g} %",
        reserved=f"{100 * RESERVED_LIMIT:g} %",
        table=_table(rows),
        context=_context(rows),
    )


def holds(row: Mapping[str, Any]) -> bool:
    """Whether the cell ended as a cell may, and all of its peaks are within their limits."""
    return row["measured"]["status"] in ("ok", "oom") and all(_verdicts(row))


def _verdicts(row: Mapping[str, Any]) -> Iterator[bool]:
    return (value for phase in row["phases"].values() for name, value in phase.items() if name.endswith("_holds"))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = [(phase, kind) for phase in PHASES for kind in ("allocated", "reserved")]
    headers = ["row", *(f"{phase} {kind}" for phase, kind in kinds), "process by NVML", "ended"]
    lines = []
    for row in rows:
        cells = [_pair(row, phase, kind) for phase, kind in kinds]
        peak = row["measured"].get("nvml_process_peak_bytes")
        name = f"{row['spec']}: {row['label']}"
        lines.append([name, *cells, gib(peak) if peak else "–", row["measured"]["status"]])
    return table(headers, lines)


def _pair(row: Mapping[str, Any], phase: str, kind: str) -> str:
    predicted = row["estimate"]["memory"][phase][f"{kind}_peak_bytes"]
    errors = row["phases"].get(phase, {})
    if f"{kind}_error" not in errors:
        return f"{gib(predicted)} / –"
    measured = row["measured"]["phases"][phase][f"{kind}_peak_bytes"]
    mark = "" if errors[f"{kind}_holds"] else " **!**"
    return f"{gib(predicted)} / {gib(measured)} ({percent(errors[f'{kind}_error'])}){mark}"


def _context(rows: Sequence[Mapping[str, Any]]) -> str:
    measured = [row["measured"].get("context_bytes") for row in rows]
    known = sorted(value for value in measured if value is not None)
    assumed = mib(rows[0]["estimate"]["memory"]["context_bytes"])
    if not known:
        return f"CUDA context: {assumed} MiB assumed; NVML does not know this process (in a container it may not)."
    return (
        "CUDA context, after the first step what the process takes by NVML beside what torch reserved: "
        f"{mib(known[0])} to {mib(known[-1])} MiB; assumed are {assumed}."
    )
