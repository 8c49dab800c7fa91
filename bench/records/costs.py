"""Costs of a cell that are known without a run: parameter counts, predicted memory, FLOPs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from bench.records.fields import Count, RecordModel


class PartParams(RecordModel):
    """Parameter counts of one part."""

    trainable: Count
    """Parameters that receive gradients."""
    total: Count
    """All parameters of the part, adapters included."""


class Params(RecordModel):
    """Parameter counts of the adapted model, tied tensors once."""

    trainable: Count
    """Parameters that receive gradients."""
    total: Count
    """All parameters, adapters included."""
    pct: Annotated[float, Field(ge=0, le=100)]
    """100 * trainable / total, percent."""
    stored: Count
    """Elements of the tensors stored per task: saved adapters plus trained tensors."""
    by_part: dict[str, PartParams]
    """Part -> counts."""


MEMORY_KINDS = ("weights", "gradients", "optimizer_state", "activations", "inputs", "temporary")
"""Kinds of memory in a predicted peak. ``activations``: allocated by a forward pass, kept for backward or not;
``temporary``: allocated in backward, in the optimizer's step or by a library (cuBLAS workspaces)."""


class PredictedPhase(RecordModel):
    """Predicted peaks of CUDA's caching allocator in one phase, bytes."""

    allocated_peak_bytes: Count
    """Peak memory of live tensors."""
    reserved_peak_bytes: Count
    """Peak memory held by the allocator, cached and fragmented blocks included."""
    by_kind: dict[str, int]
    """Kind of ``MEMORY_KINDS`` -> bytes at the allocated peak; the kinds add up to it."""

    @model_validator(mode="after")
    def _adds_up(self) -> PredictedPhase:
        if sum(self.by_kind.values()) != self.allocated_peak_bytes:
            raise ValueError("the kinds of memory do not add up to the peak")
        return self


class PredictedMemory(RecordModel):
    """Predicted peaks of a run on a CUDA device."""

    train: PredictedPhase | None
    """In training; null if the cell trains nothing."""
    eval: PredictedPhase
    """In evaluation."""
    context_bytes: Count
    """GPU memory of the process outside PyTorch's allocator: CUDA context and loaded kernels."""

    @property
    def process_peak_bytes(self) -> int:
        """Peak GPU memory of the process: the highest reserved peak plus the context."""
        return max(p.reserved_peak_bytes for p in (self.train, self.eval) if p is not None) + self.context_bytes


class Flops(RecordModel):
    """Floating-point operations of matrix products and convolutions; a multiply-add counts as two."""

    train_forward: Count | None
    """Forward passes of an optimizer step on the longest batch, all micro-batches; null if the cell trains nothing."""
    train_backward: Count | None
    """Backward passes of the same step, recomputation under gradient checkpointing included."""
    train_step: Count | None
    """``train_forward + train_backward``."""
    eval_sample: Count
    """Answering one question of the longest batch, generation up to the last token included."""


class Estimate(RecordModel):
    """Costs known without a run, i.e. without GPU, weights and data."""

    params: Params | None = None
    """Parameter counts, exact."""
    memory: PredictedMemory | None = None
    """Predicted memory; null if it cannot be modelled (see ``refused``)."""
    flops: Flops | None = None
    """FLOPs; null if they cannot be counted."""
    adapter_bytes: Count | None = None
    """Size of the tensors stored per task as safetensors, exact; null if the cell trains nothing."""
    assumed: dict[str, Any] = {}
    """Conditions of the numbers: batch and image size, tokens, precision, attention, optimizer, GPU generation, ..."""
    max_batch: Count | None = None
    """Largest training batch whose process fits the given budget, evaluation included; 0 if none fits, null
    without a budget."""
    refused: list[str] = []
    """What cannot be modelled, with the reason; the other fields hold all the same."""
