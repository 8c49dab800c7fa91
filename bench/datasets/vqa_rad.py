"""VQA-RAD (Lau et al., Scientific Data 2018): 314 radiology images, 2,248 questions, CC0.

Splits: ``train`` (1,797 questions) and ``test`` (451). In the official split 202 of the 203 test images also occur
in training; ``split_by: image`` makes one without common images from all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench.datasets.common import files
from bench.datasets.common import records as _records
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import LocalPath

PUBLIC = "VQA_RAD Dataset Public.json"
SUFFIXES = (".json", ".jsol", ".jsonl")
WHERE = files.Where(
    name="vqa_rad",
    source="https://osf.io/89kps/ (CC0)",
    layout=f"""
{PUBLIC}   (or trainset.json and testset.json)
images/synpic*.jpg            (or "VQA_RAD Image Folder/")
""",
)
PUBLISHED = "97efa059df7b10a306b2f8a636d585b0ccc3396812f239b98671769549ad9ddc"
"""``contents_digest`` of the 314 images that the questions need."""
LEAKY_ROWS = 3064
LEAKY_SHARE = 0.02
"""More test questions than this share also in training: a leak (the official split has 1 of 451)."""


class VqaRadSettings(files.FolderSettings):
    """Local files: the public JSON, or a train and a test file cut from it."""

    name: Literal["vqa_rad"]
    root: LocalPath = Path("data/vqa_rad")
    """Folder with the annotation files and the images."""
    split_by: Literal["official", "image"] = "official"
    """``image``: no image in both splits; about a fifth of the images, with all their questions, for testing."""
    allow_leaky: bool = False
    """Accept a train file that holds rephrased test questions; the train and test files then go before the public
    JSON. Only to reproduce numbers that were published with it."""


Settings = VqaRadSettings


def digest(settings: VqaRadSettings) -> str:
    """See ``DataPlugin.digest``."""
    return load(settings).digest()


def load(settings: VqaRadSettings) -> files.ImageFolder:
    """See ``DataPlugin.load``."""
    root = settings.root
    images = files.first_existing(root, ("images", "VQA_RAD Image Folder"))
    if images is None:
        problem = "there is no folder of images in it" if root.is_dir() else "there is no such folder"
        raise WHERE.missing(root, f"{root}: {problem}")
    public = root / PUBLIC
    if public.exists() and not settings.allow_leaky:
        annotations = [public]
        splits = _split_public(public)
    else:
        annotations = [_annotation(root, "train"), _annotation(root, "test")]
        splits = {"train": _read(annotations[0]), "test": _read(annotations[1])}
        if not settings.allow_leaky:
            refuse_leaky(str(annotations[0]), splits["train"], splits["test"])
    if settings.split_by == "image":
        splits = _records.split_by_image([*splits["train"], *splits["test"]])
    return files.ImageFolder(
        splits,
        images=images,
        annotations=annotations,
        remedy=WHERE.remedy(root),
        follow_links=settings.follow_links,
        published=PUBLISHED,
    )


def _annotation(root: Path, split: str) -> Path:
    path = files.first_existing(root, [stem + suffix for stem in (f"{split}set", split) for suffix in SUFFIXES])
    if path is None:
        raise WHERE.missing(root, f"{root}: there is neither {PUBLIC!r} nor a {split} file")
    return path


def _split_public(path: Path) -> dict[str, Sequence[Example]]:
    """``phrase_type`` says which part a question belongs to: freeform and para, or test_freeform and test_para."""
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for record in _records.records_of(str(path), files.read_json(path)):
        part = "test" if record.text("phrase_type").startswith("test") else "train"
        splits[part].append(_example(record))
    return {name: _records.unique(str(path), examples) for name, examples in splits.items()}


def _read(path: Path) -> Sequence[Example]:
    records = _records.records_of(str(path), files.read_json(path))
    return _records.unique(str(path), [_example(record) for record in records])


def _example(record: _records.Record) -> Example:
    return Example(
        question_id=record.text("qid"),
        image=record.text("image_name"),
        questions=(record.text("question"),),
        answer=record.text("answer"),
        answer_type=record.answer_type(),
    )


def refuse_leaky(source: str, train: Sequence[Example], test: Sequence[Example]) -> None:
    """Raise DataError for a training split that tells the answers of test questions.

    The widely copied train file has 3,064 rows: the official 1,797 and 1,267 "framed" questions, which are rephrased
    ones of both parts, 284 of test questions. It is known by its row count; any other by the share of test questions
    that stand in it word for word.
    """
    known = {_records.question_key(example.image_name, example.question()) for example in train}
    common = sum(_records.question_key(example.image_name, example.question()) in known for example in test)
    if len(train) != LEAKY_ROWS and common <= LEAKY_SHARE * len(test):
        return
    raise DataError(
        f"{source}: {len(train):,} training rows, {common} of {len(test)} test questions word for word among them: "
        f"this is the copy of VQA-RAD that leaks test questions (rephrased) into training.\n"
        f"  use {PUBLIC!r} (1,797 training questions, from {WHERE.source}), or, to reproduce numbers that were "
        "published with the leak, set `data.allow_leaky: true`"
    )
