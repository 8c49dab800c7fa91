"""The audit after training finds a model whose evaluation does not see what was trained, and leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import registry
from bench.errors import AuditError
from bench.models.miss.model import MissModel
from bench.patches.peft import patch_cache_name
from bench.plugins.contracts import GenerateOptions, Task
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.spec.sections import DEFAULT_TASK, EvaluateSettings
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import Observer, check_evaluation, differ, disturbed
from bench.training.data import Batch, load_data
from bench.worker.run import run_cell
from tests.training.runs import make_run

Make = Callable[..., Cell]
VQA: Task = registry.load("tasks", "generative_vqa").create(DEFAULT_TASK, EvaluateSettings(batch_size=4), [])
OPTIONS = GenerateOptions(num_beams=2, max_new_tokens=3)
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 4},
    "LoRA and tokens": {
        "peft_type": "LORA",
        "target_modules": ["query", "value"],
        "trainable_token_indices": {"word_embeddings": [3]},
    },
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix"},
    "Prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
}


class Built:
    """A cell's model, adapted, and two of its test examples."""

    def __init__(self, cell: Cell) -> None:
        data = load_data(cell.data)
        plugin = registry.load("models", cell.model.family)
        torch.manual_seed(0)
        self.model: Any = plugin.build(cell.model, texts=data.source.texts(), device="cpu", task=VQA.facts)
        if hasattr(self.model, "learn_answers"):
            self.model.learn_answers(example.answer for example in data.train)
        self.parts = cell.parts
        self.adapters: dict[str, AppliedMethod] = adapt(self.model, self.model.part_facts, cell.parts, cell.methods)
        self.batch: Batch = data.test_batch(self.model, VQA, data.test[:2])

    def check(self) -> list[str]:
        return check_evaluation(make_run(self.model, VQA, OPTIONS, self.parts, self.adapters), self.batch)


def miss(make_cell: Make, dec: str, **parts: str) -> Built:
    actions = {"vit": "F", "jtm": "F", "dec": dec} | parts
    return Built(make_cell(parts=actions, methods={n: m for n, m in METHODS.items() if n in actions.values()}))


@pytest.fixture
def without_the_patch() -> Iterator[None]:
    """peft looks for the cache under a name that transformers has not used since 5.24."""
    import peft

    patch_cache_name()
    wrapper: Any = peft.PeftModelForCausalLM
    patched = wrapper.prepare_inputs_for_generation
    if not hasattr(patched, "__wrapped__"):
        pytest.skip("the installed libraries fit together as they are")
    wrapper.prepare_inputs_for_generation = patched.__wrapped__
    yield
    wrapper.prepare_inputs_for_generation = patched


@pytest.mark.usefixtures("without_the_patch")
def test_a_prefix_that_generation_ignores_fails_the_cell(make_cell: Make, tmp_path: Path) -> None:
    """The fault itself: forward passes see the prefix, and the cell trained well."""
    cell = make_cell(
        parts={"vit": "F", "jtm": "LoRA", "dec": "Prefix"}, methods={n: METHODS[n] for n in ("LoRA", "Prefix")}
    )
    record = run_cell(cell, tmp_path)
    assert record.status is Status.ERROR
    assert record.error is not None
    assert record.error.type == "AuditError"
    assert "part dec (Prefix): evaluation does not see what was trained" in record.error.message
    assert all(name in record.error.message for name in ("torch 2", "transformers 5", "peft 0"))
    assert (record.scores, record.accuracy, record.baselines, record.predictions) == ({}, None, {}, None)
    assert record.time.eval_s is not None, "what was measured stays"


@pytest.mark.usefixtures("without_the_patch")
def test_virtual_tokens_before_every_new_token_fail_the_cell(make_cell: Make) -> None:
    """Seen by generation, but not as the forward pass sees them."""
    with pytest.raises(AuditError, match="greedy generation and the forward pass differ at token 2"):
        miss(make_cell, "Prompt").check()


def _numpy() -> list[int]:
    state: Any = np.random.get_state()
    found: list[int] = state[1].tolist()
    return found


@pytest.mark.parametrize(
    "actions",
    [("F", "F", "F"), ("T", "T", "T"), ("LoRA", "IA3", "LoRA"), ("F", "Prefix", "Prefix"), ("F", "Prompt", "Prompt")],
    ids="-".join,
)
def test_sound_models_pass_and_are_left_as_they_were(make_cell: Make, actions: tuple[str, str, str]) -> None:
    vit, jtm, dec = actions
    built = miss(make_cell, dec, vit=vit, jtm=jtm)
    built.model.module.train()
    built.model.module.get_submodule("vision_model").eval()
    modes = [module.training for module in built.model.module.modules()]
    before = {name: tensor.clone() for name, tensor in built.model.module.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), _numpy()
    built.check()
    assert all(torch.equal(before[name], tensor) for name, tensor in built.model.module.state_dict().items())
    assert [module.training for module in built.model.module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), _numpy()) == states[1:]
    assert all(parameter.grad is None for parameter in built.model.module.parameters())


