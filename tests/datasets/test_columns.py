"""From columns to examples: templates, names of classes, missing values, and errors that name row and column."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from bench.datasets.common.columns import Columns, ColumnSettings, Mapper
from bench.datasets.common.dataset import Notes, encode_examples
from bench.datasets.common.rows import SourceRow
from bench.errors import DataError
from bench.plugins.contracts import Example

LABELLED = {"text": "t", "label": "y"}
ANSWERED = {"text": "t", "answer": "y"}
TURNS = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}]
NO_YES = {"label_names": ["no", "yes"]}


def mapper(columns: dict[str, str], notes: Notes | None = None, **changes: Any) -> Mapper:
    return Mapper(ColumnSettings(name="x", columns=Columns(**columns), **changes), notes or Notes())


def examples(
    columns: dict[str, str], rows: list[SourceRow], class_names: list[str] | None = None, **changes: Any
) -> list[Example]:
    def image(_row: SourceRow, value: Any) -> str:
        return str(value)

    return mapper(columns, **changes).examples("a.csv", rows, image=image, class_names=class_names)


def example(columns: dict[str, str], fields: dict[str, Any], **changes: Any) -> Example:
    (made,) = examples(columns, [SourceRow("a.csv:2", fields, 0)], **changes)
    return made


def test_every_column_has_its_place() -> None:
    columns = {"text": "q", "image": "file", "answer": "a", "answer_type": "kind", "id": "qid"}
    made = example(columns, {"q": " is it? ", "file": "x.jpg", "a": 12, "kind": "CLOSED ", "qid": 7, "other": []})
    assert made == Example(question_id="7", image="x.jpg", questions=("is it?",), answer="12", answer_type="closed")


@pytest.mark.parametrize(
    ("columns", "fields", "expected"),
    [
        (ANSWERED, {"t": "if a:\n\tb", "y": "a  b"}, (("if a:\n\tb",), None, "a  b")),
        (
            {"text": "{a} [SEP] {b.c} {{x}} {d.e}", "label": "y"},
            {"a": "{no}", "b.c": "2", "d": {"e": "3"}, "y": "z"},
            (("{no} [SEP] 2 {x} 3",), None, "z"),
        ),
        ({"text": "{a}", "label": "y"}, {"{a}": "itself", "y": "z"}, (("itself",), None, "z")),
        (
            {"text": "a", "text_pair": "{b}, {c}", "label": "y"},
            {"a": "one", "b": "two", "c": "3", "y": "z"},
            (("one",), "two, 3", "z"),
        ),
        ({"text": "t", "answer": "a.b"}, {"t": ["one", "two"], "a": {"b": ["1", "uno"]}}, (("one", "two"), None, "1")),
        ({"text": "c.0.value", "answer": "c.-1.value"}, {"c": TURNS}, (("Is it?",), None, "Yes.")),
        (
            {"text": "{m.-1.0}, {c.0.from}", "answer": "m.1.-1"},
            {"c": TURNS, "m": [["a"], ["b", "c"]]},
            (("b, human",), None, "c"),
        ),
    ],
)
def test_texts_keep_white_space_and_come_from_templates_pairs_pools_and_steps(
    columns: dict[str, str], fields: dict[str, Any], expected: Any
) -> None:
    made = example(columns, fields)
    assert (made.questions, made.text_pair, made.answer) == expected


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a!r}", "{a:>3}", "{{a}}", "{0!s}"])
def test_a_malformed_template_is_refused_with_the_spec(template: str) -> None:
    with pytest.raises(ValidationError, match="template"):
        Columns(text=template, label="y")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": "y"}, "names no input"),
        ({"text": "t"}, "either a label"),
        ({"text": "t", "label": "y", "answer": "y"}, "either a label"),
        ({"image": "i", "text_pair": "b", "label": "y"}, "a second text without a first"),
    ],
)
def test_columns_need_an_input_and_one_output(columns: dict[str, str], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Columns(**columns)


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        (["no", "yes"], 1, "yes"),
        (["no", "yes"], "0", "no"),
        (["no", "yes"], 1.0, "yes"),
        ({"1": "World", "-1": "Mars"}, -1, "Mars"),
        ({"true": "yes"}, True, "yes"),
        (None, True, "true"),
        (None, 3, "3"),
        (None, 2.5, "2.5"),
        (None, " NA ", "NA"),
        (None, "-1", "-1"),
    ],
)
def test_labels_get_names(names: Any, value: Any, expected: str) -> None:
    assert example(LABELLED, {"t": "a", "y": value}, label_names=names).answer == expected


@pytest.mark.parametrize(
    ("columns", "fields", "changes", "expected"),
    [
        (LABELLED, {"y": 2}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": "-1"}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": "²"}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": "9" * 5000}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": 0.5}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": True}, NO_YES, "'y': .*from 0 to 1"),
        (LABELLED, {"y": "wrld"}, {"label_names": {"world": "W"}}, r"'y': .*label_names; did you mean 'world'"),
        (LABELLED, {"y": [1]}, {}, r"'y': must be text, found a list of 1: \[1\]; name one item, e\.g\. `y\.0`"),
        (LABELLED, {"y": {"a": 1}}, {}, r"'y': must be text, found fields: .*; name one, e\.g\. `y\.a`"),
        (LABELLED, {"y": b"x"}, {}, "'y': must be text"),
        ({**ANSWERED, "answer_type": "k"}, {"k": "Maybe"}, {}, "'k': must be open or closed, found 'maybe'"),
        ({**ANSWERED, "text_pair": "b"}, {"b": ["two", "3"]}, {}, "'b': must be one text, found 2"),
        ({**ANSWERED, "text_pair": "b"}, {"b": ""}, {}, "'b': is empty"),
        ({"text": "{t}|{u}", "answer": "y"}, {"u": "b", "y": ""}, {"missing": "blank"}, "'y': is empty"),
        ({"text": "t", "answer": "c.value"}, {}, {}, r"'c': is a list of 2; .*`c\.0\.value`"),
        ({"text": "t", "answer": "c.0"}, {}, {}, r"must be text, found fields: .*name one, e\.g\. `c\.0\.from`"),
        ({"text": "t", "label": "c"}, {}, {}, r"must be text, found a list of 2: .*name one item, e\.g\. `c\.0`"),
        ({"text": "t", "answer": "c.0.valu"}, {}, {}, r"is empty: c\.0 has no 'valu'; did you mean 'value'\?"),
        ({"text": "t", "answer": "c.2.value"}, {}, {}, r"'c\.2\.value': is empty"),
        ({"text": "t", "answer": "t.x"}, {}, {}, "'t': is no list and has no fields, but 'a'"),
        ({"text": "{t} {c}", "answer": "t"}, {}, {}, "'c': must be text, found a list of 2"),
        ({"text": "c", "answer": "t"}, {}, {}, r"'c\.0': must be text, found fields"),
    ],
)
def test_a_wrong_value_names_row_and_column(columns: Any, fields: Any, changes: Any, expected: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.csv:2: column .*{expected}"):
        example(columns, {"t": "a", "y": "z", "c": TURNS, **fields}, **changes)


def test_the_datas_own_class_names_and_their_sign_for_no_label() -> None:
    rows = [SourceRow(f"row {n}", {"t": "a", "y": label}, n) for n, label in enumerate([1, 0, -1])]
    own = ["neg", "pos"]
    for names, expected in ((None, ["pos", "neg"]), (["bad", "good"], ["good", "bad"])):
        made = examples(LABELLED, rows, own, missing="drop", label_names=names)
        assert [e.answer for e in made] == expected
    with pytest.raises(DataError, match=r"^row 2: column 'y': is empty; .*data\.missing: drop"):
        examples(LABELLED, rows, own)


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), []])
@pytest.mark.parametrize(
    ("columns", "column"),
    [
        (ANSWERED, "t"),
        (ANSWERED, "y"),
        ({**ANSWERED, "id": "i"}, "i"),
        ({**ANSWERED, "answer_type": "k"}, "k"),
        ({"text": "{t} {u}", "answer": "y"}, "u"),
    ],
)
def test_missing_values_are_errors_or_dropped(columns: dict[str, str], column: str, value: Any) -> None:
    fields = {"t": "a", "u": "b", "y": "c", "i": "1", "k": "open"} | {column: value}
    rows = [SourceRow("a.csv:2", fields, 0), SourceRow("a.csv:3", {**fields, column: "open"}, 1)]
    problem = "must be text" if value == [] and column not in ("t", "y") else "is empty"
    with pytest.raises(DataError, match=rf"^a\.csv:2: column '{column}': {problem}"):
        examples(columns, rows)
    if problem == "is empty":
        assert len(examples(columns, rows, missing="drop")) == 1
    fields.pop(column)
    with pytest.raises(DataError, match=rf"^a\.csv:2: column '{column}': is empty"):
        examples(columns, rows)


def test_a_text_may_be_blank() -> None:
    made = example({"text": "{t}|{u}", "answer": "y"}, {"t": "a", "u": None, "y": "c"}, missing="blank")
    assert made.questions == ("a|",)


def test_rows_that_are_left_out_are_counted() -> None:
    rows = [SourceRow(f"a.csv:{n + 2}", {"t": "a", "y": label}, n) for n, label in enumerate(["b", None, "", "c"])]
    notes = Notes()
    assert len(examples(LABELLED, rows, notes=notes, missing="drop")) == 2
    reason = "as a value is missing (data.missing: drop)"
    assert notes.texts() == [f"2 of 4 rows were left out, {reason} (e.g. a.csv:3, column 'y')"]
    with pytest.raises(DataError, match=r"^a\.csv: data\.missing: drop leaves none of 2 rows; a\.csv:3, column 'y'"):
        examples(LABELLED, rows[1:3], missing="drop")


@pytest.mark.parametrize(
    ("columns", "known", "expected"),
    [
        ({"text": "text", "label": "lable"}, ["text", "label"], r"'lable'; did you mean 'label'\? .*columns\.label"),
        ({"text": "{a} {bb}", "label": "y"}, ["a", "b", "y"], r"'bb'.*columns\.text"),
        ({"text": "a", "text_pair": "d", "label": "y"}, ["a", "b", "y"], r"'d'.*data\.columns\.text_pair"),
        ({"text": "a.b", "label": "y"}, ["a", "y"], None),
        ({"text": "{a}", "label": "y"}, ["{a}", "y"], None),
    ],
)
def test_a_column_that_is_not_there_gets_the_nearest_name(columns: Any, known: Any, expected: str | None) -> None:
    if expected is None:
        mapper(columns).check("a.csv", known)
        return
    with pytest.raises(DataError, match=rf"^a\.csv: there is no column {expected}"):
        mapper(columns).check("a.csv", known)


def test_two_rows_with_one_id() -> None:
    rows = [SourceRow(f"a.csv:{n}", {"t": "a", "y": "b", "i": "same"}, n) for n in (2, 3)]
    with pytest.raises(DataError, match=r"^a\.csv:3: column 'i': 'same' is also the id at a\.csv:2"):
        examples({**LABELLED, "id": "i"}, rows)


def test_the_bytes_of_examples_outlive_new_fields() -> None:
    """Digests of the Hub's data sets are taken of them: as the first versions wrote it, unless a later field is set."""
    plain = Example(question_id="1", questions=("a", "b"), answer="c")
    first = "Example(question_id='1', image=None, questions=('a', 'b'), answer='c', answer_type=None)"
    assert encode_examples({"train": [plain], "test": []}).decode() == f"[('test', []), ('train', [{first}])]"
    paired = dataclasses.replace(plain, text_pair="d")
    assert encode_examples({"test": [paired]}).decode() == f"[('test', [{first[:-1]}, text_pair='d')])]"
