"""CUDA's autocast for tensors on PyTorch's meta device: the same casts with the same lifetimes, without a GPU.

``torch.autocast("cuda")`` acts by a dispatch key, ``AutocastCUDA``, that CUDA tensors carry and meta tensors do not,
and its kernels skip every tensor that is not on CUDA. :func:`autocast_on_meta` adds the key to all calls of the thread
and replaces its kernels by ones that cast meta tensors. All else stays PyTorch's: autocast's state, nesting,
``enabled=False`` and ``torch.utils.checkpoint``, which enters autocast again to recompute. As the key stands above
autograd and above composite functions, calls inside ``F.cross_entropy`` or ``nn.MultiheadAttention`` are cast, too.

Rules by function: "CUDA Ops that can autocast to float16" and following in the documentation of ``torch.amp``, and
``ATen/autocast_mode.h`` and ``.cpp``, whose ``cached_cast`` also defines the cache. In-place and ``out=`` variants have
no rule there, so none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from unittest import mock

import torch

from bench.errors import EstimateError

Kernel = Callable[..., Any]

# the originals: autocast_on_meta replaces them
_get_dtype = torch.get_autocast_dtype
_is_enabled = torch.is_autocast_enabled
_clear_torch_cache = torch.clear_autocast_cache


class Rule(Enum):
    """What autocast does to a function's floating tensors, fp64 excepted."""

    LOWER = auto()
    """Casts all to autocast's type."""
    FLOAT32 = auto()
    """Casts all to fp32."""
    FLOAT32_OUTPUT = auto()
    """Sets its ``dtype`` to fp32, unless given; inputs are not cast before the call."""
    FLOAT32_OVERLOAD = auto()
    """Calls its overload with a ``dtype`` with fp32."""
    WIDEST = auto()
    """Casts all to fp32 if one of them is fp32, else to autocast's type."""
    BANNED = auto()
    """Raises RuntimeError."""


_CUDA_RULES = {
    Rule.LOWER: (
        "_convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution "
        "cudnn_convolution cudnn_convolution_transpose prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear "
        "addbmm baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell "
        "gru_cell rnn_tanh_cell rnn_relu_cell _scaled_dot_product_flash_attention scaled_dot_product_attention"
    ),
    Rule.FLOAT32: (
        "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm "
        "native_layer_norm rms_norm group_norm frobenius_norm nuclear_norm cosine_similarity poisson_nll_loss "
        "cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss "
        "mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss "
        "binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d "
        "_upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d "
        "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d "
        "upsample_bicubic2d _upsample_bicubic2d_aa linalg_matrix_sqrth"
    ),
    Rule.FLOAT32_OUTPUT: "prod softmax log_softmax cumprod cumsum linalg_vector_norm linalg_matrix_norm sum",
    Rule.FLOAT32_OVERLOAD: "norm",
    Rule.WIDEST: "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add",
    Rule.BANNED: "binary_cross_entropy",
}

