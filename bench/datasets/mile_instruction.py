"""The instruction-format questions of the MILE paper: each record has a pool of prompts, one is drawn at each visit.

The published file (2,233 records made from VQA-RAD; no licence) contains 449 of the 451 VQA-RAD test questions. What
the model is evaluated on must therefore be said (``evaluate_on``), and records of test questions are dropped from
training unless ``allow_leaky: true``, which is what the authors' code does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.datasets import slake, vqa_rad
from bench.datasets.common.dataset import DataSet, split_by_image
from bench.datasets.common.images import FolderSettings, first_existing, open_folder
from bench.datasets.common.rows import SourceRow, read_records, unique
from bench.errors import DataError
from bench.plugins import Example, LocalPath

if TYPE_CHECKING:
    from PIL.Image import Image

ANNOTATIONS = ("instruction_data.json", "RAD_instruction_data.json", "instruction.jsol")
_SLAKE_NAME = re.compile(r"(?:.*/)?(?:slake_|xmlab)([0-9]+)(?:\.(?:png|jpe?g)|/source\.jpg)")
_FIRST_BRACES = re.compile(r"\{(.*?)\}", re.DOTALL)


class MileInstructionSettings(FolderSettings):
    """Local files in the layout of the MILE repository's ``Instruction_dataset`` folder."""

    SOURCE: ClassVar[str] = (
        "https://github.com/TIMMY-CHAN/MILE (folder Instruction_dataset; no licence is stated), images from "
        "https://osf.io/89kps/ and https://www.med-vqa.com/slake/"
    )
    LAYOUT: ClassVar[str] = """
instruction_data.json         (or RAD_instruction_data.json)
image/vqa-rad/synpic*.jpg     image/slake/...
"""

    name: Literal["mile_instruction"]
    root: LocalPath = Path("data/mile_instruction")
    """Folder with the annotation file and ``image``."""
    evaluate_on: Literal["held_out", "vqa_rad", "slake"]
    """Split ``test``: the records of about a fifth of the images, none of them in ``train``, each with the first
    prompt of its pool; or the test questions of VQA-RAD or SLAKE."""
    test_root: LocalPath | None = None
    """Folder of VQA-RAD or SLAKE, if evaluated on; null for its default."""
    allow_leaky: bool = False
    """Keep records whose question is in the test split. Only to reproduce numbers that were published so."""


Settings = MileInstructionSettings


def digest(settings: MileInstructionSettings) -> str:
    """SHA-256 over annotations and images, including those of the data set evaluated on."""
    return load(settings).digest()


def load(settings: MileInstructionSettings) -> DataSet:
    """The two splits. Raises DataError for missing files and broken records."""
    root = settings.root
    path = first_existing(root, ANNOTATIONS)
    if path is None:
        raise settings.not_found(root, f"there is no annotation file ({', '.join(ANNOTATIONS)})")
    examples = _read(path, root / "image")
    other = _test_data(settings)
    if other is None:
        splits = split_by_image(examples)
    elif settings.allow_leaky:
        splits = {"train": examples}
    else:
        splits = {"train": _without_test(path, examples, other.split("test"), settings.evaluate_on)}
    notes = None if other is None else other.kept_notes
    remedy, follow = settings.remedy(root), settings.follow_links
    trained = open_folder(splits, root / "image", [path], remedy, follow_links=follow, notes=notes)
    if other is None:
        return trained
    if left_out := len(examples) - len(splits["train"]):
        problem = "records ask test questions and were left out of training"
        trained.kept_notes.add(f"{left_out:,} of {len(examples):,} {problem}")
    return _joined(trained, other)


