"""The file: complete, escaped, traceable, the same for the same records, and written anew only when it must be."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import Failure, Status
from bench.report.html import safe_json
from bench.spec.sections import Column
from tests.factories import failed_record, make_record
from tests.report.html.conftest import NOT_RUN, OOM, Report

HOSTILE = '</script><img src=x onerror="window.pwned=1">\u202e\u2066<!--<script>window.pwned=1</script>{{7*7}}&amp;'
VISIBLE = '</script><img src=x onerror="window.pwned=1"><!--<script>window.pwned=1</script>{{7*7}}&amp;'
VOID = {"meta", "link", "input", "br", "img", "hr", "path"}


class Page(HTMLParser):
    """Elements with their attributes and text, and what is wrong with their nesting."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif data.strip() and self._open and self._open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0][1])
        return found

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parsed(report: Report) -> Page:
    content = report.page()
    assert content is not None
    return Page(content)


def test_the_page_is_whole_and_labelled(report: Report) -> None:
    page = parsed(report)
    assert page.wrong == []
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for attributes in (a for _, a in page.elements):
        for reference in (attributes.get("aria-labelledby") or "").split():
            assert reference in ids
    assert all(head.get("scope") in ("col", "row") for head in page.named("th"))
    assert [a["lang"] for a in page.named("html")] == ["en"]
    cells = {f"#cell-{cell.cell_id}" for cell in report.cells}
    links = {a["href"] for a in page.named("a") if (a["href"] or "").startswith("#")}
    assert cells <= links
    assert {link[1:] for link in links - cells if link} <= set(ids)


