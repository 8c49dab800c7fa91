"""Cells: order, labels, and an id that changes with the result and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import SpecError
from bench.spec.cell import DETERMINING, Cell, cell_id, expand, select
from bench.spec.load import read_spec

SPEC = """\
name: s
title: A title
model:
  family: miss
  preset: tiny
  weights: {kind: folder, path: weights/here}
data: {name: slake, root: data/slake, test_limit: 100}
train:
  steps: 10
  batch_size: 8
  optimizer: {lr: 1e-3}
evaluate: {batch_size: 8}
methods:
  LoRA: {type: lora, r: 4}
  IA3: {type: ia3}
parts: {vit: F, jtm: T, dec: LoRA}
columns: [vit, params]
"""
Expand = Callable[..., list[Cell]]


@pytest.fixture
def cells_of(tmp_path: Path) -> Expand:
    def cells(text: str = SPEC, sets: tuple[str, ...] = (), seeds: list[int] | None = None) -> list[Cell]:
        path = tmp_path / "s.yaml"
        path.write_text(text)
        source = read_spec(path)
        return expand(source.resolve(source.scales[0], sets, seeds))

    return cells


def test_golden_id() -> None:
    """Finished cells must outlive refactoring: the same content has the same id in every version."""
    content = {
        "seed": 42,
        "parts": {"vit": "F", "jtm": "LoRA", "dec": "LoRA"},
        "methods": {"LoRA": {"type": "lora", "r": 4}},
        "model": {"family": "miss", "preset": "tiny", "weights": None},
        "data": {"name": "easy_vqa", "test_limit": 600},
        "train": {"steps": 150, "optimizer": {"lr": 5e-4}},
        "evaluate": {"batch_size": 100},
    }
    assert cell_id(content) == "57bbb6047f0e98e9"


def test_id_is_of_what_determines_the_result(cells_of: Expand) -> None:
    [cell] = cells_of()
    content = cell.model_dump(mode="json", include=set(DETERMINING), exclude_defaults=True)
    assert "shuffle" not in content["train"], "a field that a later version adds must not change ids"
    del content["model"]["weights"]["path"]
    content["data"].pop("root", None)
    assert cell.cell_id == cell_id(content)


SAME = [
    ("name: s\n", "name: other\n"),
    ("title: A title", "title: Another"),
    ("columns: [vit, params]", "columns: [jtm, {value: global, header: G}]"),
    ("columns: [vit, params]", "published: {source: x, rows: [{vit: F}]}"),
    ("columns: [vit, params]", "pareto: {cost: params}"),
    ("columns: [vit, params]", "run: {device: cpu, threads: 1, wall_clock_limit_s: 5}"),
    ("columns: [vit, params]", "scales: {demo: {train: {steps: 1}}}"),
    ("path: weights/here", "path: weights/there"),
    ("root: data/slake", "root: /elsewhere"),
    ("  steps: 10\n  batch_size: 8", "  batch_size: 8\n  steps: 10"),
    ("  steps: 10", "  steps: 10\n  save_model: somewhere"),
    ("lr: 1e-3", "lr: 0.001"),
    ("lr: 1e-3", "lr: 1e-3, name: adamw"),
    ("{vit: F, jtm: T, dec: LoRA}", "{dec: LoRA, jtm: T, vit: F}"),
    ("  IA3: {type: ia3}\n", ""),
]
"""Changes of a spec that no result depends on."""
OTHER = [
    ("preset: tiny", "preset: small"),
    ("kind: folder, path: weights/here", "kind: checkpoint, path: weights/here"),
    ("  weights: {kind: folder, path: weights/here}\n", ""),
    ("name: slake, root: data/slake", "name: vqa_rad, root: data/slake"),
    ("test_limit: 100", "test_limit: 101"),
    ("test_limit: 100", "test_limit: 100, subset_seed: 1"),
    ("steps: 10", "steps: 11"),
    ("steps: 10", "epochs: 10"),
    ("lr: 1e-3", "lr: 1.1e-3"),
    ("lr: 1e-3", "lr: 1e-3, weight_decay: 0.1"),
    ("  steps: 10", "  steps: 10\n  precision: bf16"),
    ("evaluate: {batch_size: 8}", "evaluate: {batch_size: 9}"),
    ("evaluate: {batch_size: 8}", "evaluate: {batch_size: 8, closed: yes_no}"),
    ("r: 4", "r: 5"),
    ("{vit: F, jtm: T, dec: LoRA}", "{vit: T, jtm: F, dec: LoRA}"),
    ("{vit: F, jtm: T, dec: LoRA}", "{vit: F, jtm: T, dec: IA3}"),
    ("columns: [vit, params]", "seeds: [43]"),
]


@pytest.mark.parametrize(("old", "new", "same"), [*((*e, True) for e in SAME), *((*e, False) for e in OTHER)])
def test_an_id_changes_with_the_result_alone(cells_of: Expand, old: str, new: str, same: bool) -> None:
    assert SPEC.count(old) == 1
    [before], [after] = cells_of(), cells_of(SPEC.replace(old, new))
    assert (after.cell_id == before.cell_id) == same


def test_first_axis_is_the_slowest_and_seeds_the_fastest(cells_of: Expand) -> None:
    matrix = "matrix:\n  axes:\n    train.steps: [5, 6]\n    methods.LoRA.r: [4, 8]\n  names: {methods.LoRA.r: rank}\n"
    cells = cells_of(SPEC + matrix, seeds=[1, 2])
    assert [cell.label for cell in cells[:5]] == [
        "F-T-LoRA steps=5 rank=4 seed=1",
        "F-T-LoRA steps=5 rank=4 seed=2",
        "F-T-LoRA steps=5 rank=8 seed=1",
        "F-T-LoRA steps=5 rank=8 seed=2",
        "F-T-LoRA steps=6 rank=4 seed=1",
    ]
    assert cells[2].labels == {"steps": 5, "rank": 8}
    assert cells[2].methods["LoRA"].model_dump()["r"] == 8
    assert len({cell.cell_id for cell in cells}) == 8


@pytest.mark.parametrize(
    ("axes", "labels"),
    [
        (
            "{train.batch_size: [4], evaluate.batch_size: [2]}",
            ["F-T-LoRA train.batch_size=4 evaluate.batch_size=2"],
        ),
        (
            "{data: [{name: slake, test_limit: 5}, {name: slake, test_limit: 6}]}",
            ["F-T-LoRA data=slake #1", "F-T-LoRA data=slake #2"],
        ),
    ],
)
def test_labels_are_unique(cells_of: Expand, axes: str, labels: list[str]) -> None:
    assert [cell.label for cell in cells_of(f"{SPEC}matrix:\n  axes: {axes}\n")] == labels


def test_a_cell_survives_its_file(cells_of: Expand) -> None:
    [cell] = cells_of()
    assert Cell.model_validate_json(cell.model_dump_json()) == cell
    assert set(cell.methods) == {"LoRA"}
    assert list(cell.parts) == ["vit", "jtm", "dec"]


def test_select(cells_of: Expand) -> None:
    include = "matrix:\n  include:\n    - {vit: F, methods.LoRA.r: 4}\n    - {vit: T, methods.LoRA.r: 8}\n"
    cells = cells_of(SPEC + include)

    def labels(*globs: str) -> list[str]:
        return [cell.label for cell in select(cells, globs)]

    assert labels() == ["F-T-LoRA r=4", "T-T-LoRA r=8"]
    assert labels("F-*") == labels("F-T-LoRA r=4") == labels("*r=4") == labels("F-T-LoRA") == ["F-T-LoRA r=4"]
    assert labels("*=8", "F-*") == labels()
    with pytest.raises(SpecError, match=r"--only 'f-\*': no cell has such a label \(labels: 'F-T-LoRA r=4', "):
        labels("F-*", "f-*")


AXIS = "matrix:\n  axes:\n    model.weights.path: [weights/a, weights/b]\n"


def test_cells_that_differ_only_in_local_files_are_different_cells(cells_of: Expand) -> None:
    """Their ids hold the labels that the spec gives them, so that an id means the same on another machine."""
    [plain], [one] = cells_of(), cells_of(SPEC + AXIS.replace("a, weights/b", "a"))
    assert one.cell_id == plain.cell_id, "a single file has no label"
    a, b = cells_of(SPEC + AXIS)
    assert a.cell_id != b.cell_id
    assert [one.cell_id for one in cells_of(SPEC + AXIS, ("data.root=/elsewhere",))] == [a.cell_id, b.cell_id]
    assert [one.cell_id for one in cells_of(SPEC + AXIS.replace("a, weights/b", "b, weights/a"))] == [
        b.cell_id,
        a.cell_id,
    ]
    variants = "variants:\n  one: {data: {root: x}}\n  two: {data: {root: y}}\n"
    one, two = cells_of(SPEC + variants)
    assert one.cell_id != two.cell_id
    moved = cells_of(SPEC + variants.replace("root: y", "root: /mnt/y"))
    assert [cell.cell_id for cell in moved] == [one.cell_id, two.cell_id]


def test_the_same_files_twice_are_the_same_run(cells_of: Expand) -> None:
    variants = "variants:\n  one: {data: {root: x}}\n  two: {data: {root: y}}\n  three: {data: {root: x}}\n"
    with pytest.raises(SpecError, match=r"variant=three' is\s+the\s+same\s+run\s+as 'F-T-LoRA variant=one'"):
        cells_of(SPEC + variants)
    with pytest.raises(SpecError, match=r"is\s+the\s+same\s+run\s+as"):
        cells_of(SPEC + AXIS.replace("a, weights/b", "a, weights/a"))
