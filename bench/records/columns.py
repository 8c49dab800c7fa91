"""Columns of records as a table: their fields flattened, named by their dotted keys, with type, unit and meaning."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bench.records.record import CellRecord

Kind = Literal["text", "integer", "number", "boolean", "json", "any"]
"""``json``: a list as JSON text; ``any``: the type of the values, or JSON text if they differ."""
_KINDS: dict[type, Kind] = {str: "text", bool: "boolean", int: "integer", float: "number"}
KEYS = {
    "labels": "axis",
    "parts": "part",
    "params.by_part": "part",
    "estimate.params.by_part": "part",
    "estimate.memory.train.by_kind": "kind",
    "estimate.memory.eval.by_kind": "kind",
    "estimate.assumed": "name",
    "texts_cut": "texts",
    "scores": "metric",
    "baselines": "baseline",
    "baselines.<baseline>": "metric",
}
"""Mapping -> what its keys are; its columns depend on the records."""
LEFT_OUT = ("accuracy",)
"""Its numbers are in ``scores`` and ``baselines``, also for records that have only this."""
UNITS = (
    (r"samples_per_s$", "samples/s"),
    (r"_bytes$|\.by_kind\.", "bytes"),
    (r"_s$", "s"),
    (r"_j$", "J"),
    (r"\bpct$", "%"),
    (r"\bparams\.", "parameters"),
    (r"\bflops\.", "FLOPs"),
    (r"^(scores|baselines)\..*\.(correct|n)$", "examples"),
    (r"^(scores|baselines)\..*\.value$", "as defined: 1 is perfect"),
    (r"^overlap\.(same|n)$", "examples"),
    (r"^texts_cut\.", "texts"),
    (r"^steps$|_steps$", "steps"),
    (r"\.max_batch$", "examples"),
)
"""Pattern of a column's name -> unit."""
ENVIRONMENT: dict[str, tuple[Kind, str]] = {
    "device": ("text", "`cpu` or the name of the GPU the cell ran on"),
    "versions.<package>": ("text", "Version of a package the result may depend on, and of Python"),
    "tested_versions.python": ("json", "Versions of Python that the program was tested with"),
    "tested_versions.oldest.<package>": ("text", "Oldest version of a package that the program was tested with"),
    "tested_versions.newest.<package>": ("text", "Newest version of a package that the program was tested with"),
    "tested_versions.below.<package>": ("text", "First version of a package that the program refuses"),
    "os": ("text", "Operating system"),
    "cpu": ("text", "Model of the CPU"),
    "cores": ("integer", "CPU cores the process could use"),
    "ram_bytes": ("integer", "Main memory of the machine"),
    "gpus": ("json", "Visible GPUs: name and memory"),
    "gpu_driver": ("text", "Version of the NVIDIA driver; null without one"),
    "git.commit": ("text", "Commit of the program; null outside a checkout"),
    "git.dirty": ("boolean", "Whether tracked files differed from it"),
    "pytorch_alloc_conf": ("text", "Settings of PyTorch's allocator, from the environment"),
    "cuda_visible_devices": ("text", "The variable as it was set"),
    "cublas_workspace_config": ("text", "The variable as it was set; it fixes the memory that cuBLAS works in"),
    "cublaslt_workspace_size": ("text", "The variable as it was set, KiB"),
    "torch_cublas_workspace_cache": ("text", "The variable as it was set: whether cuBLAS keeps its memory"),
    "nvidia_tf32_override": ("text", "The variable as it was set; 0 forbids TF32"),
    "tf32_matmul": ("boolean", "Whether matrix products of fp32 were computed in TF32; null on a CPU"),
    "tf32_cudnn": ("boolean", "Whether cuDNN computed fp32 in TF32; null on a CPU"),
    "cudnn_benchmark": ("boolean", "Whether cuDNN tried out its algorithms; null on a CPU"),
    "not_measured": ("json", "Measurement of the GPU that is null -> the reason; null on a CPU"),
    "cuda": ("text", "Version of CUDA that PyTorch was built with; null on a CPU"),
    "torch_threads": ("integer", "CPU threads of PyTorch"),
}
"""Key of ``environment`` -> kind and meaning."""
SETTINGS = (
    "A setting of the cell under its dotted place in the spec, such as `settings.train.optimizer.lr`; "
    "`specs/spec.schema.json` describes each. One that is null in all records has no column"
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or with ``<key>`` in its name as many as there are keys."""

    name: str
    kind: Kind
    unit: str
    """Empty for a column without."""
    about: tuple[str, ...]
    """Sentences about the fields that hold it, outermost first, then its own."""

    @property
    def meaning(self) -> str:
        return " ".join(self.about)

    @property
    def group(self) -> str:
        """The record's top-level field."""
        return self.name.partition(".")[0]

    @property
    def fixed(self) -> bool:
        """Whether its name does not depend on the records."""
        return "<" not in self.name


STALE = Column(
    "stale",
    "text",
    "",
    (
        "Why the record is not that of the cell as it is now, such as `data changed`; null if it is, or if records "
        "were exported without their spec.",
    ),
)
"""The only column that is no field of the record."""


@cache
def columns() -> tuple[Column, ...]:
    """All columns in the order of a table."""
    return (*_of_model(CellRecord, "", ()), STALE)


@cache
def describe(name: str) -> Column:
    """The column, or pattern of columns, that a name belongs to. Raises KeyError if there is none."""
    for column in columns():
        pattern = ".+".join(re.escape(piece) for piece in re.split(r"<\w+>", column.name))
        if re.fullmatch(pattern, name):
            return column
    raise KeyError(name)


def _of_model(model: type[BaseModel], prefix: str, about: tuple[str, ...]) -> Iterator[Column]:
    for field, info in model.model_fields.items():
        name = f"{prefix}{info.serialization_alias or field}"
        if name == "settings":
            yield Column("settings.<place>", "any", "", (_sentence(SETTINGS),))
        elif name == "environment":
            about_it = _sentence(info.description)
            for key, (kind, meaning) in ENVIRONMENT.items():
                yield Column(f"{name}.{key}", kind, _unit(f"{name}.{key}"), (about_it, _sentence(meaning)))
            yield Column(f"{name}.<place>", "any", "", (about_it, "Anything else that the worker noted."))
        elif name not in LEFT_OUT:
            yield from _of_type(info.annotation, name, (*about, _sentence(info.description)))


def _of_type(annotation: Any, name: str, about: tuple[str, ...]) -> Iterator[Column]:
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is dict:
        yield from _of_type(get_args(annotation)[1], f"{name}.<{KEYS[name]}>", about)
    elif get_origin(annotation) is list:
        yield Column(name, "json", _unit(name), about)
    elif annotation is Any:
        yield Column(name, "any", _unit(name), about)
    elif issubclass(annotation, BaseModel):
        yield from _of_model(annotation, f"{name}.", about)
    else:
        kind = next(kind for known, kind in _KINDS.items() if issubclass(annotation, known))
        yield Column(name, kind, _unit(name), about)


def _unit(name: str) -> str:
    return next((unit for pattern, unit in UNITS if re.search(pattern, name)), "")


def _sentence(text: str | None) -> str:
    """On one line, ended by a full stop."""
    plain = " ".join((text or "").replace("``", "`").split())
    return plain if plain.endswith(".") else f"{plain}."