def test_nothing_can_be_loaded_and_no_other_script_runs(report: Report) -> None:
    page = parsed(report)
    assert all((a.get("href") or "").startswith(("#", "data:")) for tag in ("a", "link") for a in page.named(tag))
    assert not [a for _, a in page.elements if "src" in a or any(name.startswith("on") for name in a)]
    policy = next(a["content"] or "" for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    data, *scripts = page.scripts
    assert data[0]["type"] == "application/json"
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_every_number_of_the_data_is_a_cells(report: Report) -> None:
    data = parsed(report).data
    assert [cell["id"] for cell in data["cells"]] == [cell.cell_id for cell in report.cells]
    assert [row["cells"] for row in data["rows"]] == [[place] for place in range(len(report.cells))]
    first = report.records[report.cells[0].cell_id]
    assert first.accuracy is not None
    overall = first.accuracy.overall
    assert data["rows"][0]["values"]["global"] == pytest.approx(100 * overall.correct / overall.n, rel=1e-6)
    assert data["rows"][0]["values"]["memory"] == 2.0
    assert data["rows"][0]["values"]["memory:predicted"] == 1.5
    low, high, std, kind = data["rows"][0]["intervals"]["global"]
    assert low < data["rows"][0]["values"]["global"] < high
    assert (std, kind) == (None, "wilson")
    above = data["rows"][0]["intervals"]["over_prior"]
    assert above[0] < data["rows"][0]["values"]["over_prior"] < above[1]
    assert data["cells"][0]["curve"][0] == [10, 3.0, 0.001]
    assert data["cells"][0]["memory"]["measured"]["train"] == 2 * 2**30
    assert sum(data["cells"][0]["memory"]["kinds"]["train"][:-1]) == int(1.5 * 2**30)


def test_the_numbers_of_the_baselines_have_the_cell_whose_record_holds_them(report: Report) -> None:
    content = report.page()
    assert content is not None
    rows = re.findall(r'<tr class="baseline">(.*?)</tr>', content.decode(), re.DOTALL)
    assert len(rows) == 3
    assert all(f'href="#cell-{report.cells[0].cell_id}"' in row for row in rows)
    assert parsed(report).data["floors"]["values"]["over_prior"] == 0.0


def test_a_column_of_statuses_stands_once(report: Report) -> None:
    assert parsed(report).texts.count("Status") == 1
    report.spec = report.spec.model_copy(update={"columns": [Column(value="status"), Column(value="global")]})
    page = parsed(report)
    assert "Status" not in page.texts
    assert page.texts.count("status") == 1


def test_failed_cells_keep_their_row_and_show_the_end_of_their_log(report: Report) -> None:
    page = parsed(report)
    rows = page.data["rows"]
    assert (rows[OOM]["statuses"], rows[OOM]["status"]) == (["oom"], "OOM (train, step 3)")
    assert "global" not in rows[OOM]["values"]
    assert rows[OOM]["values"]["memory:predicted"] == 30.0
    assert rows[NOT_RUN]["statuses"] == ["not run"]
    assert "a b last line" in page.texts
    error = Failure(type="AuditError", message="refused", phase="train")
    failed = report.records[report.cells[OOM].cell_id].model_copy(update={"error": error})
    report.records[report.cells[OOM].cell_id] = failed
    assert "No end of a log: the record has the message only." in parsed(report).texts
    assert "8 of 10 cells ended well" in page.texts


def test_settings_stand_once_where_they_are_the_same(report: Report) -> None:
    for place, (cell_id, record) in enumerate(report.records.items()):
        settings = {"train": {"steps": 300, "lr": [1e-3, 2.0]}, "seed": 7, "methods": {"r": place}, "none": None}
        report.records[cell_id] = record.model_copy(update={"settings": settings, "estimate": None})
    facts = parsed(report).data["facts"]
    assert ["settings.train.steps", "300"] in facts["common"]
    assert ["settings.train.lr", "[0.001, 2.0]"] in facts["common"]
    place = facts["paths"].index("settings.methods.r")
    assert [dict(own).get(place) for own in facts["own"]] == [*map(str, range(9)), None]
    assert not [path for path in facts["paths"] if path in ("settings.seed", "settings.none")]


def test_texts_of_others_come_out_harmless_and_readable(report: Report) -> None:
    report.cells = [cell.model_copy(update={"label": f"{HOSTILE} {i}"}) for i, cell in enumerate(report.cells)]
    for cell in report.cells[:NOT_RUN]:
        report.records[cell.cell_id] = report.records[cell.cell_id].model_copy(update={"label": cell.label})
    line = {"question_id": HOSTILE, "image": None, "question": HOSTILE, "answer": HOSTILE, "prediction": HOSTILE}
    path = report.records[report.cells[0].cell_id].predictions
    assert path is not None
    (report.folder / path).write_text(json.dumps(line | {"correct": False}) + "\n")
    error = Failure(type=HOSTILE, message=HOSTILE, phase="train", log_tail=f"{HOSTILE}\n\x1b[31m{HOSTILE}\x00")
    failed = failed_record(report.cells[1], Status.ERROR, "train").model_copy(update={"error": error})
    report.records[report.cells[1].cell_id] = failed
    page = parsed(report)
    assert page.wrong == []
    assert not page.named("img")
    assert len(page.scripts) == 3
    assert page.data["questions"][0]["p"][0][0] == VISIBLE
    assert page.data["rows"][0]["label"] == f"{VISIBLE} 0"
    assert any(VISIBLE in text for text in page.texts)
    assert not [text for text in page.texts if "\u202e" in text or "\x1b" in text]


def test_json_cannot_leave_its_element() -> None:
    text = safe_json({"a": "</script><!-- \u2028 & é"})
    assert not re.search(r"[<>&\u2028é]", text)
    assert json.loads(text) == {"a": "</script><!-- \u2028 & é"}


def test_a_file_of_predictions_outside_the_results_is_not_read(report: Report, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"question_id": "s", "answer": "a", "prediction": "p", "correct": true}\n')
    for cell_id, record in report.records.items():
        report.records[cell_id] = record.model_copy(update={"predictions": "../secret.jsonl"})
    page = parsed(report)
    assert page.data["questions"] == []
    assert len(page.data["asked"]["problems"]) == 9


@pytest.mark.parametrize("damage", ["", "[]\n", "{}\n", "{", "\x00\n", '{"question_id": 1, "prediction": "x"}\n'])
def test_a_damaged_file_of_predictions_is_named(report: Report, damage: str) -> None:
    record = report.records[report.cells[0].cell_id]
    assert record.predictions is not None
    (report.folder / record.predictions).write_text(damage)
    asked = parsed(report).data["asked"]
    assert len(asked["problems"]) == (1 if damage else 0)
    (report.folder / record.predictions).unlink()
    assert record.cell_id in parsed(report).data["asked"]["problems"][0]


def test_images_come_from_the_data_of_the_records_or_a_note_says_why_not(report: Report) -> None:
    data = parsed(report).data
    assert data["note"] == ""
    assert {question["i"] for question in data["questions"]} == set(range(20))
    assert all(uri.startswith("data:image/webp;base64,UklGR") for uri in data["images"])
    for cell_id, record in report.records.items():
        report.records[cell_id] = record.model_copy(update={"data_digest": "0" * 64})
    data = parsed(report).data
    assert data["images"] == []
    assert "other data" in data["note"]


def test_the_same_records_give_the_same_bytes_once(report: Report, tmp_path: Path) -> None:
    kept = report.write(tmp_path / "index.html")
    assert report.page(kept) is None
    report.records = dict(reversed(report.records.items()))
    assert report.page() == kept.read_bytes()
    report.records[report.cells[NOT_RUN].cell_id] = make_record(report.cells[NOT_RUN], 3)
    changed = report.page(kept)
    assert changed is not None
    assert changed != kept.read_bytes()


def test_a_page_is_written_without_any_record(report: Report) -> None:
    report.records = {}
    page = parsed(report)
    assert page.wrong == []
    assert "0 of 10 cells ended well" in page.texts
