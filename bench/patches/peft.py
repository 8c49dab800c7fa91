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
    """peft's function of this name, once peft fits the other libraries and this machine.

    Raises BenchError where peft makes another adapter than the one that was asked for.
    """
    import peft

    patch_cache_name()
    patch_boft_extension()
    wrapper: Any = peft.get_peft_model(module, config)
    _check_butterflies(wrapper)
    _keep_hooks(wrapper.base_model)
    return wrapper  # type: ignore[no-any-return]


@functools.cache
def patch_boft_extension() -> None:
    """Keep BOFT (peft 0.21) from compiling CUDA kernels where there is no CUDA device to use them on.

    The compiler takes a minute, and a worker that is killed meanwhile leaves a lock behind for which every later one
    waits for ever. Raises LibraryMismatchError if there is nothing to patch.
    """
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


def _keep_hooks(tuner: Any) -> None:
    """Let a forward pass through adaption prompts (peft 0.21) run the hooks of the model that they are on.

    Their tuner takes over the model's ``forward`` itself, past the hook that numbers the positions of padded texts.
    """
    if "forward" in vars(tuner):
        tuner.forward = tuner.model.__call__


def _check_butterflies(wrapper: Any) -> None:
    """Raise BenchError if BOFT has fewer butterfly factors than its configuration says.

    Without its compiled kernels peft takes one factor, whatever was asked for, and says so in a warning alone.
    """
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
    """Let peft 0.21 find the cache of transformers 5.24 and newer, which call it ``cache``.

    peft looks for ``past_key_values``. Without the patch ``generate`` never sees a prefix (peft puts it beside the
    cache that is used), puts virtual tokens in front of every new token instead of the first, and a classifier with a
    prefix is refused. Forward passes are not affected, so such a cell trains well and answers as if untrained.
    Does nothing with an older transformers. Raises LibraryMismatchError if peft no longer looks for the old name.
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
    """The method. Raises LibraryMismatchError if its code does not speak of the old name."""
    import peft

    function: Callable[..., Any] | None = vars(wrapper).get(method)
    if function is None or _OLD not in function.__code__.co_consts:
        raise LibraryMismatchError(
            f"peft {peft.__version__}: {wrapper.__name__}.{method} has no {_OLD!r}, for which this package patches it "
            f"to fit the installed transformers; {REMEDY}"
        )
    return function


def _prepare(method: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The method of peft, which sees the cache under the old name and returns it under the new one."""

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
    """The signature, which also shows the old name of an argument that a function takes under both."""
    found = inspect.signature(function, **options)
    if _NEW not in found.parameters or _OLD in found.parameters:
        return found
    parameters = list(found.parameters.values())
    old = inspect.Parameter(_OLD, inspect.Parameter.KEYWORD_ONLY)
    at = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    return found.replace(parameters=[*parameters[:at], old, *parameters[at:]])
