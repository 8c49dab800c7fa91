"""What tests of the estimate look at: each operator that runs, and what it gives."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators in order, each with the shapes and types of what it gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log: list[tuple[str, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.log.append((str(func), *(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors)))
        return out

    def count(self, name: str) -> int:
        """How many operators have ``name`` in theirs."""
        return sum(name in entry[0] for entry in self.log)
