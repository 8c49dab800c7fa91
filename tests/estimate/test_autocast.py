"""CUDA's autocast on meta: which types come out, how long casts live, and that PyTorch's own state decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import TensorWeakRef

from bench.errors import EstimateError
from bench.estimate.autocast import CPU, CUDA, Policy, Rule, autocast_on_meta
from tests.estimate.conftest import Trace

HALF, BF16, FP32, FP64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
Make = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def on_meta() -> Iterator[None]:
    with autocast_on_meta():
        yield


def meta(*shape: int, dtype: torch.dtype = FP32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def ints(*shape: int) -> torch.Tensor:
    return meta(*shape, dtype=torch.long)


aten: Any = torch.ops.aten
_nn: Any = torch._C._nn
LINE, SQUARE, CUBE = (8,), (8, 8), (8, 8, 8)
IMAGE, VOLUME = (2, 4, 8, 8), (2, 4, 8, 8, 8)

CALLS: dict[str, Callable[[Make], Any]] = {
    "_convolution": lambda x: torch._convolution(
        x(*IMAGE), x(4, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, True, True, True
    ),
    "conv2d": lambda x: nn.Conv2d(4, 4, 3, device="meta")(x(*IMAGE)),
    "conv_transpose3d": lambda x: F.conv_transpose3d(x(*VOLUME), x(4, 4, 3, 3, 3)),
    "prelu": lambda x: F.prelu(x(*IMAGE), x(4)),
    "addmv": lambda x: x(*LINE).addmv(x(*SQUARE), x(*LINE)),
    "matmul": lambda x: x(*CUBE) @ x(*SQUARE),
    "einsum": lambda x: torch.einsum("bse,fe->bsf", x(*CUBE), x(*SQUARE)),
    "linear": lambda x: nn.Linear(8, 8, device="meta")(x(*CUBE)),
    "baddbmm": lambda x: torch.baddbmm(x(*CUBE), x(*CUBE), x(*CUBE)),
    "chain_matmul": lambda x: aten.chain_matmul([x(*SQUARE), x(*SQUARE), x(*SQUARE)]),
    "linalg_multi_dot": lambda x: torch.linalg.multi_dot([x(*SQUARE), x(*SQUARE), x(*SQUARE)]),
    "lstm_cell": lambda x: torch.lstm_cell(x(*SQUARE), [x(*SQUARE), x(*SQUARE)], x(32, 8), x(32, 8), x(32), x(32)),
    "_scaled_dot_product_flash_attention": lambda x: aten._scaled_dot_product_flash_attention(
        x(*IMAGE), x(*IMAGE), x(*IMAGE)
    )[0],
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(
        x(*IMAGE), x(*IMAGE), x(*IMAGE), attn_mask=x(8, 8)
    ),
    "exp": lambda x: x(*LINE).exp(),
    "pow": lambda x: x(*LINE) ** 2,
    "layer_norm": lambda x: nn.LayerNorm(8, device="meta")(x(*CUBE)),
    "native_layer_norm": lambda x: torch.native_layer_norm(x(*CUBE), [8], None, None, 1e-5)[0],
    "rms_norm": lambda x: F.rms_norm(x(*CUBE), [8]),
    "frobenius_norm": lambda x: torch.frobenius_norm(x(*SQUARE), [0, 1]),
    "nll_loss": lambda x: F.nll_loss(x(*SQUARE), ints(8)),
    "mse_loss": lambda x: F.mse_loss(x(*SQUARE), x(*SQUARE)),
    "logsumexp": lambda x: x(*SQUARE).logsumexp(1),
    "upsample_nearest1d": lambda x: F.interpolate(x(2, 4, 8), 16),
    "upsample_bilinear2d": lambda x: _nn.upsample_bilinear2d(x(*IMAGE), [16, 16], False),
    "prod": lambda x: torch.prod(x(*SQUARE), 0),
    "softmax": lambda x: x(*SQUARE).softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x(*SQUARE), -1),
    "cumprod": lambda x: torch.cumprod(x(*SQUARE), 0),
    "cumsum": lambda x: x(*SQUARE).cumsum(0),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x(*SQUARE)),
    "linalg_matrix_norm": lambda x: torch.linalg.matrix_norm(x(*SQUARE)),
    "sum": lambda x: x(*SQUARE).sum(1, keepdim=True),
    "norm": lambda x: aten.norm.ScalarOpt_dim(x(*SQUARE), 2, [1], True),
    "addcdiv": lambda x: torch.addcdiv(x(*LINE), x(*LINE), x(*LINE)),
    "bilinear": lambda x: F.bilinear(x(8, 2), x(8, 2), x(4, 2, 2)),
    "cross": lambda x: torch.cross(x(8, 3), x(8, 3), dim=1),
    "dot": lambda x: torch.dot(x(*LINE), x(*LINE)),
    "grid_sampler": lambda x: F.grid_sample(x(*IMAGE), x(2, 8, 8, 2), align_corners=False),
    "index_put": lambda x: torch.index_put(x(*LINE), (ints(2),), x(2)),
    "tensordot": lambda x: torch.tensordot(x(*SQUARE), x(*SQUARE), 1),
    "scatter_add": lambda x: x(*SQUARE).scatter_add(0, ints(8, 8), x(*SQUARE)),
}
"""Calls of each rule in all forms: functions, methods, operators, modules; lists, nulls and integers as arguments."""


def registered(key: str) -> list[str]:
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return [name for name in names if name.startswith("aten::")]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("lower", [BF16, HALF])
def test_a_call_gives_the_documented_type(name: str, lower: torch.dtype) -> None:
    if not any(entry.removeprefix("aten::").partition(".")[0] == name for entry in registered(CUDA.key)):
        pytest.skip("this PyTorch is older than the rule")
    rule = CUDA.rules[name]
    given = FP32 if rule is Rule.LOWER else lower
    with torch.autocast("meta", dtype=lower):
        try:
            out = CALLS[name](lambda *shape: meta(*shape, dtype=given))
        except NotImplementedError:
            pytest.skip("this PyTorch has no such function for meta tensors")
        assert (out[0] if isinstance(out, tuple) else out).dtype is (
            lower if rule in (Rule.LOWER, Rule.WIDEST) else FP32
        )
        if rule is Rule.WIDEST:
            types = iter([FP32, *[lower] * 3])
            assert CALLS[name](lambda *shape: meta(*shape, dtype=next(types))).dtype is FP32


def test_every_function_that_pytorch_autocasts_has_a_rule() -> None:
    known = {name.removeprefix("aten::").partition(".")[0] for name in registered("AutocastCUDA")}
    assert known - set(CUDA.rules) <= {"_cudnn_rnn"}, "new in this PyTorch: find its rule in its sources"


def test_the_rules_are_those_of_pytorchs_header() -> None:
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    if not header.is_file():
        pytest.skip("this PyTorch was installed without its headers")
    macros = dict(re.findall(r"#define AT_FORALL_(\w+)\(_\)((?:.*\\\n)+.*)", header.read_text(encoding="utf-8")))
    of = {"LOWER_PRECISION_FP": Rule.LOWER, "FP32": Rule.FLOAT32, "PROMOTE": Rule.WIDEST}
    of["FP32_SET_OPT_DTYPE"] = Rule.FLOAT32_OUTPUT
    stated = {name: rule for macro, rule in of.items() for name in re.findall(r"_\((\w+)[,)]", macros[macro])}
    assert len(stated) > 90
    assert stated.items() <= CUDA.rules.items()


def test_only_floating_tensors_of_the_device_are_cast() -> None:
    x = meta(8, 8)
    with torch.autocast("meta", dtype=BF16):
        assert (meta(8, 8, dtype=FP64) @ meta(8, 8, dtype=FP64)).dtype is FP64
        assert ints(8, 8).sum().dtype is torch.long
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is FP32, "a tensor on the CPU"
        assert (x + meta(8, 8, dtype=BF16)).dtype is FP32
        assert F.dropout(F.gelu(x)).dtype is FP32
        assert torch.cat([x, x.bfloat16()]).dtype is FP32


def test_what_is_given_or_written_into_keeps_its_type() -> None:
    x, low = meta(8, 8), meta(8, 8, dtype=BF16)
    with torch.autocast("meta", dtype=BF16):
        assert torch.softmax(low, -1, dtype=FP64).dtype is FP64
        assert low.sum(0, dtype=BF16).dtype is BF16
        assert torch.mm(x, x, out=meta(8, 8)).dtype is FP32
        assert x.addmm_(x, x).dtype is FP32
        assert low.exp_().dtype is BF16


def test_composite_functions_are_seen_inside() -> None:
    x = meta(2, 8, 16)
    attention = nn.MultiheadAttention(16, 4, batch_first=True, device="meta")
    with torch.autocast("meta", dtype=BF16):
        assert F.cross_entropy(meta(8, 4, dtype=BF16), ints(8)).dtype is FP32
        assert attention(x, x, x)[0].dtype is BF16
        assert nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, device="meta")(x).dtype is FP32
        with pytest.raises(RuntimeError, match="unsafe"):
            F.binary_cross_entropy(x, x)
        with pytest.raises(RuntimeError, match="unexpected"):
            torch.dot(meta(4, dtype=HALF), meta(4, dtype=HALF))


def test_nesting_and_the_state_that_libraries_ask_for() -> None:
    x = meta(8, 8)
    assert not torch.is_autocast_enabled("meta")
    with torch.autocast("meta", dtype=BF16):
        assert torch.is_autocast_enabled("meta")
        assert torch.is_autocast_enabled()
        assert torch.get_autocast_dtype("meta") is torch.get_autocast_dtype("cuda") is BF16
        assert not torch.is_autocast_enabled("cpu")
        for device in ("meta", "cuda"):
            with torch.autocast(device, enabled=False):
                assert not torch.is_autocast_enabled("meta")
                assert (x @ x).dtype is FP32
            with torch.autocast(device, dtype=HALF):
                assert (x @ x).dtype is HALF
        assert (x @ x).dtype is BF16
    assert (x @ x).dtype is FP32


class Casts(Trace):  # type: ignore[no-untyped-call]
    """Weak references to all casts that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[TensorWeakRef] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func is aten._to_copy.default:
            self.made.append(TensorWeakRef(out))
        return out

    @property
    def alive(self) -> int:
        return sum(ref() is not None for ref in self.made)


