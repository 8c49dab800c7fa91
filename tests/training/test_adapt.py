"""Methods on parts: refused before anything is loaded, counted alike on meta and CPU, tied tensors kept tied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.models import hf
from bench.records.record import Status
from bench.training.adapt import check_on_meta
from bench.training.audit import check_frozen
from bench.training.params import count_params, stored_tensors, write_tensors
from bench.worker import run
from tests import factories
from tests.models.hf import models as own
from tests.models.hf.models import ANSWERS, CONFIGS, LABEL, QUESTIONS, WRITE
from tests.training.conftest import Build, Make

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 4},
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix"},
    "P-Tuning v2": {"type": "ptuning_v2"},
}


def test_a_method_that_cannot_be_put_on_its_part_is_refused_before_anything_is_loaded(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolution = {"V": {"peft_type": "VERA", "targets": {"vit": ["patch_embedding"]}}}
    cell = make_cell(parts={"vit": "V", "jtm": "F", "dec": "F"}, methods=convolution)

    def never(*_: Any) -> None:
        raise AssertionError("data was loaded")

    monkeypatch.setattr(run, "load_data", never)
    record = run.run_cell(cell, tmp_path)
    assert (record.status, record.error and record.error.phase) == (Status.ERROR, "setup")
    assert record.error is not None
    assert "method V cannot be put on part vit" in record.error.message


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"peft_type": "LOHA", "targets": {"jtm": ["querry"]}}, "querry"),
        ({"peft_type": "C3A", "block_size": 7}, "block size should be a factor"),
        ({"peft_type": "ADALORA"}, "total_step"),
        ({"type": "bitfit", "targets": {"jtm": ["querry"]}}, "nearest: query"),
        ({"type": "last_blocks", "k": 9}, "method M cannot be put on part jtm: (k is 9, but|no stack)"),
        ({"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": 1}, "choose another method"),
    ],
)
def test_the_message_says_what_is_wrong(make_cell: Make, method: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        check_on_meta(make_cell(parts={"vit": "F", "jtm": "M", "dec": "F"}, methods={"M": method}))


def test_a_method_that_computes_from_the_weights_is_left_to_the_run(make_cell: Make) -> None:
    """FRoD decomposes the weights, which meta tensors have none of."""
    method = {"M": {"peft_type": "FROD"}}
    check_on_meta(make_cell(parts={"vit": "F", "jtm": "M", "dec": "F"}, methods=method))


def test_building_on_meta_leaves_the_random_numbers_of_a_run_alone(make_cell: Make) -> None:
    cell = make_cell()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    factories.plugin("models", cell.model.family).build(cell.model, texts=["yes no"], device="meta")
    assert torch.equal(torch.rand(1), first)


def test_methods_of_several_kinds_on_several_parts(make_cell: Make, build: Build) -> None:
    methods = {
        "L": {"type": "lora", "r": 2, "modules_to_save": {"vit": ["post_layernorm"]}},
        "V": {"peft_type": "VERA", "r": 4, "target_modules": ["query"]},
        "B": {"type": "bitfit"},
    }
    cell = make_cell(parts={"vit": "L", "jtm": "V", "dec": "B"}, methods=methods)
    model, adapters = build(cell)
    check_frozen(model, cell.parts, adapters)
    assert any("modules_to_save" in name for name in adapters["vit"].names)
    assert all("vera_lambda" in name and "query" in name for name in adapters["jtm"].names)
    assert all(name.endswith("bias") for name in adapters["dec"].names)


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ({"peft_type": "VERA", "r": 8, "train": {"lr": 1e-2}}, {"type": "bitfit"}),
        ({"peft_type": "RANDLORA", "r": 4}, {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}),
        ({"peft_type": "FROD"}, {"peft_type": "LN_TUNING", "target_modules": ["LayerNorm"]}),
    ],
)
def test_a_whole_run_counts_what_its_estimate_counts(
    make_cell: Make, tmp_path: Path, method: dict[str, Any], other: dict[str, Any]
) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": "M", "dec": "O"}, methods={"M": method, "O": other})
    record = run.run_and_estimate(cell, tmp_path, tmp_path / "result.json")
    assert (record.status, record.error) == (Status.OK, None)
    assert record.estimate is not None
    assert record.estimate.params == record.params
    assert record.estimate.adapter_bytes == record.adapter_bytes


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "jtm"),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_hidden_size": 8}, "jtm"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 3, "num_tasks": 2}, "jtm"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 3}, "dec"),
        ({"peft_type": "POLY", "r": 2, "n_tasks": 2}, "vit"),
        ({"peft_type": "POLY", "r": 2}, "dec"),
        ({"peft_type": "LN_TUNING"}, "vit"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["peft_type"],
)
def test_a_cell_runs_to_its_end(make_cell: Make, tmp_path: Path, method: dict[str, Any], part: str) -> None:
    """Methods whose library wants more of its caller than others: ids of tasks, a mask for virtual tokens, targets."""
    parts = {"vit": "F", "jtm": "F", "dec": "F"} | {part: "M"}
    cell = make_cell(parts=parts, methods={"M": method}, train={"steps": 2}, data={"train_limit": 16, "test_limit": 4})
    record = run.run_cell(cell, tmp_path)
    assert record.status is Status.OK, record.error
    assert record.params is not None
    assert record.params.by_part[part].trainable == record.params.trainable > 0


# --- counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_meta_and_cpu_agree_and_stored_is_what_is_written(
    make_cell: Make, build: Build, tmp_path: Path, method: str
) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": method, "dec": "T"}, methods={method: METHODS[method]})
    model, adapters = build(cell)
    params = count_params(model, cell.parts, adapters)
    on_meta, applied = build(cell, "meta")
    assert count_params(on_meta, cell.parts, applied) == params
    tensors = stored_tensors(model, cell.parts, adapters)
    assert params.stored == sum(t.numel() for t in tensors.values())
    file = tmp_path / "adapter" / "adapter.safetensors"
    assert write_tensors(file, tensors) == file.stat().st_size > 4 * params.stored


def test_a_prefix_trains_more_than_it_stores(make_cell: Make, build: Build) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": "Prefix", "dec": "F"}, methods={"Prefix": METHODS["Prefix"]})
    model, adapters = build(cell, "meta")
    params = count_params(model, cell.parts, adapters)
    assert params.stored == 10 * 2 * 32  # tokens, keys and values, one layer of width 32
    assert params.trainable > params.stored


def test_parts_add_up_and_tied_tensors_count_once(make_cell: Make, build: Build) -> None:
    cell = make_cell(parts={"vit": "T", "jtm": "T", "dec": "T"}, methods={})
    model, adapters = build(cell)
    params = count_params(model, cell.parts, adapters)
    assert sum(part.total for part in params.by_part.values()) == params.total
    assert params.trainable == params.stored == params.total
    assert params.pct == 100.0
    named = [p for part in cell.parts for _, p in model.part(part).named_parameters(remove_duplicate=False)]
    distinct = {id(p): p for p in named}
    assert len(named) > len(distinct), "this family ties the decoder's head to its embedding"
    assert params.total == sum(p.numel() for p in distinct.values())


def test_a_tensor_shared_by_two_parts_belongs_to_the_first() -> None:
    shared = torch.nn.Linear(3, 2, bias=False)
    model: Any = torch.nn.Module()
    model.module = torch.nn.ModuleDict({"a": torch.nn.Sequential(shared), "b": torch.nn.Sequential(shared)})
    model.part = lambda name: model.module[name]
    params = count_params(model, {"a": "T", "b": "T"}, {})
    assert (params.total, params.stored, params.by_part["a"].total, params.by_part["b"].total) == (6, 6, 6, 0)


# --- tied tensors: ``modules_to_save`` makes one copy for all of their layers, or is refused ----------------------


def whole(model_type: str, task: Any = WRITE) -> Any:
    tied = {"model_type": "llama", **CONFIGS["llama"], "tie_word_embeddings": True}
    config = tied if model_type == "llama" else own.settings(model_type).config
    settings = hf.Settings(family="hf", config=config, parts={"all": ""})
    return hf.build(settings, texts=own.TEXTS, device="cpu", task=task)


def with_lora(model: Any, **fields: Any) -> Any:
    own.put(model, {"all": "L"}, L=own.method("LORA", r=2, target_modules="all-linear", **fields))
    return model


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt2", {"modules_to_save": ["wte"]}),
        ("gpt2", {"modules_to_save": ["wte"], "ensure_weight_tying": True}),  # peft does not know GPT-2's name
        ("gpt2", {"modules_to_save": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens"]}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ],
)
def test_a_copy_for_one_of_the_layers_is_refused(model_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match=r"would untie what the model shares.*lm_head\.weight.*ensure_weight_tying"):
        with_lora(whole(model_type), **fields)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_one_copy_for_all_trains_and_stays_one(module: str) -> None:
    model = with_lora(whole("llama"), modules_to_save=[module], ensure_weight_tying=True)
    own.train(model, lambda: model.loss(model.collate([], QUESTIONS, ANSWERS)), steps=3)
    reads, writes = model.base.get_input_embeddings(), model.base.get_output_embeddings()
    assert reads.modules_to_save["default"].weight is writes.modules_to_save["default"].weight
    assert not torch.equal(reads.modules_to_save["default"].weight, reads.original_module.weight)


def test_what_is_not_tied_is_copied() -> None:
    model = with_lora(whole("bert", LABEL), modules_to_save=["classifier"])
    assert any("classifier.modules_to_save" in name for name, p in model.module.named_parameters() if p.requires_grad)
