"""Weights of a checkpoint: read without running code, and loaded strictly.

A lenient load leaves layers random in silence: transformers 5 renamed modules of several models.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from bench.errors import WeightsError
from bench.files import BINARY, PICKLE, SAFETENSORS, ZIP, what_is

State = dict[str, torch.Tensor]
_LISTED = 10


class _Sequence(list[Any]):
    """Stand-in for a sequence of ruamel.yaml, without its comments and positions."""

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


class _Dropped:
    """Stand-in for an object that no tensor depends on; runs none of its code."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Dropped:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""


# Stand-in -> classes of ruamel.yaml, in whose objects MISS's training scripts keep their configuration beside the
# tensors. Counter is the only mapping with attributes that torch's unpickler fills.
_RUAMEL: dict[Any, str] = {
    Counter: "comments.CommentedMap comments.CommentedOrderedMap compat.ordereddict",
    _Sequence: "comments.CommentedSeq comments.CommentedKeySeq",
    _Dropped: (
        "comments.Comment comments.Format comments.LineCol comments.Anchor comments.Tag comments.TaggedScalar "
        "comments.MergeValue comments.CommentedKeyMap comments.CommentedSet tokens.CommentToken error.StringMark "
        "error.FileMark error.CommentMark error.Mark anchor.Anchor tag.Tag mergevalue.MergeValue "
        "scalarfloat.ScalarFloat scalarfloat.ExponentialFloat scalarfloat.ExponentialCapsFloat scalarint.ScalarInt "
        "scalarint.BinaryInt scalarint.OctalInt scalarint.HexInt scalarint.HexCapsInt scalarint.DecimalInt "
        "scalarbool.ScalarBoolean scalarstring.ScalarString scalarstring.LiteralScalarString "
        "scalarstring.FoldedScalarString scalarstring.SingleQuotedScalarString scalarstring.DoubleQuotedScalarString "
        "scalarstring.PlainScalarString scalarstring.PreservedScalarString timestamp.TimeStamp"
    ),
}
_SAFE: list[Any] = [
    argparse.Namespace,  # fairseq's arguments, and the NumPy numbers of its log
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *((stand_in, f"ruamel.yaml.{name}") for stand_in, names in _RUAMEL.items() for name in names.split()),
]


def read(path: Path, wrappers: Sequence[str] = ("model", "state_dict")) -> State:
    """Tensors of a ``.safetensors`` or torch file, out of those of the keys ``wrappers`` that it has.

    Raises WeightsError with the kind of file, or with the class that the file would have to build.
    """
    check_kind(path)
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except Exception as error:  # what a damaged header raises depends on its bytes
            raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    content = _unpickle(path)
    for wrapper in wrappers:  # dict.get, as the file may set any attribute of its mapping, ``get`` among them
        content = dict.get(content, wrapper, content) if isinstance(content, dict) else content
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in dict.values(content)):
        keys = f", also not under {' or '.join(map(repr, wrappers))}" if wrappers else ""
        held = f"a {type(content).__name__}" + (f" of {len(content)}" if isinstance(content, list | dict) else "")
        raise WeightsError(f"{path} holds {held}, no state_dict (names -> tensors){keys}")
    return dict(dict.items(content))


def check_kind(path: Path) -> None:
    """Raise WeightsError for a file without tensors: a text, a git-lfs pointer, an HTML page, an archive."""
    kind = what_is(path)
    if kind in ((SAFETENSORS,) if path.suffix == ".safetensors" else (ZIP, PICKLE, BINARY)):
        return
    if kind == SAFETENSORS:
        raise WeightsError(f"{path} is {kind}: rename it to end in .safetensors")
    raise WeightsError(f"{path} is {kind}, no weights: get the file once more, or name another")


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a file that is no checkpoint raises depends on its bytes
        raise WeightsError(
            f"{path} cannot be loaded safely: {_reason(error)}. If you trust its source, load it once yourself and "
            "save only the tensors: torch.save({'model': checkpoint['model']}, 'clean.pth')"
        ) from error


def _reason(error: Exception) -> str:
    """Torch's reason, without its advice and terminal codes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if match := re.search(r"(?:GLOBAL|Unsupported global:|load type|class) ([\w.]*\.[\w.]+)", text):
        return f"it names {match[1].rstrip('.')}, which is no plain data"
    if _Sequence.__name__ in text:
        return f"it holds lists of ruamel.yaml, which PyTorch {torch.__version__} cannot fill; install a newer one"
    match = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    return (match[1] if match else text.splitlines()[0] if text else type(error).__name__).rstrip(". ")


def merge_tied(state: State, tied: Mapping[str, str], source: object) -> State:
    """``state`` without aliases of tied tensors (``tied``: alias -> name). Raises WeightsError if two copies differ."""
    merged = dict(state)
    for alias, name in tied.items():
        copy = merged.pop(alias, None)
        if copy is not None and not torch.equal(merged.setdefault(name, copy), copy):
            raise WeightsError(f"{source}: {alias} and {name} are one tensor in this model, but differ in the file")
    return merged


def load_strict(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: object, remedy: str
) -> None:
    """Copy ``state`` into a model's tensors ``expected``, name by name.

    Raises WeightsError, ending in ``remedy``, with tensors that are missing, unexpected or of another shape.
    """
    misshapen = (name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape)
    raise_misfit(
        source,
        "the model",
        remedy,
        missing=expected.keys() - state.keys(),
        unexpected=state.keys() - expected.keys(),
        misshapen=[f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}" for name in misshapen],
    )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(state[name])


def raise_misfit(
    source: object,
    model: str,
    remedy: str = "",
    *,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    misshapen: Iterable[str] = (),
) -> None:
    """Raise WeightsError with the first tensors that do not fit a model, if there are any."""
    groups = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(misshapen)}
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_LISTED])}"
        + (f", and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        for what, names in groups.items()
        if names
    ]
    if problems:
        raise WeightsError(f"{source} does not fit {model}: {'; '.join(problems)}" + (f". {remedy}" if remedy else ""))
