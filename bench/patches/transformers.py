"""Patches of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache, __version__

from bench.errors import LibraryMismatchError
from bench.versions import REMEDY

CACHE_NAMES = ("cache", "past_key_values")
"""Argument names of the key-value cache: the first since transformers 5.24, the second before."""
_FINISHED = "_update_finished_beams"
_FINISHED_TAKES = {"topk_log_probs", "topk_running_sequences", "cur_len", "decoder_prompt_len", "length_penalty"}
"""Method in which beam search divides log-likelihoods by lengths, and the arguments that the patch needs."""


def cache_name(function: Callable[..., Any]) -> str:
    """Name of the cache argument of ``function``. Raises LibraryMismatchError if it has none."""
    arguments = inspect.signature(function).parameters
    for name in CACHE_NAMES:
        if name in arguments:
            return name
    raise LibraryMismatchError(
        f"transformers {__version__}: {function.__qualname__} takes neither {' nor '.join(CACHE_NAMES)}; {REMEDY}"
    )


def patch_blip_text(text_model: Any) -> None:
    """Fix two faults of a ``BlipTextModel`` (transformers 5.17 to 5.24) by hooks, which survive wrapping by peft.

    1. peft passes a prefix as a plain cache, to which cross-attention would append the keys of the image; an
       encoder-decoder cache keeps the prefix in self-attention.
    2. A cross-attention layer passes its mask under a name that the attention ignores: padded question tokens would be
       attended to, and an answer would depend on the other questions of its batch.
    """
    encoder, name = text_model.encoder, cache_name(type(text_model.encoder).forward)

    def split_cache(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if isinstance(kwargs.get(name), DynamicCache):
            kwargs = kwargs | {name: EncoderDecoderCache(kwargs[name], DynamicCache())}
        return args, kwargs

    encoder.register_forward_pre_hook(split_cache, with_kwargs=True)
    for layer in encoder.layer:
        attention = layer.crossattention.self
        _require(attention, "attention_mask", "encoder_attention_mask")
        attention.register_forward_pre_hook(_pass_mask, with_kwargs=True)


@contextmanager
def length_as_transformers_4(model: Any, eos: int) -> Iterator[None]:
    """Let beam search of ``model`` divide log-likelihoods by the lengths of transformers 4.

    transformers 4 counts prompt and generated tokens, without the ``eos`` of a finished hypothesis; transformers 5
    (5.17 to 5.24) counts generated tokens, ``eos`` included. With a prompt of one token they differ for unfinished
    hypotheses alone. Raises LibraryMismatchError if there is nothing to patch.
    """
    original = getattr(model, _FINISHED, None)
    if original is None or _FINISHED_TAKES - set(inspect.signature(original).parameters):
        raise LibraryMismatchError(
            f"transformers {__version__}: beam search has no {_FINISHED} for evaluate.length_denominator; {REMEDY}"
        )

    def finished(**given: Any) -> Any:
        length, prompt = given["cur_len"] + 1, given["decoder_prompt_len"]
        ended = given["topk_running_sequences"][:, :, length - 1] == eos
        length_4 = torch.where(ended, length - 1, length)
        factor = ((length - prompt) / length_4) ** given["length_penalty"]
        return original(**given | {"topk_log_probs": given["topk_log_probs"] * factor})

    setattr(model, _FINISHED, finished)
    try:
        yield
    finally:
        delattr(model, _FINISHED)


def _require(module: torch.nn.Module, *arguments: str) -> None:
    missing = set(arguments) - set(inspect.signature(type(module).forward).parameters)
    if missing:
        raise LibraryMismatchError(
            f"transformers {__version__}: {type(module).__name__} takes no {', '.join(sorted(missing))}; {REMEDY}"
        )


def _pass_mask(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    if kwargs.get("encoder_attention_mask") is None:
        kwargs["encoder_attention_mask"] = kwargs.get("attention_mask")
    return args, kwargs
