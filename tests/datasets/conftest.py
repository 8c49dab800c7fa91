"""Small data sets in the published layouts."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.datasets import slake_hub


def picture(path: Path, colour: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (12, 8)) -> Path:
    """A real JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG")
    return path


def jpeg(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 6), (level, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_json(path: Path, value: Any) -> Path:
    return write(path, json.dumps(value, ensure_ascii=False))


def rad(qid: int | str, image: str, question: str, answer: object, kind: str, part: str = "freeform") -> dict[str, Any]:
    """A record as VQA-RAD publishes it."""
    common = {"qid": qid, "image_name": image, "question": question, "answer": answer}
    return {**common, "answer_type": kind, "phrase_type": part}


def make_rad(root: Path) -> Path:
    """VQA-RAD's public JSON with its oddities: padded answer type, tabs, an integer answer, a qid that is text."""
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


def make_slake(root: Path) -> Path:
    """SLAKE in the official layout, two languages."""
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


def make_slake_hub(root: Path) -> Path:
    """SLAKE in the Hub's layout."""
    official = make_slake(root / "official")
    for name, target in slake_hub.FILES.items():
        shutil.copy(official / f"{name}.json", root / target)
    with zipfile.ZipFile(root / "imgs.zip", "w") as archive:
        for path in sorted((official / "imgs").rglob("*.jpg")):
            archive.write(path, path.relative_to(official))
    shutil.rmtree(official)
    return root


def pool(question: str) -> list[str]:
    """Prompts of one instruction record."""
    return [
        f"<image>Question:{{{question}}}Option:{{(a)Yes; (b)No}} Answer:",
        f'<image>What is the answer?"{{{question}}}"',
    ]


def make_instructions(root: Path) -> Path:
    """Record 52 asks VQA-RAD's test question 4, record 51 the same about another image."""
    shutil.copytree(make_rad(root / "rad") / "images", root / "image" / "vqa-rad")
    asked = [(0, "Is it red?"), (1, "Is it red?"), (3, "is it  RED"), (2, "How many ribs?")]
    records = [
        {"img_name": f"vqa-rad/synpic{image}.jpg", "qid": 50 + n, "answer": "no", "question_pool": pool(question)}
        for n, (image, question) in enumerate(asked)
    ]
    write_json(root / "RAD_instruction_data.json", records)
    return root


def make_pets(root: Path) -> Path:
    """Two splits of two classes, one folder per class."""
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            picture(root / split / "cat" / f"{number}.jpg", (200, 10, 10))
            picture(root / split / "dog" / f"{number}.JPEG", (10, 200, 10))
    return root


def write_parquet(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, *splits: str) -> Path:
    """Splits as the Hub holds them: ``data/<split>-00000-of-00001.parquet``."""
    datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")
    for split in splits or ("train", "test"):
        table = datasets.Dataset.from_dict(columns, features=features and datasets.Features(features))
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def make_rad_hub(root: Path) -> Path:
    """VQA-RAD in the Hub's layout."""
    datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")
    text = datasets.Value("string")
    features = {"image": datasets.Image(), "question": text, "answer": text}
    for split, rows in (
        ("train", [(200, "is it red?", "yes"), (200, "is it  blue?", "no"), (50, "what is it?", "lung")]),
        ("test", [(90, "what is this?", "chest")]),
    ):
        levels, questions, answers = zip(*rows, strict=True)
        images = [{"bytes": jpeg(level), "path": None} for level in levels]
        write_parquet(root, {"image": images, "question": questions, "answer": answers}, features, split)
    return root


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ``datasets`` library with a cache of the test's and no network."""
    datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def _fixture(make: Callable[[Path], Path], name: str) -> Any:
    @pytest.fixture(name=name)
    def made(tmp_path: Path) -> Path:
        return make(tmp_path / name)

    return made


rad_root = _fixture(make_rad, "rad_root")
slake_root = _fixture(make_slake, "slake_root")
slake_hub_root = _fixture(make_slake_hub, "slake_hub_root")
rad_hub_root = _fixture(make_rad_hub, "rad_hub_root")
instructions = _fixture(make_instructions, "instructions")
pets = _fixture(make_pets, "pets")
