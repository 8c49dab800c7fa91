"""Several models, data sets or tasks in one table; all methods of a spec by one word; overrides of methods."""

from __future__ import annotations

import pytest

from bench.errors import SpecError
from bench.report import build_table
from bench.spec.cell import Cell, expand
from bench.spec.diagnostics import Diagnostics
from bench.spec.load import SpecSource
from bench.spec.yaml_tree import merge, parse
from tests.spec.conftest import Write

SPEC = """\
data: {name: easy_vqa}
train: {steps: 10, batch_size: 8, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 8}
methods:
  LoRA: {type: lora, r: 4}
  VeRA: {peft_type: VERA}
variants:
  miss:
    model: {family: miss, preset: tiny}
    parts: {vit: F, dec: T}
    matrix: {axes: {parts.jtm: [T, "*"]}}
  ofa:
    model: {family: ofa, preset: micro}
    train: {batch_size: 4}
    methods: {IA3: {type: ia3}, LoRA: {r: 2}}
    parts: {encoder: F}
    matrix: {axes: {parts.decoder: ["*", T]}}
matrix:
  exclude:
    - {variant: ofa, decoder: VeRA}
columns: [variant, jtm, decoder, params]
"""
BARE = SPEC.replace("  exclude:\n    - {variant: ofa, decoder: VeRA}\n", "  exclude: []\n")


def cells(source: SpecSource, *sets: str, scale: str = "default") -> dict[str, Cell]:
    return {cell.label: cell for cell in expand(source.resolve(scale, sets))}


def test_each_variant_has_its_own_matrix(write: Write) -> None:
    found = cells(write(SPEC))
    assert list(found) == [
        "F-T-T variant=miss",
        "F-LoRA-T variant=miss",
        "F-VeRA-T variant=miss",
        "F-LoRA variant=ofa",
        "F-IA3 variant=ofa",
        "F-T variant=ofa",
    ]
    ours, other = found["F-LoRA-T variant=miss"], found["F-LoRA variant=ofa"]
    assert (ours.labels, other.labels) == ({"variant": "miss"}, {"variant": "ofa"})
    assert (ours.model.family, other.model.family) == ("miss", "ofa")
    assert (ours.train.batch_size, other.train.batch_size) == (8, 4)
    assert [cell.methods["LoRA"].model_dump()["r"] for cell in (ours, other)] == [4, 2]
    assert list(other.parts) == ["encoder", "decoder"]


def test_the_id_is_that_of_the_settings(write: Write) -> None:
    alone = SPEC[: SPEC.index("variants:")] + (
        "model: {family: miss, preset: tiny}\nparts: {vit: F, dec: T}\nmatrix: {axes: {parts.jtm: [VeRA]}}\n"
    )
    (cell,) = cells(write(alone)).values()
    assert cell.cell_id == cells(write(SPEC))["F-VeRA-T variant=miss"].cell_id


def test_the_table_has_a_column_of_variants_and_the_parts_of_all(write: Write) -> None:
    resolved = write(SPEC).resolve("default")
    table = build_table(resolved.spec, "default", expand(resolved), {})
    assert [column.value for column in table.columns] == ["variant", "jtm", "decoder", "params"]
    texts = [[entry.text for entry in row.values[:3]] for row in table.rows]
    assert texts[1] == ["miss", "LoRA", ""]
    assert texts[3] == ["ofa", "", "LoRA"]


def test_a_scale_and_an_option_reach_into_a_variant(write: Write) -> None:
    text = SPEC + "scales:\n  demo: {variants: {ofa: {train: {steps: 3}}}, train: {steps: 5}}\n"
    steps = {label: cell.train.steps for label, cell in cells(write(text), scale="demo").items()}
    assert (steps["F-T-T variant=miss"], steps["F-T variant=ofa"]) == (5, 3)
    found = cells(write(SPEC), "variants.ofa.train.batch_size=2")
    assert (found["F-T variant=ofa"].train.batch_size, found["F-T-T variant=miss"].train.batch_size) == (2, 8)
    with pytest.raises(
        SpecError, match=r"set by variant ofa; choose one, e\.g\. --set\s+variants\.ofa\.train\.batch_size="
    ):
        cells(write(SPEC), "train.batch_size=2")
    with pytest.raises(SpecError, match="no variant 'of'; did you mean 'ofa'"):
        cells(write(SPEC), "variants.of.train.steps=2")


