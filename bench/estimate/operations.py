"""Run PyTorch operations on the meta device: answers where data would decide, FLOPs, and a memory of shapes.

Shape inference in Python takes longer than many a real kernel; a model repeats the same few hundred calls (layers,
steps, cells), so what a call made is kept and made again from its shapes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

from bench.errors import EstimateError
from bench.estimate.gpus import Gpu, cublas_of
from bench.estimate.workspaces import Needs, needs_of

aten = torch.ops.aten
_CHANGE_STORAGES = {aten.set_, aten.resize_, aten.resize_as_}


class Ran(NamedTuple):
    """What an operation returned, and what is to be noted about it."""

    out: Any
    made: tuple[torch.Tensor, ...]
    """Tensors whose storages may be new: ``torch.tensor`` makes one out of sight, and hands it to ``lift_fresh``."""
    flops: int = 0
    needs: Needs = Needs()
    """What its CUDA kernel takes beside."""


class Fresh(NamedTuple):
    """A tensor an operation makes."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> torch.Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


@dataclass(frozen=True, slots=True)
class _Known:
    """What a call with these shapes returns."""

    results: tuple[Fresh | int | None, ...]
    """A new tensor, the argument of that position (in-place operations), or nothing."""
    wrap: Callable[[list[Any]], Any]
    flops: int
    needs: Needs

    def replay(self, args: tuple[Any, ...]) -> Ran:
        made = []
        out: list[Any] = []
        for result in self.results:
            if isinstance(result, Fresh):
                out.append(tensor := result.make())
                made.append(tensor)
            elif result is None:
                out.append(None)
            else:
                out.append(args[result])
                made.append(args[result])
        return Ran(self.wrap(out), tuple(made), self.flops, self.needs)


def _single(out: list[Any]) -> Any:
    return out[0]


class Operations:
    """Runs operations; one may serve many trackers, whose cells then share what was learnt."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        """Without a GPU, kernels take no memory beside their results."""
        cache = os.environ.get("TORCH_CUBLAS_WORKSPACE_CACHE")
        self._cublas = None if gpu is None else cublas_of(gpu, torch.__version__, cache=cache)
        self._known: dict[Any, _Known] = {}
        self._unknowable: set[Any] = set()
        """Operations whose results share storage with their arguments in other ways than in place."""
        self._views: set[Any] = set()
        """Operations that return views: they make nothing, and are quicker run than remembered."""
        self._zeros: dict[int, weakref.ref[Any]] = {}
        """Address of a storage -> its life: scalars that are zero in a run that goes well."""
        self.reading = False
        """While texts are generated or adapters collected, results may be read: nothing later depends on them."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ran:
        """Raises EstimateError where the program asks for data that a meta tensor does not have."""
        answer = self._answer(func, args, kwargs)
        if answer is not None:
            return answer
        if func in self._views:
            return Ran(func(*args, **kwargs), ())
        key = None if func in self._unknowable else _key(func, args, kwargs)
        if key is not None:
            known = self._known.get(key)
            if known is not None:
                return known.replay(args)
        return self._first(key, func, args, kwargs)

    def _first(self, key: Any, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ran:
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
        needs = needs_of(self._cublas, packet, args) if self._cublas else Needs()
        flops = flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0
        if key is not None:
            known = self._learn(func, args, kwargs, out, flops, needs)
            if known is not None:
                self._known[key] = known
        return Ran(out, tuple(_tensors(out)), flops, needs)

    def _learn(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
        flops: int,
        needs: Needs,
    ) -> _Known | None:
        if func._overloadpacket in _CHANGE_STORAGES:
            self._unknowable.add(func)
            return None
        shared = {t.untyped_storage()._cdata for t in _tensors((args, tuple(kwargs.values())))}
        results: list[Fresh | int | None] = []
        for value in out if isinstance(out, tuple | list) else (out,):
            if value is None:
                results.append(None)
                continue
            position = next((i for i, arg in enumerate(args) if arg is value), None)
            if position is not None:
                results.append(position)
                continue
            if not isinstance(value, torch.Tensor) or not value.is_meta or value.untyped_storage()._cdata in shared:
                (self._views if _is_view(func) else self._unknowable).add(func)
                return None
            shared.add(value.untyped_storage()._cdata)
            results.append(Fresh(tuple(value.shape), value.stride(), value.dtype))
        wrap = type(out) if isinstance(out, tuple | list) else _single
        return _Known(tuple(results), wrap, flops, needs)

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ran | None:
        """What data would decide. A mask is taken not to be trivial, so that the general path is followed."""
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return Ran(self._scalar(args[0]), ())
        if func is aten._to_copy.default and args[0].is_meta and _leaves_meta(kwargs):
            if not self.reading:
                raise EstimateError(_reads(args[0]))
            return Ran(torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype), ())
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default and args[1].is_meta:
            storage = args[1].untyped_storage()
            key = storage._cdata
            # no overflow: the optimizer takes its step
            self._zeros[key] = weakref.ref(storage, lambda _: self._zeros.pop(key, None))
            return Ran(None, ())
        return None

    def _scalar(self, tensor: torch.Tensor) -> bool | float:
        if tensor.dtype is torch.bool:
            return False
        if tensor.untyped_storage()._cdata in self._zeros:
            return 0.0
        if self.reading and not tensor.is_floating_point():
            return 1  # a length, by which a result is cut
        raise EstimateError(_reads(tensor))


def _is_view(func: Any) -> bool:
    """Whether all that it returns shares storage with its arguments, by its own word."""
    returns = func._schema.returns
    return bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)


def _reads(tensor: torch.Tensor) -> str:
    return (
        f"the program reads the value of a {tensor.dtype} tensor (.item(), .tolist(), .cpu() or the like), "
        "which has none without data; its memory cannot be predicted"
    )


def _leaves_meta(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type != "meta"


def _key(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the results' shapes depend on; None if some tensor is not on meta."""
    parts: list[Any] = [func]
    if not _collect(parts, args) or (kwargs and not _collect(parts, sorted(kwargs.items()))):
        return None
    return tuple(parts)


def _collect(parts: list[Any], values: Any) -> bool:
    for value in values:
        if isinstance(value, torch.Tensor):
            if not value.is_meta:
                return False
            parts.append((value.shape, value.stride(), value.dtype))
        elif isinstance(value, list | tuple):
            parts.append(len(value))
            if not _collect(parts, value):
                return False
        elif type(value) is float:
            parts.append(float)  # no shape depends on its value, which may change from step to step
        else:
            parts.append((type(value), value))  # 1, 1.0 and True are equal, and give different types
    return True


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
