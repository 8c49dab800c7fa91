"""PyTorch operations on the meta device: results, FLOPs and kernel scratch memory, cached by shape.

Shape inference in Python takes longer than many real kernels, and a model repeats the same few hundred calls (layers,
steps, cells), so the results of a repeated call are made from its cached shapes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

from bench.errors import EstimateError
from bench.estimate.allocator import round_up
from bench.estimate.gpus import Cublas, GpuGeneration, cublas_of

aten = torch.ops.aten
_CHANGE_STORAGES = {aten.set_, aten.resize_, aten.resize_as_}
_CUBLAS_PRODUCTS = {aten.mm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv}
_MAX_UNSORTED_TOKENS = 3072
_FP32_BYTES = 4
_INT64_BYTES = 8


class KernelMemory(NamedTuple):
    """Memory that a CUDA kernel takes beside its results, bytes."""

    scratch: tuple[int, ...] = ()
    """Freed when the kernel ends."""
    workspaces: tuple[tuple[str, int], ...] = ()
    """Library and bytes of the workspace that it keeps from its first call in a thread on."""


class OpResult(NamedTuple):
    """Results and costs of an operation."""

    out: Any
    made: tuple[torch.Tensor, ...] = ()
    """Tensors whose storages may be new: ``torch.tensor`` makes one unseen and passes it to ``lift_fresh``."""
    flops: int = 0
    memory: KernelMemory = KernelMemory()


@dataclass(frozen=True, slots=True)
class _CachedCall:
    """What a call with given shapes returns."""

    results: tuple[Callable[[], torch.Tensor] | int | None, ...]
    """Makers of new tensors, positions of arguments (in-place operations), or nothing."""
    wrap: Callable[[list[Any]], Any]
    flops: int
    memory: KernelMemory

    def replay(self, args: tuple[Any, ...]) -> OpResult:
        made, out = [], []
        for result in self.results:
            tensor = args[result] if isinstance(result, int) else None if result is None else result()
            out.append(tensor)
            if tensor is not None:
                made.append(tensor)
        return OpResult(self.wrap(out), tuple(made), self.flops, self.memory)


class Operations:
    """Runs operations; trackers may share an instance and so its cache."""

    def __init__(self, gpu: GpuGeneration | None = None) -> None:
        """Without a GPU, kernels take no memory beside their results."""
        cache = os.environ.get("TORCH_CUBLAS_WORKSPACE_CACHE")
        self._cublas = None if gpu is None else cublas_of(gpu, torch.__version__, cache=cache)
        self._calls: dict[Any, _CachedCall] = {}
        self._uncacheable: set[Any] = set()  # results share storage with arguments in other ways than in place
        self._views: set[Any] = set()  # make nothing, and are faster to run than to look up
        self._zeros: dict[int, weakref.ref[Any]] = {}  # storage address -> storage of a scalar that is zero in any run
        self.allow_reads = False
        """Whether values may be read: while texts are generated or adapters collected, nothing later depends on them.
        """

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OpResult:
        """Run an operation. Raises EstimateError if the program reads data, which a meta tensor does not have."""
        if (answer := self._answer(func, args, kwargs)) is not None:
            return answer
        if func in self._views:
            return OpResult(func(*args, **kwargs))
        key = None if func in self._uncacheable else _key(func, args, kwargs)
        call = None if key is None else self._calls.get(key)
        return self._run_new(key, func, args, kwargs) if call is None else call.replay(args)

    def _run_new(self, key: Any, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OpResult:
        try:
            out = func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "meta" not in str(error).lower():
                raise
            raise EstimateError(f"operation {func} cannot run without data: {str(error).splitlines()[0]}") from error
        sparse = next((tensor for tensor in _tensors(out) if tensor.layout is not torch.strided), None)
        if sparse is not None:
            raise EstimateError(f"operation {func} makes a {sparse.layout} tensor; its memory cannot be predicted")
        packet = func._overloadpacket
        memory = kernel_memory(self._cublas, packet, args) if self._cublas else KernelMemory()
        flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
        results = None if key is None else self._cacheable_results(func, args, kwargs, out)
        if results is not None:
            wrap = type(out) if isinstance(out, tuple | list) else itemgetter(0)
            self._calls[key] = _CachedCall(results, wrap, flops, memory)
        return OpResult(out, tuple(_tensors(out)), flops, memory)

    def _cacheable_results(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
    ) -> tuple[Callable[[], torch.Tensor] | int | None, ...] | None:
        if func._overloadpacket in _CHANGE_STORAGES:
            self._uncacheable.add(func)
            return None
        shared = {t.untyped_storage()._cdata for t in _tensors((args, tuple(kwargs.values())))}
        results: list[Callable[[], torch.Tensor] | int | None] = []
        for value in out if isinstance(out, tuple | list) else (out,):
            position = next((i for i, arg in enumerate(args) if arg is value), None)
            if value is None or position is not None:
                results.append(None if value is None else position)
                continue
            if not isinstance(value, torch.Tensor) or not value.is_meta or value.untyped_storage()._cdata in shared:
                (self._views if _returns_views(func) else self._uncacheable).add(func)
                return None
            shared.add(value.untyped_storage()._cdata)
            layout = tuple(value.shape), value.stride()
            results.append(partial(torch.empty_strided, *layout, dtype=value.dtype, device="meta"))
        return tuple(results)

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OpResult | None:
        """Result of an operation by which a real run reads data; None for any other operation."""
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return OpResult(self._scalar(args[0]))
        if func is aten._to_copy.default and args[0].is_meta and _leaves_meta(kwargs):
            if not self.allow_reads:
                raise EstimateError(_read_message(args[0]))
            return OpResult(torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype))
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default and args[1].is_meta:
            storage = args[1].untyped_storage()
            key = storage._cdata
            # no overflow: the optimizer takes its step
            self._zeros[key] = weakref.ref(storage, lambda _: self._zeros.pop(key, None))
            return OpResult(None)
        return None

    def _scalar(self, tensor: torch.Tensor) -> bool | float:
        if tensor.dtype is torch.bool:
            return False  # e.g. "is the mask trivial?": the general path is followed
        if tensor.untyped_storage()._cdata in self._zeros:
            return 0.0
        if self.allow_reads and not tensor.is_floating_point():
            return 1  # a length, by which a result is cut
        raise EstimateError(_read_message(tensor))


def kernel_memory(cublas: Cublas, packet: Any, args: tuple[Any, ...]) -> KernelMemory:
    """Memory of an operation's CUDA kernel beside its results, by the rules of PyTorch's sources; none were measured.

    cuBLAS's rules are by version, the others of 2.15. Not covered: cuDNN's convolutions and attention, which depend on
    the algorithm that it picks, and sorting.
    """
    if packet is aten.addmm:
        return _cublas_lt_memory(cublas)
    if packet in _CUBLAS_PRODUCTS:
        if cublas.kept:
            return KernelMemory(workspaces=(("cublas", cublas.workspace_bytes),))
        return KernelMemory(scratch=(cublas.workspace_bytes,))
    if packet is aten._scaled_dot_product_flash_attention_backward:
        return KernelMemory(scratch=_flash_backward(args[1]))
    if packet is aten._scaled_dot_product_efficient_attention_backward:
        return KernelMemory(scratch=_efficient_backward(args[1]))
    if packet is aten.embedding_dense_backward:
        return KernelMemory(scratch=_embedding_backward(args[0], args[1], args[2]))
    return KernelMemory()


def _cublas_lt_memory(cublas: Cublas) -> KernelMemory:
    sizes = (cublas.lt_workspace_bytes,) if cublas.lt_workspace_bytes else ()
    if not cublas.kept:
        return KernelMemory(scratch=sizes)
    cublas_too = (("cublas", cublas.workspace_bytes),) if cublas.lt_also_takes_workspace else ()
    return KernelMemory(workspaces=(*cublas_too, *(("cublaslt", size) for size in sizes)))


def _flash_backward(query: torch.Tensor) -> tuple[int, ...]:
    """The query's gradient and a row sum, both accumulated in fp32, padded to blocks of 128 rows and 32 columns."""
    batch, heads, rows, width = query.shape
    rows, width = round_up(rows, 128), round_up(width, 32)
    return batch * rows * heads * width * _FP32_BYTES, batch * heads * rows * _FP32_BYTES


