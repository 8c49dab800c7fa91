"""Steps of training on a real CPU, watched by PyTorch's profiler, beside the prediction of their peak.

Two independent judges: the profiler's record of every allocation that the CPU's allocator made, and
``torch.distributed._tools.mem_tracker.MemTracker``. All sides take the steps of the run's own ``Trainer``.
"""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass

import torch

from bench.estimate.autocast import CPU, autocast_on_meta
from bench.estimate.estimator import Attempt
from bench.estimate.operations import Operations
from bench.estimate.tracker import INPUTS, WEIGHTS, Tracker
from bench.estimate.validation.cases import LENGTHS, Case, FixedLengths
from bench.estimate.validation.cpu_like import ByteCounter, cpu_kernels
from bench.estimate.validation.memtracker import Answering, PatchedMemTracker, peak_bytes
from bench.estimate.validation.steps import generated, take_steps
from bench.records.costs import PredictedPhase

LIMIT = 0.01
"""Largest relative error of a prediction."""
_WINDOW = "steps"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One case's peaks, bytes."""

    measured: int
    """By the CPU's allocator, as the profiler recorded it."""
    predicted: PredictedPhase
    """On the meta device: what the estimate would say if a CPU were a GPU to predict."""
    followed: int
    """By the tracker that predicts, on the very CPU run."""
    mem_tracker: int
    """By MemTracker on meta."""
    out_of_place: int
    """Predicted, but with gradients summed as they are under MemTracker: to be compared with that."""

    @property
    def error(self) -> float:
        """Of the prediction, relative."""
        return self.predicted.allocated_peak_bytes / self.measured - 1

    @property
    def holds(self) -> bool:
        """Whether both judges agree with the prediction."""
        return abs(self.error) <= LIMIT and self.mem_tracker == self.out_of_place


def compare(case: Case) -> Compared:
    """Run the case on the CPU and on meta."""
    return Compared(
        measured=measure(case),
        predicted=predict(case),
        followed=follow(case),
        mem_tracker=with_mem_tracker(case),
        out_of_place=predict_out_of_place(case),
    )


def measure(case: Case) -> int:
    """Peak of what the CPU's allocator handed out while the steps were taken, the model's weights included."""
    gc.collect()  # what other cases left would be seen dying
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model = case.build("cpu")
        with torch.profiler.record_function(_WINDOW):
            take_steps(model, case.settings, LENGTHS, generated(case.settings.precision, "cpu"))
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
    tracker = Tracker(allocator=ByteCounter())
    with autocast_on_meta(CPU), cpu_kernels():
        if case.cell is None:
            return _tracked(case, tracker, "meta")
        phase, _ = Attempt(case.cell, Operations(), FixedLengths(LENGTHS), tracker).train()
        assert phase is not None
        return phase


def predict_out_of_place(case: Case) -> int:
    """Peak on meta if gradients are summed as they are under MemTracker, and all micro-batches taken."""
    with autocast_on_meta(CPU), cpu_kernels():
        return _tracked(case, Tracker(allocator=ByteCounter(), sums_in_place=False), "meta").allocated_peak_bytes


def follow(case: Case) -> int:
    """The tracker's peak on the real CPU run."""
    return _tracked(case, Tracker(device="cpu", allocator=ByteCounter()), "cpu").allocated_peak_bytes


def _tracked(case: Case, tracker: Tracker, device: str) -> PredictedPhase:
    model = case.build(device)
    tracker.register((*model.module.parameters(), *model.module.buffers()), WEIGHTS)
    precision = generated(case.settings.precision, device, lambda inputs: tracker.register(inputs, INPUTS))
    tracker.begin_phase()
    with tracker, tracker.watching([p for p in model.module.parameters() if p.requires_grad]):
        take_steps(model, case.settings, LENGTHS, precision)
    return tracker.end_phase()


def with_mem_tracker(case: Case) -> int:
    """MemTracker's peak on meta."""
    model = case.build("meta")
    tracker = PatchedMemTracker()
    tracker.track_external(model.module)
    answering = Answering()  # type: ignore[no-untyped-call]
    with autocast_on_meta(CPU), cpu_kernels(), answering, tracker, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of modules that did not live to see the backward pass
        take_steps(model, case.settings, LENGTHS, generated(case.settings.precision, "meta"))
    return peak_bytes(tracker)
