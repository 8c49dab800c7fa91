"""A method's fields reach the library's configuration as given; what cannot be put on a part is refused by name.

Methods of our own, and any type of peft by its own field names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig
from pydantic import TypeAdapter, ValidationError
from transformers import BertConfig, BertModel, BlipTextConfig, GPT2Config, GPT2Model
from transformers.models.blip.modeling_blip_text import BlipTextModel

from bench.errors import SpecError
from bench.methods import peft_config
from bench.models.miss import PARTS
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings
from bench.spec.cell import Cell, cell_id
from bench.spec.sections import AnyMethod
from tests import factories
from tests.factories import load_cells

BARE = PartFacts(name="neck", task_type=None, targets={})
OTHERS = PartFacts(name="neck", task_type="FEATURE_EXTRACTION", targets={"other": ["layer"]})
"""With targets of other methods alone."""


def settings(**fields: Any) -> peft_config.Settings:
    made = TypeAdapter(AnyMethod).validate_json(json.dumps(fields), strict=True)
    assert isinstance(made, peft_config.Settings)
    return made


def method(fields: dict[str, Any]) -> MethodSettings:
    made: MethodSettings = TypeAdapter(AnyMethod).validate_json(json.dumps(fields), strict=True)
    return made


def check(fields: dict[str, Any], part: PartFacts) -> None:
    made = method(fields)
    factories.plugin("methods", made.type).check(made, part)


def of_blip(part: str, **fields: Any) -> Any:
    """The configuration of a method on a text model's layers."""
    with torch.device("meta"):
        module = BlipTextModel(BlipTextConfig(hidden_size=48, num_hidden_layers=1))
    made = method(fields)
    return factories.plugin("methods", made.type).config(made, PARTS[part], module)


def config(made: peft_config.Settings, part: PartFacts) -> Any:
    layers = {name: torch.nn.Linear(2, 2) for name in ("query", "key", "value", "qkv", "dense")}
    module = torch.nn.ModuleDict({**layers, "patch_embedding": torch.nn.Conv2d(3, 2, 1)})
    return peft_config.config(made, part, module)


def errors(**fields: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as raised:
        settings(**fields)
    return {str(line["loc"][-1]): line["msg"] for line in raised.value.errors()}


# --- methods of our own ----------------------------------------------------------------------------------------------


def test_lora_takes_the_papers_defaults_and_the_parts_targets() -> None:
    made = of_blip("vit", type="lora")
    assert isinstance(made, LoraConfig)
    assert (made.r, made.lora_alpha, made.lora_dropout, made.bias) == (8, 32, 0.1, "none")
    assert set(made.target_modules or ()) == {"qkv", "projection", "fc1", "fc2", "patch_embedding"}
    assert made.task_type is None
    made = of_blip("dec", type="lora", r=4, use_dora=True, targets={"dec": ["query"]})
    assert (made.r, made.use_dora, made.target_modules, made.task_type) == (4, True, {"query"}, "CAUSAL_LM")
    made = of_blip("dec", type="lora", modules_to_save={"dec": ["crossattention"]})
    assert made.modules_to_save == ["crossattention"]
    assert of_blip("dec", type="lora", targets={"dec": "all-linear"}).target_modules == "all-linear"


def test_ia3_rescales_the_input_of_feed_forward_layers() -> None:
    made = of_blip("jtm", type="ia3")
    assert isinstance(made, IA3Config)
    assert set(made.target_modules or ()) == {"key", "value", "output.dense"}
    assert set(made.feedforward_modules or ()) == {"output.dense"}
    assert of_blip("jtm", type="ia3", targets={"jtm": ["key", "value"]}).feedforward_modules == set()


def test_prefix_and_ptuning_differ_in_the_projection() -> None:
    made = of_blip("dec", type="prefix")
    assert isinstance(made, PrefixTuningConfig)
    assert (made.num_virtual_tokens, made.prefix_projection, made.encoder_hidden_size) == (10, True, 48)
    assert of_blip("dec", type="prefix", encoder_hidden_size=7).encoder_hidden_size == 7
    made = of_blip("jtm", type="ptuning_v2", num_virtual_tokens=3)
    assert (made.num_virtual_tokens, made.prefix_projection, made.task_type) == (3, False, "FEATURE_EXTRACTION")


# --- refusals --------------------------------------------------------------------------------------------------------

PROMPTS = [{"type": "prefix"}, {"type": "ptuning_v2"}]
PROMPTS += [{"peft_type": name} for name in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "CPT")]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda fields: next(iter(fields.values())))
def test_virtual_tokens_need_a_text_model(prompt: dict[str, Any]) -> None:
    check(prompt, PARTS["jtm"])
    with pytest.raises(SpecError, match="'vit' takes no virtual tokens: choose another"):
        check(prompt, PARTS["vit"])
    with pytest.raises(SpecError, match="no target modules"):
        check({**prompt, "targets": {"dec": ["query"]}}, PARTS["dec"])


