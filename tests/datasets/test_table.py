"""Tables in files as people have them: quotes, encodings, delimiters, splits, images beside them, and broken ones."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.datasets import table
from bench.datasets.common.dataset import DataSet
from bench.datasets.common.rows import read_json, read_rows
from bench.errors import DataError
from tests.datasets.conftest import picture, write

REVIEWS = 'id,review,sentiment\n1,"Good, ""really"" good\n(twice)",pos\n2,bad,neg\n'


def settings(**changes: Any) -> table.Settings:
    columns = changes.pop("columns", {"text": "review", "label": "sentiment"})
    return table.Settings(name="table", columns=columns, **changes)


def both(path: Path, **changes: Any) -> DataSet:
    """The same file for both splits."""
    return table.load(settings(files={"train": path, "test": path}, **changes))


@pytest.fixture
def reviews(tmp_path: Path) -> dict[str, Path]:
    return {split: write(tmp_path / f"{split}.csv", REVIEWS) for split in ("train", "test")}


# --- reading ---------------------------------------------------------------------------------------------------


def test_a_file_per_split(reviews: dict[str, Path]) -> None:
    data = table.load(settings(files=reviews))
    assert [(e.question_id, e.image, e.questions, e.answer) for e in data.split("test")] == [
        ("0", None, ('Good, "really" good\n(twice)',), "pos"),
        ("1", None, ("bad",), "neg"),
    ]


def test_only_the_splits_that_are_used_are_read(reviews: dict[str, Path], tmp_path: Path) -> None:
    files = {**reviews, "unlabelled": write(tmp_path / "u.csv", "review\nx\n")}
    table.load(settings(files=files))
    with pytest.raises(DataError, match=r"u\.csv: there is no column 'sentiment'"):
        table.load(settings(files=files, train_split="train+unlabelled"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".CSV"])
def test_every_format_reads_alike_and_guesses_no_types(tmp_path: Path, suffix: str) -> None:
    rows = [{"review": "NA", "sentiment": "007"}, {"review": 'so, so;\t"é"', "sentiment": "null"}]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="the [hub] extra is not installed")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif "j" in suffix:
        write(path, json.dumps(rows) if suffix == ".json" else "\n".join(json.dumps(row) for row in rows))
    else:
        import pandas as pd

        pd.DataFrame(rows).to_csv(path, sep="\t" if suffix == ".tsv" else ",")  # with pandas' nameless first column
    assert [(e.question(), e.answer) for e in both(path).split("test")] == [("NA", "007"), ('so, so;\t"é"', "null")]


@pytest.mark.parametrize(
    ("encode", "changes"),
    [
        (lambda text: b"\xef\xbb\xbf" + text.encode(), {}),
        (lambda text: text.encode("cp1252"), {"encoding": "cp1252"}),
        (lambda text: text.encode("utf-16"), {"encoding": "utf-16"}),
        (lambda text: text.replace("\r\n", "\r").encode(), {}),
    ],
)
def test_encodings_byte_order_marks_delimiters_and_line_ends(tmp_path: Path, encode: Any, changes: Any) -> None:
    path = write(tmp_path / "a.csv", encode("review;sentiment\r\n\r\nsüß;pos\r\n"))
    assert [(e.question(), e.answer) for e in both(path, delimiter=";", **changes).split("test")] == [("süß", "pos")]


def test_json_array_and_json_lines_read_alike(tmp_path: Path) -> None:
    array = write(tmp_path / "a.json", b'\xef\xbb\xbf[{"q": "a\\u2028b"}, {"q": "c"}]')
    lines = write(tmp_path / "b.jsol", '{"q": "a\u2028b"}\n\n{"q": "c"}\n')
    assert read_json(array) == read_json(lines) == [{"q": "a\u2028b"}, {"q": "c"}]


def test_cells_may_be_of_any_length(tmp_path: Path) -> None:
    long, limit = "x" * 200_000, csv.field_size_limit()
    data = both(write(tmp_path / "a.csv", f"review,sentiment\n{long},neg\n"))
    assert data.split("test")[0].question() == long
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "review,sentiment\ngood,pos\nbad,so,neg\n", r"a\.csv:3: 3 values, but 2 columns; .*quotes"),
        ("a.csv", 'review,sentiment\n"two\nlines",pos\nbad\n', r"a\.csv:4: 1 values, but 2 columns"),
        ("a.csv", 'review,sentiment\ng,pos\n"bad,neg\nworse,neg\n', r"a\.csv:3: not a valid table: unexpected end"),
        ("a.csv", 'review,sentiment\n"bad"ly,neg\n', r"a\.csv:2: not a valid table: .*quote"),
        ("a.csv", "review,sentiment,review\na,b,c\n", r"a\.csv:1: two columns are called 'review'"),
        ("a.csv", "review;sentiment\na;b\n", r"a\.csv:1: .*set `data\.delimiter: ';'` for the columns 'review', 'sent"),
        ("a.csv", "review\tsentiment\na\tb\n", r"a\.csv:1: .*set `data\.delimiter: '\\t'`"),
        ("a.csv", '"review";"sentiment"\n"well, well";b\n', r"a\.csv:1: .*set `data\.delimiter: ';'`"),
        ("a.csv", "id;review;sentiment, coarse\n1;a;b, c\n", r"no column 'review'.*set `data\.delimiter: ';'`"),
        ("a.csv", "review,sentiment\na;b\n", r"a\.csv:2: 1 values, but 2 columns; .*set by data\.delimiter"),
        ("a.csv", "review,sentiment\ngood,pos\n,neg\n", r"a\.csv:3: column 'review': is empty"),
        ("a.csv", "review,sentiment\ngood,pos\nbad,\n", r"a\.csv:3: column 'sentiment': is empty"),
        ("a.csv", "review,sentiment\n", "holds no rows"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "\n\n\r\n", "holds no rows"),
        ("a.csv", b"review,sentiment\n\xff\xfea,b\n", r"a\.csv: cannot be read as utf-8-sig text: .*data\.encoding"),
        ("a.csv", "review,sentiment\ngood,pos\n".encode("utf-16"), r"a\.csv: cannot be read as utf-8-sig text"),
        ("a.csv", b"PK\x03\x04\0\0", r"a\.csv"),
        ("a.jsonl", '{"review": "a", "sentiment": "b"}\n{"review": ', r"a\.jsonl:2:\d+: not valid JSON"),
        ("a.jsonl", '{"review": "a", "sentiment": "b"}\n[1]\n', r"a\.jsonl: record 1: must be an object .* \[1\]"),
        ("a.jsonl", '{"review": "a", "sentiment": "b"}\n{"review": "c"}', r"record 1: column 'sentiment': is empty"),
        ("a.jsonl", '{"review": "a", "sentiment": {"x": 1}}', r"record 0: column 'sentiment': must be text"),
        ("a.json", '{"review": "a"}', "no column 'sentiment'"),
        ("a.json", '[{"review": 1},\n {"review": }]', r"a\.json:2:13: not valid JSON"),
        ("a.json", b"\xff\xfe\x00", r"a\.json: cannot be read as UTF-8"),
        ("a.json", "[" * 100_000, r"a\.json:1: not valid JSON"),
        ("a.json", "[" + "9" * 5_000 + "]", r"a\.json:1: not valid JSON"),
        ("a.json", "[]", r"a\.json: holds no records"),
        ("a.json", "  \n", r"a\.json: holds no records"),
        ("a.parquet", "PAR1 no more", r"a\.parquet: cannot be read as a Parquet file"),
        ("a.xlsx", "", r"a\.xlsx: the suffix '\.xlsx' names no kind of table \(known: \.csv"),
        ("a", "", "the suffix '' names no kind"),
        ("a.csv.gz", "", r"the suffix '\.gz' names no kind"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        both(write(tmp_path / name, content))


def test_reading_a_table_needs_no_heavy_package(reviews: dict[str, Path]) -> None:
    code = "import sys, pathlib; from bench.datasets.common.rows import read_rows"
    code += f"; read_rows(pathlib.Path({str(reviews['test'])!r}))"
    code += "; assert not {'pandas', 'numpy', 'pyarrow', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pyarrow; .*\[hub\]"):
        read_rows(write(tmp_path / "a.parquet", ""))


# --- splits ----------------------------------------------------------------------------------------------------


def test_a_column_of_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "review,sentiment,part\na,pos,train\nb,neg, dev \nc,pos,test\nd,,unlabelled\n")
    columns = {"text": "review", "label": "sentiment", "split": "part"}
    data = table.load(settings(file=path, columns=columns, train_split="train+dev"))
    assert [len(data.split(split)) for split in ("train", "dev", "test")] == [1, 1, 1]
    with pytest.raises(DataError, match=r"column 'part' has no row of the split 'trian'; did you mean 'train'\?"):
        table.load(settings(file=path, columns=columns, train_split="trian"))
    with pytest.raises(DataError, match=r"there is no column 'prt'; did you mean 'part'\?.*columns\.split"):
        table.load(settings(file=path, columns={**columns, "split": "prt"}))


def test_a_share_for_testing_parts_no_equal_texts_and_stays_when_rows_are_added(tmp_path: Path) -> None:
    rows = [f"text {n % 100},{'pos' if n % 2 else 'neg'}" for n in range(300)]
    path = write(tmp_path / "a.csv", "\n".join(["review,sentiment", *rows]))
    data = table.load(settings(file=path, test_share=0.25))
    sides = {split: {e.question() for e in data.split(split)} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert 15 <= len(sides["test"]) <= 35
    assert len(data.split("train")) + len(data.split("test")) == 300
    more = write(tmp_path / "b.csv", "\n".join(["review,sentiment", "new,pos", *rows]))
    assert sides["test"] <= {e.question() for e in table.load(settings(file=more, test_share=0.25)).split("test")}


def test_a_seed_draws_the_share_from_each_class_alike(tmp_path: Path) -> None:
    lines = [f"text {n // 2},{'rare' if n < 10 else 'common'}\n" for n in range(60)]
    path = write(tmp_path / "a.csv", "review,sentiment\n" + "".join(lines))
    data = table.load(settings(file=path, test_share=0.2, test_seed=3))
    test = data.split("test")
    assert [sum(e.answer == name for e in test) for name in ("rare", "common")] == [2, 10]
    assert not {e.question() for e in data.split("train")} & {e.question() for e in test}


SPLIT = {"train": "a.csv", "test": "b.csv"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "needs either `files`"),
        ({"file": "a.csv", "files": SPLIT}, "needs either `files`"),
        ({"file": "a.csv"}, "needs exactly one of columns.split and `test_share`"),
        ({"files": {"train": "a.csv"}}, "none for the split 'test'"),
        ({"files": SPLIT, "train_split": "train+dev"}, "none for the split 'dev'"),
        ({"files": SPLIT, "test_share": 0.1}, "go with one `file`"),
        ({"files": SPLIT, "test_seed": 3}, "test_seed goes with"),
        ({"file": "a.csv", "test_share": 0.2, "encoding": "utf-42"}, "unknown encoding: utf-42; e.g. utf-8"),
        ({"file": "a.csv", "test_share": 0.2, "encoding": "base64"}, "not a text encoding"),
        ({"file": "a.csv", "test_share": 0.2, "delimiter": "||"}, "delimiter"),
        ({"file": "a.csv", "test_share": 0.2, "delimiter": "\n"}, "delimiter"),
        *(({"file": "a.csv", "test_share": share}, "test_share") for share in (0, 1, -0.1, 1.5)),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_spec(changes: Any, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        settings(**changes)


# --- images ----------------------------------------------------------------------------------------------------


def test_questions_about_images(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    rows = [
        {"qid": 1, "file": "a.jpg", "question": ["is it red?", "red?"], "answer": "yes", "type": "closed"},
        {"qid": 2, "file": "b.jpg", "question": "what is it?", "answer": 3, "type": "OPEN"},
    ]
    path = write(tmp_path / "vqa.jsonl", "\n".join(map(json.dumps, rows)))
    columns = {"image": "file", "text": "question", "answer": "answer", "answer_type": "type", "id": "qid"}
    data = both(path, columns=columns, image_root=tmp_path / "images")
    first, second = data.split("train")
    assert (first.questions, first.answer_type, second.answer) == (("is it red?", "red?"), "closed", "3")
    assert data.image(first).size == (12, 8)
    with pytest.raises(DataError, match=r"b\.jpg \(question 2\): the image is missing"):
        data.image(second)
    with pytest.raises(DataError, match=r"1 of 2 images are missing; the first is .*b\.jpg\n.*image_root"):
        data.digest()
    picture(tmp_path / "images" / "b.jpg")
    digest = data.digest()
    picture(tmp_path / "images" / "b.jpg", size=(30, 30))
    assert data.digest() != digest


def test_images_beside_the_tables_of_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that Hugging Face calls an image folder with metadata."""
    for split, level in (("train", 0), ("test", 250)):
        picture(tmp_path / "d" / split / "0.jpg", (level, level, level))
        write(tmp_path / "d" / split / "metadata.csv", "file_name,kind\n0.jpg,x\n")
    monkeypatch.chdir(tmp_path)
    files = {split: Path("d") / split / "metadata.csv" for split in ("train", "test")}
    data = table.load(settings(files=files, columns={"image": "file_name", "label": "kind"}))
    levels = [data.image(data.split(split)[0]).getpixel((0, 0))[0] for split in ("train", "test")]  # type: ignore[index]
    assert levels == [pytest.approx(0, abs=3), pytest.approx(250, abs=3)]
    (tmp_path / "d" / "test" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing; the first is .*test/0\.jpg"):
        data.digest()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("../secret.jpg", "leads out of the image folder"),
        ("/etc/passwd", "leads out of the image folder"),
        ({"bytes": "", "path": ""}, r"must be the name of a file; .*\{name: hub\}"),
        (7, "must be the name of a file"),
    ],
)
def test_images_are_names_of_files_below_the_root(tmp_path: Path, value: Any, expected: str) -> None:
    path = write(tmp_path / "a.json", json.dumps([{"file": value, "kind": "x"}]))
    with pytest.raises(DataError, match=rf"a\.json: record 0: column 'file': .*{expected}"):
        both(path, columns={"image": "file", "label": "kind"})


