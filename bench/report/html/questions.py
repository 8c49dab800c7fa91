"""What every cell answered to each test example, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from bench.files import not_regular
from bench.format import visible
from bench.records.record import CellRecord
from bench.records.scores import Score

MOST_ANSWERS = 60_000
"""Answers on a page, over all cells and examples."""
LONGEST = 600
"""Characters shown of a text."""
_KNOWN = ("question_id", "image", "question", "text_pair", "answer", "prediction", "correct", "answer_type")


@dataclass(kw_only=True, slots=True)
class Question:
    """One test example."""

    question_id: str
    image: str | None
    question: str
    answer: str
    answer_type: str | None
    record: CellRecord
    """The first that holds it."""
    given: dict[int, int] = field(default_factory=dict)
    """Place of the cell -> place in ``answers``."""
    answers: dict[tuple[str, bool, str], int] = field(default_factory=dict)
    """(text, whether right, further scores) -> its place."""


@dataclass(kw_only=True, slots=True)
class Questions:
    """The examples shown."""

    shown: list[Question]
    total: int
    """The most examples that any cell answered."""
    problems: list[str]
    """Files of predictions that are not there or cannot be read."""

    def as_json(self) -> list[dict[str, Any]]:
        """Texts cut and cleaned; the cells of an answer by their places."""
        return [_as_json(question) for question in self.shown]


def read(records: Sequence[CellRecord | None], folder: Path | None) -> Questions:
    """Of the records' files of predictions, in their order; the first examples only where there are many cells."""
    named = {i: record for i, record in enumerate(records) if folder and record and record.predictions}
    most = max(1, MOST_ANSWERS // max(1, len(named)))
    found: dict[tuple[str | None, str], Question] = {}
    problems, total = [], 0
    for place, record in named.items():
        path = file_of(record, folder)
        total = max(total, *(score.n for score in _scores(record)), 0)
        try:
            if path is None:
                raise ValueError("not below the results folder")  # noqa: TRY301 - told like any other problem
            if kind := not_regular(path):
                raise ValueError(kind)  # noqa: TRY301 - likewise
            with path.open(encoding="utf-8", errors="replace") as lines:
                for line in islice(lines, most):
                    _add(found, place, record, json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            problems.append(
                f"{visible(record.predictions, LONGEST)} of cell {record.cell_id}: {type(problem).__name__}"
            )
    shown = list(islice(found.values(), most))
    return Questions(shown=shown, total=max(total, len(shown)), problems=problems)


def file_of(record: CellRecord, folder: Path | None) -> Path | None:
    """The record's file of predictions, whether it is there or not; null for a place outside ``folder``."""
    if folder is None or record.predictions is None:
        return None
    inside = PurePosixPath(record.predictions)
    return None if inside.is_absolute() or ".." in inside.parts else folder / inside


def _scores(record: CellRecord) -> Iterable[Score]:
    return (record.scores or (record.accuracy.scores() if record.accuracy else {})).values()


def _add(found: dict[tuple[str | None, str], Question], place: int, record: CellRecord, line: dict[str, Any]) -> None:
    key = (record.data_digest, str(line["question_id"]))
    question = found.get(key)
    if question is None:
        question = found[key] = Question(
            question_id=key[1],
            image=line.get("image"),
            question="\n".join(text for name in ("question", "text_pair") if (text := line.get(name))),
            answer=line["answer"],
            answer_type=line.get("answer_type"),
            record=record,
        )
    further = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in _further(line))
    answer = (str(line["prediction"]), bool(line["correct"]), further)
    question.given[place] = question.answers.setdefault(answer, len(question.answers))


def _further(line: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in line.items():
        if name not in _KNOWN and isinstance(value, int | float | str):
            yield name, f"{value:.4g}" if isinstance(value, float) else value


def _as_json(question: Question) -> dict[str, Any]:
    cells: list[list[int]] = [[] for _ in question.answers]
    for place, answer in question.given.items():
        cells[answer].append(place)
    answers = [
        [visible(text, LONGEST), int(right), cells[i], *([visible(further, LONGEST)] if further else [])]
        for i, (text, right, further) in enumerate(question.answers)
    ]
    return {
        "id": visible(question.question_id, LONGEST),
        "q": visible(question.question, LONGEST),
        "a": visible(question.answer, LONGEST),
        "t": visible(question.answer_type or "", 40),
        "p": answers,
    }
