"""What trains against the freeze pattern or outside the loss fails, and so does an evaluation that does not see it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.datasets.easy_vqa import EasyVqaSettings
from bench.errors import AuditError
from bench.models.miss.model import MissModel
from bench.patches.peft import patch_cache_name
from bench.plugins.contracts import BenchModel, GenerateOptions, Task
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.spec.sections import DEFAULT_TASK, EvaluateSettings
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import Observer, check_evaluation, check_frozen, check_gradients, differ, disturbed
from bench.training.data import Batch, LoadedData, load_data
from bench.worker.run import run_cell
from tests import factories
from tests.training.conftest import Build, Make
from tests.training.runs import make_run

VQA: Task = factories.plugin("tasks", "generative_vqa").create(DEFAULT_TASK, EvaluateSettings(batch_size=4), [])
OPTIONS = GenerateOptions(num_beams=2, max_new_tokens=3)
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 4},
    "Biased": {"type": "lora", "r": 4, "bias": "lora_only"},
    "LoRA and tokens": {
        "peft_type": "LORA",
        "target_modules": ["query", "value"],
        "trainable_token_indices": {"word_embeddings": [3]},
    },
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix"},
    "P-Tuning v2": {"type": "ptuning_v2"},
    "Prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
}


def cell_of(make_cell: Make, vit: str = "F", jtm: str = "F", dec: str = "F") -> Cell:
    parts = {"vit": vit, "jtm": jtm, "dec": dec}
    return make_cell(parts=parts, methods={name: METHODS[name] for name in parts.values() if name in METHODS})


# --- the freeze pattern ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> LoadedData:
    """The embedded data set."""
    return load_data(EasyVqaSettings(name="easy_vqa", train_limit=8, test_limit=8))


def first_backward(model: BenchModel, data: LoadedData) -> None:
    batch = data.training_batch(model, VQA, data.train, random.Random(0))
    VQA.loss(model, batch.tensors).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "actions",
    [
        ("F", "F", "T"),
        ("T", "T", "T"),
        ("T", "F", "F"),
        ("LoRA", "IA3", "Prefix"),
        ("IA3", "Prefix", "P-Tuning v2"),
        ("F", "P-Tuning v2", "LoRA"),
        ("F", "Biased", "F"),
    ],
)
def test_every_action_passes_and_every_trained_tensor_has_a_gradient(
    make_cell: Make, build: Build, data: LoadedData, actions: tuple[str, str, str]
) -> None:
    cell = cell_of(make_cell, *actions)
    model, adapters = build(cell)
    check_frozen(model, cell.parts, adapters)
    first_backward(model, data)
    check_gradients(model)


def train_one(model: Any, part: str, word: str) -> None:
    next(p for name, p in model.part(part).named_parameters() if word in name).requires_grad_(True)


def freeze(model: Any, part: str, word: str) -> None:
    for name, parameter in model.part(part).named_parameters():
        if word in name:
            parameter.requires_grad_(False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda model: train_one(model, "vit", ""), r"part vit \(F\) must not train .*class_embedding"),
        (lambda model: freeze(model, "dec", ""), r"part dec \(T\) must train .* and \d+ more"),
        (lambda model: train_one(model, "jtm", "word_embeddings"), r"part jtm \(LoRA\) must not train .*word_embedd"),
        (lambda model: freeze(model, "jtm", ""), r"part jtm \(LoRA\) must train"),
        (lambda model: freeze(model, "jtm", "lora_A"), r"part jtm \(LoRA\) must train .*lora_A"),
        (
            lambda model: model.module.register_parameter("stray", torch.nn.Parameter(torch.zeros(2))),
            "in no part of the freeze pattern: stray",
        ),
    ],
)
def test_what_trains_against_the_pattern_fails(
    make_cell: Make, build: Build, spoil: Callable[[Any], None], words: str
) -> None:
    cell = cell_of(make_cell, "F", "LoRA", "T")
    model, adapters = build(cell)
    check_frozen(model, cell.parts, adapters)
    spoil(model)
    with pytest.raises(AuditError, match=words):
        check_frozen(model, cell.parts, adapters)


def test_an_adapter_that_was_never_put_on_fails(make_cell: Make, build: Build) -> None:
    model, _ = build(cell_of(make_cell, dec="T"))
    with pytest.raises(AuditError, match=r"part jtm \(LoRA\) trains nothing"):
        check_frozen(model, {"vit": "F", "jtm": "LoRA", "dec": "T"}, {})


def test_a_trained_tensor_without_a_gradient_fails(make_cell: Make, build: Build, data: LoadedData) -> None:
    model, _ = build(make_cell())
    model.part("dec").register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))
    first_backward(model, data)
    with pytest.raises(AuditError, match=r"without a gradient in the first step: text_decoder\.unused"):
        check_gradients(model)


def test_an_infinite_gradient_fails_unless_a_scaler_handles_it(make_cell: Make, build: Build, data: LoadedData) -> None:
    model, _ = build(make_cell())
    first_backward(model, data)
    gradient = next(p.grad for p in model.part("dec").parameters() if p.grad is not None)
    gradient.view(-1)[0] = float("inf")
    check_gradients(model, finite=False)
    with pytest.raises(AuditError, match="infinite gradient"):
        check_gradients(model)


# --- the evaluation --------------------------------------------------------------------------------------------


class Trained:
    """A cell's model, adapted, and two of its test examples."""

    def __init__(self, cell: Cell) -> None:
        data = load_data(cell.data)
        plugin = factories.plugin("models", cell.model.family)
        torch.manual_seed(0)
        self.model: Any = plugin.build(cell.model, texts=data.source.texts(), device="cpu", task=VQA.facts)
        if hasattr(self.model, "learn_answers"):
            self.model.learn_answers(example.answer for example in data.train)
        self.parts = cell.parts
        self.adapters: dict[str, AppliedMethod] = adapt(self.model, self.model.part_facts, cell.parts, cell.methods)
        self.batch: Batch = data.test_batch(self.model, VQA, data.test[:2])

    def check(self) -> list[str]:
        return check_evaluation(make_run(self.model, VQA, OPTIONS, self.parts, self.adapters), self.batch)


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
    record = run_cell(cell_of(make_cell, jtm="LoRA", dec="Prefix"), tmp_path)
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
        Trained(cell_of(make_cell, dec="Prompt")).check()


