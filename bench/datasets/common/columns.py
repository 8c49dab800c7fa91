"""From the columns of any table to examples; errors name source, row and column."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import model_validator

from bench.datasets.common.notes import Notes
from bench.errors import DataError
from bench.plugins.contracts import AnswerType, Example
from bench.plugins.settings import DataSettings, Settings
from bench.registry import did_you_mean

Missing = Literal["error", "drop", "blank"]
_INDEX = re.compile(r"-?[0-9]{1,6}")


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
    def _enough(self) -> Columns:
        if self.text is None and self.image is None:
            raise ValueError("names no input; add the column of the text or the image, e.g. `text: sentence`")
        if (self.label is None) == (self.answer is None):
            raise ValueError("must name either a label (a class) or an answer (a text), e.g. `label: sentiment`")
        if self.text is None and self.text_pair is not None:
            raise ValueError("names a second text without a first; add `text`")
        for template in (self.text, self.text_pair):
            if template is not None:
                fields_of(template)
        return self


class ColumnSettings(DataSettings):
    """What data sets of rows have in common."""

    columns: Columns
    label_names: list[str] | dict[str, str] | None = None
    """Names of classes that the data give as numbers 0, 1, ...; or value in the data -> name. Null: as in the data."""
    missing: Missing = "error"
    """What becomes of a row without text, image, label or answer: an error; left out (``drop``); or, where nothing but
    a text is missing, kept with an empty text there (``blank``)."""


def fields_of(template: str) -> tuple[str, ...]:
    """Columns of a template; the name of a column is a template of itself. Raises ValueError if it is malformed."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template {template!r} is malformed: {error}; write a literal brace twice") from error
    found = []
    for _, column, options, conversion in parts:
        if column is None:
            continue
        if not column or options or conversion:
            raise ValueError(f"the template {template!r} may hold nothing but names of columns in braces")
        found.append(column)
    if "{" in template and not found:
        raise ValueError(f"the template {template!r} names no column in its braces")
    return tuple(found) or (template,)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    where: str
    """File and line, or source and number of the record, for errors."""
    fields: Mapping[str, Any]
    number: int
    """From 0."""

    def error(self, column: str, problem: str) -> DataError:
        """The error to raise about a value."""
        return DataError(f"{self.where}: column {column!r}: {problem}")


class Blank(Exception):  # noqa: N818 - caught here, whatever ``missing`` says
    """A value that a row lacks: name of its column, and what else there is."""

    def __init__(self, column: str, hint: str = "") -> None:
        super().__init__(column)
        self.column = column
        self.hint = hint


