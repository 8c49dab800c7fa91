"""The costs of a cell that need no run: parameters, predicted memory, operations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from bench.records.fields import Count, RecordModel


class PartParams(RecordModel):
    """Parameter counts of one part."""

    trainable: Count
    """Parameters that get gradients."""
    total: Count
    """All parameters of the part, adapters included."""


class Params(RecordModel):
    """Parameter counts of the adapted model, tied tensors once."""

    trainable: Count
    """Parameters that get gradients."""
    total: Count
    """All parameters, adapters included."""
    pct: Annotated[float, Field(ge=0, le=100)]
    """100 * trainable / total, percent."""
    stored: Count
    """Elements of what one must keep per task: saved adapters plus trained tensors."""
    by_part: dict[str, PartParams]
    """Part -> its counts."""


MEMORY_KINDS = ("weights", "gradients", "optimizer_state", "activations", "inputs", "temporary")
"""What a predicted peak is made of. ``activations``: made by a forward pass, kept for backward or not; ``temporary``:
made in backward, in the optimizer's step or by a library (cuBLAS workspaces)."""


class PredictedPhase(RecordModel):
    """What CUDA's caching allocator would report for one phase, bytes."""

    allocated_peak_bytes: Count
    """Most that live tensors take at one moment."""
    reserved_peak_bytes: Count
    """Most that the allocator holds, cached and fragmented memory included."""
    by_kind: dict[str, int]
    """``MEMORY_KINDS`` -> bytes at the moment of the allocated peak; they add up to it."""

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
    """What the process takes on the GPU beside PyTorch's allocator: CUDA context and loaded kernels."""

    @property
    def process_peak_bytes(self) -> int:
        """What the whole process needs: the highest reserved peak and the context."""
        return max(p.reserved_peak_bytes for p in (self.train, self.eval) if p is not None) + self.context_bytes


class Flops(RecordModel):
    """Floating-point operations of matrix products and convolutions; a multiply-add counts as two."""

    train_forward: Count | None
    """Of one optimizer step of the longest batch, all its micro-batches together; null if the cell trains nothing."""
    train_backward: Count | None
    """Likewise, recomputation under gradient checkpointing included."""
    train_step: Count | None
    """``train_forward + train_backward``."""
    eval_sample: Count
    """Of answering one question of the longest batch, generation to its last token included."""


class Estimate(RecordModel):
    """The costs that need no run: no GPU, no weights, no data."""

    params: Params | None = None
    """Exact."""
    memory: PredictedMemory | None = None
    """Predicted; null if it cannot be modelled (see ``refused``)."""
    flops: Flops | None = None
    """Counted; null if it cannot be."""
    adapter_bytes: Count | None = None
    """Size of what is stored per task as safetensors, exact; null if the cell trains nothing."""
    assumed: dict[str, Any] = {}
    """What the numbers hold for: batch and image size, tokens, precision, attention, optimizer, GPU generation, ..."""
    max_batch: Count | None = None
    """Largest training batch whose process fits the given budget, evaluation included; 0 if none does, null if not
    asked."""
    refused: list[str] = []
    """What cannot be modelled, by name and with the reason; what stands beside it holds all the same."""
