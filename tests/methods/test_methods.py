"""Each method's settings reach the library's configuration, and impossible places are refused before torch loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig
from transformers import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from bench.errors import SpecError
from bench.models.miss import PARTS
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings
from tests import factories

BARE = PartFacts(name="neck", task_type="FEATURE_EXTRACTION", targets={"other": ["layer"]})
UNKNOWN = PartFacts(name="neck", task_type="FEATURE_EXTRACTION", targets={})


def settings(type_: str, **fields: Any) -> MethodSettings:
    made: MethodSettings = factories.plugin("methods", type_).Settings(type=type_, **fields)
    return made


def config(method: MethodSettings, part: str) -> Any:
    with torch.device("meta"):
        module = BlipTextModel(BlipTextConfig(hidden_size=48, num_hidden_layers=1))
    return factories.plugin("methods", method.type).config(method, PARTS[part], module)


def check(method: MethodSettings, part: PartFacts) -> None:
    factories.plugin("methods", method.type).check(method, part)


def test_lora_takes_the_papers_defaults_and_the_parts_targets() -> None:
    made = config(settings("lora"), "vit")
    assert isinstance(made, LoraConfig)
    assert (made.r, made.lora_alpha, made.lora_dropout, made.bias) == (8, 32, 0.1, "none")
    assert set(made.target_modules or ()) == {"qkv", "projection", "fc1", "fc2", "patch_embedding"}
    assert made.task_type is None
    made = config(settings("lora", r=4, use_dora=True, targets={"dec": ["query"]}), "dec")
    assert (made.r, made.use_dora, made.target_modules, made.task_type) == (4, True, {"query"}, "CAUSAL_LM")
    made = config(settings("lora", modules_to_save={"dec": ["crossattention"]}), "dec")
    assert made.modules_to_save == ["crossattention"]
    assert config(settings("lora", targets={"dec": "all-linear"}), "dec").target_modules == "all-linear"


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (
            settings("lora", targets={"dec": ["query", "valeu"]}),
            "'valeu' names no module of part 'dec'; nearest: value",
        ),
        (settings("ia3", targets={"dec": ["key", "valeu"]}), "'valeu' names no module of part 'dec'; nearest: value"),
        (settings("lora", targets={"dec": ".*quary"}), "quary' names no module of part 'dec'"),
        (settings("lora", modules_to_save={"dec": ["crosattention"]}), "modules_to_save.*nearest: crossattention"),
    ],
)
def test_a_name_that_means_nothing_beside_others_is_refused(method: MethodSettings, told: str) -> None:
    """The library would pass over it, and train less than was asked for."""
    with pytest.raises(SpecError, match=told):
        config(method, "dec")


def test_ia3_rescales_the_input_of_feed_forward_layers() -> None:
    made = config(settings("ia3"), "jtm")
    assert isinstance(made, IA3Config)
    assert set(made.target_modules or ()) == {"key", "value", "output.dense"}
    assert set(made.feedforward_modules or ()) == {"output.dense"}
    made = config(settings("ia3", targets={"jtm": ["key", "value"]}), "jtm")
    assert made.feedforward_modules == set()
    wrong = settings("ia3", feedforward_modules={"jtm": ["query"]})
    with pytest.raises(SpecError, match="query"):
        check(wrong, PARTS["jtm"])


def test_prefix_and_ptuning_differ_in_the_projection() -> None:
    made = config(settings("prefix"), "dec")
    assert isinstance(made, PrefixTuningConfig)
    assert (made.num_virtual_tokens, made.prefix_projection, made.encoder_hidden_size) == (10, True, 48)
    assert config(settings("prefix", encoder_hidden_size=7), "dec").encoder_hidden_size == 7
    made = config(settings("ptuning_v2", num_virtual_tokens=3), "jtm")
    assert (made.num_virtual_tokens, made.prefix_projection, made.task_type) == (3, False, "FEATURE_EXTRACTION")


@pytest.mark.parametrize("type_", ["prefix", "ptuning_v2"])
def test_virtual_tokens_need_a_text_model(type_: str) -> None:
    check(settings(type_), PARTS["dec"])
    with pytest.raises(SpecError, match=f"{type_} needs .*'vit' takes no virtual tokens: choose another"):
        check(settings(type_), PARTS["vit"])
    with pytest.raises(SpecError, match="no target modules"):
        check(settings(type_, targets={"dec": ["query"]}), PARTS["dec"])


@pytest.mark.parametrize("type_", ["lora", "ia3"])
def test_a_part_without_known_targets_needs_them_in_the_spec(type_: str) -> None:
    with pytest.raises(SpecError, match=r"targets: \{neck: \[...\]\}"):
        check(settings(type_), BARE)
    check(settings(type_), UNKNOWN)
    check(settings(type_, targets={"neck": ["query"]}), BARE)
