"""Tracker of every storage that PyTorch makes on a device, as its CUDA allocator would see it.

Works on the meta device, where operations allocate nothing, and, to validate it, on the CPU.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bench.estimate.allocator import Block, CachingAllocator
from bench.estimate.operations import Operations
from bench.records.costs import MEMORY_KINDS, PredictedPhase

aten = torch.ops.aten
WEIGHTS, GRADIENTS, OPTIMIZER_STATE, ACTIVATIONS, INPUTS, TEMPORARY = MEMORY_KINDS


@dataclass(eq=False, slots=True)
class _Allocation:
    """An allocation, from the event that made it to the event that freed it."""

    kind: str
    block: Block
    size: int
    """Size of the block when it was made: a freed block is merged with its neighbours."""
    born: int
    node: int
    """Number of the backward graph's node that made it."""
    died: int | None = None
    watch: object = None
    """Weak reference to the storage."""


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Allocations, their kinds, their peak and the FLOPs of what runs inside ``with tracker:``.

    A storage's kind may become known after it was made (a gradient, an optimizer's state); a peak is split by the kinds
    known at its phase's end.
    """

    def __init__(
        self,
        *,
        device: str = "meta",
        operations: Operations | None = None,
        allocator: CachingAllocator | None = None,
        sums_in_place: bool = True,
    ) -> None:
        """``sums_in_place=False``: gradients are summed as under other modes, to compare with them."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocator = allocator or CachingAllocator()
        self.forward_flops = 0
        self.backward_flops = 0
        """Includes recomputation of checkpointed activations."""
        self._device = device
        self._sums_in_place = sums_in_place
        self._operations = operations or Operations()
        self._alive: dict[int, _Allocation] = {}  # by address of the C++ storage
        self._phase: list[_Allocation] = []  # all that lived in this phase
        self._workspaces: set[tuple[str, bool]] = set()  # (library, in backward) that has one
        self._event = 0
        self._peak = 0
        self._peak_event = 0
        self._in_training = False
        self._in_optimizer_step = False
        self._node: object = None  # of the backward graph, under evaluation
        self._nodes = 0  # evaluated so far
        _uses_of_sole_gradient()  # now, while no backward pass is under way

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else every operation pays for switching off a compiler that is not on

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and note what it made."""
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward:
            self._node = None
        elif self._sums_in_place and self._sums_in_first(func, args, kwargs or {}):
            func = aten.add_.Tensor
        out, made, flops, memory = self._operations.run(func, args, kwargs or {})
        if flops and in_backward:
            self.backward_flops += flops
        else:
            self.forward_flops += flops
        if made:
            # backward formulas and clipping run without grad mode; with it, in a backward pass, checkpointed
            # activations are recomputed
            passing = self._in_training and not torch.is_grad_enabled()
            kind = TEMPORARY if passing or self._in_optimizer_step else ACTIVATIONS
            for tensor in made:
                self._note(tensor, kind)
        for library, nbytes in memory.workspaces:
            if (library, in_backward) not in self._workspaces:  # backward passes have a thread of their own
                self._workspaces.add((library, in_backward))
                self._allocate(nbytes, TEMPORARY)
        for scratch in [self._allocate(nbytes, TEMPORARY) for nbytes in memory.scratch]:
            self._free(scratch)
        return out

    def register(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Set the kind of these tensors; those not tracked yet are allocated in this order."""
        for tensor in tensors:
            allocation = self._alive.get(tensor.untyped_storage()._cdata)
            if allocation is None:
                self._note(tensor, kind)
            else:
                allocation.kind = kind

    @contextmanager
    def training(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Inside, the ``grad`` of these parameters counts as gradients, the state of an optimizer as such, and all else
        that its step makes as temporary.
        """

        def before(*_: Any) -> None:
            self._in_optimizer_step = True

        def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self._in_optimizer_step = False
            state = [v for values in optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
            self.register((t for t in state if t.device.type == self._device), OPTIMIZER_STATE)

        hooks = [p.register_post_accumulate_grad_hook(self._is_gradient) for p in parameters]  # type: ignore[no-untyped-call]
        hooks += [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
        self._in_training = True
        try:
            yield
        finally:
            self._in_training = self._in_optimizer_step = False
            for hook in hooks:
                hook.remove()

    def reset_flops(self) -> None:
        """Count FLOPs from here on."""
        self.forward_flops = self.backward_flops = 0

    def begin_phase(self) -> None:
        """Empty the cache and start new peaks, as a run does between its phases."""
        self.allocator.empty_cache()
        self.allocator.reset_peaks()
        self._phase = [allocation for allocation in self._phase if allocation.died is None]
        self._peak, self._peak_event = self.allocator.allocated, self._event

    def end_phase(self) -> PredictedPhase:
        """The peaks since ``begin_phase``."""
        kinds = dict.fromkeys(MEMORY_KINDS, 0)
        for allocation in self._phase:
            if allocation.born <= self._peak_event and (allocation.died or math.inf) > self._peak_event:
                kinds[allocation.kind] += allocation.size
        return PredictedPhase(
            allocated_peak_bytes=self.allocator.allocated_peak,
            reserved_peak_bytes=self.allocator.reserved_peak,
            by_kind=kinds,
        )

    def _sums_in_first(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether autograd, without a mode, would add ``args`` in place.

        It adds the gradients of a tensor that is used twice into the first of them if nobody else holds it, else into
        a new tensor. Under a mode and on meta it always makes a new one (``can_accumulate_inplace`` in
        ``torch/csrc/autograd/input_buffer.cpp``), which for a tied word embedding is the largest tensor of all.
        """
        node = torch._C._current_autograd_node()
        if node is not self._node:
            self._node, self._nodes = node, self._nodes + 1  # kept, so that no other node takes its id
        if func is not aten.add.Tensor or kwargs or len(args) != 2 or torch.is_grad_enabled():
            return False
        first, second = args
        if not (
            isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and first.dtype == second.dtype
            and _uses(first) == _uses_of_sole_gradient()
            and aten.is_non_overlapping_and_dense(first)
        ):
            return False
        # a sum inside a derivative's formula looks the same, but its first argument was made by the same node
        allocation = self._alive.get(first.untyped_storage()._cdata)
        return allocation is not None and allocation.node != self._nodes

    def _is_gradient(self, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self.register([parameter.grad], GRADIENTS)

    def _note(self, tensor: torch.Tensor, kind: str) -> None:
        if tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        nbytes = storage.nbytes()
        if nbytes and address not in self._alive:
            allocation = self._alive[address] = self._allocate(nbytes, kind)
            allocation.watch = weakref.ref(storage, self._on_death(address, allocation))

    def _allocate(self, nbytes: int, kind: str) -> _Allocation:
        self._event += 1
        block = self.allocator.malloc(nbytes)
        allocation = _Allocation(kind, block, block.size, self._event, self._nodes)
        self._phase.append(allocation)
        if self.allocator.allocated > self._peak:
            self._peak, self._peak_event = self.allocator.allocated, self._event
        return allocation

    def _on_death(self, address: int, allocation: _Allocation) -> Callable[[object], None]:
        def died(_: object) -> None:
            self._free(allocation)
            if self._alive.get(address) is allocation:
                del self._alive[address]

        return died

    def _free(self, allocation: _Allocation) -> None:
        self._event += 1
        allocation.died = self._event
        self.allocator.free(allocation.block)


@cache
def _uses_of_sole_gradient() -> tuple[int, int]:
    """``_uses`` of a tensor while a mode handles a sum, if only autograd holds it beside; depends on how this PyTorch
    calls a mode.
    """
    probe = _Probe()  # type: ignore[no-untyped-call]
    with torch.enable_grad(), probe:
        twice = torch.ones(2, requires_grad=True).exp()
        (twice.sin() + twice.cos()).sum().backward()  # type: ignore[no-untyped-call]
    return probe.uses


class _Probe(TorchDispatchMode):  # type: ignore[no-untyped-call]
    uses: tuple[int, int] = (0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and not torch.is_grad_enabled():
            self.uses = _uses(args[0])
        return func(*args, **(kwargs or {}))


def _uses(tensor: torch.Tensor) -> tuple[int, int]:
    """References to a tensor and to its storage."""
    count: int = tensor._use_count()  # type: ignore[attr-defined, unused-ignore]
    return count, torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
