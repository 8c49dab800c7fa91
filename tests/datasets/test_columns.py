"""From columns to examples: templates, names of classes, missing values, and errors that name row and column."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bench.datasets.common.columns import Columns, ColumnSettings, Mapper
from bench.datasets.common.dataset import Notes
from bench.datasets.common.rows import Row
from bench.errors import DataError
from bench.plugins.contracts import Example

LABELLED = {"text": "t", "label": "y"}
ANSWERED = {"text": "t", "answer": "y"}


def examples(
    columns: dict[str, str],
    rows: list[Row],
    class_names: list[str] | None = None,
    notes: Notes | None = None,
    **changes: Any,
) -> list[Example]:
    made = mapper(columns, notes, **changes)
    return made.examples("a.csv", rows, image=lambda _row, value: str(value), class_names=class_names)


def mapper(columns: dict[str, str], notes: Notes | None = None, **changes: Any) -> Mapper:
    return Mapper(ColumnSettings(name="x", columns=Columns(**columns), **changes), notes or Notes())


def example(columns: dict[str, str], fields: dict[str, Any], **changes: Any) -> Example:
    (made,) = examples(columns, [Row("a.csv:2", fields, 0)], **changes)
    return made


def test_every_column_has_its_place() -> None:
    columns = {"text": "q", "image": "file", "answer": "a", "answer_type": "kind", "id": "qid"}
    made = example(columns, {"q": " is it? ", "file": "x.jpg", "a": 12, "kind": "CLOSED ", "qid": 7, "other": []})
    assert made == Example(question_id="7", image="x.jpg", questions=("is it?",), answer="12", answer_type="closed")


def test_white_space_within_a_text_is_kept() -> None:
    assert example(ANSWERED, {"t": "if a:\n\tb", "y": "a  b"}) == Example(
        question_id="0", questions=("if a:\n\tb",), answer="a  b"
    )


def test_a_template_joins_columns() -> None:
    fields = {"a": "{no}", "b.c": "2", "d": {"e": "3"}, "y": "z"}
    made = example({"text": "{a} [SEP] {b.c} {{x}} {d.e}", "label": "y"}, fields)
    assert made.questions == ("{no} [SEP] 2 {x} 3",)
    assert example({"text": "{a}", "label": "y"}, {"{a}": "itself", "y": "z"}).questions == ("itself",)


def test_a_pair_is_of_two_texts() -> None:
    made = example({"text": "a", "text_pair": "{b}, {c}", "label": "y"}, {"a": "one", "b": "two", "c": "3", "y": "z"})
    assert (made.questions, made.text_pair) == (("one",), "two, 3")
    with pytest.raises(ValidationError, match="a second text without a first"):
        Columns(image="i", text_pair="b", label="y")
    with pytest.raises(DataError, match=r"there is no column 'd'.*data\.columns\.text_pair"):
        mapper({"text": "a", "text_pair": "d", "label": "y"}).check("a.csv", ["a", "b", "y"])
    with pytest.raises(DataError, match="column 'b': must be one text, found 2"):
        example({"text": "a", "text_pair": "b", "label": "y"}, {"a": "one", "b": ["two", "three"], "y": "z"})
    with pytest.raises(DataError, match="column 'b': is empty"):
        example({"text": "a", "text_pair": "b", "label": "y"}, {"a": "one", "b": "", "y": "z"})


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a!r}", "{a:>3}", "{{a}}", "{0!s}"])
def test_a_malformed_template_is_refused_with_the_spec(template: str) -> None:
    with pytest.raises(ValidationError, match="template"):
        Columns(text=template, label="y")


@pytest.mark.parametrize("columns", [{"label": "y"}, {"text": "t"}, {"text": "t", "label": "y", "answer": "y"}])
def test_columns_need_an_input_and_one_output(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"names no input|either a label"):
        Columns(**columns)


def test_lists_are_pools_of_texts_and_several_answers() -> None:
    made = example({"text": "t", "answer": "a.text"}, {"t": ["one", "two"], "a": {"text": ["1", "uno"]}})
    assert (made.questions, made.answer) == (("one", "two"), "1")


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
    ("names", "value", "expected"),
    [
        (["no", "yes"], 2, "from 0 to 1"),
        (["no", "yes"], "-1", "from 0 to 1"),
        (["no", "yes"], "²", "from 0 to 1"),
        (["no", "yes"], "9" * 5000, "from 0 to 1"),
        (["no", "yes"], 0.5, "from 0 to 1"),
        (["no", "yes"], True, "from 0 to 1"),
        ({"world": "World"}, "wrld", r"is not in data\.label_names; did you mean 'world'"),
        (None, [1], r"must be text, found a list of 1: \[1\]; name one item, e\.g\. `y\.0`"),
        (None, {"a": 1}, r"must be text, found fields: .*; name one, e\.g\. `y\.a`"),
        (None, b"x", "must be text"),
    ],
)
def test_a_wrong_label_names_row_and_column(names: Any, value: Any, expected: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.csv:2: column 'y': .*{expected}"):
        example(LABELLED, {"t": "a", "y": value}, label_names=names)


def test_the_datas_own_class_names_and_their_sign_for_no_label() -> None:
    rows = [Row(f"row {n}", {"t": "a", "y": label}, n) for n, label in enumerate([1, 0, -1])]
    own = ["neg", "pos"]
    assert [e.answer for e in examples(LABELLED, rows, own, missing="drop")] == ["pos", "neg"]
    with pytest.raises(DataError, match=r"^row 2: column 'y': is empty; .*data\.missing: drop"):
        examples(LABELLED, rows, own)
    renamed = examples(LABELLED, rows, own, label_names=["bad", "good"], missing="drop")
    assert [e.answer for e in renamed] == ["good", "bad"]


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), []])
@pytest.mark.parametrize(
    ("columns", "column"),
    [
        (ANSWERED, "t"),
        (ANSWERED, "y"),
        ({"text": "t", "answer": "y", "id": "i"}, "i"),
        ({"text": "t", "answer": "y", "answer_type": "k"}, "k"),
        ({"text": "{t} {u}", "answer": "y"}, "u"),
    ],
)
def test_missing_values_are_errors_or_dropped(columns: dict[str, str], column: str, value: Any) -> None:
    fields = {"t": "a", "u": "b", "y": "c", "i": "1", "k": "open"} | {column: value}
    rows = [Row("a.csv:2", fields, 0), Row("a.csv:3", {**fields, column: "open"}, 1)]
    if value == [] and column not in ("t", "y"):
        with pytest.raises(DataError, match=rf"a\.csv:2: column '{column}': must be text"):
            examples(columns, rows)
        return
    with pytest.raises(DataError, match=rf"^a\.csv:2: column '{column}': is empty"):
        examples(columns, rows)
    assert len(examples(columns, rows, missing="drop")) == 1
    fields.pop(column)
    with pytest.raises(DataError, match=rf"^a\.csv:2: column '{column}': is empty"):
        examples(columns, rows)


def test_a_text_may_be_blank_but_no_answer() -> None:
    columns = {"text": "{t}|{u}", "answer": "y"}
    assert example(columns, {"t": "a", "u": None, "y": "c"}, missing="blank").questions == ("a|",)
    with pytest.raises(DataError, match="column 'y': is empty"):
        example(columns, {"t": "a", "u": "b", "y": ""}, missing="blank")


def test_a_column_that_is_not_there_gets_the_nearest_name() -> None:
    with pytest.raises(
        DataError, match=r"^a\.csv: there is no column 'lable'; did you mean 'label'\? .*columns\.label"
    ):
        mapper({"text": "text", "label": "lable"}).check("a.csv", ["text", "label"])
    with pytest.raises(DataError, match=r"there is no column 'hypothesys'.*columns\.text"):
        mapper({"text": "{premise} {hypothesys}", "label": "y"}).check("a.csv", ["premise", "hypothesis", "y"])
    mapper({"text": "a.b", "label": "y"}).check("a.csv", ["a", "y"])


def test_two_rows_with_one_id() -> None:
    rows = [Row(f"a.csv:{n}", {"t": "a", "y": "b", "i": "same"}, n) for n in (2, 3)]
    with pytest.raises(DataError, match=r"^a\.csv:3: column 'i': 'same' is also the id at a\.csv:2"):
        examples({**LABELLED, "id": "i"}, rows)


def test_an_answer_type_is_open_or_closed() -> None:
    with pytest.raises(DataError, match="column 'k': must be open or closed, found 'maybe'"):
        example({**ANSWERED, "answer_type": "k"}, {"t": "a", "y": "b", "k": "Maybe"})


TURNS = [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}]


def test_steps_lead_into_lists_from_both_ends() -> None:
    fields = {"conversations": TURNS, "m": [["a"], ["b", "c"]]}
    made = example({"text": "conversations.0.value", "answer": "conversations.-1.value"}, fields)
    assert (made.questions, made.answer) == (("Is it?",), "Yes.")
    made = example({"text": "{m.-1.0}, {conversations.0.from}", "answer": "m.1.-1"}, fields)
    assert (made.questions, made.answer) == (("b, human",), "c")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"answer": "conversations.value"}, r"column 'conversations': is a list of 2; .*`conversations\.0\.value`"),
        ({"answer": "conversations.0"}, r"must be text, found fields: .*name one, e\.g\. `conversations\.0\.from`"),
        ({"label": "conversations"}, r"must be text, found a list of 2: .*name one item, e\.g\. `conversations\.0`"),
        ({"answer": "conversations.0.valu"}, r"is empty: conversations\.0 has no 'valu'; did you mean 'value'\?"),
        ({"answer": "conversations.2.value"}, r"column 'conversations\.2\.value': is empty"),
        ({"answer": "t.x"}, r"column 't': is no list and has no fields, but 'a'"),
        ({"text": "{t} {conversations}", "answer": "t"}, r"column 'conversations': must be text, found a list of 2"),
        ({"text": "conversations", "answer": "t"}, r"column 'conversations\.0': must be text, found fields"),
    ],
)
def test_a_list_where_a_text_is_expected_says_so(columns: dict[str, str], expected: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.csv:2: .*{expected}"):
        example({"text": "t", **columns}, {"t": "a", "conversations": TURNS})


def test_rows_that_are_left_out_are_counted() -> None:
    rows = [Row(f"a.csv:{n + 2}", {"t": "a", "y": label}, n) for n, label in enumerate(["b", None, "", "c"])]
    notes = Notes()
    assert len(examples(LABELLED, rows, notes=notes, missing="drop")) == 2
    assert notes.texts() == [
        "2 of 4 rows were left out, as a value is missing (data.missing: drop) (e.g. a.csv:3, column 'y')"
    ]
    with pytest.raises(DataError, match=r"^a\.csv: data\.missing: drop leaves none of 2 rows; a\.csv:3, column 'y'"):
        examples(LABELLED, rows[1:3], missing="drop")


def test_a_column_whose_name_is_a_template_is_that_column() -> None:
    mapper({"text": "{a}", "label": "y"}).check("a.csv", ["{a}", "y"])
