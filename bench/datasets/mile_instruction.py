"""The instruction-format questions of the MILE paper: each record has a pool of prompts, one is drawn at each visit.

The published file (2,233 records made from VQA-RAD; no licence) contains 449 of the 451 VQA-RAD test questions. What
the model is evaluated on must therefore be said (``evaluate_on``), and records of test questions are dropped from
training unless ``allow_leaky: true``, which is what the authors' code does.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.datasets import slake, vqa_rad
from bench.datasets.common import files
from bench.datasets.common import records as _records
from bench.errors import DataError
from bench.plugins.contracts import Example, OpenedData
from bench.plugins.settings import LocalPath

if TYPE_CHECKING:
    from PIL.Image import Image

ANNOTATIONS = ("instruction_data.json", "RAD_instruction_data.json", "instruction.jsol")
WHERE = files.Where(
    name="mile_instruction",
    source="https://github.com/TIMMY-CHAN/MILE (folder Instruction_dataset; no licence is stated), "
    "images from https://osf.io/89kps/ and https://www.med-vqa.com/slake/",
    layout="""
instruction_data.json         (or RAD_instruction_data.json)
image/vqa-rad/synpic*.jpg     image/slake/...
""",
)
_SLAKE_NAME = re.compile(r"(?:.*/)?(?:slake_|xmlab)([0-9]+)(?:\.(?:png|jpe?g)|/source\.jpg)")
_FIRST_BRACES = re.compile(r"\{(.*?)\}", re.DOTALL)


class MileInstructionSettings(files.FolderSettings):
    """Local files in the layout of the MILE repository's ``Instruction_dataset`` folder."""

    name: Literal["mile_instruction"]
    root: LocalPath = Path("data/mile_instruction")
    """Folder with the annotation file and ``image``."""
    evaluate_on: Literal["held_out", "vqa_rad", "slake"]
    """Split ``test``: the records of about a fifth of the images, none of them in ``train``, each with the first
    prompt of its pool; or VQA-RAD's or SLAKE's own test questions as they are."""
    test_root: LocalPath | None = None
    """Folder of VQA-RAD or SLAKE, if evaluated on; null for its default."""
    allow_leaky: bool = False
    """Keep records whose question is in the test split. Only to reproduce numbers that were published so."""


Settings = MileInstructionSettings


def digest(settings: MileInstructionSettings) -> str:
    """See ``DataPlugin.digest``."""
    own, other = _open(settings)
    return own.digest() if other is None else sha256((own.digest() + other.digest()).encode()).hexdigest()


def load(settings: MileInstructionSettings) -> OpenedData:
    """See ``DataPlugin.load``."""
    own, other = _open(settings)
    return own if other is None else WithTest(own, other)


def _open(settings: MileInstructionSettings) -> tuple[files.ImageFolder, files.ImageFolder | None]:
    """This file's records, and the data set that the test questions come from."""
    root = settings.root
    path = files.first_existing(root, ANNOTATIONS)
    if path is None:
        raise WHERE.missing(root, f"{root}: there is no annotation file ({', '.join(ANNOTATIONS)})")
    examples = _read(path, root / "image")
    other = _test_data(settings)
    if other is None:
        splits = _records.split_by_image(examples)
    elif settings.allow_leaky:
        splits = {"train": examples}
    else:
        splits = {"train": _without_test(path, examples, other.split("test"), settings.evaluate_on)}
    own = files.ImageFolder(
        splits,
        images=root / "image",
        annotations=[path],
        remedy=WHERE.remedy(root),
        follow_links=settings.follow_links,
    )
    if "test" not in splits and len(splits["train"]) < len(examples):
        left_out = len(examples) - len(splits["train"])
        own.kept_notes.add(
            f"{left_out:,} of {len(examples):,} records ask test questions and were left out of training"
        )
    return own, other