def test_what_is_wrong_in_one_variant_names_it(write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        write(BARE.replace("    model: {family: ofa, preset: micro}\n", "")).resolve("default")
    assert "model: is missing; add `model: ...` (in variant ofa)" in str(caught.value)
    with pytest.raises(SpecError) as caught:
        write(BARE.replace("steps: 10", "steps: ten")).resolve("default")
    assert str(caught.value).count("steps") == 1, "what all have is said once"
    assert "variant" not in str(caught.value)


def test_an_entry_of_another_variant_s_part_says_so(write: Write) -> None:
    with pytest.raises(SpecError, match=r"exclude\[0\]\.decoder: is of another variant; add `variant: \.\.\.`"):
        write(SPEC.replace("{variant: ofa, decoder", "{decoder")).resolve("default")


def test_an_included_cell_is_of_every_variant_or_of_one(write: Write) -> None:
    text = BARE.replace("  exclude: []\n", "  include:\n    - {variant: miss, parts: {jtm: F}}\n")
    assert [label for label in cells(write(text)) if label.startswith("F-F")] == ["F-F-T variant=miss"]
    both = BARE.replace("  exclude: []\n", "  include:\n    - {methods.LoRA.r: 16, train.steps: 3}\n")
    named = both.replace("{vit: F, dec: T}", "{vit: F, dec: T, jtm: LoRA}").replace(
        "{encoder: F}", "{encoder: F, decoder: LoRA}"
    )
    assert [label for label in cells(write(named)) if "r=16" in label] == [
        "F-LoRA-T variant=miss r=16 steps=3",
        "F-LoRA variant=ofa r=16 steps=3",
    ]


def test_wildcards_leave_out_what_is_named(write: Write) -> None:
    text = BARE.replace('[T, "*"]', '[VeRA, "*", F]')
    assert [label for label in cells(write(text)) if "miss" in label] == [
        "F-VeRA-T variant=miss",
        "F-LoRA-T variant=miss",
        "F-F-T variant=miss",
    ]
    assert len(cells(write(BARE.replace('[T, "*"]', '["V*", "*A"]')))) == 2 + 4


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("{type: lora, r: 4}", "{adapter_config: a.json}", {"adapter_config": "a.json"}),
        ("{type: lora, r: 4}", "{peft_type: VERA}", {"peft_type": "VERA"}),
        ("{peft_type: VERA, r: 4}", "{type: lora}", {"type": "lora"}),
        ("{peft_type: VERA, r: 4}", "{peft_type: LOHA}", {"peft_type": "LOHA"}),
        ("{peft_type: VERA, r: 4}", "{peft_type: vera, d: 1}", {"peft_type": "vera", "r": 4, "d": 1}),
        (
            "{type: peft_config, peft_type: VERA}",
            "{type: peft_config, peft_type: LOHA}",
            {"type": "peft_config", "peft_type": "LOHA"},
        ),
        ("{adapter_config: a, r: 4}", "{adapter_config: b}", {"adapter_config": "b"}),
        ("{peft_type: VERA, r: 4}", "{r: 8}", {"peft_type": "VERA", "r": 8}),
        ("{model_type: bert, a: 1}", "{model_type: gpt2}", {"model_type": "gpt2"}),
        ("{model_type: bert, a: 1}", "{a: 2}", {"model_type": "bert", "a": 2}),
    ],
)
def test_another_method_or_configuration_replaces_the_whole_mapping(
    base: str, over: str, merged: dict[str, object]
) -> None:
    trees = [parse(text, "s.yaml", Diagnostics()) for text in (base, over)]
    assert trees[0] is not None
    assert trees[1] is not None
    assert merge(trees[0], trees[1]).plain() == merged


def test_a_metric_that_no_variant_s_task_has_is_no_column(write: Write) -> None:
    assert cells(write(BARE.replace("params]", "params, open]") + "pareto: {score: closed}\n"))
    wrong = BARE.replace("params]", "params, mcc]")
    with pytest.raises(SpecError, match="'mcc' is a metric of task text_classification, and the cells' task is gen"):
        write(wrong).resolve("default")
    with pytest.raises(SpecError) as caught:
        write(wrong.replace("exclude: []", "axes: {task: [generative_vqa, text_classification]}")).resolve("default")
    assert "is a metric of" not in str(caught.value), "an axis may bring the task"
