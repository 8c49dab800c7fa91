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
"""What functions call the keys and values of earlier tokens: the first since transformers 5.24."""
_FINISHED = "_update_finished_beams"
_FINISHED_TAKES = {"topk_log_probs", "topk_running_sequences", "cur_len", "decoder_prompt_len", "length_penalty"}
"""Where beam search divides likelihoods by lengths, and what of its arguments is needed."""


def cache_name(function: Callable[..., Any]) -> str:
    """Name of the argument in which ``function`` takes its cache. Raises LibraryMismatchError if it takes none."""
    arguments = inspect.signature(function).parameters
    for name in CACHE_NAMES:
        if name in arguments:
            return name
    raise LibraryMismatchError(
        f"transformers {__version__}: {function.__qualname__} takes neither {' nor '.join(CACHE_NAMES)}; {REMEDY}"
    )


def patch_blip_text(text_model: Any) -> None:
    """Mend two faults of a ``BlipTextModel`` (transformers 5.17 to 5.24) by hooks, which survive the wrapping by peft.

    1. peft passes a prefix as a plain cache, and cross-attention would append the image's keys to that same cache:
       with an encoder-decoder cache, the prefix stays with self-attention.
    2. A cross-attention layer passes its mask under a name that the attention itself ignores, so padded question tokens
       would be attended to and an answer would depend on the other questions of its batch.
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
    """Beam search of ``model`` within the context divides likelihoods by the lengths that transformers 4 took.

    There a finished hypothesis has its prompt and its tokens without the end (``eos``), an unfinished one all its
    tokens, prompt included; transformers 5 (5.17 to 5.24) takes the generated tokens alone, the end included. With a
    prompt of one token they differ in the unfinished ones only. Raises LibraryMismatchError if there is no such place.
    """
    original = getattr(model, _FINISHED, None)
    if original is None or _FINISHED_TAKES - set(inspect.signature(original).parameters):
        raise LibraryMismatchError(
            f"transformers {__version__}: beam search has no {_FINISHED} for evaluate.length_denominator; {REMEDY}"
        )

    def finished(**given: Any) -> Any:
        length, prompt = given["cur_len"] + 1, given["decoder_prompt_len"]
        ended = given["topk_running_sequences"][:, :, length - 1] == eos
        theirs = torch.where(ended, length - 1, length)
        factor = ((length - prompt) / theirs) ** given["length_penalty"]
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
