"""How large a change must be to count: the tolerances of ``--tolerance NAME=VALUE``, and what else decides it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import metrics
from bench.errors import SpecError
from bench.metrics import Metric
from bench.spec.diagnostics import quoted


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest change that counts as noise."""

    size: float
    relative: bool
    """Whether ``size`` is a share of the value, else in the metric's unit."""

    def of(self, value: float) -> float:
        """In the metric's unit."""
        return abs(value) * self.size if self.relative else self.size

    def text(self, metric: Metric) -> str:
        """``5 % of the value`` or ``0.5 points``."""
        if self.relative:
            return f"{100 * self.size:g} % of the value"
        unit = "points" if metric.unit == "%" else metric.unit
        return f"{self.size:g} {unit}".strip()


EXACT = Tolerance(0.0, relative=False)
MEASURED = Tolerance(0.05, relative=True)
"""The same run repeated on an otherwise idle machine is well within it."""
OF_METRICS = {
    "memory": Tolerance(0.01, relative=True),  # the allocator's peaks repeat, but for the choice of kernels
    "memory_eval": Tolerance(0.01, relative=True),
    "memory_reserved": Tolerance(0.02, relative=True),
    "memory_host": Tolerance(0.1, relative=True),
    "energy": Tolerance(0.1, relative=True),
}
_TOLERANCE = re.compile(r"([a-z0-9_]+)=([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e-?[0-9]{1,2})?)(%?)", re.ASCII | re.IGNORECASE)


def default(metric: Metric) -> Tolerance:
    """Zero for what the pattern alone decides, and for scores, whose noise a test judges."""
    if not metric.rankable or metric.score is not None:
        return EXACT
    return OF_METRICS.get(metric.name, MEASURED)


def parse(texts: Sequence[str]) -> Mapping[str, Tolerance]:
    """``step_time=10%`` (of the value), ``global=1.5`` (in the metric's unit). Raises SpecError."""
    found = {}
    for text in texts:
        match = _TOLERANCE.fullmatch(text.strip())
        if match is None:
            raise SpecError(
                f"--tolerance {quoted(text)}: write a metric, '=' and a number, with % a share of the value, without "
                "it in the metric's unit:  --tolerance step_time=10%, --tolerance global=1.5"
            )
        name, number, percent = match.groups()
        metrics.get(name)  # raises SpecError for an unknown one
        found[name] = Tolerance(float(number) / (100 if percent else 1), relative=bool(percent))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """What counts as a change."""

    alpha: float = 0.05
    """A score changed if its corrected p is below."""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    """Empty: ``bench.analysis.compare.COSTS`` and the scores of the records' task."""

    def tolerance(self, metric: Metric) -> Tolerance:
        """The user's, else the default."""
        return self.tolerances.get(metric.name, default(metric))
