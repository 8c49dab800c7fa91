"""What every cell answered to each test example, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bench.analysis.predictions import prediction_lines
from bench.format import visible
from bench.records.record import CellRecord

MAX_ANSWERS = 60_000
"""Answers on a page, over all cells and examples."""
TEXT_LENGTH = 600
"""Characters shown of a text."""
_KNOWN = ("question_id", "image", "question", "text_pair", "answer", "prediction", "correct", "answer_type")
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


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

    def as_json(self) -> dict[str, Any]:
        """Texts cut and cleaned; the cells of an answer by their places."""
        cells: list[list[int]] = [[] for _ in self.answers]
        for place, answer in self.given.items():
            cells[answer].append(place)
        answers = [
            [visible(text, TEXT_LENGTH), int(right), cells[i], *([visible(more, TEXT_LENGTH)] if more else [])]
            for i, (text, right, more) in enumerate(self.answers)
        ]
        return {
            "id": visible(self.question_id, TEXT_LENGTH),
            "q": visible(self.question, TEXT_LENGTH),
            "a": visible(self.answer, TEXT_LENGTH),
            "t": visible(self.answer_type or "", 40),
            "p": answers,
        }


@dataclass(kw_only=True, slots=True)
class Questions:
    """The examples shown."""

    shown: list[Question]
    total: int
    """The most examples that any cell answered."""
    problems: list[str]
    """Files of predictions that are missing or cannot be read."""

    def as_json(self) -> list[dict[str, Any]]:
        return [question.as_json() for question in self.shown]


def read(records: Sequence[CellRecord | None], folder: Path | None) -> Questions:
    """From the records' files of predictions, in their order; the first examples only where there are many cells."""
    named = {i: record for i, record in enumerate(records) if folder and record and record.predictions}
    most = max(1, MAX_ANSWERS // max(1, len(named)))
    questions: dict[tuple[str | None, str], Question] = {}
    problems, total = [], 0
    for place, record in named.items():
        scores = record.scores or (record.accuracy.scores() if record.accuracy else {})
        total = max(total, *(score.n for score in scores.values()), 0)
        try:
            for line in prediction_lines(record, folder)[:most]:
                _add(questions, place, record, json.loads(line.decode(errors="replace")))
        except _DAMAGED as problem:
            name = visible(record.predictions, TEXT_LENGTH)
            problems.append(f"{name} of cell {record.cell_id}: {type(problem).__name__}")
    shown = list(islice(questions.values(), most))
    return Questions(shown=shown, total=max(total, len(shown)), problems=problems)


def _add(
    questions: dict[tuple[str | None, str], Question], place: int, record: CellRecord, line: dict[str, Any]
) -> None:
    key = (record.data_digest, str(line["question_id"]))
    if key not in questions:
        questions[key] = Question(
            question_id=key[1],
            image=line.get("image"),
            question="\n".join(text for name in ("question", "text_pair") if (text := line.get(name))),
            answer=line["answer"],
            answer_type=line.get("answer_type"),
            record=record,
        )
    more = [
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in line.items()
        if name not in _KNOWN and isinstance(value, int | float | str)
    ]
    question, answer = questions[key], (str(line["prediction"]), bool(line["correct"]), ", ".join(more))
    question.given[place] = question.answers.setdefault(answer, len(question.answers))
