"""Reading a spec: YAML 1.2 values with their places, scales, --set, --seeds, the matrix."""

from __future__ import annotations

from typing import Any

import pytest

from bench.errors import SpecError
from bench.spec.cell import expand
from bench.spec.diagnostics import Diagnostics
from bench.spec.load import SpecSource
from bench.spec.sections import Column
from bench.spec.yaml_tree import Node, parse
from tests.spec.conftest import Write

SPEC = """\
model: {family: miss, preset: tiny, weights: {kind: folder, path: w}}
data: {name: easy_vqa}
train: {steps: 10, batch_size: 8, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 8}
methods:
  LoRA: {type: lora, r: 4}
matrix:
  axes:
    parts:
      - {vit: F, jtm: LoRA, dec: LoRA}
      - {vit: F, jtm: T, dec: LoRA}
"""


def labels(source: SpecSource, sets: tuple[str, ...] = ()) -> list[str]:
    return [cell.label for cell in expand(source.resolve("default", sets))]


def read(text: str) -> Node:
    diagnostics = Diagnostics()
    tree = parse(text, "s.yaml", diagnostics)
    diagnostics.raise_if_any()
    assert tree is not None
    return tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-5", 1e-5), ("1.5E+3", 1500.0), ("010", 10), ("0x1F", 31), ("1_000", 1000)),
        *(("no", "no"), ("on", "on"), ("F", "F"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("'5'", "5")),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("[1, [2]]", [1, [2]])),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}\n").plain()
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_a_node_knows_its_place() -> None:
    tree = read("a: 1\nb:\n  - c: x\n")
    assert tree.get("b", 0, "c") == Node("x", "s.yaml:3:8", "s.yaml:3:5")
    assert tree.get("b", 1) is tree.get("a", "c") is None


def test_the_file_names_the_spec_and_published_numbers_its_scale(write: Write) -> None:
    assert write(SPEC).resolve("default").spec.name == "s"
    assert write("name: other\n" + SPEC).resolve("default").spec.name == "other"
    assert write(SPEC + "published: {source: x, rows: []}\n").scales == ("paper",)


def test_scales_change_what_they_name(write: Write) -> None:
    source = write(SPEC + "scales:\n  demo: {train: {batch_size: 2, optimizer: {weight_decay: 0.1}}}\n")
    assert source.scales == ("default", "demo")
    train = source.resolve("demo").spec.train
    assert (train.batch_size, train.steps, train.optimizer.lr, train.optimizer.weight_decay) == (2, 10, 1e-3, 0.1)
    with pytest.raises(SpecError, match="did you mean 'demo'"):
        source.resolve("dmo")


def test_another_plugin_replaces_the_mapping_and_the_same_is_merged(write: Write) -> None:
    scales = "scales:\n  hub: {model: {weights: {kind: hub, id: a/b}}}\n  moved: {model: {weights: {path: v}}}\n"
    scales += "  less: {data: {name: easy_vqa, test_limit: 3}}\n"
    source = write(SPEC.replace("{name: easy_vqa}", "{name: easy_vqa, train_limit: 9}") + scales)
    weights = {scale: source.resolve(scale).spec.model.model_dump(mode="json")["weights"] for scale in source.scales}
    assert weights["hub"] == {"kind": "hub", "id": "a/b", "revision": None, "adapter": {}}
    assert weights["moved"] == {"kind": "folder", "path": "v", "adapter": {}}
    data = source.resolve("less").spec.data
    assert (data.train_limit, data.test_limit) == (9, 3)


def test_a_mistake_in_another_scale_is_a_mistake(write: Write) -> None:
    source = write(SPEC + "scales:\n  demo: {train: {batch_size: two}}\n")
    with pytest.raises(SpecError, match=r"^s\.yaml:13:30: train\.batch_size: must be a whole number, not 'two'$"):
        source.resolve("default")
    assert source.resolve("default", alone=True).points, "no matter for the report of what has run"