def random_states() -> tuple[list[int], Any, list[int]]:
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist()


@pytest.mark.parametrize(
    "actions",
    [("F", "F", "F"), ("T", "T", "T"), ("LoRA", "IA3", "LoRA"), ("F", "Prefix", "Prefix"), ("F", "Prompt", "Prompt")],
    ids="-".join,
)
def test_sound_models_pass_and_are_left_as_they_were(make_cell: Make, actions: tuple[str, str, str]) -> None:
    trained = Trained(cell_of(make_cell, *actions))
    module = trained.model.module.train()
    module.get_submodule("vision_model").eval()
    modes = [each.training for each in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    states = random_states()
    trained.check()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert [each.training for each in module.modules()] == modes
    assert random_states() == states
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("constrain", ["answers", "none"])
def test_a_search_within_a_trie_is_compared_where_it_may_go(make_cell: Make, constrain: str) -> None:
    small = {"hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "resnet_channels": [8, 8, 8]}
    model = {"family": "ofa", "preset": "micro", "network": small, "constrain": constrain}
    changes = {
        "model": model,
        "parts": {"encoder": "F", "decoder": "Prefix"},
        "methods": {"Prefix": {"type": "prefix", "num_virtual_tokens": 3}},
    }
    trained = Trained(Cell.model_validate(make_cell().model_dump(mode="json") | changes))
    trained.check()
    if constrain == "none":
        decoder = trained.model.part("decoder").get_base_model()
        step = decoder.step
        decoder.step = lambda tokens, *rest: step(torch.zeros_like(tokens), *rest)  # all tokens are alike to it
        with pytest.raises(AuditError, match="greedy generation and the forward pass differ at token 2"):
            trained.check()


@pytest.mark.parametrize("method", ["LoRA", "LoRA and tokens"])
def test_an_adapter_that_evaluation_turns_off_fails(make_cell: Make, method: str) -> None:
    """Tokens that are trained beside it, and need not occur in the examples, are no excuse."""
    trained = Trained(cell_of(make_cell, dec=method))
    trained.check()

    def without(batch: Any, options: GenerateOptions) -> list[str]:
        with trained.model.part("dec").disable_adapter():
            return MissModel.generate(trained.model, batch, options)

    trained.model.generate = without
    with pytest.raises(AuditError, match=rf"part dec \({method}\): evaluation does not see what was trained"):
        trained.check()


@pytest.mark.parametrize("part", ["read", "unread"])
def test_a_classifier_that_reads_another_head_fails(part: str) -> None:
    """A task that chooses labels, and a model of which nothing is known but its logits."""
    module: Any = torch.nn.ModuleDict({n: torch.nn.Linear(3, 4) for n in ("read", "unread")}).requires_grad_(False)
    module[part].requires_grad_(True)
    model = SimpleNamespace(module=module, part=lambda name: module[name])
    task = SimpleNamespace(predict=lambda _model, batch, _: module["read"](batch["x"]).argmax(-1).tolist())
    parts = {"read": "F", "unread": "F", part: "T"}
    run, batch = make_run(model, task, OPTIONS, parts, {}), Batch(examples=(), tensors={"x": torch.randn(2, 3)})
    if part == "read":
        check_evaluation(run, batch)
    else:
        with pytest.raises(AuditError, match=r"part unread \(T\)"):
            check_evaluation(run, batch)


def test_want_of_memory_is_noted_in_the_record(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No verdict, which a reader of the scores must know."""

    def too_large(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(MissModel, "forward_scores", too_large)
    record = run_cell(cell_of(make_cell), tmp_path)
    assert record.status is Status.OK
    assert record.notes is not None
    assert record.notes[-1] == "not checked whether evaluation sees what was trained, for want of memory"
    assert "no audit of the evaluation, for want of memory: CUDA out of memory." in capsys.readouterr().out


def spoilt(_module: Any, _args: Any, scores: torch.Tensor) -> torch.Tensor:
    return torch.full_like(scores, torch.nan)


def test_generation_that_gives_nan_where_the_forward_pass_gives_numbers_fails(make_cell: Make) -> None:
    trained = Trained(cell_of(make_cell, dec="LoRA"))
    trained.check()
    generate = trained.model.generate

    def broken(batch: Any, options: GenerateOptions) -> Any:
        with trained.model.part("dec").get_output_embeddings().register_forward_hook(spoilt):
            return generate(batch, options)

    trained.model.generate = broken
    with pytest.raises(AuditError, match="differ at token 1 of an answer: by inf"):
        trained.check()


def test_nothing_but_nan_is_not_judged(make_cell: Make) -> None:
    trained = Trained(cell_of(make_cell, dec="LoRA"))
    trained.model.part("dec").get_output_embeddings().register_forward_hook(spoilt)
    assert trained.check() == [
        "not checked whether evaluation sees what was trained: the scores of an example are all NaN"
    ]


def test_the_observer_keeps_decisions_outside_modules() -> None:
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
