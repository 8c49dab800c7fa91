"""PyTorch's own ``MemTracker`` as a second opinion: written by others, for other purposes, on other principles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten


class _NoHandle:
    """Stands for a hook that a frozen parameter cannot have."""

    def remove(self) -> None:
        """There is nothing to remove."""


class PatchedMemTracker(MemTracker):
    """Takes frozen parameters, for which PyTorch 2.15's raises RuntimeError, and calling a model more than once; leaves
    out peaks by module, which take most of its time. Neither changes what is counted in all.
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


class Answering(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what a program asks of meta tensors in training: no, the loss is not finite; no, the mask is not trivial.

    The estimate's own ``Operations`` answer so, too, but this stands apart from them.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run anything else."""
        if func is aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype is torch.bool:
            return False
        return func(*args, **(kwargs or {}))


def peak_bytes(tracker: MemTracker, device: str = "meta") -> int:
    """The highest total that it saw on the device, bytes; on meta it rounds nothing."""
    totals: dict[str, int] = {d.type: parts["Total"] for d, parts in tracker.get_tracker_snapshot("peak").items()}
    return totals[device]
