"""Examples from the columns of a table."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from bench.datasets.common.dataset import Notes, note_classes
from bench.datasets.common.rows import MissingValueError, SourceRow, column_names, delimiter_in, unique
from bench.errors import DataError
from bench.plugins import DataSettings, Example, Settings
from bench.registry import did_you_mean


class Columns(Settings):
    """Which column holds what. A dot leads into a nested value: ``answers.text``, ``conversations.0.value``,
    ``messages.-1.content`` (items of a list are counted from 0, or from the end by -1, -2, ...)."""

    text: str | None = None
    """Text to classify, question or prompt; or a template over several columns: ``"{premise} [SEP] {hypothesis}"``. A
    column of lists is a pool of texts, of which one is drawn at each visit. Null: no text."""
    text_pair: str | None = None
    """Second text of a pair, such as a hypothesis, or a template like ``text``. A tokenizer of the weights puts what it
    puts between two texts."""
    image: str | None = None
    """Image; in a file, its path below ``image_root``. Null: no image."""
    label: str | None = None
    """Class. Either this or ``answer``."""
    answer: str | None = None
    """Answer in words; of a column of lists, the first of each."""
    answer_type: str | None = None
    """``open`` or ``closed``, of a question about an image."""
    id: str | None = None
    """Unique name of the row within its split; without it, its number."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if self.text is None and self.image is None:
            raise ValueError("names no input; add the column of the text or the image, e.g. `text: sentence`")
        if (self.label is None) == (self.answer is None):
            raise ValueError("must name either a label (a class) or an answer (a text), e.g. `label: sentiment`")
        if self.text is None and self.text_pair is not None:
            raise ValueError("names a second text without a first; add `text`")
        for template in (self.text, self.text_pair):
            if template is not None:
                columns_in(template)
        return self

    def used(self, known: Sequence[str]) -> list[tuple[str, str]]:
        """Fields set here and the column that each names, of a template every one; ``known``: columns of the table."""
        used = []
        for field, value in self:
            is_template = field in ("text", "text_pair") and value not in known
            used += [(field, name) for name in (columns_in(value) if is_template and value else (value,)) if name]
        return used


class ColumnSettings(DataSettings):
    """Settings of data sets of rows."""

    columns: Columns
    label_names: list[str] | dict[str, str] | None = None
    """Names of classes that the data give as numbers 0, 1, ...; or value in the data -> name. Null: as in the data."""
    missing: Literal["error", "drop", "blank"] = "error"
    """What becomes of a row without text, image, label or answer: an error; left out (``drop``); or, where nothing but
    a text is missing, kept with an empty text there (``blank``)."""