@pytest.mark.parametrize(
    ("fields", "part", "words"),
    [
        ({"type": "ia3", "feedforward_modules": {"jtm": ["query"]}}, PARTS["jtm"], "query"),
        ({"peft_type": "XLORA", "adapters": {"a": "b"}, "targets": {"dec": ["query"]}}, PARTS["dec"], "no target mod"),
        ({"peft_type": "XLORA"}, PARTS["vit"], r"XLORA mixes LoRA adapters .* adapters: \{one: FOLDER"),
    ],
)
def test_what_a_part_cannot_take_is_refused(fields: dict[str, Any], part: PartFacts, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        check(fields, part)


@pytest.mark.parametrize("type_", ["lora", "ia3"])
def test_targets_may_come_from_the_spec_or_from_what_the_part_is(type_: str) -> None:
    with pytest.raises(SpecError, match=r"targets: \{neck: \[...\]\}"):
        check({"type": type_}, OTHERS)
    check({"type": type_, "targets": {"neck": ["query"]}}, OTHERS)
    check({"type": type_}, BARE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "lora", "targets": {"dec": ["query", "valeu"]}}, "'valeu' names no module of part 'dec'; nearest: v"),
        (
            {"type": "ia3", "targets": {"dec": ["key", "valeu"]}},
            "'valeu' names no module of part 'dec'; nearest: value",
        ),
        ({"type": "lora", "targets": {"dec": ".*quary"}}, "quary' names no module of part 'dec'"),
        ({"type": "lora", "modules_to_save": {"dec": ["crosattention"]}}, "modules_to_save.*nearest: crossattention"),
        ({"peft_type": "LOHA", "targets": {"dec": ["query", "valeu"]}}, "'valeu' names no module of part 'dec'; near"),
        ({"peft_type": "LOHA", "modules_to_save": ["denze"]}, r"modules_to_save\); nearest: dense"),
    ],
)
def test_a_name_that_means_nothing_beside_others_is_refused(fields: dict[str, Any], words: str) -> None:
    """The library would pass over it, and train less than was asked for."""
    with pytest.raises(SpecError, match=words):
        of_blip("dec", **fields)


# --- types of peft ---------------------------------------------------------------------------------------------------


def test_fields_reach_the_library() -> None:
    made = config(settings(peft_type="vera", r=64, vera_dropout=0.1), PARTS["dec"])
    assert type(made).__name__ == "VeraConfig"
    assert (made.r, made.vera_dropout, made.d_initial, made.task_type) == (64, 0.1, 0.1, "CAUSAL_LM")
    assert made.target_modules == {"query", "value"}, "the model family's for LoRA"


def test_heads_that_the_library_writes_into_every_file_may_be_absent() -> None:
    made = config(settings(peft_type="LOHA", modules_to_save=["classifier", "score"]), PARTS["dec"])
    assert made.modules_to_save == ["classifier", "score"]


def test_targets_come_from_the_spec_then_the_fields_then_the_family() -> None:
    both = settings(peft_type="LOHA", target_modules=["key"], targets={"dec": ["dense"]})
    assert config(both, PARTS["dec"]).target_modules == {"dense"}
    assert config(both, PARTS["jtm"]).target_modules == {"key"}
    ia3 = config(settings(peft_type="IA3"), PARTS["jtm"])
    assert ia3.target_modules == {"key", "value", "output.dense"}
    assert ia3.feedforward_modules == {"output.dense"}
    assert config(settings(peft_type="LOHA"), BARE).target_modules is None, "the library's own"
    vera = config(settings(peft_type="VERA"), PARTS["vit"])
    assert vera.target_modules == {"qkv"}, "of LoRA's those of a kind that VeRA has adapters for: no convolution"
    loha = config(settings(peft_type="LOHA"), PARTS["vit"])
    assert loha.target_modules == {"qkv", "patch_embedding"}
    norms = config(settings(peft_type="LN_TUNING"), PARTS["jtm"])
    assert norms.target_modules is None, "LoRA's are linear layers"


