"""From records as they were published to examples; errors name source, record and ``qid``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import DataError
from bench.plugins.contracts import AnswerType, Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One published record, and where it stands."""

    source: str
    """File, or id on the Hub and split."""
    index: int
    """Position in the source, from 0."""
    fields: Mapping[str, Any]

    def error(self, problem: str) -> DataError:
        """The error to raise about this record."""
        return DataError(f"{self.source}: record {self.index} (qid {self.fields.get('qid')!r}): {problem}")

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """A field as text, white space collapsed (VQA-RAD has tabs and integers among its answers)."""
        text = self._text(name, self.fields.get(name))
        if not text and not may_be_empty:
            raise self.error(f"field {name!r} is empty")
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts, at least one."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not value:
            raise self.error(f"field {name!r} must be a list of texts, found {value!r:.80}")
        return tuple(self._text(name, item) for item in value)

    def answer_type(self) -> AnswerType:
        """``OPEN`` or ``CLOSED``, in any case and with spaces around (VQA-RAD has ``"CLOSED "``)."""
        match self.text("answer_type").upper():
            case "OPEN":
                return "open"
            case "CLOSED":
                return "closed"
            case other:
                raise self.error(f"answer_type must be OPEN or CLOSED, found {other!r:.80}")

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            known = ", ".join(map(str, self.fields))
            raise self.error(f"field {name!r} must be text, found {value!r:.80} (fields of the record: {known:.200})")
        return " ".join(str(value).split())


def records_of(source: str, rows: Iterable[Any]) -> list[Record]:
    """Raises DataError for a row that is not a mapping."""
    records = []
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{source}: record {index}: must be an object, found {row!r:.80}")
        records.append(Record(source=source, index=index, fields=row))
    return records


def unique(source: str, examples: Sequence[Example]) -> Sequence[Example]:
    """The same examples. Raises DataError if two have one ``question_id``."""
    seen: set[str] = set()
    for example in examples:
        if example.question_id in seen:
            raise DataError(f"{source}: qid {example.question_id} occurs more than once")
        seen.add(example.question_id)
    return examples


def split_by_image(examples: Iterable[Example]) -> dict[str, Sequence[Example]]:
    """``train`` and ``test`` without a common image: an image is for testing if the SHA-256 of its name is 0 modulo 5.

    That is about a fifth of the images; it depends on nothing but the name, so it stays when files are added.
    """
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for example in examples:
        number = int.from_bytes(hashlib.sha256(example.image_name.encode()).digest())
        splits["test" if number % 5 == 0 else "train"].append(example)
    return dict(splits)


def question_key(image: str, question: str) -> tuple[str, str]:
    """What makes two questions the same: the image, and the question without case, white space and question mark."""
    return image, " ".join(question.lower().split()).rstrip("?. ")
