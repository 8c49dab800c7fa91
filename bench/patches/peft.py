"""Patches of peft."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, LibraryMismatchError
from bench.patches.transformers import CACHE_NAMES, cache_name
from bench.versions import REMEDY

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel

_NEW, _OLD = CACHE_NAMES


def get_peft_model(module: torch.nn.Module, config: PeftConfig) -> PeftModel:
    """``peft.get_peft_model`` with peft patched. Raises BenchError if the adapter differs from its configuration."""
    import peft

    patch_cache_name()
    patch_boft_extension()
    wrapper: Any = peft.get_peft_model(module, config)
    _check_butterflies(wrapper)
    tuner = wrapper.base_model
    if "forward" in vars(tuner):
        # The tuner of adaption prompts (peft 0.21) calls the model's ``forward`` directly, past its hooks, one of which
        # numbers the positions of padded texts.
        tuner.forward = tuner.model.__call__
    return wrapper  # type: ignore[no-any-return]


@functools.cache
def patch_boft_extension() -> None:
    """Stop BOFT (peft 0.21) from compiling CUDA kernels without a CUDA device.

    Raises LibraryMismatchError if there is nothing to patch.
    """
    # Compiling takes a minute, and a worker killed meanwhile leaves a lock for which all later workers wait for ever.
    import peft
    import peft.tuners.boft.layer
    import torch

    library: Any = peft.tuners.boft.layer
    compile_kernels = getattr(library, "get_fbd_cuda", None)
    if compile_kernels is None:
        raise LibraryMismatchError(
            f"peft {peft.__version__}: BOFT has no get_fbd_cuda, which this package patches; {REMEDY}"
        )
    library.get_fbd_cuda = lambda: compile_kernels() if torch.cuda.is_available() else None


def _check_butterflies(wrapper: Any) -> None:
    """Raise BenchError if BOFT has fewer butterfly factors than its configuration."""
    # Without compiled kernels peft uses one factor whatever the configuration, and only warns.
    asked = getattr(wrapper.active_peft_config, "boft_n_butterfly_factor", 1)
    for module in wrapper.modules():
        for rotations in getattr(module, "boft_R", {}).values():
            if len(rotations) != asked:
                raise BenchError(
                    f"boft_n_butterfly_factor is {asked}, but without its CUDA kernels (a CUDA device, ninja and a "
                    f"compiler) peft takes {len(rotations)}: set it to {len(rotations)}, or run where they can be built"
                )


@functools.cache
def patch_cache_name() -> None:
    """Let peft 0.21, which looks for ``past_key_values``, find the ``cache`` of transformers 5.24 and newer.

    Unpatched, ``generate`` never sees a prefix (peft puts it beside the cache in use), virtual tokens precede every new
    token instead of the first, and a classifier with a prefix is refused. Forward passes are not affected, so such a
    cell trains well and answers as if untrained. No effect with an older transformers. Raises LibraryMismatchError if
    peft no longer looks for the old name.
    """
    import peft.peft_model
    from transformers import GenerationMixin

    library: Any = peft.peft_model
    if cache_name(GenerationMixin.prepare_inputs_for_generation) == _OLD:
        return
    for wrapper in (library.PeftModelForCausalLM, library.PeftModelForSeq2SeqLM):
        wrapper.prepare_inputs_for_generation = _prepare(_which_names_cache(wrapper, "prepare_inputs_for_generation"))
    _which_names_cache(library.PeftModelForSequenceClassification, "_prefix_tuning_forward")
    shown = types.ModuleType(inspect.__name__)
    vars(shown).update(vars(inspect), signature=_signature)
    library.inspect = shown


def _which_names_cache(wrapper: type, method: str) -> Callable[..., Any]:
    """The method. Raises LibraryMismatchError if its code does not use the old name."""
    import peft

    function: Callable[..., Any] | None = vars(wrapper).get(method)
    if function is None or _OLD not in function.__code__.co_consts:
        raise LibraryMismatchError(
            f"peft {peft.__version__}: {wrapper.__name__}.{method} has no {_OLD!r}, for which this package patches it "
            f"to fit the installed transformers; {REMEDY}"
        )
    return function


def _prepare(method: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``method`` of peft, wrapped to see the cache under its old name and to return it under its new name."""

    @functools.wraps(method)
    def prepare(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        prepare_base = self.base_model_prepare_inputs_for_generation

        def with_old_name(*base_args: Any, **base_kwargs: Any) -> dict[str, Any]:
            return _renamed(prepare_base(*base_args, **base_kwargs), _NEW, _OLD)

        self.base_model_prepare_inputs_for_generation = with_old_name
        try:
            return _renamed(method(self, *args, **kwargs), _OLD, _NEW)
        finally:
            self.base_model_prepare_inputs_for_generation = prepare_base

    return prepare


def _renamed(inputs: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    if old in inputs:
        inputs[new] = inputs.pop(old)
    return inputs


def _signature(function: Callable[..., Any], **options: Any) -> inspect.Signature:
    """Signature of ``function``, with the old name of the cache added to the new one."""
    signature = inspect.signature(function, **options)
    if _NEW not in signature.parameters or _OLD in signature.parameters:
        return signature
    parameters = list(signature.parameters.values())
    old = inspect.Parameter(_OLD, inspect.Parameter.KEYWORD_ONLY)
    at = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    return signature.replace(parameters=[*parameters[:at], old, *parameters[at:]])