@pytest.mark.parametrize("constrain", ["answers", "none"])
def test_a_search_within_a_trie_is_compared_where_it_may_go(make_cell: Make, constrain: str) -> None:
    small = {"hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "resnet_channels": [8, 8, 8]}
    model = {"family": "ofa", "preset": "micro", "network": small, "constrain": constrain}
    prefix = {"encoder": "F", "decoder": "Prefix"}
    methods = {"Prefix": {"type": "prefix", "num_virtual_tokens": 3}}
    base = make_cell().model_dump(mode="json")
    built = Built(Cell.model_validate(base | {"model": model, "parts": prefix, "methods": methods}))
    built.check()
    if constrain == "none":
        built.model.part("decoder").get_base_model().step = forgetful(built.model.part("decoder").get_base_model().step)
        with pytest.raises(AuditError, match="greedy generation and the forward pass differ at token 2"):
            built.check()


def forgetful(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step of a decoder, to which all tokens are alike."""
    return lambda tokens, *rest: step(torch.zeros_like(tokens), *rest)


@pytest.mark.parametrize("method", ["LoRA", "LoRA and tokens"])
def test_an_adapter_that_evaluation_turns_off_fails(make_cell: Make, method: str) -> None:
    """Tokens that are trained beside it, and need not occur in the examples, are no excuse."""
    built = miss(make_cell, method)
    built.check()
    generate = MissModel.generate

    def without(batch: Any, options: GenerateOptions) -> list[str]:
        with built.model.part("dec").disable_adapter():
            return generate(built.model, batch, options)

    built.model.generate = without
    with pytest.raises(AuditError, match=rf"part dec \({method}\): evaluation does not see what was trained"):
        built.check()


def test_a_classifier_that_reads_another_head_fails() -> None:
    """A task that chooses labels, and a model of which nothing is known but its logits."""

    class Labels:
        facts = VQA.facts

        def predict(self, model: Any, batch: Any, _options: Any) -> list[str]:
            return [str(n) for n in model.logits(batch).argmax(-1).tolist()]

    class Model:
        def __init__(self, trained: str) -> None:
            self.module: Any = torch.nn.ModuleDict({n: torch.nn.Linear(3, 4) for n in ("read", "unread")})
            self.module.requires_grad_(False)
            self.module[trained].requires_grad_(True)

        def part(self, name: str) -> Any:
            return self.module[name]

        def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            scores: torch.Tensor = self.module["read"](batch["x"])
            return scores

    task: Any = Labels()
    batch = Batch(examples=(), tensors={"x": torch.randn(2, 3)})
    for trained in ("read", "unread"):
        model: Any = Model(trained)
        parts = {"read": "F", "unread": "F", trained: "T"}
        if trained == "read":
            check_evaluation(make_run(model, task, OPTIONS, parts, {}), batch)
        else:
            with pytest.raises(AuditError, match=r"part unread \(T\)"):
                check_evaluation(make_run(model, task, OPTIONS, parts, {}), batch)


def test_want_of_memory_is_told_in_the_record(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No verdict, which a reader of the scores must know."""

    def too_large(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(MissModel, "forward_scores", too_large)
    record = run_cell(make_cell(parts={"vit": "F", "jtm": "F", "dec": "F"}, methods={}), tmp_path)
    assert record.status is Status.OK
    assert record.notes is not None
    assert record.notes[-1] == "not checked whether evaluation sees what was trained, for want of memory"
    assert "no audit of the evaluation, for want of memory: CUDA out of memory." in capsys.readouterr().out


def spoilt(scores: torch.Tensor) -> torch.Tensor:
    return torch.full_like(scores, torch.nan)


def test_generation_that_gives_nan_where_the_forward_pass_gives_numbers_fails(make_cell: Make) -> None:
    built = miss(make_cell, "LoRA")
    built.check()
    generate = built.model.generate

    def broken(batch: Any, options: GenerateOptions) -> list[str]:
        with built.model.part("dec").get_output_embeddings().register_forward_hook(lambda *found: spoilt(found[2])):
            found: list[str] = generate(batch, options)
        return found

    built.model.generate = broken
    with pytest.raises(AuditError, match="differ at token 1 of an answer: by inf"):
        built.check()


def test_nothing_but_nan_is_told_as_not_judged(make_cell: Make) -> None:
    built = miss(make_cell, "LoRA")
    built.model.part("dec").get_output_embeddings().register_forward_hook(lambda *found: spoilt(found[2]))
    assert built.check() == [
        "not checked whether evaluation sees what was trained: the scores of an example are all NaN"
    ]


def test_the_observer_keeps_what_is_decided_by_and_nothing_of_inside() -> None:
    class Router(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.argmax(-1, keepdim=True)

    x = torch.tensor([[1.0, 3.0, 2.0]])
    with Observer() as observer:
        y = Router()(x)
        torch.topk(y, 2)
        torch.tensor([3, 1]).argmax()
    assert [each.tolist() for each in observer.decisions] == [[[1.0, 3.0, 2.0]]]
    with Observer() as observer:
        Router()(x)
    assert [each.tolist() for each in observer.scores] == [[[1.0, 3.0, 2.0]]], "no decision: the output"
    torch.nn.Identity()(x).argmax()
    assert len(observer.outputs) == 1, "observed beyond its end"


def test_a_disturbance_is_undone_to_the_bit_even_after_an_error() -> None:
    tensors = [torch.zeros(3), torch.tensor([-0.0, float("inf"), 1e-42]), torch.ones(2, dtype=torch.bfloat16)]
    before = [tensor.clone().view(torch.uint8) for tensor in tensors]

    def fail() -> None:
        with disturbed(tensors, 1.0):
            assert all(not torch.equal(b, t.view(torch.uint8)) for b, t in zip(before, tensors, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(b, t.view(torch.uint8)) for b, t in zip(before, tensors, strict=True))


def test_rounding_is_no_difference() -> None:
    scores = torch.tensor([100.0, -float("inf"), 3.0])
    assert not differ([scores], [scores * (1 + 1e-7)])
    assert differ([scores], [scores * 1.001])
    assert differ([scores], [scores, scores])
