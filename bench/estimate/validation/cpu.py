"""Steps of training on a real CPU, recorded by PyTorch's profiler, beside the prediction of their peak.

Two independent references: the profiler's record of every allocation that the CPU's allocator made, and
``torch.distributed._tools.mem_tracker.MemTracker``. All sides take the steps of the run's own ``Trainer``.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from bench.estimate.allocator import Block, CachingAllocator
from bench.estimate.autocast import CPU, autocast_on_meta
from bench.estimate.meta_cuda_kernels import additive_mask, kernels_on_meta
from bench.estimate.meta_run import MetaRun
from bench.estimate.operations import Operations
from bench.estimate.tracker import INPUTS, WEIGHTS, StorageTracker
from bench.estimate.validation.cases import LENGTHS, Case, FixedLengths, generated_inputs, take_steps
from bench.records.costs import PredictedPhase

aten = torch.ops.aten
LIMIT = 0.01
"""Largest relative error of a prediction."""
_WINDOW = "steps"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One case's peaks, bytes."""

    measured: int
    """By the CPU's allocator, as the profiler recorded it."""
    predicted: PredictedPhase
    """On the meta device: the estimate with a CPU in place of the GPU."""
    followed: int
    """By the estimate's tracker on the CPU run."""
    mem_tracker: int
    """By MemTracker on meta."""
    out_of_place: int
    """Predicted with gradients summed as under MemTracker, to compare with it."""

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted.allocated_peak_bytes / self.measured - 1

    @property
    def holds(self) -> bool:
        """Whether both references agree with the prediction."""
        return abs(self.error) <= LIMIT and self.mem_tracker == self.out_of_place

    def line(self, case: Case) -> dict[str, Any]:
        """A line of ``cpu.jsonl``."""
        return {
            "case": case.name,
            "model": case.model,
            "settings": case.settings.model_dump(mode="json"),
            "parts": case.cell.parts if case.cell else None,
            "lengths": [[each.question_tokens, each.answer_tokens] for each in LENGTHS],
            "measured_bytes": self.measured,
            "predicted": self.predicted.model_dump(mode="json"),
            "followed_bytes": self.followed,
            "mem_tracker_bytes": self.mem_tracker,
            "predicted_out_of_place_bytes": self.out_of_place,
            "error": self.error,
            "holds": self.holds,
        }


def compare(case: Case) -> Compared:
    """Run the case on the CPU and on meta."""
    measured, predicted = measure(case), predict(case)
    followed = _track(case, StorageTracker(device="cpu", allocator=ByteCounter()), "cpu")
    with _like_a_cpu():
        out_of_place = _track(case, StorageTracker(allocator=ByteCounter(), sums_in_place=False), "meta")
    return Compared(
        measured=measured,
        predicted=predicted,
        followed=followed.allocated_peak_bytes,
        mem_tracker=with_mem_tracker(case),
        out_of_place=out_of_place.allocated_peak_bytes,
    )


def measure(case: Case) -> int:
    """Peak of the CPU's allocator during the steps, weights of the model included."""
    gc.collect()  # else the profiler sees tensors of other cases die
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model = case.build("cpu")
        with torch.profiler.record_function(_WINDOW):
            take_steps(model, case.settings, LENGTHS, generated_inputs(case.settings.precision, "cpu"))
    results = profile.profiler.kineto_results
    events = [(e.start_ns(), e.name(), e.nbytes()) for e in results.events() if e.name() in ("[memory]", _WINDOW)]
    held = peak = 0
    inside = False
    for _, name, nbytes in sorted(events, key=lambda event: event[0]):
        inside = inside or name == _WINDOW
        held += nbytes if name != _WINDOW else 0
        peak = max(peak, held) if inside else 0
    return peak


def predict(case: Case) -> PredictedPhase:
    """The estimate on meta, but with the CPU's kernels, autocast and allocator in place of CUDA's."""
    tracker = StorageTracker(allocator=ByteCounter())
    with _like_a_cpu():
        if case.cell is None:
            return _track(case, tracker, "meta")
        phase, _ = MetaRun(case.cell, Operations(), FixedLengths(LENGTHS), tracker).train()
    assert phase is not None
    return phase