def _efficient_backward(query: torch.Tensor) -> tuple[int, ...]:
    """The row sums of gradient times output; in fp32 the product itself, too."""
    batch, heads, rows, _ = query.shape
    row_sums = batch * heads * rows * _FP32_BYTES
    return (row_sums, query.numel() * _FP32_BYTES) if query.dtype is torch.float32 else (row_sums,)


def _embedding_backward(grad: torch.Tensor, indices: torch.Tensor, rows: int) -> tuple[int, ...]:
    """Above a few thousand tokens, indices are sorted and gradients summed segment by segment in fp32."""
    tokens = indices.numel()
    if tokens <= _MAX_UNSORTED_TOKENS:
        return ()
    segments = tokens // 10 + min(tokens, rows)
    return (tokens * _INT64_BYTES,) * 4 + (segments * grad.size(-1) * _FP32_BYTES,)


def _returns_views(func: Any) -> bool:
    """Whether, by its schema, all results share storage with arguments."""
    returns = func._schema.returns
    return bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)


def _read_message(tensor: torch.Tensor) -> str:
    return (
        f"the program reads the value of a {tensor.dtype} tensor (.item(), .tolist(), .cpu() or the like), "
        "which has none without data; its memory cannot be predicted"
    )


def _leaves_meta(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type != "meta"


def _key(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the results' shapes depend on; None if some tensor is not on meta."""
    key: list[Any] = [func]
    if not _collect(key, args) or (kwargs and not _collect(key, sorted(kwargs.items()))):
        return None
    return tuple(key)


def _collect(key: list[Any], values: Any) -> bool:
    for value in values:
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                return False
            key.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, list | tuple):
            key.append(len(value))
            if not _collect(key, value):
                return False
        elif type(value) is float:
            key.append(float)  # no shape depends on its value, which may change from step to step
        else:
            key.append((type(value), value))  # 1, 1.0 and True are equal, and give different types
    return True


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
