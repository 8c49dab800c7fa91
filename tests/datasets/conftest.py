"""Small data sets in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def picture(path: Path, colour: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (12, 8)) -> Path:
    """A real JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG")
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def rad(qid: int | str, image: str, question: str, answer: object, kind: str, part: str = "freeform") -> dict[str, Any]:
    """A record as VQA-RAD publishes it."""
    return {
        "qid": qid,
        "image_name": image,
        "question": question,
        "answer": answer,
        "answer_type": kind,
        "phrase_type": part,
    }


@pytest.fixture
def rad_root(tmp_path: Path) -> Path:
    """VQA-RAD's public JSON with its oddities: padded answer type, tabs, an integer answer, a qid that is text."""
    root = tmp_path / "vqa_rad"
    for number in range(4):
        picture(root / "images" / f"synpic{number}.jpg", (number * 60, 0, 0))
    records = [
        rad("0", "synpic0.jpg", "Is it red?", "Yes", "CLOSED "),
        rad(1, "synpic1.jpg", "Is the liver \tvisible?", "no", "CLOSED", "para"),
        rad(2, "synpic2.jpg", "How many ribs?", 12, "OPEN"),
        rad(3, "synpic0.jpg", "What is shown?", "Heart \tlungs", "OPEN", "test_freeform"),
        rad(4, "synpic3.jpg", "Is it red?", "no", "CLOSED", "test_para"),
    ]
    write_json(root / "VQA_RAD Dataset Public.json", records)
    return root


@pytest.fixture
def slake_root(tmp_path: Path) -> Path:
    """SLAKE in the official layout, two languages."""
    root = tmp_path / "slake"
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validate": [], "test": []}
    for number, split in enumerate(["train", "train", "validate", "test"]):
        name = f"xmlab{number}/source.jpg"
        picture(root / "imgs" / name, (0, number * 60, 0))
        common = {"img_name": name, "answer_type": "CLOSED"}
        rows[split] += [
            {**common, "qid": 10 * number, "question": "Is it green?", "answer": "Yes", "q_lang": "en"},
            {**common, "qid": 10 * number + 1, "question": "是绿色吗?", "answer": "是", "q_lang": "zh"},
        ]
    rows["train"][0] |= {"answer": "", "answer_type": "OPEN"}
    for split, records in rows.items():
        write_json(root / f"{split}.json", records)
    return root