def _track(case: Case, tracker: StorageTracker, device: str) -> PredictedPhase:
    model = case.build(device)
    tracker.register((*model.module.parameters(), *model.module.buffers()), WEIGHTS)
    precision = generated_inputs(case.settings.precision, device, lambda inputs: tracker.register(inputs, INPUTS))
    tracker.begin_phase()
    with tracker, tracker.training([p for p in model.module.parameters() if p.requires_grad]):
        take_steps(model, case.settings, LENGTHS, precision)
    return tracker.end_phase()


def with_mem_tracker(case: Case) -> int:
    """MemTracker's peak on meta, where it rounds nothing."""
    model = case.build("meta")
    tracker = PatchedMemTracker()
    tracker.track_external(model.module)
    answers = _ConstantAnswers()  # type: ignore[no-untyped-call]
    with _like_a_cpu(), answers, tracker, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of modules freed before the backward pass
        take_steps(model, case.settings, LENGTHS, generated_inputs(case.settings.precision, "meta"))
    totals = {device.type: parts["Total"] for device, parts in tracker.get_tracker_snapshot("peak").items()}
    return int(totals["meta"])


@contextmanager
def _like_a_cpu() -> Iterator[None]:
    """Inside, meta tensors are computed with a CPU's autocast and attention."""
    with autocast_on_meta(CPU), kernels_on_meta({"scaled_dot_product_attention": _attention}):
        yield


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The CPU has a fused kernel for attention without dropout; else it multiplies matrices."""
    mask = None if attn_mask is None else additive_mask(attn_mask, query.dtype)
    if dropout_p == 0:
        outputs = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale
        )
    else:
        outputs = aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    attended: torch.Tensor = outputs[0]
    return attended


class ByteCounter(CachingAllocator):
    """Counts the bytes requested, as the CPU's allocator reports them; nothing is rounded, cached or reserved."""

    def malloc(self, nbytes: int) -> Block:
        """A block of exactly ``nbytes``."""
        self.allocated += nbytes
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return Block(0, nbytes, small=False)

    def free(self, block: Block) -> None:
        """Count the block as freed."""
        self.allocated -= block.size


class _NoHandle:
    """Stands for the hook that a frozen parameter cannot have."""

    def remove(self) -> None:
        """There is nothing to remove."""


class PatchedMemTracker(MemTracker):
    """Takes frozen parameters, for which PyTorch 2.15's raises RuntimeError, and calling a model more than once; leaves
    out peaks by module, which take most of its time. Neither changes the total.
    """

    def _track_module_params_and_buffers(
        self, module: torch.nn.Module, install_grad_hooks: bool = True
    ) -> tuple[int, int]:
        for parameter in module.parameters() if install_grad_hooks else ():
            if not parameter.requires_grad and parameter not in self._param_to_grad_hook_handles:
                self._param_to_grad_hook_handles[parameter] = (_NoHandle(), _NoHandle())
        return super()._track_module_params_and_buffers(module, install_grad_hooks)

    def _pre_fw_hook(self, module: torch.nn.Module, inputs: Any) -> None:
        name = self._mod_tracker.get_known_fqn(module)  # type: ignore[no-untyped-call]
        if not self._mod_tracker.is_bw and set(self._mod_tracker.parents) <= {"Global", name}:
            # a model's second forward pass
            self.memory_tracking.pop(module, None)  # type: ignore[no-untyped-call]
        super()._pre_fw_hook(module, inputs)

    def _update_peak_stats(self, peak_state: Any) -> None:
        by_module, self.memory_tracking = self.memory_tracking, WeakIdKeyDictionary()
        super()._update_peak_stats(peak_state)
        self.memory_tracking = by_module


class _ConstantAnswers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers "no" when a training reads a boolean of meta: whether the loss is infinite, or a mask trivial.

    ``Operations`` does so, too, but this reference shares no code with it.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype is torch.bool:
            return False
        return func(*args, **(kwargs or {}))