@dataclass(slots=True)
class UsedNames:
    """Which of ``label_names`` the rows of all splits have used, by place."""

    places: set[int] = field(default_factory=set)

    def check(self, settings: ColumnSettings, source: str) -> None:
        """Raise DataError if the numbers seem to count from 1 where the names are counted from 0."""
        names = settings.label_names
        if not isinstance(names, Sequence) or not self.places:
            return
        if min(self.places) > 0 and max(self.places) == len(names) - 1:
            raise DataError(
                f"{source}: column {settings.columns.label!r}: the labels are {min(self.places)} to {max(self.places)} "
                f"and never 0, but data.label_names names classes from 0 on: {names[0]!r:.80} would be the class of no "
                f"row, and {names[1]!r:.80} that of label 1; say which number has which name: "
                f"`label_names: {{'1': {names[0]}, ...}}`"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapper:
    """Makes examples of rows."""

    settings: ColumnSettings
    source: str
    """File, or id on the Hub and split."""
    image: Callable[[Row, Any], str]
    """Name for ``Example.image``, of a row and the value in its column. Raises DataError."""
    class_names: Sequence[str] | None = None
    """What the data themselves call the classes 0, 1, ..."""
    used: UsedNames = field(default_factory=UsedNames)
    """Shared by the splits of a data set."""
    notes: Notes = field(default_factory=Notes)

    def check(self, known: Iterable[str]) -> None:
        """Raise DataError for a column that the table does not have."""
        columns = list(known)
        for place, value in self.settings.columns:
            for name in names_in(place, value, columns):
                if name not in columns and name.partition(".")[0] not in columns:
                    remedy = self._delimiter(name, columns) or f"correct data.columns.{place}"
                    raise DataError(
                        f"{self.source}: there is no column {name!r}{did_you_mean(name, columns)}; {remedy}"
                    )

    def _delimiter(self, name: str, columns: Sequence[str]) -> str:
        """What to do if columns were read as one; empty if not."""
        for column in columns:
            if (delimiter := delimiter_in(column)) and name in column_names(column, delimiter):
                own = "" if "delimiter" in type(self.settings).model_fields else " of `data.name: table`"
                return f"the columns stand between {delimiter!r}: set `data.delimiter: {delimiter!r}`{own}"
        return ""

    def examples(self, rows: Iterable[Row]) -> list[Example]:
        """In the order of the rows. Raises DataError if two have one id, or rows are left out until none is left."""
        examples: list[Example] = []
        seen: dict[str, str] = {}
        dropped: list[str] = []
        for row in rows:
            try:
                example = self._example(row)
            except Blank as error:
                if self.settings.missing != "drop":
                    advice = "fill it, or leave such rows out with `data.missing: drop`"
                    raise row.error(error.column, f"is empty{error.hint}; {advice}") from None
                dropped.append(f"{row.where}, column {error.column!r}")
                continue
            if example.question_id in seen:
                name = str(self.settings.columns.id)
                raise row.error(name, f"{example.question_id!r:.80} is also the id at {seen[example.question_id]}")
            seen[example.question_id] = row.where
            examples.append(example)
        if dropped:
            total = len(dropped) + len(examples)
            if not examples:
                raise DataError(
                    f"{self.source}: data.missing: drop leaves none of {total:,} rows; {dropped[0]} is empty"
                )
            self.notes.add(
                f"{len(dropped):,} of {total:,} rows were left out, as a value is missing (data.missing: drop)",
                dropped[0],
            )
        return examples

    def _example(self, row: Row) -> Example:
        columns = self.settings.columns
        return Example(
            question_id=str(row.number) if columns.id is None else _text(row, columns.id),
            image=None if columns.image is None else self.image(row, value_of(row, columns.image)),
            questions=() if columns.text is None else self._texts(row, columns.text),
            text_pair=None if columns.text_pair is None else self._second(row, columns.text_pair),
            answer=self._label(row, columns.label) if columns.label is not None else self._answer(row),
            answer_type=None if columns.answer_type is None else _answer_type(row, columns.answer_type),
        )

    def _texts(self, row: Row, template: str) -> tuple[str, ...]:
        if template in row.fields or "{" not in template:
            value = value_of(row, template, required=False)
            if isinstance(value, list):
                texts = tuple(_plain(row, f"{template}.{place}", item) for place, item in enumerate(value))
                if not texts or not all(texts):
                    raise Blank(template)
                return texts
            return (self._one_text(row, template),)
        parts = string.Formatter().parse(template)  # not str.format, which takes a dot for an attribute
        return ("".join(text + ("" if name is None else self._one_text(row, name)) for text, name, _, _ in parts),)

    def _second(self, row: Row, template: str) -> str:
        texts = self._texts(row, template)
        if len(texts) > 1:
            raise row.error(template, f"must be one text, found {len(texts)}; only `text` may be a pool")
        return texts[0]

    def _one_text(self, row: Row, name: str) -> str:
        return _text(row, name, required=self.settings.missing != "blank")

    def _answer(self, row: Row) -> str:
        name = str(self.settings.columns.answer)
        value = value_of(row, name)
        if isinstance(value, list):
            value = value[0] if value else None
        text = _plain(row, name, value)
        if not text:
            raise Blank(name)
        return text

    def _label(self, row: Row, name: str) -> str:
        names = self.settings.label_names or self.class_names
        value = value_of(row, name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.class_names is not None and value == -1:
            raise Blank(name)  # how the Hub writes that a row has no label
        text = _plain(row, name, value)
        if not text:
            raise Blank(name)
        if names is None:
            return text
        if isinstance(names, Mapping):
            if text not in names:
                raise row.error(name, f"{text!r:.80} is not in data.label_names{did_you_mean(text, list(names))}")
            return names[text]
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(names)):
            raise row.error(
                name, f"must be a number from 0 to {len(names) - 1}, as classes have names, not {text!r:.80}"
            )
        if self.settings.label_names:
            self.used.places.add(int(text))
        return names[int(text)]


def names_in(place: str, value: str | None, known: Iterable[str]) -> tuple[str, ...]:
    """Columns that a field of ``Columns`` names: of a text that is no column itself, those of the template it is."""
    if value is None:
        return ()
    return (value,) if place not in ("text", "text_pair") or value in known else fields_of(value)


def delimiter_in(header: str) -> str | None:
    """What separates columns in a header that was read as one column; null if nothing does."""
    counts = {delimiter: header.count(delimiter) for delimiter in (";", "\t", "|", ",")}
    most = max(counts, key=lambda delimiter: counts[delimiter])
    return most if counts[most] else None


def column_names(header: str, delimiter: str) -> list[str]:
    """The columns of such a header."""
    return [name.strip().strip('"').strip() for name in header.split(delimiter)]


def value_of(row: Row, name: str, *, required: bool = True) -> Any:
    """The value, of a nested one by dots. Raises Blank if it is missing and required, and DataError for a step that
    leads nowhere in any row."""
    value: Any = row.fields
    if name in row.fields:
        value = row.fields[name]
    else:
        steps = name.split(".")
        for place, step in enumerate(steps):
            above, value = value, _step(row, value, steps[:place], step)
            if required and value is None and place and isinstance(above, Mapping) and step not in above:
                raise Blank(name, f": {'.'.join(steps[:place])} has no {step!r}{did_you_mean(step, list(above))}")
    if required and (value is None or value == "" or value != value):
        raise Blank(name)
    return value


def _step(row: Row, value: Any, before: Sequence[str], step: str) -> Any:
    """What a step leads to; null where there is nothing."""
    column = ".".join(before)
    if isinstance(value, list):
        if not _INDEX.fullmatch(step):
            example = ".".join((*before, "0", step))
            raise row.error(column, f"is a list of {len(value)}; name one item of it, e.g. `{example}`")
        return value[int(step)] if -len(value) <= int(step) < len(value) else None
    if isinstance(value, Mapping):
        return value.get(step)
    if value is None or value != value:
        return None
    raise row.error(column, f"is no list and has no fields, but {value!r:.80}; so there is no {step!r} in it")


def _text(row: Row, name: str, *, required: bool = True) -> str:
    text = _plain(row, name, value_of(row, name, required=required))
    if required and not text:
        raise Blank(name)
    return text


def _plain(row: Row, name: str, value: Any) -> str:
    """A value as text, without white space around it."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value).strip()
    if isinstance(value, list):
        found = f"a list of {len(value)}" + (f": {value!r:.80}; name one item, e.g. `{name}.0`" if value else "")
    elif isinstance(value, Mapping):
        found = f"fields: {value!r:.80}; name one, e.g. `{name}.{next(iter(value), 'x')}`"
    else:
        found = f"{value!r:.80}"
    raise row.error(name, f"must be text, found {found}")


def _answer_type(row: Row, name: str) -> AnswerType:
    match _text(row, name).lower():
        case "open":
            return "open"
        case "closed":
            return "closed"
        case other:
            raise row.error(name, f"must be open or closed, found {other!r:.80}")
