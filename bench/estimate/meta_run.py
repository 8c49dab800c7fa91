"""Model, training steps and evaluation of a cell on the meta device, by the code of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch

from bench import registry
from bench.errors import EstimateError
from bench.estimate.dataset_cache import DatasetCache
from bench.estimate.operations import Operations
from bench.estimate.tracker import INPUTS, WEIGHTS, StorageTracker
from bench.plugins.contracts import BenchModel, InputLengths
from bench.records.costs import PredictedPhase
from bench.spec.cell import Cell
from bench.training.adapt import AppliedMethod, adapt, method_groups
from bench.training.data import Batch, task_of
from bench.training.device import Precision, make_precision
from bench.training.optimizer import Schedule
from bench.training.params import stored_tensors
from bench.training.train import Trainer

_META = torch.device("meta")
_RANDOM_STD = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class _MetaPrecision(Precision):
    """Registers what is placed on the device as inputs."""

    tracker: StorageTracker

    def to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        placed = Precision.to_device(self, tensors)
        self.tracker.register(placed.values(), INPUTS)
        return placed


class MetaRun:
    """A cell's adapted model and the tracker that follows it, from loading to evaluation."""

    model: BenchModel
    adapters: dict[str, AppliedMethod]
    """Part -> the method on it."""

    def __init__(
        self, cell: Cell, operations: Operations, datasets: DatasetCache, tracker: StorageTracker | None = None
    ) -> None:
        """Build the model. Raises BenchError if the cell itself is wrong."""
        self.tracker = tracker or StorageTracker(operations=operations)
        self._cell = cell
        self._operations = operations
        base = make_precision(cell.train.precision, _META)
        self._precision = _MetaPrecision(device=_META, weights=base.weights, compute=base.compute, tracker=self.tracker)
        self.task = task_of(cell, datasets.data(cell))
        texts = datasets.texts(cell)
        plugin = registry.load("models", cell.model.family)
        make = partial(plugin.build, cell.model, texts=texts, device="meta", task=self.task.facts)
        self._build(make)
        self.lengths = datasets.lengths(cell, self.model)

    def _build(self, make: Callable[[], BenchModel]) -> None:
        """Allocate in the order of a run: the plain model in fp32, adapters, then the conversion of all weights.

        Methods that compute from real weights cannot be applied on meta: their model is adapted on the CPU, with random
        weights, and moved, in no particular order. What goes wrong there is raised as it is.
        """
        dtype = self._precision.weights
        self.model = make()
        self.tracker.register(tensors_of(self.model.module), WEIGHTS)
        try:
            with self.tracker:
                self.adapters = self._adapt()
                self.model.module.to("meta", dtype)
        except (NotImplementedError, EstimateError):
            self.model = make()
            replace_tensors(self.model.module, _random)
            self.adapters = self._adapt()
            replace_tensors(self.model.module, partial(_on_meta, dtype=dtype))
        self.tracker.register(tensors_of(self.model.module), WEIGHTS)

    def _adapt(self) -> dict[str, AppliedMethod]:
        return adapt(self.model, self.model.part_facts, self._cell.parts, self._cell.methods)

    def stored(self) -> dict[str, torch.Tensor]:
        """Tensors stored per task."""
        with self.tracker, allow_reads(self._operations):  # peft copies prompts to the CPU
            return stored_tensors(self.model, self._cell.parts, self.adapters)

    def train(self) -> tuple[PredictedPhase | None, tuple[int, int] | None]:
        """Steps of the run's own trainer, and the FLOPs (forward, backward) of a micro-batch of the longest batch.

        None if nothing is trained. Raises EstimateError if the program reads data.
        """
        module, settings = self.model.module, self._cell.train
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            return None, None
        micro_batches = min(settings.gradient_accumulation_steps, 2)  # more need no more memory
        module.train()
        self.tracker.begin_phase()
        with self.tracker, self.tracker.training(trained):
            steps = len(self.lengths.train)
            schedule = Schedule(settings=settings, steps=steps, steps_per_epoch=steps)
            groups = method_groups(self.model, self._cell.parts, self._cell.methods)
            trainer = Trainer(self.model, partial(self.task.loss, self.model), schedule, self._precision, groups)
            for step, lengths in enumerate(self.lengths.train):
                self.tracker.reset_flops()
                batches = (self._batch(settings.batch_size, lengths, training=True) for _ in range(micro_batches))
                trainer.step(step, list(batches))
            flops = (self.tracker.forward_flops // micro_batches, self.tracker.backward_flops // micro_batches)
            module.zero_grad()
        return self.tracker.end_phase(), flops

    def evaluate(self) -> tuple[PredictedPhase, int]:
        """Generation for the longest test batch to the last token, and its FLOPs."""
        settings = self._cell.evaluate
        self.model.module.eval()
        self.tracker.begin_phase()
        self.tracker.reset_flops()
        with self.tracker, allow_reads(self._operations), generate_to_max_length(settings.max_new_tokens):
            batch = self._batch(settings.batch_size, self.lengths.test[-1], training=False)
            with torch.no_grad(), self._precision.context():
                self.task.predict(self.model, self._precision.to_device(batch.tensors), settings.options())
            del batch
        return self.tracker.end_phase(), self.tracker.forward_flops

    def _batch(self, size: int, lengths: InputLengths, *, training: bool) -> Batch:
        facts = self.task.facts
        with torch.utils._python_dispatch._disable_current_modes():  # on the host, not on the GPU
            tensors = self.model.meta_inputs(size, lengths, with_answers=training and facts.output == "text")
            if training:
                targets = self.task.targets([facts.labels[0] if facts.labels else ""] * size)
                tensors |= {name: tensor.to("meta") for name, tensor in targets.items()}
        return Batch(examples=(), tensors=tensors)


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers in the order in which ``module.to`` visits them: children first."""
    for child in module.children():
        yield from tensors_of(child)
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)


def replace_tensors(module: torch.nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace every parameter and buffer by ``make(tensor)``; a tied parameter stays one parameter."""
    made: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = torch.nn.Parameter(make(parameter), parameter.requires_grad)
                owner._parameters[name] = made[id(parameter)]  # type: ignore[assignment]
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = make(buffer)


def _random(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU as new weights are: methods that decompose weights need finite ones."""
    made = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return made.normal_(std=_RANDOM_STD) if tensor.is_floating_point() else made


def _on_meta(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta", dtype=dtype if tensor.is_floating_point() else tensor.dtype)


@contextmanager
def allow_reads(operations: Operations) -> Iterator[None]:
    """Inside, values may be read, since nothing that follows depends on them."""
    operations.allow_reads = True
    try:
        yield
    finally:
        operations.allow_reads = False


@contextmanager
def generate_to_max_length(max_new_tokens: int) -> Iterator[None]:
    """Inside, generation takes all its steps: when an answer is complete depends on data.

    Raises EstimateError if this transformers has no method to replace for that.
    """
    from transformers import GenerationMixin

    if not hasattr(GenerationMixin, "_has_unfinished_sequences"):
        raise EstimateError("this version of transformers does not let generation run to its last token without data")
    unfinished = [True] * max_new_tokens + [False]
    with mock.patch.object(GenerationMixin, "_has_unfinished_sequences", side_effect=unfinished):
        yield
