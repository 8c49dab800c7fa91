"""The estimate of one cell: the run's own code, on tensors without data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any
from unittest import mock

import torch

from bench.errors import BenchError, EstimateError
from bench.estimate.adapter_file import safetensors_bytes
from bench.estimate.autocast import autocast_on_meta
from bench.estimate.build import Built, build
from bench.estimate.dataset_cache import Library
from bench.estimate.gpus import DEFAULT, GPUS, Gpu
from bench.estimate.max_batch import Largest, Need, largest
from bench.estimate.meta_cuda_kernels import cuda_kernels
from bench.estimate.operations import Operations
from bench.estimate.tracker import INPUTS, Tracker
from bench.plugins.contracts import InputLengths
from bench.records.costs import Estimate, Flops, PredictedMemory, PredictedPhase
from bench.spec.cell import Cell
from bench.training.adapt import method_groups
from bench.training.data import Batch, task_of
from bench.training.device import Precision, make_precision
from bench.training.optimizer import Schedule
from bench.training.params import count_params, stored_tensors
from bench.training.train import Trainer

_META = torch.device("meta")
_MEMORY_SETTINGS = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
)


@cache
def _estimator(gpu: str) -> Estimator:
    return Estimator(gpu)


def estimate(cell: Cell, *, gpu: str = DEFAULT, max_batch_bytes: int | None = None) -> Estimate:
    """See ``Estimator.estimate``; one estimator per process and GPU."""
    return _estimator(gpu).estimate(cell, max_batch_bytes=max_batch_bytes)


class Estimator:
    """Estimates cells for one generation of GPUs; what is learnt about one serves the next."""

    def __init__(self, gpu: str = DEFAULT) -> None:
        self._name = gpu
        self._gpu: Gpu = GPUS[gpu]
        self._operations = Operations(self._gpu)
        self._library = Library()

    def estimate(self, cell: Cell, *, max_batch_bytes: int | None = None, counts_only: bool = False) -> Estimate:
        """Parameters, memory, FLOPs and adapter size; with a budget, the largest batch that fits it. ``counts_only``:
        parameters and adapter size.

        What cannot be modelled is named in ``refused``. Raises BenchError if the cell itself is wrong.
        """
        with cuda_kernels(self._gpu), autocast_on_meta():
            attempt = Attempt(cell, self._operations, self._library)
            built = attempt.built
            params = count_params(built.model, cell.parts, built.adapters)
            stored = attempt.stored()
            known: dict[str, Any] = {
                "params": params,
                "adapter_bytes": safetensors_bytes(stored) if stored else None,
                "assumed": self._assumed(cell, attempt),
            }
            if counts_only:
                return Estimate(**known)
            try:
                train, train_flops = attempt.train()
                evaluation, eval_flops = attempt.evaluate()
                memory = PredictedMemory(train=train, eval=evaluation, context_bytes=self._gpu.context_bytes)
                known |= {"memory": memory, "flops": _flops(cell, train_flops, eval_flops)}
                known["refused"] = _memory_settings()
                if max_batch_bytes is not None and train is not None:
                    found = self._largest(cell, memory, max_batch_bytes)
                    known["max_batch"] = found.batch
                    if found.remark is not None:
                        known["assumed"]["max_batch"] = found.remark
            except BenchError as error:
                known["refused"] = [*known.get("refused", []), str(error)]
            except (NotImplementedError, RuntimeError, TypeError) as error:
                if "meta" not in str(error):
                    raise
                known["refused"] = [f"the program needs data where there is none: {str(error).splitlines()[0]}"]
        return Estimate(**known)

    def _largest(self, cell: Cell, known: PredictedMemory, budget: int) -> Largest:
        def predict(batch_size: int) -> Need:
            memory = known
            if batch_size != cell.train.batch_size:
                settings = cell.train.model_copy(update={"batch_size": batch_size})
                other = cell.model_copy(update={"train": settings})
                train, _ = Attempt(other, self._operations, self._library).train()
                memory = known.model_copy(update={"train": train})
            allocated = memory.train.allocated_peak_bytes if memory.train is not None else 0
            return Need(memory.process_peak_bytes, allocated)

        return largest(predict, budget, start=cell.train.batch_size)

    def _assumed(self, cell: Cell, attempt: Attempt) -> dict[str, Any]:
        shapes, task = attempt.shapes, attempt.task.facts
        longest = shapes.train[-1]
        return {
            "batch_size": cell.train.batch_size,
            "eval_batch_size": cell.evaluate.batch_size,
            **attempt.built.model.facts(),
            **_chosen(cell, attempt.built),
            **({"labels": len(task.labels), "labels_from": task.labels_from} if task.labels else {}),
            "question_tokens": longest.question_tokens,
            "answer_tokens": longest.answer_tokens,
            "eval_question_tokens": shapes.test[-1].question_tokens,
            "eval_answer_tokens": shapes.test[-1].answer_tokens,
            "lengths_from": shapes.source,
            "batches": [[each.question_tokens, each.answer_tokens] for each in shapes.train],
            "precision": cell.train.precision,
            "optimizer": cell.train.optimizer.name,
            "optimizer_implementation": cell.train.optimizer.implementation,
            "gradient_accumulation_steps": cell.train.gradient_accumulation_steps,
            "gradient_checkpointing": cell.train.gradient_checkpointing,
            "zero_grad": cell.train.zero_grad,
            "num_beams": cell.evaluate.num_beams,
            "max_new_tokens": cell.evaluate.max_new_tokens,
            "gpu": self._name,
            "context_from": self._gpu.source,
            **{package: version(package) for package in ("torch", "transformers", "peft")},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _MetaPrecision(Precision):
    """Counts what is placed on the device as inputs."""

    tracker: Tracker

    def to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        placed = Precision.to_device(self, tensors)
        self.tracker.register(placed.values(), INPUTS)
        return placed


class Attempt:
    """One cell's model and the tracker that follows it, from loading to evaluation."""

    def __init__(self, cell: Cell, operations: Operations, library: Library, tracker: Tracker | None = None) -> None:
        self.tracker = tracker or Tracker(operations=operations)
        self._cell = cell
        self._operations = operations
        base = make_precision(cell.train.precision, _META)
        self._precision = _MetaPrecision(device=_META, weights=base.weights, compute=base.compute, tracker=self.tracker)
        annotations = library.annotations(cell)
        self.task = task_of(cell, annotations.data)
        self.built = build(cell, annotations.texts(), self.tracker, base.weights, self.task.facts)
        self.shapes = library.shapes(cell, self.built.model)

    def stored(self) -> dict[str, torch.Tensor]:
        """What one must keep per task."""
        with self.tracker, reading(self._operations):  # peft copies prompts to the CPU
            return stored_tensors(self.built.model, self._cell.parts, self.built.adapters)

    def train(self) -> tuple[PredictedPhase | None, tuple[int, int] | None]:
        """Steps of the run's own trainer, and the FLOPs (forward, backward) of a micro-batch of the longest batch.

        Raises EstimateError where the program asks for data.
        """
        module, settings = self.built.model.module, self._cell.train
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            return None, None
        micro_batches = min(settings.gradient_accumulation_steps, 2)  # more need no more memory
        module.train()
        self.tracker.begin_phase()
        with self.tracker, self.tracker.watching(trained):
            plan = Schedule(settings=settings, steps=len(self.shapes.train), steps_per_epoch=len(self.shapes.train))
            groups = method_groups(self.built.model, self._cell.parts, self._cell.methods)
            loss = partial(self.task.loss, self.built.model)
            trainer = Trainer(self.built.model, loss, plan, self._precision, groups)
            for step, lengths in enumerate(self.shapes.train):
                self.tracker.reset_flops()
                trainer.step(
                    step, [self._batch(settings.batch_size, lengths, training=True) for _ in range(micro_batches)]
                )
            flops = (self.tracker.forward_flops // micro_batches, self.tracker.backward_flops // micro_batches)
            module.zero_grad()
        return self.tracker.end_phase(), flops

    def evaluate(self) -> tuple[PredictedPhase, int]:
        """Generation for the longest test batch to the last token, and its FLOPs."""
        model, settings = self.built.model, self._cell.evaluate
        model.module.eval()
        self.tracker.begin_phase()
        self.tracker.reset_flops()
        with self.tracker, reading(self._operations), generating(settings.max_new_tokens):
            batch = self._batch(settings.batch_size, self.shapes.test[-1], training=False)
            with torch.no_grad(), self._precision.context():
                self.task.predict(model, self._precision.to_device(batch.tensors), settings.options())
            del batch
        return self.tracker.end_phase(), self.tracker.forward_flops

    def _batch(self, size: int, lengths: InputLengths, *, training: bool) -> Batch:
        facts = self.task.facts
        with torch.utils._python_dispatch._disable_current_modes():  # on the host, not on the GPU
            tensors = self.built.model.meta_inputs(size, lengths, with_answers=training and facts.output == "text")
            if training:
                targets = self.task.targets([facts.labels[0] if facts.labels else ""] * size)
                tensors |= {name: tensor.to("meta") for name, tensor in targets.items()}
        return Batch(examples=(), tensors=tensors)


@contextmanager
def reading(operations: Operations) -> Iterator[None]:
    """Inside, results may be read, as nothing that follows depends on them."""
    operations.reading = True
    try:
        yield
    finally:
        operations.reading = False


@contextmanager
def generating(max_new_tokens: int) -> Iterator[None]:
    """Inside, generation takes as many steps as it may: when an answer is complete depends on data.

    Raises EstimateError if this transformers has no place to say so.
    """
    from transformers import GenerationMixin

    if not hasattr(GenerationMixin, "_has_unfinished_sequences"):
        raise EstimateError("this version of transformers does not let generation run to its last token without data")
    unfinished = [True] * max_new_tokens + [False]
    with mock.patch.object(GenerationMixin, "_has_unfinished_sequences", side_effect=unfinished):
        yield


def _chosen(cell: Cell, built: Built) -> dict[str, Any]:
    """Method and part -> what the method is put on."""
    notes = {f"{cell.parts[part]} on {part}": adapted.note for part, adapted in built.adapters.items()}
    return {"methods": notes} if notes else {}


def _flops(cell: Cell, train: tuple[int, int] | None, evaluation: int) -> Flops:
    forward, backward = (part * cell.train.gradient_accumulation_steps for part in train) if train else (None, None)
    return Flops(
        train_forward=forward,
        train_backward=backward,
        train_step=forward + backward if forward is not None and backward is not None else None,
        eval_sample=evaluation // cell.evaluate.batch_size,
    )


def _memory_settings() -> list[str]:
    return [
        f"memory under {name}={os.environ[name]}: the allocator and cuBLAS are modelled with their default settings"
        for name in _MEMORY_SETTINGS
        if os.environ.get(name)
    ]