def test_the_cast_of_a_trained_weight_is_made_once_and_lives_until_the_outermost_exit() -> None:
    weight, x = nn.Parameter(meta(8, 8)), meta(8, 8, dtype=BF16)
    with Casts() as casts:
        with torch.autocast("meta", dtype=BF16):
            with torch.autocast("meta", dtype=BF16):
                F.linear(x, weight)
                F.linear(x, weight)
            x @ weight
            assert (len(casts.made), casts.alive) == (1, 1)
        assert casts.alive == 0
        with torch.autocast("meta", dtype=BF16):
            kept = F.linear(x.requires_grad_(), weight)
        assert (len(casts.made), casts.alive) == (2, 1), "saved for the gradient of x"
        del kept
        assert casts.alive == 0


@pytest.mark.parametrize("change", ["frozen", "no cache", "derived", "fp16 weight"])
def test_other_casts_are_made_anew_and_go_with_what_saved_them(change: str) -> None:
    weight: Any = nn.Parameter(meta(8, 8, dtype=HALF if change == "fp16 weight" else FP32), change != "frozen")
    if change == "derived":
        weight = weight * 2
    with Casts() as casts, torch.autocast("meta", dtype=BF16, cache_enabled=change != "no cache"):
        kept = F.linear(meta(8, 8, dtype=BF16).requires_grad_(), weight)
        assert (len(casts.made), casts.alive) == (1, 1), "saved for the gradient of x"
        del kept
        assert casts.alive == 0
        F.linear(meta(8, 8, dtype=BF16), weight)
        assert (len(casts.made), casts.alive) == (2, 0)


