"""Trainings that are measured on a CPU and predicted: cells of ``cells.yaml``, and plain models of ``transformers``, as
the tracker follows PyTorch and not a family of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bench import registry
from bench.estimate.dataset_cache import BatchLengths, DatasetCache
from bench.plugins.contracts import BenchModel, InputLengths, TextModel
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.training.adapt import adapt
from bench.training.data import Batch, task_of
from bench.training.device import Precision, make_precision
from bench.training.optimizer import Schedule
from bench.training.train import Trainer

LENGTHS = tuple(InputLengths(question_tokens=q, answer_tokens=a) for q, a in ((16, 8), (24, 35)))
"""Lengths of the batches of every case, one a step."""
_IMAGE = (3, 96, 96)
_TOKENS = -1  # stands for the length of a text
_PIXELS: dict[str, tuple[int, ...]] = {"pixel_values": _IMAGE, "labels": ()}
_TEXT: dict[str, tuple[int, ...]] = dict.fromkeys(("input_ids", "attention_mask", "labels"), (_TOKENS,))
_SIZES = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024}
_CONFIGS: dict[str, dict[str, Any]] = {
    "vit": _SIZES | {"image_size": _IMAGE[-1], "patch_size": 8, "num_labels": 10},
    "bert": _SIZES | {"vocab_size": 8000},
    "gpt2": {"vocab_size": 8000, "n_embd": 256, "n_layer": 6, "n_head": 8, "attn_pdrop": 0.0}
    | {"bos_token_id": 1, "eos_token_id": 2},
    "t5": {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8}
    | {"vocab_size": 8000, "decoder_start_token_id": 0, "pad_token_id": 0},
}
_ADAPTERS: dict[str, dict[str, Any]] = {
    "vit": {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj", "query", "value"]},
    "gpt2": {"peft_type": "IA3", "target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]}
    | {"fan_in_fan_out": True},
    "t5": {"peft_type": "LORA", "r": 8, "target_modules": ["q", "v"]},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training of ``len(LENGTHS)`` steps."""

    name: str
    model: str
    """Description for the table."""
    settings: TrainSettings
    build: Callable[[str], TextModel]
    """Builds the adapted model, its weights in the settings' precision, on ``cpu`` or ``meta``."""
    cell: Cell | None = None
    """Cell whose estimate is compared; None: compare steps of the run's trainer on meta."""


class FixedLengths(DatasetCache):
    """Batches of given lengths, whatever the data."""

    def __init__(self, lengths: tuple[InputLengths, ...]) -> None:
        super().__init__()
        self._given = BatchLengths(train=lengths, test=lengths[-1:], source="given")

    def lengths(self, cell: Cell, model: BenchModel) -> BatchLengths:  # noqa: ARG002
        """The given lengths."""
        return self._given


class PlainModel:
    """As much of a ``TextModel`` as a trainer needs, around a model of ``transformers`` that computes its loss."""

    def __init__(self, module: Any, inputs: dict[str, tuple[int, ...]]) -> None:
        self.module = module
        self._inputs = inputs

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The library's loss."""
        loss: torch.Tensor = self.module(**batch).loss
        return loss

    def checkpoint_activations(self) -> None:
        """The library's checkpointing."""
        self.module.gradient_checkpointing_enable({"use_reentrant": False})

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Question and answer as one text."""
        tokens = lengths.question_tokens + lengths.answer_tokens
        tensors = {}
        for name, shape in self._inputs.items():
            sizes = [batch_size, *(tokens if size == _TOKENS else size for size in shape)]
            tensors[name] = torch.empty(sizes, dtype=torch.float32 if shape == _IMAGE else torch.long, device="meta")
        return tensors


def cells() -> list[Case]:
    """The cases of ``cells.yaml``."""
    return [case_of(cell) for cell in expand(read_spec(Path(__file__).with_name("cells.yaml")).resolve("default"))]


def case_of(cell: Cell) -> Case:
    """The case of a cell: the training of its run."""

    def build(device: str) -> TextModel:
        return build_model(cell, device, texts=DatasetCache().texts(cell))

    return Case(name=cell.label, model=cell.model.describe(), settings=cell.train, build=build, cell=cell)


def build_model(cell: Cell, device: str, texts: Sequence[str] = ()) -> TextModel:
    """The cell's adapted model with random weights in its precision."""
    plugin = registry.load("models", cell.model.family)
    settings = cell.model.model_copy(update={"weights": None})
    model = cast("TextModel", plugin.build(settings, texts=texts, device=device, task=task_of(cell).facts))
    adapt(model, model.part_facts, cell.parts, cell.methods)
    model.module.to(torch.device(device), make_precision(cell.train.precision, torch.device(device)).weights)
    return model


