"""An opened data set: splits, notes for the record, bytes for a digest, and how a test split is drawn."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import DataError
from bench.plugins import DataSettings, Example
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "undefined"))
"""Texts that programs write for a missing value, in lower case."""
_FIRST_FIELDS = ("question_id", "image", "questions", "answer", "answer_type")


class Notes:
    """Notes on how the data were read, each once with one example of where it applies."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def add(self, text: str, place: str = "") -> None:
        """``text`` is a sentence without its full stop."""
        # The first by name: records must not depend on the order in which threads open images.
        self._places[text] = min(self._places.get(text, place), place)

    def texts(self) -> list[str]:
        """One sentence per note, sorted."""
        return sorted(f"{text} (e.g. {place})" if place else text for text, place in self._places.items())


@dataclass(kw_only=True)
class DataSet:
    """An opened data set, see ``OpenedData``; data sets differ in the functions."""

    splits: Mapping[str, Sequence[Example]]
    image: Callable[[Example], Image]
    """Decodes the image of an example to RGB."""
    digest: Callable[[], str]
    """SHA-256 (hex) over annotations and images."""
    image_digests: Callable[[Sequence[str]], list[str]] | None = None
    """Names of images -> SHA-256 of each; null where images are not files."""
    known_texts: Sequence[str] | None = None
    """All texts; null: those of the examples."""
    kept_notes: Notes = field(default_factory=Notes)

    def split(self, name: str) -> Sequence[Example]:
        """Examples of a split. Raises DataError, with the nearest name, for an unknown one."""
        if name not in self.splits:
            raise DataError(f"unknown split {name!r}{did_you_mean(name, tuple(self.splits))}")
        return self.splits[name]

    def texts(self) -> Sequence[str]:
        """All texts a vocabulary must cover, sorted."""
        if self.known_texts is not None:
            return self.known_texts
        examples = (example for split in self.splits.values() for example in split)
        return sorted({text for e in examples for text in (*e.questions, e.answer, e.text_pair) if text is not None})

    def notes(self) -> Sequence[str]:
        """How the data were read."""
        return self.kept_notes.texts()


def encode_examples(splits: Mapping[str, Sequence[Example]]) -> bytes:
    """All examples as bytes, for a digest."""
    # Stored records hold such digests: a field that Example gains later is written only where it is set.
    named = [f"({name!r}, [{', '.join(map(_encode, splits[name]))}])" for name in sorted(splits)]
    return f"[{', '.join(named)}]".encode("utf-8", "surrogatepass")


def _encode(example: Example) -> str:
    later = [f.name for f in fields(example) if f.name not in _FIRST_FIELDS and getattr(example, f.name) != f.default]
    return f"Example({', '.join(f'{name}={getattr(example, name)!r}' for name in (*_FIRST_FIELDS, *later))})"


def package_folder(package: str, remedy: str) -> Path:
    """Folder of an installed package, which is not imported. Raises DataError with the remedy."""
    spec = find_spec(package)  # importing scikit-learn takes a second, and ``--list`` asks for digests, too
    if spec is None or spec.origin is None:
        raise DataError(f"the package {package} is not installed\n{remedy}")
    return Path(spec.origin).parent


def splits_in_use(settings: DataSettings) -> list[str]:
    """Names of the splits that are trained on or evaluated; others need not be read."""
    return list(dict.fromkeys(name.strip() for name in f"{settings.train_split}+{settings.test_split}".split("+")))


def draw_split(
    examples: Iterable[Example], test_share: float, *, seed: int | None, by_class: bool
) -> dict[str, Sequence[Example]]:
    """``train`` and ``test`` without a common image or, without images, a common text.

    Without a seed by the hash of that content alone, so that no example changes sides when others are added. With a
    seed a share of the contents, ``by_class`` of each class alike; a class with at least two contents is in both.
    """
    examples = list(examples)
    if seed is None:
        return _parted(examples, {key for key in map(_content, examples) if _number(key) / 2**256 < test_share})
    seen: set[str] = set()
    strata: dict[str, list[str]] = {}
    for example in examples:
        if (key := _content(example)) not in seen:
            seen.add(key)
            strata.setdefault(example.answer if by_class else "", []).append(key)
    chosen: set[str] = set()
    for keys in strata.values():
        count = min(len(keys) - 1, max(1, round(test_share * len(keys))))
        chosen.update(sorted(keys, key=lambda key: _number(f"{seed}\0{key}"))[:count])
    return _parted(examples, chosen)


def split_by_image(examples: Sequence[Example]) -> dict[str, Sequence[Example]]:
    """``train`` and ``test`` without a common image: about a fifth of the images, by the hash of their names, is for
    testing, so that no image changes sides when others are added."""
    return _parted(examples, {e.image_name for e in examples if _number(e.image_name) % 5 == 0})


def _parted(examples: Sequence[Example], test_contents: set[str]) -> dict[str, Sequence[Example]]:
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for example in examples:
        splits["test" if _content(example) in test_contents else "train"].append(example)
    return dict(splits)


def _content(example: Example) -> str:
    """Image or texts of an example, which must not be in two splits."""
    pair = () if example.text_pair is None else (example.text_pair,)
    return example.image or "\n".join((*example.questions, *pair))


def _number(text: str) -> int:
    """Hash of a text, below 2**256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())


def note_classes(splits: Iterable[Sequence[Example]], notes: Notes) -> None:
    """Note classes that look like missing values, and classes that differ only in how they are written."""
    counts = Counter(example.answer for split in splits for example in split)

    def note(problem: str, names: Sequence[str]) -> None:
        shown = ", ".join(f"{name!r:.80} ({counts[name]:,} times)" for name in names[:5])
        notes.add(f"{problem}: {shown}" + (f", and {len(names) - 5:,} more" if len(names) > 5 else ""))

    names = sorted(counts)
    if missing := [name for name in names if name.strip().lower() in MISSING]:
        note("classes that look like missing values count as classes", missing)
    for spelling, n in Counter(map(_spelling, names)).items():
        if n > 1:
            alike = [name for name in names if _spelling(name) == spelling]
            note("names that differ only in case, spaces or how a number is written are separate classes", alike)


def _spelling(name: str) -> str:
    with suppress(ValueError):
        return str(float(name))
    return " ".join(name.replace("_", " ").split()).casefold()
