"""Reports of the gallery, and what ``compare`` and ``export`` say of its records."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import CellRecord
from bench.records.store import ResultsFile
from tests.conftest import ROOT
from tests.factories import load_cells
from tests.golden import bench, kept

GALLERY = ROOT / "results" / "gallery"
RECORDS = sorted(path for path in GALLERY.glob("*/*.jsonl") if path.parent.name != "validation")
TABLE1, TABLE5 = (str(ROOT / "specs" / f"table{number}.yaml") for number in (1, 5))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_reports_of_the_gallery(path: Path, tmp_path: Path) -> None:
    """Reports rendered again from the committed records are the committed ones."""
    name = path.parent.name
    (spec,) = (ROOT / "specs").rglob(f"{name}.yaml")
    bench(tmp_path, str(spec), "--report-only", "--scale", path.stem, "--results", str(GALLERY), "--reports", ".")
    committed = ROOT / "reports" / "gallery" / name
    for kind in ("md", "tex", "csv"):
        assert (tmp_path / name / f"table.{kind}").read_bytes() == (committed / f"table.{kind}").read_bytes(), kind
    found, expected = (page_data(folder / "index.html") for folder in (tmp_path / name, committed))
    for key, value in expected.items():
        assert found[key] == value, key
    assert found.keys() == expected.keys()


def page_data(page: Path) -> dict[str, Any]:
    """What a page embeds but its images, which it has where the data is and which a library's version changes."""
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    content: dict[str, Any] = json.loads(text)
    questions = [{key: value for key, value in one.items() if key != "i"} for one in content["questions"]]
    return {key: value for key, value in content.items() if key not in ("images", "note")} | {"questions": questions}


EXPORTS = {
    "records.csv": (str(GALLERY / "table5"), "--columns", "label,status,params.*,scores.*.value,memory.*"),
    "records_of_a_spec.csv": (TABLE5, "--format", "csv", "--columns", "cell_id,stale,time.*,settings.train.*"),
    "view.md": (TABLE5, "--format", "md"),
    "view_published.md": (TABLE1, "--columns", "jtm,dec,rank,global", "--transpose", "--published"),
    "view_grouped.md": (TABLE1, "--columns", "rank,seed,status,memory,global", "--group-by", "vit", "--digits", "3"),
    "view_grouped.tex": (TABLE1, "--columns", "rank,step_time,global", "--group-by", "vit", "--published"),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str, tmp_path: Path) -> None:
    source, *options = EXPORTS[name]
    place = ["--results", str(GALLERY), "--scale", "demo"] if source.endswith(".yaml") else []
    form = [] if "--format" in options else ["--format", name.rpartition(".")[2]]
    found = bench(tmp_path, "export", source, *place, *form, *options)
    assert found == kept(f"export_{name}", found)


def test_export_of_all_records(tmp_path: Path) -> None:
    """Names, order and content of all columns: of each a digest, since they are committed as records."""
    bench(tmp_path, "export", str(GALLERY), "-o", "all.csv")
    header, *rows = csv.reader(io.StringIO((tmp_path / "all.csv").read_bytes().decode(), newline=""))
    found = {name: digest(list(column)) for name, *column in zip(header, *rows, strict=True)}
    assert list(found.items()) == list(kept("export_all.json", found).items())


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the records of Table 1 as ``a``; as ``b`` what a change might have made of them (each cell has what the next
    one measured, one ran out of memory, one is missing); in ``results`` as if they were of the paper's scale.
    """
    folder = tmp_path_factory.mktemp("folder")
    for name in ("a", "b", "results/table1"):
        shutil.copytree(GALLERY / "table1", folder / name)
    records = [json.loads(line) for line in (folder / "a" / "demo.jsonl").read_text(encoding="utf-8").splitlines()]
    for record in records:
        del record["checksum"]
    cell = ("cell_id", "label", "labels", "parts", "settings")
    changed = [measured | {key: record[key] for key in cell} for record, measured in pairwise(records)]
    error = {"type": "OutOfMemoryError", "message": "out of memory", "phase": "train", "step": 3}
    changed[0] |= {"status": "oom", "error": error, "accuracy": None, "scores": {}, "predictions": None}
    (folder / "b" / "demo.jsonl").unlink()
    write(folder / "b" / "demo.jsonl", changed)
    published = [
        record | {"cell_id": of_paper.cell_id, "scale": "paper", "settings": of_paper.model_dump(mode="json")}
        for record, of_paper in zip(records, load_cells(Path(TABLE1))[1], strict=True)
    ]
    write(folder / "results" / "table1" / "paper.jsonl", published)
    return folder


def write(path: Path, records: list[dict[str, Any]]) -> None:
    for record in records:
        ResultsFile(path).append(CellRecord.model_validate(record))


AGAINST = ("a", "--against", "T-T-LoRA rank=4")
COMPARISONS = {
    "two.txt": (1, "a", "b"),
    "two_all.txt": (1, "a", "b", "--all", "--only", "T-T*", "--allow-missing", "--alpha", "0.01"),
    "two.json": (1, "a", "b", "--only", "*rank=8"),
    "against.txt": (0, *AGAINST),
    "against.json": (0, *AGAINST, "--metrics", "params,step_time,open,global"),
    "published.txt": (1, "--published", TABLE1, "--scale", "paper"),
    "published.json": (1, "--published", TABLE5, "--results", str(GALLERY)),
}
"""Exit code and arguments."""


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str, folder: Path) -> None:
    code, *arguments = COMPARISONS[name]
    as_json = name.endswith(".json")
    text = bench(folder, "compare", *map(str, arguments), *["--json"] * as_json, code=int(code))
    found = json.loads(text) if as_json else "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    expected = kept(f"compare_{name}", found)
    if not as_json:  # how wide columns are is no promise
        found, expected = ([line.split() for line in one.splitlines()] for one in (found, expected))
    assert found == expected
