"""Checks the demo of Table 1 by its records: ten cells, the paper's order, more than a language baseline."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from bench.records.store import ResultsFile

MARGIN_POINTS = 10.0
NEAR_POINTS = 15.0


def main() -> int:
    records = list(ResultsFile(Path("results/table1/demo.jsonl")).read().values())
    failures = [f"{r.label}: {r.status}" for r in records if r.status != "ok"]
    if len(records) != 10:
        failures.append(f"{len(records)} records, not 10")
    score = {r.label: 100 * r.accuracy.overall.correct / r.accuracy.overall.n for r in records if r.accuracy}
    baseline = {
        100 * b.overall.correct / b.overall.n
        for r in records
        if r.accuracy
        for b in [r.accuracy.baselines["question_only"]]
    }
    if len(baseline) != 1:
        failures.append(f"the question-only baseline differs between cells: {sorted(baseline)}")
    question_only = max(baseline, default=0.0)
    best = max(score.values(), default=0.0)
    frozen = [value for label, value in score.items() if label.startswith("F-LoRA-LoRA")]
    if best < question_only + MARGIN_POINTS:
        failures.append(f"best global {best:.2f} is not {MARGIN_POINTS} points above question-only {question_only:.2f}")
    if any(abs(value - question_only) > NEAR_POINTS for value in frozen):
        failures.append(f"F-LoRA-LoRA {frozen} is not within {NEAR_POINTS} points of question-only {question_only:.2f}")
    times = [datetime.fromisoformat(t) for r in records for t in (r.started_at, r.finished_at) if t]
    took_s = (max(times) - min(times)).total_seconds() if times else 0.0
    sys.stdout.write(f"demo: {took_s:.0f} s, best global {best:.2f}, question-only {question_only:.2f}\n")
    sys.stderr.writelines(f"demo check: {failure}\n" for failure in failures)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
