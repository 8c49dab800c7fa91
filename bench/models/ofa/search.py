"""Beam search, and a trie of the allowed answers.

Both stay on the device, so that an estimate can run them without data: the only value read back is whether all beams
have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from bench.errors import BenchError

DEAD = -1
"""Node of a beam that has left the trie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trie:
    """Token sequences as edges between nodes; the root is node 0. All int64 of shape (edges,), sorted by ``keys``."""

    keys: torch.Tensor
    """Node x vocabulary + token."""
    nodes: torch.Tensor
    tokens: torch.Tensor
    children: torch.Tensor
    vocabulary: int

    @staticmethod
    def of(sequences: Iterable[Sequence[int]], vocabulary: int) -> Trie:
        """The trie of one sequence or more, none empty."""
        edges: dict[int, int] = {}
        for sequence in sequences:
            node = 0
            for token in sequence:
                node = edges.setdefault(node * vocabulary + token, len(edges) + 1)
        keys = torch.tensor(sorted(edges), dtype=torch.long)
        children = torch.tensor([edges[key] for key in sorted(edges)], dtype=torch.long)
        return Trie(
            keys=keys, nodes=keys // vocabulary, tokens=keys % vocabulary, children=children, vocabulary=vocabulary
        )

    def to(self, device: torch.device) -> Trie:
        """A copy on a device."""
        keys, nodes, tokens, children = (x.to(device) for x in (self.keys, self.nodes, self.tokens, self.children))
        return Trie(keys=keys, nodes=nodes, tokens=tokens, children=children, vocabulary=self.vocabulary)

    def allowed(self, at: torch.Tensor) -> torch.Tensor:
        """Nodes (rows,) -> allowed next tokens, bool (rows, vocabulary)."""
        ways = (self.nodes[None, :] == at[:, None]).to(torch.float32)
        return torch.zeros(len(at), self.vocabulary, device=at.device).index_add_(1, self.tokens, ways) > 0

    def follow(self, at: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Nodes and tokens (rows,) -> next nodes, or ``DEAD``."""
        key = at * self.vocabulary + token
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where((self.keys[place] == key) & (at != DEAD), self.children[place], DEAD)

    def path(self, sequences: torch.Tensor) -> torch.Tensor:
        """Sequences (rows, tokens), padded with negative numbers -> the node before each token, 0 for padding.

        Raises BenchError for a sequence that the trie lacks."""
        nodes = torch.zeros_like(sequences)
        at = torch.zeros(len(sequences), dtype=torch.long)
        for place in range(sequences.shape[1]):
            token = sequences[:, place]
            nodes[:, place] = at.where(token >= 0, 0)
            at = self.follow(at, token).where(token >= 0, at)
            if (at == DEAD).any():
                raise BenchError("an answer to train on is not among the known answers; set constrain_loss to false")
        return nodes


def beam_search(
    first: torch.Tensor,
    advance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    beams: int,
    steps: int,
    eos: int,
    pad: int,
    trie: Trie | None = None,
) -> torch.Tensor:
    """The likeliest sequence of each row, int64 of shape (batch, at most ``steps``), padded behind its end.

    ``first``: scores (batch, vocabulary) of the first token. ``advance(rows, tokens)``: scores of the next one, for
    beams (batch x beams) rearranged by ``rows``, each with its token. Likelihoods are not divided by length, as in the
    released evaluation (``--unnormalized``).
    """
    search = _Beams(first, beams, eos, pad, trie)
    logits = first.repeat_interleave(beams, dim=0)
    for step in range(steps):
        rows, tokens = search.extend(logits)
        if step == steps - 1 or bool(search.ended.all()):
            break
        logits = advance(rows, tokens)
    return search.sequences.view(len(first), beams, -1)[:, 0]


class _Beams:
    """Beams in progress: those of an example are adjacent, the likeliest first."""

    def __init__(self, first: torch.Tensor, beams: int, eos: int, pad: int, trie: Trie | None) -> None:
        (batch, self.vocabulary), device = first.shape, first.device
        self.beams, self.eos = beams, eos
        self.trie = trie.to(device) if trie is not None else None
        self.sequences = torch.empty(batch * beams, 0, dtype=torch.long, device=device)
        self.ended = torch.zeros(batch * beams, dtype=torch.bool, device=device)
        self.nodes = torch.zeros(batch * beams, dtype=torch.long, device=device)
        self.scores = torch.zeros(batch, beams, device=device)
        self.scores[:, 1:] = -torch.inf  # all beams start alike: the first alone may choose
        self._starts = torch.arange(batch, device=device)[:, None] * beams
        self._only_pad = torch.full((self.vocabulary,), -torch.inf, device=device)
        self._only_pad[pad] = 0

    def extend(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (rows, vocabulary) -> the row that each new beam continues, and its token."""
        logits = logits.float()
        if self.trie is not None:
            logits = logits.masked_fill(~self.trie.allowed(self.nodes), -torch.inf)
        chances = torch.where(self.ended[:, None], self._only_pad, logits.log_softmax(-1))
        totals = self.scores[:, :, None] + chances.view(-1, self.beams, self.vocabulary)
        self.scores, best = totals.flatten(1).topk(self.beams)
        rows = (self._starts + best // self.vocabulary).flatten()
        tokens = (best % self.vocabulary).flatten()
        self.sequences = torch.cat([self.sequences.index_select(0, rows), tokens[:, None]], dim=1)
        self.ended = self.ended.index_select(0, rows) | (tokens == self.eos)
        if self.trie is not None:
            self.nodes = self.trie.follow(self.nodes.index_select(0, rows), tokens)
            self.ended = self.ended | (self.nodes == DEAD)  # else its scores would be those of no token at all
        return rows, tokens
