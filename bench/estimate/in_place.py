"""Which sums of gradients autograd makes in place.

The gradients of a tensor that is used twice are added up: into the first of them if nobody else holds it, else into a
new tensor. Under a dispatch mode, and for meta tensors, autograd always makes a new one (``can_accumulate_inplace`` in
``torch/csrc/autograd/input_buffer.cpp``), which for a tied word embedding is the largest tensor of all. So who follows
a run by a mode must tell the two cases apart itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def is_in_place_sum(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the sum ``func(*args)``, called in a backward pass, would be made in its first argument without a mode.

    To be asked only of sums whose first argument was not made by the node of the graph that is being evaluated: what a
    derivative's own formula adds up looks the same.
    """
    if func is not aten.add.Tensor or kwargs or len(args) != 2 or torch.is_grad_enabled():
        return False
    first, second = args
    return (
        isinstance(second, torch.Tensor)
        and first.shape == second.shape
        and first.dtype == second.dtype
        and _uses(first) == uses_of_a_sole_gradient()
        and aten.is_non_overlapping_and_dense(first)
    )


@cache
def uses_of_a_sole_gradient() -> tuple[int, int]:
    """References to a tensor and its storage while a mode handles a sum, if autograd's is the only other one.

    Found by trying, since it depends on how this PyTorch calls a mode.
    """
    probe = _Probe()  # type: ignore[no-untyped-call]
    with torch.enable_grad(), probe:
        twice = torch.ones(2, requires_grad=True).exp()
        (twice.sin() + twice.cos()).sum().backward()  # type: ignore[no-untyped-call]
    return probe.uses


def _uses(tensor: torch.Tensor) -> tuple[int, int]:
    count: int = tensor._use_count()  # type: ignore[attr-defined, unused-ignore]
    return count, torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


class _Probe(TorchDispatchMode):  # type: ignore[no-untyped-call]
    uses: tuple[int, int] = (0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and not torch.is_grad_enabled():
            self.uses = _uses(args[0])
        return func(*args, **(kwargs or {}))
