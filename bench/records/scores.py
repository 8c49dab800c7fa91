"""Scores of a cell: of every task, and in the older form of the tasks with open and closed questions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic import ConfigDict, Field, model_validator

from bench.records.fields import Count, Finite, RecordModel


class Score(RecordModel):
    """A score as its task defines it: a share or a mean from 0 to 1, a correlation from -1 to 1."""

    value: Finite | None
    """Null where there was nothing to score."""
    n: Count
    """Examples it was taken over."""
    correct: Count | None = None
    """Numerator of a share; null for a score that is no share, such as F1."""

    @model_validator(mode="after")
    def _within(self) -> Score:
        _check_correct(self.correct, self.n)
        return self

    @classmethod
    def share(cls, correct: int, n: int) -> Score:
        """``correct`` of ``n``."""
        return cls(value=correct / n if n else None, n=n, correct=correct)


class Share(RecordModel):
    """A share with its numerator and denominator."""

    correct: Count
    n: Count

    @model_validator(mode="after")
    def _within(self) -> Share:
        _check_correct(self.correct, self.n)
        return self


def _check_correct(correct: int | None, n: int) -> None:
    if correct is not None and correct > n:
        raise ValueError("more are correct than there are")


class Baseline(RecordModel):
    """Accuracy of an answer that ignores the input, on the same questions."""

    open: Share
    closed: Share
    overall: Share = Field(alias="global", serialization_alias="global")
    """open + closed, numerators and denominators added."""
    model_config = ConfigDict(populate_by_name=True)

    def scores(self) -> dict[str, Score]:
        """Metric -> score."""
        shares = {"open": self.open, "closed": self.closed, "global": self.overall}
        return {name: _as_score(share.correct, share.n) for name, share in shares.items()}


class Accuracy(Baseline):
    """Exact-match accuracy after normalisation."""

    baselines: dict[str, Baseline] = {}
    """``always_yes``, ``always_no``, ``question_only`` on the same questions."""

    @classmethod
    def of(cls, scores: Mapping[str, Score], baselines: Mapping[str, Mapping[str, Score]]) -> Accuracy | None:
        """The scores of a task with open and closed questions; null for any other task."""
        shares = _shares(scores)
        if shares is None:
            return None
        others = {name: found for name, each in baselines.items() if (found := _shares(each)) is not None}
        return cls(**shares, baselines={name: Baseline(**found) for name, found in others.items()})

    def baseline_scores(self) -> dict[str, dict[str, Score]]:
        """Baseline -> metric -> score."""
        return {name: baseline.scores() for name, baseline in self.baselines.items()}


def _shares(scores: Mapping[str, Score]) -> dict[str, Share] | None:
    shares = {
        name: Share(correct=s.correct, n=s.n)
        for name in ("open", "closed", "global")
        if (s := scores.get(name)) is not None and s.correct is not None
    }
    return shares if len(shares) == 3 else None


# The baselines of all cells of a data set are the same few, and a report asks for them again and again.
@lru_cache(maxsize=1024)
def _as_score(correct: int, n: int) -> Score:
    return Score.share(correct, n)