def test_a_part_without_layers_that_the_method_has_adapters_for_is_refused_with_their_kinds() -> None:
    convolutions = torch.nn.ModuleDict({"conv1": torch.nn.Conv2d(3, 2, 1)})
    part = PartFacts(name="blocks", task_type=None, targets={"lora": ["conv1"]})
    told = r"VERA has adapters for layers of the kinds .*Linear.* none of \['conv1'\] is one.*targets: \{blocks: "
    with pytest.raises(SpecError, match=told):
        peft_config.config(settings(peft_type="VERA"), part, convolutions)
    loha: Any = peft_config.config(settings(peft_type="LOHA"), part, convolutions)
    assert loha.target_modules == {"conv1"}
    named: Any = peft_config.config(settings(peft_type="VERA", targets={"blocks": ["conv1"]}), part, convolutions)
    assert named.target_modules == {"conv1"}, "for the library to judge"


def test_a_nested_configuration_becomes_the_librarys_class() -> None:
    made = config(settings(peft_type="LORA", init_lora_weights="eva", eva_config={"rho": 1.5}), PARTS["dec"])
    assert isinstance(made, peft.LoraConfig)
    assert isinstance(made.eva_config, peft.EvaConfig)
    assert made.eva_config.rho == 1.5


def test_wrong_fields_are_refused_at_their_place() -> None:
    found = errors(peft_type="VERA", rank=8, r="8", base_model_name_or_path="gpt2")
    assert found == {
        "rank": "unknown field",
        "base_model_name_or_path": "unknown field",
        "r": "Input should be a valid integer",
    }
    assert "peft_type" in errors(type="peft_config")


def test_what_the_default_is_changes_no_id() -> None:
    """A field added by a newer library must not change the ids of cells that say nothing about it."""
    assert settings(peft_type="VERA", r=256, modules_to_save=None) == settings(peft_type="vera")


def test_layer_norms_are_found_where_the_library_does_not_know_their_names() -> None:
    module = torch.nn.ModuleDict({"norm1": torch.nn.LayerNorm(2), "query": torch.nn.Linear(2, 2)})
    made: Any = peft_config.config(settings(peft_type="LN_TUNING"), BARE, module)
    assert list(made.target_modules) == ["norm1"]
    with torch.device("meta"):
        known = GPT2Model(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2))
    made = peft_config.config(settings(peft_type="LN_TUNING"), BARE, known)
    assert made.target_modules == ["ln_1", "ln_2", "ln_f"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of an adapter that the library itself saved."""
    model = BertModel(BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    config = peft.LoHaConfig(r=3, alpha=6, target_modules=["query"])
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_configuration_is_taken_as_it_is(saved: Path) -> None:
    by_folder = settings(adapter_config=str(saved))
    assert by_folder == settings(adapter_config=str(saved / "adapter_config.json"))
    assert by_folder == settings(peft_type="LOHA", r=3, alpha=6, target_modules=["query"])
    assert settings(adapter_config=str(saved), r=5).fields()["r"] == 5


def test_a_file_of_another_release_names_file_and_field(saved: Path) -> None:
    file = saved / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rank_dropuot": 0.5}))
    message = errors(adapter_config=str(saved))["adapter_config"]
    assert str(file) in message
    assert "'rank_dropuot' is unknown" in message
    assert "did you mean 'rank_dropout'" in message


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"peft_type": "NONE"}', '{"peft_type": "LOHA", "r": "x"}'])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert "a.json" in errors(adapter_config=str(tmp_path / "a.json"))["adapter_config"]


def test_the_content_of_the_file_determines_the_cell(saved: Path, root: Path, tmp_path: Path) -> None:
    """The place of the file is no part of a cell, and its worker reads it no more."""

    def cell() -> Cell:
        sets = [f"methods.Mine={{adapter_config: {saved}}}", "matrix.include=[{vit: F, jtm: Mine, dec: F}]"]
        return load_cells(root / "specs/table1.yaml", sets=sets)[1][-1]

    first = cell()
    moved = saved.rename(tmp_path / "elsewhere")
    again = Cell.model_validate_json(first.model_dump_json())
    assert again == first
    moved.rename(saved)
    file = saved / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_version": "99"}))
    assert cell().cell_id == first.cell_id
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 4}))
    assert cell().cell_id != first.cell_id
    assert len(cell_id({})) == 16
