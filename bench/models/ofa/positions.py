"""OFA's positions: what attention adds to its scores for where query and key stand.

Two terms, as in TUPE (Ke et al. 2021): a product of learned absolute positions under projections of their own, shared
by all layers, and a value per layer, head and distance. Neither depends on the batch, so neither has its dimension.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


def token_buckets(buckets: int, longest: int) -> torch.Tensor:
    """Distance + ``longest`` - 1 -> row of a table of 2 x ``buckets`` - 1 rows, int64 of shape (2 x longest - 1,).

    Up to half the buckets each distance has its own; beyond, they widen logarithmically up to ``longest``.
    """
    distance = torch.arange(1 - longest, longest)
    half = buckets // 2
    far = distance.abs().clamp(min=half)
    widening = torch.log(far / half) / math.log((longest - 1) / half) * (half - 1)
    wide = (torch.ceil(widening).long() + half) * distance.sign()
    return torch.where(distance.abs() <= half, distance, wide) + buckets - 1


def image_rows(buckets: int, edge: int) -> torch.Tensor:
    """Pair of patches -> row of a table of (2 x buckets - 1)^2 + 3 rows, int64 of shape (edge^2, edge^2).

    The last three rows are for pairs with a begin of sentence, in images that the decoder writes.
    """
    y, x = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    y, x = y.flatten(), x.flatten()
    down, right = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (down + buckets - 1) * (2 * buckets - 1) + right + buckets - 1


def image_places(buckets: int, edge: int) -> torch.Tensor:
    """Rows of the absolute image positions of ``edge`` x ``edge`` patches, row by row; row 0 is a begin of sentence."""
    return (torch.arange(edge)[:, None] * buckets + torch.arange(edge)[None, :] + 1).flatten()


class RelativeTables(nn.ModuleList):
    """One table (rows, heads) per layer."""

    def __init__(self, layers: int, rows: int, heads: int) -> None:
        super().__init__(nn.Embedding(rows, heads) for _ in range(layers))

    def bias(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        """Rows (queries, keys) -> values (heads, queries, keys)."""
        table = self[layer]
        assert isinstance(table, nn.Embedding)
        return functional.embedding(rows, table.weight).permute(2, 0, 1)


class AbsoluteBias(nn.Module):
    """Splits two projections of positions into heads and multiplies them."""

    def __init__(self, width: int, heads: int, scale_factor: int) -> None:
        super().__init__()
        self.heads = heads
        self.scaling = (width / heads * scale_factor) ** -0.5

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Queries (length, width) and keys (length', width) to (heads, length, length')."""
        query, key = (x.view(len(x), self.heads, -1).transpose(0, 1) for x in (query, key))
        bias: torch.Tensor = query @ key.transpose(1, 2) * self.scaling
        return bias
