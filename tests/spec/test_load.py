"""Reading a spec: files that are none, scales, --set, --seeds, the matrix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import SpecError
from bench.spec.cell import expand
from bench.spec.load import SpecSource, read_spec
from bench.spec.sections import Column

Write = Callable[[str], SpecSource]

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


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_and_read(text: str) -> SpecSource:
        Path("s.yaml").write_text(text)
        return read_spec(Path("s.yaml"))

    return write_and_read


def labels(source: SpecSource, scale: str = "default", sets: tuple[str, ...] = ()) -> list[str]:
    return [cell.label for cell in expand(source.resolve(scale, sets))]


def test_the_file_names_the_spec(write: Write) -> None:
    assert write(SPEC).resolve("default").spec.name == "s"
    assert write("name: other\n" + SPEC).resolve("default").spec.name == "other"


def test_missing_file_names_near_ones(write: Write) -> None:
    write(SPEC)
    with pytest.raises(SpecError, match=r"^z\.yaml: no such file; did you mean 's\.yaml'\?"):
        read_spec(Path("z.yaml"))
    Path("ss.yaml").write_text(SPEC)
    with pytest.raises(SpecError, match=r"did you mean 'ss\.yaml'"):
        read_spec(Path("sss.yaml"))


def test_what_is_no_spec_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a folder"):
        read_spec(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpecError, match="not a regular file"):
        read_spec(tmp_path / "pipe")
    (tmp_path / "big.yaml").write_text("a: 1\n" * 100_000)
    with pytest.raises(SpecError, match="larger than 256 KiB"):
        read_spec(tmp_path / "big.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path / "null\0byte")


def test_scales(write: Write) -> None:
    source = write(SPEC + "scales:\n  demo: {train: {batch_size: 2, optimizer: {weight_decay: 0.1}}}\n")
    assert source.scales == ("default", "demo")
    demo = source.resolve("demo").spec
    assert (demo.train.batch_size, demo.train.steps) == (2, 10)
    assert (demo.train.optimizer.lr, demo.train.optimizer.weight_decay) == (1e-3, 0.1)
    with pytest.raises(SpecError, match="did you mean 'demo'"):
        source.resolve("dmo")


def test_a_spec_with_published_numbers_is_the_paper_scale(write: Write) -> None:
    source = write(SPEC + "published: {source: x, rows: []}\n")
    assert source.scales == ("paper",)


def test_another_plugin_replaces_the_whole_mapping(write: Write) -> None:
    source = write(
        SPEC + "scales:\n  hub: {model: {weights: {kind: hub, id: a/b}}}\n  moved: {model: {weights: {path: v}}}\n"
    )
    weights = source.resolve("hub").spec.model.model_dump(mode="json")["weights"]
    assert weights == {"kind": "hub", "id": "a/b", "revision": None, "adapter": {}}
    weights = source.resolve("moved").spec.model.model_dump(mode="json")["weights"]
    assert weights == {"kind": "folder", "path": "v", "adapter": {}}


def test_the_same_plugin_is_merged(write: Write) -> None:
    spec = SPEC.replace("{name: easy_vqa}", "{name: easy_vqa, train_limit: 9}")
    source = write(spec + "scales:\n  demo: {data: {name: easy_vqa, test_limit: 3}}\n")
    data = source.resolve("demo").spec.data
    assert (data.train_limit, data.test_limit) == (9, 3)


def test_a_misspelt_field_is_one_problem(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        write(SPEC.replace("batch_size: 8, opt", "bach_size: 8, opt")).resolve("default")
    assert "did you mean 'batch_size'" in str(caught.value)
    assert "is missing" not in str(caught.value)


def test_a_mistake_in_another_scale_is_a_mistake(write: Write) -> None:
    source = write(SPEC + "scales:\n  demo: {train: {batch_size: two}}\n")
    with pytest.raises(SpecError, match=r"^s\.yaml:13:30: train\.batch_size: must be a whole number, not 'two'$"):
        source.resolve("default")
    assert source.resolve("default", alone=True).points, "no matter for the report of what has run"


def test_set(write: Write) -> None:
    source = write(SPEC)
    spec = source.resolve("default", ["train.optimizer.lr=5e-4", "model.weights=null", "evaluate.closed=yes_no"]).spec
    assert spec.train.optimizer.lr == 5e-4
    assert spec.model.model_dump()["weights"] is None
    assert spec.evaluate.closed == "yes_no"
    assert labels(source, sets=("methods.LoRA.r=8",)) == labels(source)
    ranks = labels(source, sets=("matrix.axes.methods.LoRA.r=[4, 8]",))
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


def test_a_family_that_cannot_do_the_task_is_the_one_problem(write: Write) -> None:
    """Its parts are not asked about: they may be of a spec that was meant for another task."""
    with pytest.raises(SpecError) as caught:
        expand(write("task: image_classification\n" + SPEC.replace("vit: F", "body: F")).resolve("default"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("s.yaml:1:7: task: model family miss")
    assert not any("body" in line for line in lines)


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
    source = write(SPEC + matrix)
    assert labels(source) == [
        "F-LoRA-LoRA lr=0.001",
        "F-LoRA-LoRA lr=0.0001",
        "F-T-LoRA lr=0.001",
        "T-T-T",
        "F-T-T lr=0.01 num_beams=1",
    ]
    cells = expand(source.resolve("default"))
    assert [cell.train.optimizer.lr for cell in cells] == [1e-3, 1e-4, 1e-3, 1e-3, 1e-2]
    assert cells[-1].labels == {"lr": 0.01, "num_beams": 1}
    assert cells[-1].methods == {}


def test_include_without_axes_is_the_whole_matrix(write: Write) -> None:
    head = SPEC.split("matrix:")[0]
    assert labels(write(head + "matrix: {include: [{vit: T, jtm: F, dec: LoRA}]}\n")) == ["T-F-LoRA"]
    assert labels(write(head + "parts: {dec: LoRA, vit: F, jtm: T}\n")) == ["F-T-LoRA"]


def test_a_plugin_can_be_an_axis(write: Write) -> None:
    axis = "    data:\n      - {name: easy_vqa, test_limit: 5}\n      - {name: vqa_rad}\n"
    source = write(SPEC.replace("      - {vit: F, jtm: T, dec: LoRA}\n", axis))
    cells = expand(source.resolve("default"))
    assert [cell.label for cell in cells] == ["F-LoRA-LoRA data=easy_vqa", "F-LoRA-LoRA data=vqa_rad"]
    assert [cell.data.test_limit for cell in cells] == [5, None]


def test_a_bare_column_is_its_value(write: Write) -> None:
    spec = write(SPEC + "columns: [vit, {value: global, header: All}]\n").resolve("default").spec
    assert spec.columns == [Column(value="vit"), Column(value="global", header="All")]