def _joined(train: DataSet, test: DataSet) -> DataSet:
    """``train`` of one data set and ``test`` of another."""
    parts = {"train": train, "test": test}  # names of images get the split in front: both may have the same

    def image(example: Example) -> Image:
        part, _, name = example.image_name.partition(":")
        return parts[part].image(replace(example, image=name))

    return DataSet(
        splits={
            name: [replace(example, image=f"{name}:{example.image_name}") for example in part.split(name)]
            for name, part in parts.items()
        },
        image=image,
        digest=lambda: sha256((train.digest() + test.digest()).encode()).hexdigest(),
        known_texts=sorted({*train.texts(), *test.texts()}),
        kept_notes=train.kept_notes,
    )


def _read(path: Path, images: Path) -> Sequence[Example]:
    rows = read_records(path)
    folders = {row.words("img_name").rpartition("/")[0].partition("/")[0] for row in rows}
    # VQA-RAD and SLAKE both count from 0.
    by_folder = len(folders) > 1 and max(Counter(row.words("qid") for row in rows).values()) > 1
    return unique(((row, _example(row, images, by_folder=by_folder)) for row in rows), "qid")


def _example(row: SourceRow, images: Path, *, by_folder: bool) -> Example:
    name, pool = row.words("img_name"), row.fields.get("question_pool")
    if not isinstance(pool, list) or not pool or not all(isinstance(prompt, str) for prompt in pool):
        raise row.error("question_pool", f"must be a list of texts, found {pool!r:.80}")
    return Example(
        question_id=f"{name.partition('/')[0]}-{row.words('qid')}" if by_folder else row.words("qid"),
        image=_stored_name(images, name),
        questions=tuple(" ".join(prompt.split()) for prompt in pool),
        answer=row.words("answer"),
    )


def _stored_name(images: Path, name: str) -> str:
    """Name of the file that is there: a SLAKE image has two names."""
    number = slake_number(name)
    if number is None or (images / name).exists():
        return name
    others = (f"slake/xmlab{number}/source.jpg", f"slake/slake_{number}.png")
    return next((other for other in others if (images / other).exists()), name)


def slake_number(name: str) -> str | None:
    """Number of a SLAKE image named ``slake_12.png`` or ``xmlab12/source.jpg``; null for another image."""
    match = _SLAKE_NAME.fullmatch(name)
    return None if match is None else str(int(match.group(1)))


def _test_data(settings: MileInstructionSettings) -> DataSet | None:
    """Data set of the test questions; null if they are held out of this one."""
    root = {} if settings.test_root is None else {"root": settings.test_root}
    match settings.evaluate_on:
        case "held_out":
            return None
        case "vqa_rad":
            return vqa_rad.load(vqa_rad.Settings(name="vqa_rad", follow_links=settings.follow_links, **root))
        case "slake":
            return slake.load(slake.Settings(name="slake", follow_links=settings.follow_links, **root))


def _without_test(path: Path, examples: Sequence[Example], test: Sequence[Example], evaluate_on: str) -> list[Example]:
    """Records that do not ask a test question about the same image."""
    names = [example.image_name for example in examples]
    odd = [name for name in names if name.startswith("slake/") and slake_number(name) is None]
    if evaluate_on == "slake" and odd:
        raise DataError(
            f"{path}: {odd[0]!r} is no name of a SLAKE image (slake_12.png or xmlab12/source.jpg): its questions "
            "cannot be compared with test questions; correct it, evaluate on held_out or vqa_rad, or set "
            "`data.allow_leaky: true`"
        )
    known = {_question_key(example.image_name, example.question()) for example in test}
    return [example for example in examples if _bare_question(example) not in known]


def _bare_question(example: Example) -> tuple[str, str]:
    """Key of the question in the first braces of a prompt."""
    prompt = example.question()
    braces = _FIRST_BRACES.search(prompt)
    return _question_key(example.image_name, braces.group(1) if braces else prompt)


def _question_key(name: str, question: str) -> tuple[str, str]:
    """Key of a question about an image, whatever the image is called."""
    number = slake_number(name)
    return vqa_rad.question_key(name.rpartition("/")[2] if number is None else f"xmlab{number}", question)
