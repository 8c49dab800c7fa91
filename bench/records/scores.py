"""Scores of a cell, and the older form for tasks with open and closed questions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic import ConfigDict, Field, model_validator

from bench.records.fields import Count, Finite, RecordModel


class Score(RecordModel):
    """A score as its task defines it: a share or a mean from 0 to 1, a correlation from -1 to 1."""

    value: Finite | None
    """Null if there was nothing to score."""
    n: Count
    """Number of examples."""
    correct: Count | None = None
    """Numerator of a share; null for a score that is not a share, such as F1."""

    @model_validator(mode="after")
    def _within(self) -> Score:
        _check_correct(self.correct, self.n)
        return self

    @classmethod
    def share(cls, correct: int, n: int) -> Score:
        """Score of ``correct`` answers out of ``n``."""
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
        raise ValueError("correct is greater than n")


class Baseline(RecordModel):
    """Accuracy of input-blind answers to the same questions."""

    open: Share
    closed: Share
    overall: Share = Field(alias="global", serialization_alias="global")
    """open + closed, numerators and denominators added."""
    model_config = ConfigDict(populate_by_name=True)

    def scores(self) -> dict[str, Score]:
        """Metric -> score."""
        shares = {"open": self.open, "closed": self.closed, "global": self.overall}
        return {name: _cached_share(share.correct, share.n) for name, share in shares.items()}


class Accuracy(Baseline):
    """Exact-match accuracy after normalisation."""

    baselines: dict[str, Baseline] = {}
    """``always_yes``, ``always_no``, ``question_only`` on the same questions."""

    @classmethod
    def of(cls, scores: Mapping[str, Score], baselines: Mapping[str, Mapping[str, Score]]) -> Accuracy | None:
        """Accuracy of a task with open and closed questions; None for any other task."""
        shares = _shares(scores)
        if shares is None:
            return None
        others = {name: _shares(each) for name, each in baselines.items()}
        return cls(**shares, baselines={name: Baseline(**own) for name, own in others.items() if own is not None})

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


# The cells of a data set share a few baselines, for which a report asks again and again.
_cached_share = lru_cache(maxsize=1024)(Score.share)