def plain_models() -> Iterator[Case]:
    """Small models of ``transformers``, each trained in another way."""
    yield _plain("ViT, full", "vit", _PIXELS)
    yield _plain("ViT, head only, SGD", "vit", _PIXELS, frozen="vit", optimizer="sgd")
    yield _plain(
        "ViT, rank 8 on query and value, bf16 autocast", "vit", _PIXELS, adapted=True, precision="bf16_autocast"
    )
    yield _plain("BERT, full, checkpointing", "bert", _TEXT, gradient_checkpointing=True)
    yield _plain("BERT, full, bf16, eager attention", "bert", _TEXT, attention="eager", precision="bf16")
    yield _plain("GPT-2, scaled activations, fused AdamW", "gpt2", _TEXT, adapted=True, implementation="fused")
    yield _plain("T5, rank 8, accumulation", "t5", _TEXT, adapted=True, gradient_accumulation_steps=2)


def _plain(
    name: str,
    model_type: str,
    inputs: dict[str, tuple[int, ...]],
    *,
    adapted: bool = False,
    frozen: str | None = None,
    attention: str | None = None,
    optimizer: str = "adamw",
    implementation: str = "foreach",
    **train: Any,
) -> Case:
    update = OptimizerSettings.model_validate({"name": optimizer, "lr": 1e-4, "implementation": implementation})
    settings = TrainSettings(**{"steps": len(LENGTHS), "batch_size": 16} | train, optimizer=update)

    def build(device: str) -> TextModel:
        with torch.device(device):
            module = _transformer(model_type, attention)
            if frozen is not None:
                module.get_submodule(frozen).requires_grad_(False)
            if adapted:
                from peft import get_peft_config, get_peft_model

                module = get_peft_model(module, get_peft_config(_ADAPTERS[model_type]))
        module.to(make_precision(settings.precision, torch.device(device)).weights)
        return PlainModel(module, inputs)  # type: ignore[return-value]

    return Case(name=name, model="transformers", settings=settings, build=build)


def _transformer(model_type: str, attention: str | None) -> Any:
    import transformers

    auto = {"vit": "ImageClassification", "bert": "MaskedLM", "gpt2": "CausalLM", "t5": "Seq2SeqLM"}[model_type]
    config = transformers.AutoConfig.for_model(model_type, **_CONFIGS[model_type])
    options = {} if attention is None else {"attn_implementation": attention}
    return getattr(transformers, f"AutoModelFor{auto}").from_config(config, **options)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedInputs(Precision):
    """Makes inputs of the given shapes on the device, where the inputs of a run arrive; only their shapes matter."""

    on_made: Callable[[list[torch.Tensor]], None]

    def to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Noise for images; ones for ids and masks, with a zero at the end as padding."""
        made = {}
        for name, like in tensors.items():
            if like.is_floating_point():
                made[name] = torch.rand(like.shape, device=self.device, dtype=self.weights)
            else:
                made[name] = torch.ones(like.shape, device=self.device, dtype=like.dtype)
                made[name][..., -1] = 0
        self.on_made(list(made.values()))
        return made


def generated_inputs(
    precision: str, device: str, on_made: Callable[[list[torch.Tensor]], None] = lambda _: None
) -> GeneratedInputs:
    """A precision by its name, with generated inputs."""
    base = make_precision(precision, torch.device(device))
    return GeneratedInputs(device=base.device, weights=base.weights, compute=base.compute, on_made=on_made)


def take_steps(
    model: TextModel,
    settings: TrainSettings,
    lengths: Sequence[InputLengths],
    precision: Precision,
    after_step: Callable[[int], None] = lambda _: None,
) -> None:
    """A step with all its micro-batches for each of ``lengths``; ends without gradients, as a run's training does."""
    model.module.train()
    schedule = Schedule(settings=settings, steps=len(lengths), steps_per_epoch=len(lengths))
    trainer = Trainer(model, model.loss, schedule, precision)
    for step, each in enumerate(lengths):
        trainer.step(step, [meta_batch(model, settings.batch_size, each)] * settings.gradient_accumulation_steps)
        after_step(step)
    model.module.zero_grad()


def meta_batch(model: TextModel, batch_size: int, lengths: InputLengths) -> Batch:
    """A batch for ``GeneratedInputs``; it stands for what is not yet on the device, so no mode may count it."""
    with torch.utils._python_dispatch._disable_current_modes():
        return Batch(examples=(), tensors=model.meta_inputs(batch_size, lengths, with_answers=True))