def columns_in(template: str) -> tuple[str, ...]:
    """Columns of a template; the name of a column is a template of itself. Raises ValueError if it is malformed."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template {template!r} is malformed: {error}; write a literal brace twice") from error
    columns = [column for _, column, _, _ in parts if column is not None]
    if not all(columns) or any(options or conversion for _, _, options, conversion in parts):
        raise ValueError(f"the template {template!r} may hold nothing but names of columns in braces")
    if "{" in template and not columns:
        raise ValueError(f"the template {template!r} names no column in its braces")
    return tuple(columns) or (template,)


class Mapper:
    """Makes examples from the rows of a data set."""

    def __init__(self, settings: ColumnSettings, notes: Notes) -> None:
        self._settings = settings
        self._columns = settings.columns
        self._notes = notes
        self._numbers: set[int] = set()
        """Classes, in all splits, that ``label_names`` gave a name."""

    def check(self, source: str, known: Sequence[str]) -> None:
        """Raise DataError for a column that the table does not have."""
        for field, name in self._columns.used(known):
            if name not in known and name.partition(".")[0] not in known:
                remedy = self._other_delimiter(name, known) or f"correct data.columns.{field}"
                raise DataError(f"{source}: there is no column {name!r}{did_you_mean(name, list(known))}; {remedy}")

    def _other_delimiter(self, name: str, known: Sequence[str]) -> str:
        """Remedy if several columns were read as one; else empty."""
        for column in known:
            if (delimiter := delimiter_in(column)) and name in column_names(column, delimiter):
                where = "" if "delimiter" in type(self._settings).model_fields else " of `data.name: table`"
                return f"the columns stand between {delimiter!r}: set `data.delimiter: {delimiter!r}`{where}"
        return ""

    def examples(
        self,
        source: str,
        rows: Iterable[SourceRow],
        *,
        image: Callable[[SourceRow, Any], str],
        class_names: Sequence[str] | None = None,
    ) -> list[Example]:
        """Examples in the order of the rows.

        ``image``: function from a row and its value to ``Example.image``; ``class_names``: names of the classes 0, 1,
        ... in the data. Raises DataError if two rows have the same id, or if no row is left.
        """
        dropped: list[str] = []

        def made() -> Iterable[tuple[SourceRow, Example]]:
            for row in rows:
                try:
                    yield row, self._example(row, image, class_names)
                except MissingValueError as error:
                    if self._settings.missing != "drop":
                        advice = "fill it, or leave such rows out with `data.missing: drop`"
                        raise DataError(f"{error}; {advice}") from None
                    dropped.append(error.place)

        examples = unique(made(), str(self._columns.id))
        if dropped:
            total = len(dropped) + len(examples)
            if not examples:
                nothing = f"data.missing: drop leaves none of {total:,} rows"
                raise DataError(f"{source}: {nothing}; {dropped[0]} is empty")
            problem = "rows were left out, as a value is missing (data.missing: drop)"
            self._notes.add(f"{len(dropped):,} of {total:,} {problem}", dropped[0])
        return examples

    def finish(self, source: str, splits: Mapping[str, Sequence[Example]]) -> None:
        """Note doubtful classes of all splits. Raises DataError if the data number classes from 1 and
        ``label_names`` from 0."""
        names, numbers = self._settings.label_names, self._numbers
        if isinstance(names, list) and numbers and min(numbers) > 0 and max(numbers) == len(names) - 1:
            raise DataError(
                f"{source}: column {self._columns.label!r}: the labels are {min(numbers)} to {max(numbers)} and never "
                f"0, but data.label_names names classes from 0 on: {names[0]!r:.80} would be the class of no row, and "
                f"{names[1]!r:.80} that of label 1; say which number has which name: "
                f"`label_names: {{'1': {names[0]}, ...}}`"
            )
        if self._columns.label is not None:
            note_classes(splits.values(), self._notes)

    def _example(
        self, row: SourceRow, image: Callable[[SourceRow, Any], str], class_names: Sequence[str] | None
    ) -> Example:
        columns = self._columns
        return Example(
            question_id=str(row.number) if columns.id is None else row.text(columns.id),
            image=None if columns.image is None else image(row, row.value(columns.image)),
            questions=() if columns.text is None else self._texts(row, columns.text),
            text_pair=None if columns.text_pair is None else self._second_text(row, columns.text_pair),
            answer=self._answer(row) if columns.label is None else self._label(row, columns.label, class_names),
            answer_type=None if columns.answer_type is None else row.answer_type(columns.answer_type),
        )

    def _texts(self, row: SourceRow, template: str) -> tuple[str, ...]:
        required = self._settings.missing != "blank"
        if template not in row.fields and "{" in template:
            parts = string.Formatter().parse(template)  # not str.format, which takes a dot for an attribute
            return ("".join(text + (row.text(name, required=required) if name else "") for text, name, _, _ in parts),)
        value = row.value(template, required=False)
        if not isinstance(value, list):
            return (row.text(template, required=required),)
        texts = tuple(row.as_text(f"{template}.{place}", item) for place, item in enumerate(value))
        if not texts or not all(texts):
            raise MissingValueError(row, template)
        return texts

    def _second_text(self, row: SourceRow, template: str) -> str:
        texts = self._texts(row, template)
        if len(texts) > 1:
            raise row.error(template, f"must be one text, found {len(texts)}; only `text` may be a pool")
        return texts[0]

    def _answer(self, row: SourceRow) -> str:
        name = str(self._columns.answer)
        value = row.value(name)
        text = row.as_text(name, next(iter(value), None) if isinstance(value, list) else value)
        if not text:
            raise MissingValueError(row, name)
        return text

    def _label(self, row: SourceRow, name: str, class_names: Sequence[str] | None) -> str:
        names = self._settings.label_names or class_names
        value = row.value(name)
        if isinstance(value, float) and value.is_integer():  # a column with missing values holds floats
            value = int(value)
        text = row.as_text(name, value)
        if not text or (class_names is not None and value == -1):  # -1: how the Hub writes that a row has no label
            raise MissingValueError(row, name)
        if names is None:
            return text
        if isinstance(names, Mapping):
            if text not in names:
                raise row.error(name, f"{text!r:.80} is not in data.label_names{did_you_mean(text, list(names))}")
            return names[text]
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(names)):
            expected = f"must be a number from 0 to {len(names) - 1}, as classes have names"
            raise row.error(name, f"{expected}, not {text!r:.80}")
        if self._settings.label_names:
            self._numbers.add(int(text))
        return names[int(text)]
