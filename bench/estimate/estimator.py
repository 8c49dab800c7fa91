"""Estimates of cells: exact parameters, predicted memory, counted FLOPs, and the largest batch that fits a budget."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch
from safetensors.torch import _TYPES

from bench.errors import BenchError, EstimateError
from bench.estimate.allocator import round_up
from bench.estimate.autocast import autocast_on_meta
from bench.estimate.dataset_cache import DatasetCache
from bench.estimate.gpus import DEFAULT, GPUS
from bench.estimate.meta_cuda_kernels import cuda_kernels
from bench.estimate.meta_run import MetaRun
from bench.estimate.operations import Operations
from bench.records.costs import Estimate, Flops, PredictedMemory
from bench.spec.cell import Cell
from bench.training.params import count_params

MAX_BATCH = 1 << 16
"""Largest batch that is tried."""
_INTERPOLATIONS = 12  # predictions after which bisection replaces interpolation
_MEMORY_VARIABLES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
)
_DTYPE_NAMES = {dtype: name for name, dtype in _TYPES.items()}


@cache
def _estimator(gpu: str) -> Estimator:
    return Estimator(gpu)


def estimate(cell: Cell, *, gpu: str = DEFAULT, max_batch_bytes: int | None = None) -> Estimate:
    """``Estimator.estimate`` with one estimator per process and GPU."""
    return _estimator(gpu).estimate(cell, max_batch_bytes=max_batch_bytes)


class Estimator:
    """Estimates cells for a generation of GPUs; results of operations and data sets are shared by all cells."""

    def __init__(self, gpu: str = DEFAULT) -> None:
        self._name = gpu
        self._gpu = GPUS[gpu]
        self._operations = Operations(self._gpu)
        self._datasets = DatasetCache()

    def estimate(self, cell: Cell, *, max_batch_bytes: int | None = None, counts_only: bool = False) -> Estimate:
        """Parameters, memory, FLOPs and adapter size; with a budget, the largest batch that fits it. ``counts_only``:
        parameters and adapter size.

        ``refused`` names what cannot be modelled. Raises BenchError if the cell itself is wrong.
        """
        with cuda_kernels(self._gpu), autocast_on_meta():
            run = MetaRun(cell, self._operations, self._datasets)
            params = count_params(run.model, cell.parts, run.adapters)
            stored = run.stored()
            known: dict[str, Any] = {
                "params": params,
                "adapter_bytes": safetensors_bytes(stored) if stored else None,
                "assumed": self._assumed(cell, run),
            }
            if not counts_only:
                try:
                    self._add_costs(known, cell, run, max_batch_bytes)
                except BenchError as error:
                    known["refused"] = [*known.get("refused", []), str(error)]
                except (NotImplementedError, RuntimeError, TypeError) as error:
                    if "meta" not in str(error):
                        raise
                    reason = str(error).splitlines()[0]
                    known["refused"] = [f"the program needs data where there is none: {reason}"]
        return Estimate(**known)

    def _add_costs(self, known: dict[str, Any], cell: Cell, run: MetaRun, max_batch_bytes: int | None) -> None:
        train, train_flops = run.train()
        evaluation, eval_flops = run.evaluate()
        memory = PredictedMemory(train=train, eval=evaluation, context_bytes=self._gpu.context_bytes)
        known |= {"memory": memory, "flops": _flops(cell, train_flops, eval_flops)}
        known["refused"] = [
            f"memory under {name}={os.environ[name]}: the allocator and cuBLAS are modelled with their default settings"
            for name in _MEMORY_VARIABLES
            if os.environ.get(name)
        ]
        if max_batch_bytes is not None and train is not None:
            known["max_batch"], remark = self._largest_batch(cell, memory, max_batch_bytes)
            if remark is not None:
                known["assumed"]["max_batch"] = remark

    def _largest_batch(self, cell: Cell, known: PredictedMemory, budget: int) -> tuple[int, str | None]:
        def predict(batch_size: int) -> tuple[int, int]:
            memory = known
            if batch_size != cell.train.batch_size:
                settings = cell.train.model_copy(update={"batch_size": batch_size})
                train, _ = MetaRun(
                    cell.model_copy(update={"train": settings}), self._operations, self._datasets
                ).train()
                memory = known.model_copy(update={"train": train})
            return memory.process_peak_bytes, memory.train.allocated_peak_bytes if memory.train is not None else 0

        return largest_batch(predict, budget, start=cell.train.batch_size)

    def _assumed(self, cell: Cell, run: MetaRun) -> dict[str, Any]:
        lengths, task = run.lengths, run.task.facts
        longest = lengths.train[-1]
        notes = {f"{cell.parts[part]} on {part}": adapted.note for part, adapted in run.adapters.items()}
        return {
            "batch_size": cell.train.batch_size,
            "eval_batch_size": cell.evaluate.batch_size,
            **run.model.facts(),
            **({"methods": notes} if notes else {}),
            **({"labels": len(task.labels), "labels_from": task.labels_from} if task.labels else {}),
            "question_tokens": longest.question_tokens,
            "answer_tokens": longest.answer_tokens,
            "eval_question_tokens": lengths.test[-1].question_tokens,
            "eval_answer_tokens": lengths.test[-1].answer_tokens,
            "lengths_from": lengths.source,
            "batches": [[each.question_tokens, each.answer_tokens] for each in lengths.train],
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


def _flops(cell: Cell, train: tuple[int, int] | None, evaluation: int) -> Flops:
    forward, backward = (part * cell.train.gradient_accumulation_steps for part in train) if train else (None, None)
    return Flops(
        train_forward=forward,
        train_backward=backward,
        train_step=forward + backward if forward is not None and backward is not None else None,
        eval_sample=evaluation // cell.evaluate.batch_size,
    )


def safetensors_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of a safetensors file of these tensors: length of the header, header padded to 8 bytes, data.

    Follows https://github.com/huggingface/safetensors (format): widest types first, then by name.
    """
    header, offset = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + round_up(len(text), 8) + offset


