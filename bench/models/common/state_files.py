"""Tensors of a checkpoint file, ``.safetensors`` or torch's own, read without running anything that the file names."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import WeightsError
from bench.files import BINARY, PICKLE, SAFETENSORS, ZIP, what_is

State = dict[str, torch.Tensor]
_NUMPY = (np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.int64)), np._core.multiarray.scalar)  # type: ignore[attr-defined]


_KINDS = {".safetensors": (SAFETENSORS,)}
"""Suffix -> what such a file may be; others hold what torch writes."""


class _Kept(list[Any]):
    """A sequence of a configuration; what ruamel keeps beside the values (comments, places) is dropped."""

    def __setstate__(self, state: Any) -> None:
        """Drop it."""


class _Dropped:
    """An object whose contents no tensor depends on: never built, nothing of it is run."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Dropped:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take no notice of the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Drop it."""


_RUAMEL: dict[str, tuple[Any, str]] = {
    "comments": (_Dropped, "Comment Format LineCol Anchor Tag TaggedScalar MergeValue CommentedKeyMap CommentedSet"),
    "tokens": (_Dropped, "CommentToken"),
    "error": (_Dropped, "StringMark FileMark CommentMark Mark"),
    "anchor": (_Dropped, "Anchor"),
    "tag": (_Dropped, "Tag"),
    "mergevalue": (_Dropped, "MergeValue"),
    "scalarfloat": (_Dropped, "ScalarFloat ExponentialFloat ExponentialCapsFloat"),
    "scalarint": (_Dropped, "ScalarInt BinaryInt OctalInt HexInt HexCapsInt DecimalInt"),
    "scalarbool": (_Dropped, "ScalarBoolean"),
    "scalarstring": (
        _Dropped,
        "ScalarString LiteralScalarString FoldedScalarString SingleQuotedScalarString DoubleQuotedScalarString "
        "PlainScalarString PreservedScalarString",
    ),
    "timestamp": (_Dropped, "TimeStamp"),
}
"""Module below ``ruamel.yaml`` -> what stands in for its classes: the configuration that training scripts keep beside
the tensors. The mappings and sequences are below."""
_CONTAINERS = [
    (Counter, "ruamel.yaml.comments.CommentedMap"),  # the one mapping with attributes that torch's unpickler fills
    (Counter, "ruamel.yaml.comments.CommentedOrderedMap"),
    (Counter, "ruamel.yaml.compat.ordereddict"),
    (_Kept, "ruamel.yaml.comments.CommentedSeq"),
    (_Kept, "ruamel.yaml.comments.CommentedKeySeq"),
]
PLAIN: list[Any] = [
    argparse.Namespace,
    *_NUMPY,
    *_CONTAINERS,
    *(
        (stand_in, f"ruamel.yaml.{module}.{name}")
        for module, (stand_in, names) in _RUAMEL.items()
        for name in names.split()
    ),
]
"""What training scripts keep beside the tensors: arguments and numbers of fairseq's log, ruamel's configurations."""


def read(path: Path, wrappers: Sequence[str] = ("model", "state_dict")) -> State:
    """The tensors of a file, taken out of those of the ``wrappers`` (keys) that it has. Raises WeightsError that names
    the file and what it is, or the class that the file would have had to build."""
    check_kind(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    content = _unpickled(path)
    for wrapper in wrappers:
        content = dict.get(content, wrapper, content) if isinstance(content, dict) else content
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in dict.values(content)):
        keys = " or ".join(map(repr, wrappers))
        held = f"a {type(content).__name__}" + (f" of {len(content)}" if isinstance(content, list | dict) else "")
        raise WeightsError(f"{path} holds {held}, no state_dict (names -> tensors), also not under {keys}")
    return dict(dict.items(content))


def check_kind(path: Path) -> None:
    """Raises WeightsError for a file that cannot be one of tensors: a text, a git-lfs pointer, a page, an archive."""
    kind, wanted = what_is(path), _KINDS.get(path.suffix, (ZIP, PICKLE, BINARY))
    if kind in wanted:
        return
    if kind == SAFETENSORS:
        raise WeightsError(f"{path} is {kind}: rename it to end in .safetensors")
    raise WeightsError(f"{path} is {kind}, no weights: get the file once more, or name another")


def _safetensors(path: Path) -> State:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # what a damaged header raises is up to its bytes
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a file that is no checkpoint raises is up to its bytes
        raise WeightsError(
            f"{path} cannot be loaded safely: {_reason(error)}. If you trust its source, load it once yourself and "
            "save only the tensors: torch.save({'model': checkpoint['model']}, 'clean.pth')"
        ) from error


def _reason(error: Exception) -> str:
    """What torch found, without its advice and its terminal codes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if found := re.search(r"(?:GLOBAL|Unsupported global:|load type|class) ([\w.]*\.[\w.]+)", text):
        return f"it names {found[1].rstrip('.')}, which is no plain data"
    if _Kept.__name__ in text:
        return f"it holds lists of ruamel.yaml, which PyTorch {torch.__version__} cannot fill; install a newer one"
    told = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    return (told[1] if told else text.splitlines()[0] if text else type(error).__name__).rstrip(". ")