def test_a_cast_is_never_taken_for_another_weights() -> None:
    with Casts() as casts, torch.no_grad():
        with torch.autocast("meta", dtype=BF16):
            for size in range(1, 20):
                assert F.linear(meta(2, 8, dtype=BF16), nn.Parameter(meta(size, 8))).shape == (2, size)
            assert (len(casts.made), casts.alive) == (19, 19)
        assert casts.alive == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_enters_the_same_autocast(reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).to("meta")
    with Trace() as trace:
        with torch.autocast("meta", dtype=BF16):
            out = checkpoint(model, meta(4, 8).requires_grad_(), use_reentrant=reentrant)
            loss = F.mse_loss(out, meta(4, 8))
        forward = [entry for entry in trace.log if "addmm" in entry[0]]
        trace.log.clear()
        loss.backward()  # type: ignore[no-untyped-call]
    assert len(forward) == 2
    again = [entry for entry in trace.log if "addmm" in entry[0]]
    assert again == (forward if reentrant else forward[:1]), "the other way stops once it has what was saved"
    assert all(p.grad is not None and p.grad.dtype is FP32 for p in model.parameters())


def test_a_function_without_a_rule_is_refused_by_name_when_it_is_called() -> None:
    rules = {name: rule for name, rule in CUDA.rules.items() if name != "mm"}
    with autocast_on_meta(replace(CUDA, rules=rules)):
        torch.mm(meta(2, 2), meta(2, 2))
        with torch.autocast("meta", dtype=BF16), pytest.raises(EstimateError, match="aten::mm"):
            torch.mm(meta(2, 2), meta(2, 2))


@pytest.mark.parametrize("policy", [CUDA, CPU])
def test_nothing_is_left_behind(policy: Policy) -> None:
    names = ("is_autocast_enabled", "get_autocast_dtype", "clear_autocast_cache")
    before = [getattr(torch, name) for name in names], torch.autocast.__init__, registered(policy.key)
    with pytest.raises(KeyError), autocast_on_meta(policy), torch.autocast("meta", dtype=BF16):
        raise KeyError
    assert ([getattr(torch, name) for name in names], torch.autocast.__init__, registered(policy.key)) == before