def test_set(write: Write) -> None:
    source = write(SPEC)
    spec = source.resolve("default", ["train.optimizer.lr=5e-4", "model.weights=null", "evaluate.closed=yes_no"]).spec
    assert (spec.train.optimizer.lr, spec.model.model_dump()["weights"], spec.evaluate.closed) == (5e-4, None, "yes_no")
    assert labels(source, ("methods.LoRA.r=8",)) == labels(source)
    ranks = labels(source, ("matrix.axes.methods.LoRA.r=[4, 8]",))
    assert ranks == ["F-LoRA-LoRA r=4", "F-LoRA-LoRA r=8", "F-T-LoRA r=4", "F-T-LoRA r=8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.stesp=3", "did you mean 'steps'"),
        ("train.steps", "write a dotted key"),
        ("=3", "write a dotted key"),
        ("train..steps=3", "write a dotted key"),
        ("train.steps=[", "not valid YAML"),
        ("train.steps=many", "must be a whole number, not 'many'"),
        ("train.steps.deep=3", "must be a whole number"),
        ("train.steps=&a 3", "anchor"),
        ("methods.Lora.r=3", "did you mean 'LoRA'"),
        ("methods.LoRA.rank=3", "unknown field"),
        ("parts.vit=T", "set by the matrix axis parts"),
        ("scales.demo.train=3", "chosen with --scale"),
        ("train.epochs=3", "both epochs and steps"),
        ("nonsense=3", "unknown field"),
    ],
)
def test_wrong_set(write: Write, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        write(SPEC).resolve("default", [text])
    # what no single place is to blame for keeps the file's location
    assert str(caught.value).startswith("s.yaml:3:" if "both" in message else f"--set {text}: ")
    assert message in str(caught.value)


def test_seeds(write: Write) -> None:
    cells = expand(write(SPEC).resolve("default", seeds=[1, 2]))
    assert [cell.label for cell in cells[:3]] == ["F-LoRA-LoRA seed=1", "F-LoRA-LoRA seed=2", "F-T-LoRA seed=1"]
    with pytest.raises(SpecError, match=r"--seeds 1,1: seeds\[1\]: seed 1 is repeated"):
        write(SPEC).resolve("default", seeds=[1, 1])


def test_axes_exclude_include(write: Write) -> None:
    matrix = """\
    train.optimizer.lr: [1e-3, 1e-4]
  names: {train.optimizer.lr: lr}
  exclude:
    - {jtm: T, lr: 1e-4}
  include:
    - {vit: T, jtm: T, dec: T}
    - {parts.vit: F, jtm: T, dec: T, lr: 1e-2, evaluate.num_beams: 1}
"""
    cells = expand(write(SPEC + matrix).resolve("default"))
    assert [cell.label for cell in cells] == [
        *("F-LoRA-LoRA lr=0.001", "F-LoRA-LoRA lr=0.0001", "F-T-LoRA lr=0.001"),
        *("T-T-T", "F-T-T lr=0.01 num_beams=1"),
    ]
    assert [cell.train.optimizer.lr for cell in cells] == [1e-3, 1e-4, 1e-3, 1e-3, 1e-2]
    assert (cells[-1].labels, cells[-1].methods) == ({"lr": 0.01, "num_beams": 1}, {})


@pytest.mark.parametrize(
    ("end", "label"),
    [
        ("matrix: {include: [{vit: T, jtm: F, dec: LoRA}]}\n", "T-F-LoRA"),
        ("parts: {dec: LoRA, vit: F, jtm: T}\n", "F-T-LoRA"),
    ],
)
def test_a_spec_without_axes_is_one_cell(write: Write, end: str, label: str) -> None:
    assert labels(write(SPEC.split("matrix:")[0] + end)) == [label]


def test_a_plugin_can_be_an_axis(write: Write) -> None:
    axis = "    data:\n      - {name: easy_vqa, test_limit: 5}\n      - {name: vqa_rad}\n"
    cells = expand(write(SPEC.replace("      - {vit: F, jtm: T, dec: LoRA}\n", axis)).resolve("default"))
    assert [cell.label for cell in cells] == ["F-LoRA-LoRA data=easy_vqa", "F-LoRA-LoRA data=vqa_rad"]
    assert [cell.data.test_limit for cell in cells] == [5, None]


def test_a_bare_column_is_its_value(write: Write) -> None:
    spec = write(SPEC + "columns: [vit, {value: global, header: All}]\n").resolve("default").spec
    assert spec.columns == [Column(value="vit"), Column(value="global", header="All")]