def _read(path: Path, images: Path) -> Sequence[Example]:
    records = _records.records_of(str(path), files.read_json(path))
    folders = {record.text("img_name").rpartition("/")[0].partition("/")[0] for record in records}
    numbers = Counter(record.text("qid") for record in records)
    shared = len(folders) > 1 and max(numbers.values()) > 1  # VQA-RAD and SLAKE both count from 0
    examples = [
        Example(
            question_id=f"{record.text('img_name').partition('/')[0]}-{record.text('qid')}"
            if shared
            else record.text("qid"),
            image=_stored_name(images, record.text("img_name")),
            questions=record.texts("question_pool"),
            answer=record.text("answer"),
        )
        for record in records
    ]
    return _records.unique(str(path), examples)


def _stored_name(images: Path, name: str) -> str:
    """The name, or the other one of a SLAKE image if that is what lies in the folder."""
    number = slake_number(name)
    if number is None or (images / name).exists():
        return name
    others = (f"slake/xmlab{number}/source.jpg", f"slake/slake_{number}.png")
    return next((other for other in others if (images / other).exists()), name)


def slake_number(name: str) -> str | None:
    """Of a SLAKE image under either of its names, ``slake_12.png`` and ``xmlab12/source.jpg``; null for any other."""
    match = _SLAKE_NAME.fullmatch(name)
    return None if match is None else str(int(match.group(1)))


def _test_data(settings: MileInstructionSettings) -> files.ImageFolder | None:
    root: dict[str, Path] = {} if settings.test_root is None else {"root": settings.test_root}
    follow = settings.follow_links
    match settings.evaluate_on:
        case "held_out":
            return None
        case "vqa_rad":
            return vqa_rad.load(vqa_rad.Settings(name="vqa_rad", follow_links=follow, **root))
        case "slake":
            return slake.load(slake.Settings(name="slake", follow_links=follow, **root))


def _without_test(path: Path, examples: Sequence[Example], test: Sequence[Example], folder: str) -> list[Example]:
    """Records whose question, the text in the prompts' first braces, is no test question about the same image."""
    odd = [e.image_name for e in examples if e.image_name.startswith("slake/") and slake_number(e.image_name) is None]
    if folder == "slake" and odd:
        raise DataError(
            f"{path}: {odd[0]!r} is no name of a SLAKE image (slake_12.png or xmlab12/source.jpg): its questions "
            "cannot be told from test questions; correct it, evaluate on held_out or vqa_rad, or set "
            "`data.allow_leaky: true`"
        )
    known = {_records.question_key(_image(example.image_name), example.question()) for example in test}
    return [example for example in examples if plain_question(example) not in known]


def _image(name: str) -> str:
    """The same for every name of an image."""
    number = slake_number(name)
    return name.rpartition("/")[2] if number is None else f"xmlab{number}"


def plain_question(example: Example) -> tuple[str, str]:
    """The image and the bare question of a record, as ``question_key`` has them."""
    prompt = example.question()
    braces = _FIRST_BRACES.search(prompt)
    return _records.question_key(_image(example.image_name), braces.group(1) if braces else prompt)


class WithTest:
    """``OpenedData`` with ``train`` from one data set and ``test`` from another."""

    def __init__(self, train: files.ImageFolder, test: files.ImageFolder) -> None:
        self._parts = {"train": train, "test": test}

    def split(self, name: str) -> Sequence[Example]:
        """See ``OpenedData.split``."""
        if name not in self._parts:
            raise DataError(f"unknown split {name!r} (known: train, test)")
        examples = self._parts[name].split(name)
        return [dataclasses.replace(example, image=f"{name}:{example.image_name}") for example in examples]

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        part, _, name = example.image_name.partition(":")
        return self._parts[part].image(dataclasses.replace(example, image=name))

    def notes(self) -> Sequence[str]:
        """See ``OpenedData``."""
        return [note for part in self._parts.values() for note in part.notes()]

    def texts(self) -> Sequence[str]:
        """See ``OpenedData.texts``."""
        return sorted({text for part in self._parts.values() for text in part.texts()})
