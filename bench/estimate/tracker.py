"""Follow the life of every storage that PyTorch makes on a device, as its CUDA allocator would see it.

Works on the meta device, where operations cost nothing and allocate nothing, and, to check it, on the CPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from bench.estimate.allocator import Block, CachingAllocator
from bench.estimate.in_place import is_in_place_sum, uses_of_a_sole_gradient
from bench.estimate.operations import Operations
from bench.records.costs import MEMORY_KINDS, PredictedPhase

WEIGHTS, GRADIENTS, OPTIMIZER_STATE, ACTIVATIONS, INPUTS, TEMPORARY = MEMORY_KINDS


class _Storage:
    """One allocation, from the event at which it was made to the one at which it was freed."""

    __slots__ = ("block", "born", "died", "kind", "node", "size", "watch")

    def __init__(self, kind: str, block: Block, born: int, node: int) -> None:
        self.kind = kind
        self.block = block
        self.size = block.size  # a freed block is merged with its neighbours
        self.born = born
        self.died: int | None = None
        self.node = node
        self.watch: object = None


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Allocations, their kinds, the peak and the FLOPs of what runs inside ``with tracker:``.

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
        """``sums_in_place=False``: gradients are summed as under any other mode, for comparison with such."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocator = allocator or CachingAllocator()
        self.forward_flops = 0
        self.backward_flops = 0
        """Recomputation of checkpointed activations included."""
        self._device = device
        self._sums_in_place = sums_in_place
        self._operations = operations or Operations()
        self._known: dict[int, _Storage] = {}
        """Address of the C++ storage -> what is known about it."""
        self._lives: list[_Storage] = []
        self._workspaces: set[tuple[str, bool]] = set()
        """Libraries that keep one, by whether it is that of backward passes."""
        self._event = 0
        self._peak = 0
        self._peak_event = 0
        self._watching = False
        """A training is going on."""
        self._in_step = False
        self._node: object = None
        self._nodes = 0
        """Nodes of the graph evaluated in backward passes so far; ``_node`` is the one under way."""
        uses_of_a_sole_gradient()  # now, when no backward pass is under way

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else every operation pays for switching a compiler off that is not on

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, note what it made."""
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward:
            self._node = None
        elif self._sums_in_place and self._is_in_place_sum(func, args, kwargs or {}):
            func = torch.ops.aten.add_.Tensor
        out, made, flops, needs = self._operations.run(func, args, kwargs or {})
        if flops and in_backward:
            self.backward_flops += flops
        else:
            self.forward_flops += flops
        if made:
            # A backward formula runs without grad mode, as clipping does; with it, in a backward pass, checkpointed
            # activations are being made again.
            passing = self._watching and not torch.is_grad_enabled()
            kind = TEMPORARY if passing or self._in_step else ACTIVATIONS
            for tensor in made:
                self._note(tensor, kind)
        for library, nbytes in needs.workspaces:
            if (library, in_backward) not in self._workspaces:  # backward passes have a thread of their own
                self._workspaces.add((library, in_backward))
                self._allocate(nbytes, TEMPORARY)
        for life in [self._allocate(nbytes, TEMPORARY) for nbytes in needs.scratch]:
            self._free(life)
        return out

    def register(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Count these tensors, in this order, as being of that kind."""
        for tensor in tensors:
            known = self._known.get(tensor.untyped_storage()._cdata)
            if known is None:
                self._note(tensor, kind)
            else:
                known.kind = kind

    @contextmanager
    def watching(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Inside, what becomes the ``grad`` of these counts as gradients, and what any optimizer's step makes as
        temporary, but for what it keeps as its state.
        """

        def before(*_: Any) -> None:
            self._in_step = True

        def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self._in_step = False
            state = [v for values in optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
            self.register((t for t in state if t.device.type == self._device), OPTIMIZER_STATE)

        hooks = [p.register_post_accumulate_grad_hook(self._is_gradient) for p in parameters]  # type: ignore[no-untyped-call]
        hooks += [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
        self._watching = True
        try:
            yield
        finally:
            self._watching = self._in_step = False
            for hook in hooks:
                hook.remove()

    def reset_flops(self) -> None:
        """Count FLOPs from here on."""
        self.forward_flops = self.backward_flops = 0

    def begin_phase(self) -> None:
        """Return cached segments and count peaks from here on, as a run does between its phases."""
        self.allocator.empty_cache()
        self.allocator.reset_peaks()
        self._lives = [storage for storage in self._lives if storage.died is None]
        self._peak, self._peak_event = self.allocator.allocated, self._event

    def end_phase(self) -> PredictedPhase:
        """The peaks since ``begin_phase``."""
        parts = dict.fromkeys(MEMORY_KINDS, 0)
        for storage in self._lives:
            if storage.born <= self._peak_event and (storage.died is None or storage.died > self._peak_event):
                parts[storage.kind] += storage.size
        return PredictedPhase(
            allocated_peak_bytes=self.allocator.allocated_peak,
            reserved_peak_bytes=self.allocator.reserved_peak,
            by_kind=parts,
        )

    def _is_in_place_sum(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        node = torch._C._current_autograd_node()
        if node is not self._node:
            self._node, self._nodes = node, self._nodes + 1  # kept, so that no other takes its id
        if not is_in_place_sum(func, args, kwargs):
            return False
        known = self._known.get(args[0].untyped_storage()._cdata)
        return known is not None and known.node != self._nodes

    def _is_gradient(self, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self.register([parameter.grad], GRADIENTS)

    def _note(self, tensor: torch.Tensor, kind: str) -> None:
        if tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        nbytes = storage.nbytes()
        if nbytes:
            life = self._known[key] = self._allocate(nbytes, kind)
            life.watch = weakref.ref(storage, self._on_death(key, life))

    def _allocate(self, nbytes: int, kind: str) -> _Storage:
        self._event += 1
        life = _Storage(kind, self.allocator.malloc(nbytes), self._event, self._nodes)
        self._lives.append(life)
        if self.allocator.allocated > self._peak:
            self._peak, self._peak_event = self.allocator.allocated, self._event
        return life

    def _on_death(self, key: int, life: _Storage) -> Callable[[object], None]:
        def died(_: object) -> None:
            self._free(life)
            if self._known.get(key) is life:
                del self._known[key]

        return died

    def _free(self, life: _Storage) -> None:
        self._event += 1
        life.died = self._event
        self.allocator.free(life.block)