_CPU_RULES = {
    Rule.LOWER: (
        "conv1d conv2d conv3d bmm mm linalg_vecdot baddbmm addmm _addmm_activation addbmm linear _convolution matmul "
        "conv_tbc mkldnn_rnn_layer conv_transpose1d conv_transpose2d conv_transpose3d prelu "
        "scaled_dot_product_attention _native_multi_head_attention"
    ),
    Rule.WIDEST: "stack cat index_copy",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The autocast of one kind of device."""

    device: str
    """Its state counts: that of ``torch.autocast(device)``."""
    key: str
    """Its dispatch key. Functions with a kernel there are the ones that autocast knows."""
    rules: dict[str, Rule]
    """By name, for all overloads."""
    otherwise: Rule | None = None
    """Rule of functions that have a kernel and are not in ``rules``; null: they are refused when called."""


def _by_name(rules: dict[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


CUDA = Policy(device="cuda", key="AutocastCUDA", rules=_by_name(_CUDA_RULES))
CPU = Policy(device="cpu", key="AutocastCPU", rules=_by_name(_CPU_RULES), otherwise=Rule.FLOAT32)
"""For validation: comparable with PyTorch's autocast for the CPU on any machine."""


@contextmanager
def autocast_on_meta(policy: Policy = CUDA) -> Iterator[None]:
    """Inside, ``torch.autocast("meta", ...)`` and that of the policy's device act on meta and on the device's tensors.

    No such device is needed. Enter it once around an estimate (about 10 ms), and not in a thread beside one that
    computes on that device: the kernels are the process's. Raises EstimateError inside when a function is called that
    this PyTorch autocasts and the policy has no rule for.
    """
    caster = _Caster(policy)
    with ExitStack() as stack:
        stack.callback(caster.casts.clear)
        for qualified in torch._C._dispatch_get_registrations_for_dispatch_key(policy.key):
            namespace, _, name = qualified.partition("::")
            library = torch.library.Library(namespace, "IMPL")  # type: ignore[no-untyped-call]
            stack.callback(library._destroy)
            kernel = _kernel(namespace, name, caster)
            library.impl(name, kernel, policy.key, allow_override=True)  # type: ignore[no-untyped-call]
        for owner, attribute, value in _replacements(policy.device, caster):
            stack.enter_context(mock.patch.object(owner, attribute, value))
        stack.enter_context(torch._C._IncludeDispatchKeyGuard(getattr(torch._C.DispatchKey, policy.key)))
        yield


class _Caster:
    """Casts as ``at::autocast::cached_cast`` does."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        # by id: trained fp32 leaf, kept so that no other tensor takes its id, and its cast
        self.casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, policy.key))

    def paused(self) -> AbstractContextManager[object]:
        """What a function runs under once its tensors are cast: the functions that it calls are not cast again."""
        guard: AbstractContextManager[object] = torch._C._ExcludeDispatchKeyGuard(self._keys)
        return guard

    def is_eligible(self, value: object) -> bool:
        """Whether a value is a tensor that autocast may cast."""
        return (
            isinstance(value, torch.Tensor)
            and value.is_floating_point()
            and value.dtype is not torch.float64
            and value.device.type in ("meta", self.policy.device)
        )

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """A tensor or a list of tensors in ``dtype``; any other argument of a call as it is."""
        if isinstance(value, torch.Tensor):
            return value if value.dtype is dtype or not self.is_eligible(value) else self._cast(value, dtype)
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
            return [self.cast(item, dtype) for item in value]
        return value

    def target(self, rule: Rule, args: Sequence[Any]) -> torch.dtype:
        """The type to cast a call's arguments to.

        Raises RuntimeError for a type before the first fp32 that is neither fp32 nor autocast's, as PyTorch does.
        """
        lower: torch.dtype = _get_dtype(self.policy.device)
        if rule is not Rule.WIDEST:
            return torch.float32 if rule is Rule.FLOAT32 else lower
        for item in (item for arg in args for item in (arg if isinstance(arg, (list, tuple)) else (arg,))):
            if self.is_eligible(item):
                present: torch.dtype = item.dtype
                if present is torch.float32:
                    return present
                if present is not lower:
                    raise RuntimeError(f"unexpected {present} in autocast to {lower}")
        return lower

    def _cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if not (
            tensor.requires_grad
            and tensor.is_leaf
            and tensor.dtype is torch.float32
            and not tensor._is_view()
            and torch.is_autocast_cache_enabled()
        ):
            return tensor.to(dtype)
        if id(tensor) not in self.casts:
            self.casts[id(tensor)] = (tensor, tensor.to(dtype))
        return self.casts[id(tensor)][1]


def _kernel(namespace: str, name: str, caster: _Caster) -> Kernel:
    """The replacement of PyTorch's autocast kernel of ``aten::softmax.int`` and the like."""
    base, _, overload = name.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base)
    function = getattr(packet, overload or "default")
    policy = caster.policy
    match policy.rules.get(base, policy.otherwise) if namespace == "aten" else None:
        case Rule.LOWER | Rule.FLOAT32 | Rule.WIDEST as rule:
            return _casting(function, caster, rule)
        case Rule.FLOAT32_OUTPUT:
            return _with_dtype(function, caster)
        case Rule.FLOAT32_OVERLOAD:
            return _with_overload(packet, overload, caster)
        case Rule.BANNED:
            return _refusing(function, caster, RuntimeError(f"{base} is unsafe to autocast on {policy.device}"))
        case None:
            message = f"autocast of {namespace}::{name} cannot be modelled: use a precision without autocast"
            return _refusing(function, caster, EstimateError(message))


def _casting(function: Kernel, caster: _Caster, rule: Rule) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with caster.paused():
            dtype = caster.target(rule, args)
            named = {name: caster.cast(arg, dtype) for name, arg in kwargs.items()}
            last_first = [caster.cast(arg, dtype) for arg in reversed(args)]  # PyTorch's order on Linux, as compiled
            return function(*reversed(last_first), **named)

    return kernel


def _with_dtype(function: Any, caster: _Caster) -> Kernel:
    position = [argument.name for argument in function._schema.arguments].index("dtype")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with caster.paused():
            given = args[position] if len(args) > position else kwargs.get("dtype")
            if given is not None or not caster.is_eligible(args[0]):
                return function(*args, **kwargs)
            return function(*args[:position], **kwargs | {"dtype": torch.float32})

    return kernel


def _with_overload(packet: Any, overload: str, caster: _Caster) -> Kernel:
    function = getattr(packet, {"Scalar": "ScalarOpt_dtype"}.get(overload, f"{overload}_dtype"))

    def kernel(tensor: torch.Tensor, power: float | None = 2, *rest: Any) -> Any:
        with caster.paused():
            return function(tensor, power, *rest, dtype=torch.float32 if caster.is_eligible(tensor) else tensor.dtype)

    return kernel


def _refusing(function: Kernel, caster: _Caster, error: Exception) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        if any(caster.is_eligible(arg) for arg in args):
            raise error
        with caster.paused():
            return function(*args, **kwargs)

    return kernel


def _replacements(device: str, caster: _Caster) -> Iterator[tuple[Any, str, Any]]:
    """Owner, name and value of PyTorch's functions that must answer for meta as if the device were there."""
    create, is_available = torch.autocast.__init__, torch.amp.is_autocast_available

    def mapped(asked: str) -> str:
        return device if asked == "meta" else asked

    def create_autocast(self: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
        create(self, mapped(device_type), *args, **kwargs)

    def clear() -> None:
        caster.casts.clear()
        _clear_torch_cache()

    yield torch.autocast, "__init__", create_autocast
    for module in (torch.amp, torch.amp.autocast_mode):
        yield module, "is_autocast_available", lambda asked: is_available(mapped(asked))
    yield torch, "is_autocast_enabled", lambda *asked: _is_enabled(*map(mapped, asked))
    yield torch, "get_autocast_dtype", lambda asked: _get_dtype(mapped(asked))
    yield torch, "clear_autocast_cache", clear
    if device == "cuda":
        yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
        yield torch.cuda, "is_bf16_supported", lambda *_, **__: True
