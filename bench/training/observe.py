"""What evaluation computes: the scores by which it decides, whatever the model family and the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.modules import module as _hooks
from torch.overrides import TorchFunctionMode

_DECIDE = {"argmax", "topk", "max", "sort"}
"""Functions, of tensors or of torch, that choose a class or a token by its score."""
_LEAST_SPREAD = 0.02
"""Taken for tensors whose elements are all alike, as those that start at 0 or 1."""


class Observer(TorchFunctionMode):
    """Keeps copies of what runs inside ``with observer:`` decides by.

    Decisions inside of modules (of a router, of pooling) are the model's own business, and not kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[torch.Tensor] = []
        """Floating scores that something outside of all modules chose by, in order."""
        self.outputs: list[torch.Tensor] = []
        """Floating outputs of the modules that were called from outside of all modules, in order."""
        self._depth = 0
        self._stack = ExitStack()

    @property
    def scores(self) -> list[torch.Tensor]:
        """The decisions; where a program decides in a way of its own, the outputs."""
        return self.decisions or self.outputs

    def __enter__(self) -> Observer:
        """Observe from here on."""
        self._stack.enter_context(_removing(_hooks.register_module_forward_pre_hook(self._enter_module)))
        self._stack.enter_context(_removing(_hooks.register_module_forward_hook(self._leave_module, always_call=True)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop observing."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._stack.close()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function."""
        kwargs = kwargs or {}
        if self._depth == 0 and getattr(func, "__name__", "") in _DECIDE:
            scores: Any = args[0] if args else kwargs.get("input")
            if _is_score(scores):
                self.decisions.append(scores.detach().clone())
        return func(*args, **kwargs)

    def _enter_module(self, _module: torch.nn.Module, _args: Any) -> None:
        self._depth += 1

    def _leave_module(self, _module: torch.nn.Module, _args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.outputs += [tensor.detach().clone() for tensor in _tensors(output)]


def differ(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> bool:
    """Whether two runs computed other scores, beyond rounding."""
    return len(before) != len(after) or any(map(_differ, before, after))


def _differ(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape or not torch.equal(before.isnan(), after.isnan()):
        return True
    old, new = (each.float().nan_to_num() for each in (before, after))
    rounding = 8 * torch.finfo(torch.float32).eps * float(_finite(before).abs().max())
    return bool((old - new).abs().max() > rounding)


def _finite(scores: torch.Tensor) -> torch.Tensor:
    """Its finite elements; a zero if there are none."""
    found = scores.float()[scores.isfinite()]
    return found if found.numel() else found.new_zeros(1)


def _is_score(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 0 and value.numel() > 0


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, Mapping):
        output = list(output.values())
    for value in output if isinstance(output, list | tuple) else (output,):
        if _is_score(value):
            yield value


@contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def disturbed(tensors: Sequence[torch.Tensor], strength: float) -> Iterator[None]:
    """Inside, noise lies on these tensors, ``strength`` times their own spread (and 0.02, for those that have none);
    afterwards they hold the same bits as before. Draws from a generator of its own.
    """
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                generator = torch.Generator(tensor.device).manual_seed(0)
                noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
                spread = float(tensor.float().std()) if tensor.numel() > 1 else 0.0
                tensor.add_((noise * (strength * max(spread, _LEAST_SPREAD))).to(tensor.dtype))
        yield
    finally:
        with torch.no_grad():
            for tensor, own in zip(tensors, kept, strict=True):
                tensor.copy_(own)
