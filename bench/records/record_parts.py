"""Parts of a record: their base, and what a cell was given."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from bench.records.bounds import Count


class Part(BaseModel):
    """Base of all parts of a record: unknown fields are an error, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


class CutCount(Part):
    """How many texts were longer than what the model takes."""

    cut: Count
    """Texts whose end was left out."""
    n: Count
    """Texts that were counted: all, or of a large split evenly spread ones."""


class Overlap(Part):
    """Test examples that are training examples, too."""

    splits: list[str] = []
    """Splits that are both trained on and scored; empty if the two are apart by name."""
    same: Count
    """Test examples whose input, text and image, some training example has, too."""
    n: Count
    """Test examples."""
    images: str | None = None
    """What images were compared by: ``contents``, or ``names`` where there are too many; null without images."""


class Flops(Part):
    """Floating-point operations of matrix products and convolutions; a multiply-add counts as two."""

    train_forward: Count | None
    """Of one optimizer step of the longest batch, all its micro-batches together; null if the cell trains nothing."""
    train_backward: Count | None
    """Likewise, recomputation under gradient checkpointing included."""
    train_step: Count | None
    """``train_forward + train_backward``."""
    eval_sample: Count
    """Of answering one question of the longest batch, generation to its last token included."""
