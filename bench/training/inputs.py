"""What is told of a cell's inputs before it trains: texts that are cut, and test examples that training has, too."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import cast

from bench.plugins.contracts import BenchModel, CutTexts, Example, PairModel, Task
from bench.plugins.settings import DataSettings
from bench.records.record import CutCount, Overlap
from bench.training.data import LoadedData, pairs_of

_MOST_TEXTS = 20_000
"""Of a larger split so many or more, evenly spread, are counted."""
_MOST_IMAGES = 5_000
"""Images that are decoded, at most, to compare their contents."""

_Text = tuple[str, ...]


def count_cut(data: LoadedData, model: BenchModel, task: Task) -> dict[str, CutCount]:
    """Questions and answers by split; empty where there is no text, or the model does not say."""
    if "text" not in task.facts.inputs:
        return {}
    pairs_of(model, [*data.train[:1], *data.test[:1]])
    if not hasattr(model, "cut_texts"):
        return {}
    found = {}
    for split, examples in (("train", _spread(data.train)), ("test", _spread(data.test))):
        questions = [text for e in examples for text in e.questions]
        answers = [e.answer for e in examples] if split == "train" and task.facts.output == "text" else []
        pairs = pairs_of(model, [e for e in examples for _ in e.questions])
        cut: CutTexts = (
            cast(PairModel, model).cut_texts(questions, answers, pairs)
            if pairs
            else model.cut_texts(questions, answers)
        )
        found[f"{split}_questions"] = CutCount(cut=cut.questions, n=len(questions))
        if answers:
            found[f"{split}_answers"] = CutCount(cut=cut.answers, n=len(answers))
    for name, count in found.items():
        if count.cut:
            print(f"cut: {count.cut:,} of {count.n:,} {name.replace('_', ' ')} are longer than the model takes")
    return found


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    step = max(1, len(examples) // _MOST_TEXTS)
    return [examples[i] for i in range(0, len(examples), step)]


def overlap(data: LoadedData, task: Task, settings: DataSettings) -> Overlap:
    """Of the examples that this cell trains on and is scored on."""
    seeing, reading = ("image" in task.facts.inputs, "text" in task.facts.inputs)
    known: defaultdict[_Text, dict[str | None, Example]] = defaultdict(dict)
    for example in data.train:
        for text in example.questions if reading else ("",):
            known[_text(text, example)][example.image if seeing else None] = example
    unmatched: defaultdict[_Text, list[Example]] = defaultdict(list)
    same = 0
    for example in data.test:
        key = _text(example.question() if reading else "", example)
        trained = known.get(key, {})
        if (example.image if seeing else None) in trained:
            same += 1
        elif trained:
            unmatched[key].append(example)
    compared = None
    if seeing:
        by_content = _same_contents(data, [(tests, known[key].values()) for key, tests in unmatched.items()])
        compared = "names" if by_content is None else "contents"
        same += by_content or 0
    found = Overlap(splits=settings.trained_and_scored(), same=same, n=len(data.test), images=compared)
    if found.splits:
        print(f"scored on the training split: {', '.join(found.splits)}")
    if found.same:
        print(f"overlap: {found.same:,} of {found.n:,} test examples are in training, too")
    return found


def _text(question: str, example: Example) -> _Text:
    """Without case and white space."""
    second = () if example.text_pair is None else (example.text_pair,)
    return tuple(" ".join(text.casefold().split()) for text in (question, *second))


def _same_contents(data: LoadedData, of_texts: Sequence[tuple[Sequence[Example], Iterable[Example]]]) -> int | None:
    """How many of the test examples have the image of a training example with the same text, under another name; null
    if there are too many images to look at. ``of_texts``: the test and training examples of each text.
    """
    images = {e.image_name: e for tests, trained in of_texts for e in (*tests, *trained)}
    digests = _digests(data, images)
    if digests is None:
        return None
    same = 0
    for tests, trained in of_texts:
        contents = {digests[example.image_name] for example in trained}
        same += sum(digests[example.image_name] in contents for example in tests)
    return same


def _digests(data: LoadedData, images: dict[str, Example]) -> dict[str, str] | None:
    """Name of an image -> digest of its content. Images are decoded past the cache, which training is timed with."""
    if (of_files := getattr(data.source, "image_digests", None)) is not None:
        return dict(zip(images, of_files(list(images)), strict=True))
    if len(images) > _MOST_IMAGES:
        return None
    found = {}
    for name, example in images.items():
        image = data.source.image(example)
        found[name] = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()
    return found
