"""What ``bench.plugins.contracts.BenchModel`` and ``ModelPlugin`` promise, held by every model family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from bench.errors import SpecError, WeightsError
from bench.plugins.contracts import GenerateOptions
from bench.training.adapt import adapt
from bench.training.audit import check_frozen, check_gradients
from bench.training.params import count_params
from tests import factories
from tests.contracts.model_cases import ANSWERS, CASES, QUESTIONS, Family, family, greedy

BEAMS = GenerateOptions(num_beams=2, max_new_tokens=4)
GREEDY = GenerateOptions(num_beams=1, max_new_tokens=4)


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Family:
    return family(request.param, tmp_path)


def loss_of(made: Family, model: Any) -> torch.Tensor:
    batch = made.collate(model, with_answers=True)
    if made.case.task.output == "text":
        return model.loss(batch)  # type: ignore[no-any-return]
    rows = [made.case.task.labels.index(answer) for answer in ANSWERS["label"]]
    return cross_entropy(model.logits(batch), torch.tensor(rows))


@torch.no_grad()
def predict(made: Family, model: Any, rows: slice = slice(None)) -> list[Any]:
    """Answers, or rows of logits."""
    batch = made.collate(model, rows)
    return model.generate(batch, BEAMS) if made.case.task.output == "text" else list(model.logits(batch))


def same(one: list[Any], other: list[Any]) -> bool:
    if isinstance(one[0], str):
        return one == other
    return torch.allclose(torch.stack(one), torch.stack(other), atol=1e-4)


def lora() -> Any:
    return factories.plugin("methods", "lora").Settings(type="lora", r=2, lora_dropout=0.0)


def test_every_tensor_is_in_one_part_and_the_spec_may_name_it(made: Family) -> None:
    model = made.build()
    ids = [{id(tensor) for tensor in model.part(part).parameters()} for part in model.part_facts]
    shared = {id(tensor) for name, tensor in model.module.named_parameters() if name in made.case.shared}
    assert sum(map(len, ids)) == len(set().union(*ids)), "parts overlap"
    assert set().union(shared, *ids) == {id(tensor) for tensor in model.module.parameters()}
    declared = made.plugin.parts(made.settings, made.case.task)
    assert set(model.part_facts) <= set(declared) <= set(made.plugin.PARTS)
    assert all(facts.optional for name, facts in declared.items() if name not in model.part_facts)


def test_a_task_that_it_cannot_do_is_refused_in_the_spec(made: Family) -> None:
    with pytest.raises(SpecError, match=made.case.impossible.name):
        made.plugin.parts(made.settings, made.case.impossible)


def test_counts_on_meta_are_those_of_the_model(made: Family) -> None:
    model, on_meta = made.build(), made.build("meta")
    assert on_meta.has_vocabulary
    assert {tensor.device.type for tensor in on_meta.module.parameters()} == {"meta"}
    parts = dict.fromkeys(model.part_facts, "F") | dict.fromkeys(made.case.lora_parts, "LoRA")
    counts = [
        count_params(each, parts, adapt(each, each.part_facts, parts, {"LoRA": lora()})) for each in (model, on_meta)
    ]
    assert counts[0] == counts[1]
    assert model.facts() == on_meta.facts()


@pytest.mark.parametrize("with_answers", [True, False])
def test_a_batch_on_meta_has_the_shapes_of_a_batch(made: Family, with_answers: bool) -> None:
    model, on_meta = made.build(), made.build("meta")
    batch = made.collate(model, with_answers=with_answers)
    lengths = model.lengths(QUESTIONS, ANSWERS[made.case.task.output])
    assert lengths == on_meta.lengths(QUESTIONS, ANSWERS[made.case.task.output])
    most = model.max_lengths()
    assert lengths.question_tokens <= most.question_tokens
    assert lengths.answer_tokens <= most.answer_tokens
    predicted = on_meta.meta_inputs(len(QUESTIONS), lengths, with_answers=with_answers)
    if not (with_answers and "labels" in batch and batch["labels"].shape != predicted["labels"].shape):
        assert {n: (tuple(t.shape), t.dtype) for n, t in predicted.items()} == {
            n: (tuple(t.shape), t.dtype) for n, t in batch.items()
        }


def test_an_answer_does_not_depend_on_the_others_of_its_batch(made: Family) -> None:
    model = made.build()
    with torch.no_grad():  # so that answers differ
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    alone = [predict(made, model, slice(row, row + 1))[0] for row in range(len(QUESTIONS))]
    assert same(predict(made, model), alone)


def test_every_trained_tensor_has_a_gradient(made: Family) -> None:
    model = made.build()
    parts = dict.fromkeys(model.part_facts, "T")
    check_frozen(model, parts, adapt(model, model.part_facts, parts, {}))
    loss_of(made, model).backward()  # type: ignore[no-untyped-call]
    check_gradients(model)


def test_checkpointing_keeps_every_gradient_and_fewer_tensors(made: Family) -> None:
    kept, gradients = [], []
    for checkpointed in (False, True):
        model = made.build()
        if checkpointed:
            model.checkpoint_activations()
        model.module.train()
        sizes: dict[int, int] = {}
        own = {tensor.untyped_storage().data_ptr() for tensor in model.module.parameters()}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = loss_of(made, model)
        loss.backward()  # type: ignore[no-untyped-call]
        kept.append(sum(size for address, size in sizes.items() if address not in own))
        gradients.append({name: p.grad for name, p in model.module.named_parameters()})
    assert kept[1] < kept[0]
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.task.output == "text"])
def test_greedy_answers_are_those_of_whole_forward_passes(name: str, tmp_path: Path) -> None:
    made = family(name, tmp_path)
    model = made.build()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    batch = made.collate(model)
    assert model.generate(batch, GREEDY) == greedy(model, batch, GREEDY.max_new_tokens)


def test_lora_trains_on_every_part_that_has_layers_for_it(made: Family) -> None:
    for part in made.case.lora_parts:
        model = made.build()
        parts = dict.fromkeys(model.part_facts, "F") | {part: "LoRA"}
        check_frozen(model, parts, adapt(model, model.part_facts, parts, {"LoRA": lora()}))
        loss_of(made, model).backward()  # type: ignore[no-untyped-call]
        check_gradients(model)


def test_a_saved_model_is_read_back_and_known_by_its_digest(made: Family, tmp_path: Path) -> None:
    model, folder = made.build(), tmp_path / "saved"
    folder.mkdir()
    made.plugin.save(model, folder)
    again = made.of(folder)
    assert same(predict(again, again.build(seed=1)), predict(made, model))
    digest = again.plugin.weights_digest(again.settings)
    assert digest is not None
    assert digest != made.plugin.weights_digest(made.settings)
    unread = {"config.json"} if made.settings.family == "ofa" else set()  # its sizes are compared with the tensors
    for file in folder.iterdir():
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert (again.plugin.weights_digest(again.settings) == digest) == (file.name in unread), file
        file.write_bytes(content)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no "):
        again.plugin.weights_digest(again.settings)


@pytest.mark.parametrize("name", ["timm", "miss"])
def test_hub_weights_come_from_the_cache_or_not_at_all(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    made = family(name, tmp_path)
    changed = made.settings.model_dump() | {"weights": {"kind": "hub", "id": "some/model"}}
    again = dataclasses.replace(made, settings=made.plugin.Settings.model_validate(changed))
    with pytest.raises(WeightsError, match="cannot get some/model"):
        again.plugin.weights_digest(again.settings)
    repository, commit = tmp_path / "cache" / "models--some--model", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    model = made.build()
    made.plugin.save(model, repository / "snapshots" / commit)
    assert same(predict(again, again.build(seed=1)), predict(made, model))


def test_a_model_with_adapters_is_not_saved_as_a_whole(made: Family, tmp_path: Path) -> None:
    model = made.build()
    parts = dict.fromkeys(model.part_facts, "F") | {made.case.lora_parts[0]: "LoRA"}
    adapt(model, model.part_facts, parts, {"LoRA": lora()})
    with pytest.raises(WeightsError, match="with adapters"):
        made.plugin.save(model, tmp_path)


def test_weights_that_lack_a_tensor_or_have_it_in_another_shape_are_refused(made: Family, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    made.plugin.save(made.build(), folder)
    file = folder / "model.safetensors"
    state = load_file(file)
    # a layer of the blocks, as a head may be new
    name = next(name for name in state if name.endswith("weight") and state[name].ndim == 2 and ".1." in name)
    lacking = {key: tensor for key, tensor in state.items() if key != name}
    for wrong in (lacking, lacking | {name: state[name][:-1].contiguous()}):
        save_file(wrong, file, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match="does not fit"):
            made.of(folder).build()