def largest_batch(predict: Callable[[int], tuple[int, int]], budget: int, *, start: int) -> tuple[int, str | None]:
    """A batch size that fits the budget while the next one does not (0 if none fits), and a remark on it.

    ``predict``: batch size -> bytes of the process, which must fit, and bytes allocated. Memory grows almost linearly
    with the batch: the line through the ends of a bracket proposes the next size, from ``start`` on. Raises
    EstimateError if a larger batch is predicted to allocate less than a smaller one.
    """
    known: dict[int, tuple[int, int]] = {}

    def fits(batch: int) -> bool:
        known[batch] = predict(batch)
        return known[batch][0] <= budget

    low, high = _bracket(fits, start)
    while high - low > 1:
        middle = (low + high) // 2
        rise = known[high][0] - known[low][0]
        if rise > 0 and len(known) <= _INTERPOLATIONS:
            middle = low + int((budget - known[low][0]) * (high - low) / rise)
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, _check_growth(known)


def _bracket(fits: Callable[[int], bool], start: int) -> tuple[int, int]:
    """A size that fits (or 0) and a larger one that does not (or one above the limit)."""
    if fits(start):
        low = start
        while low < MAX_BATCH:
            high = min(2 * low, MAX_BATCH)
            if not fits(high):
                return low, high
            low = high
        return MAX_BATCH, MAX_BATCH + 1
    high = start
    while high > 1:
        if fits(high // 2):
            return high // 2, high
        high //= 2
    return 0, 1


def _check_growth(known: Mapping[int, tuple[int, int]]) -> str | None:
    remark = None
    for small, large in pairwise(sorted(known)):
        (small_process, small_allocated), (large_process, large_allocated) = known[small], known[large]
        if large_allocated < small_allocated:
            raise EstimateError(
                f"no largest batch: a batch of {large} is predicted to allocate less than one of {small} "
                f"({large_allocated:,} against {small_allocated:,} bytes)"
            )
        # reserved memory may shrink by a better fit of its blocks, allocated memory may not
        if large_process < small_process:
            remark = f"reserved memory shrinks from batch {small} to {large}: a larger batch than this may fit, too"
    return remark