# --- digest and classes ----------------------------------------------------------------------------------------


def test_digest_of_texts_follows_the_content_only(reviews: dict[str, Path]) -> None:
    first = table.digest(settings(files=reviews))
    moved = {split: path.rename(path.with_name(f"moved_{split}.csv")) for split, path in reviews.items()}
    assert table.digest(settings(files=moved)) == first
    write(moved["test"], REVIEWS + "3,more,pos\n")
    second = table.digest(settings(files=moved))
    assert second != first
    assert table.digest(settings(files=dict(reversed(moved.items())))) == second


def test_numbers_from_1_with_names_from_0_are_refused(tmp_path: Path) -> None:
    numbered = "review,sentiment\n" + "".join(f"text {label},{label}\n" for label in (1, 2, 3))
    path = write(tmp_path / "a.csv", numbered)
    with pytest.raises(DataError, match=r"a\.csv.*labels are 1 to 3 and never 0.*'a' would be the class of no row"):
        both(path, label_names=["a", "b", "c", "d"])
    with pytest.raises(DataError, match="from 0 to 2"):
        both(path, label_names=["a", "b", "c"])
    named: list[tuple[Any, list[str]]] = [
        ({"1": "a", "2": "b", "3": "c"}, ["a", "b", "c"]),
        (list("abcde"), list("bcd")),
    ]
    for names, expected in named:
        assert [e.answer for e in both(path, label_names=names).split("test")] == expected
    with_zero = write(tmp_path / "b.csv", f"{numbered}text,0\n")
    data = table.load(settings(files={"train": path, "test": with_zero}, label_names=list("abcd")))
    assert data.split("test")[-1].answer == "a"


def test_labels_that_look_missing_or_alike_are_noted(tmp_path: Path) -> None:
    labels = ["nan", "None", "good Mood", "Good mood", "good  mood", "1", "1.0", "bad", " bad"]
    path = write(tmp_path / "a.csv", "review,sentiment\n" + "".join(f"text,{label}\n" for label in labels))
    missing, *alike = both(path).notes()
    assert missing == "classes that look like missing values count as classes: 'None' (2 times), 'nan' (2 times)"
    assert [note.partition(": ")[2] for note in alike] == [
        "'1' (2 times), '1.0' (2 times)",
        "'Good mood' (2 times), 'good  mood' (2 times), 'good Mood' (2 times)",
    ]
    assert both(path, columns={"text": "review", "answer": "sentiment"}).notes() == []
