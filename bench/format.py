"""How values become text: the one place that formats."""

from __future__ import annotations

import unicodedata
from typing import Any

from bench.records.record import CellRecord, Status
from bench.units import gib

DASH = "—"
"""Not measured."""
MINUS = "−"
PREDICTED = "≈"
"""Mark of a value that an estimate predicts, where nothing was measured."""
FLAG = "†"
"""Mark of a published value that does not agree with its neighbours."""

_STATUS = {Status.OOM: "OOM"}
_UNIT_OF_STEP = {"eval": "batch"}


def plain(value: Any) -> str:
    """One line without control, format (zero-width, text direction) and lone surrogate characters."""
    text = " ".join(str(value).split())
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def number(value: float | None, digits: int) -> str:
    """``1,234.50``; an em dash for null; never ``-0.00``."""
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not float(text.replace(",", "")) else text.replace("-", MINUS)


def deviation(value: float | None, digits: int) -> str:
    """Like ``number``, with a sign unless it rounds to zero."""
    text = number(value, digits)
    signed = value is not None and value > 0 and float(text.replace(",", ""))
    return f"+{text}" if signed else text


def spread(mean: float | None, std: float | None, digits: int) -> str:
    """``12.3 ± 0.4``, or the mean alone where one seed says nothing about the spread."""
    text = number(mean, digits)
    return text if std is None else f"{text} ± {number(std, digits)}"


def predicted(value: str) -> str:
    """``≈ 0.21``."""
    return f"{PREDICTED} {value}"


def outcome(record: CellRecord | None) -> str:
    """``OOM (train, step 3)``, ``skipped (needs ≈ 26.31 GiB)``, ``not run``; empty for a cell that ended well."""
    if record is None:
        return "not run"
    if record.status is Status.OK:
        return ""
    word, error = _STATUS.get(record.status, record.status.value), record.error
    if record.status is Status.SKIPPED and record.estimate and record.estimate.memory:
        return f"{word} (needs {predicted(gib(record.estimate.memory.process_peak_bytes))} GiB)"
    if error is None:
        return word
    if record.status is Status.ERROR:
        word = f"{word}: {plain(error.type)}"
    where = [error.phase] if error.phase else []
    if error.step is not None:
        where.append(f"{_UNIT_OF_STEP.get(error.phase or '', 'step')} {error.step}")
    where += ["beside other processes"] if record.status.is_result and not record.is_final else []
    return f"{word} ({', '.join(where)})" if where else word


def counted(n: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def clipped(text: str, width: int) -> str:
    """At most ``width`` characters, the cut marked."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
