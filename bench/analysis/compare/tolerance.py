"""How large a change must be to mean something: the tolerances of ``--tolerance NAME=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import metrics
from bench.errors import SpecError
from bench.metrics import Metric
from bench.spec.diagnostics import quoted

_WRITTEN = re.compile(r"([a-z0-9_]+)=([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e-?[0-9]{1,2})?)(%?)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Up to this much a change is noise."""

    size: float
    relative: bool
    """Whether ``size`` is a share of the value, else in the metric's unit."""

    def of(self, value: float) -> float:
        """In the metric's unit."""
        return abs(value) * self.size if self.relative else self.size

    def text(self, metric: Metric) -> str:
        """``5 %`` or ``0.5 points``."""
        if self.relative:
            return f"{100 * self.size:g} % of the value"
        unit = "points" if metric.unit == "%" else metric.unit
        return f"{self.size:g} {unit}".strip()


EXACT = Tolerance(0.0, relative=False)
MEASURED = Tolerance(0.05, relative=True)
"""Of what a machine measures: the same run twice on a machine that nobody else uses is well within it."""
OF_METRICS = {
    "memory": Tolerance(0.01, relative=True),  # the allocator's peaks repeat, but for the choice of kernels
    "memory_eval": Tolerance(0.01, relative=True),
    "memory_reserved": Tolerance(0.02, relative=True),
    "memory_host": Tolerance(0.1, relative=True),
    "energy": Tolerance(0.1, relative=True),
}


def default(metric: Metric) -> Tolerance:
    """None for what the pattern alone decides, and for scores, whose noise a test speaks of."""
    if is_exact(metric) or metric.score is not None:
        return EXACT
    return OF_METRICS.get(metric.name, MEASURED)


def is_exact(metric: Metric) -> bool:
    """Whether the pattern alone decides it: parameters, adapter size, FLOPs."""
    return not metric.rankable


def parse(texts: Sequence[str]) -> Mapping[str, Tolerance]:
    """``step_time=10%`` (of the value), ``global=1.5`` (in the metric's unit). Raises SpecError."""
    found = {}
    for text in texts:
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise SpecError(
                f"--tolerance {quoted(text)}: write a metric, '=' and a number, with % a share of the value, without "
                "it in the metric's unit:  --tolerance step_time=10%, --tolerance global=1.5"
            )
        name, number, percent = match.groups()
        metrics.get(name)
        found[name] = Tolerance(float(number) / (100 if percent else 1), relative=bool(percent))
    return found
