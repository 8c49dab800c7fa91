"""Columns of the records table: record fields flattened to dotted names, each with type, unit and meaning."""

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
"""Mapping in a record -> what its keys are. Which columns it has depends on the records."""
LEFT_OUT = ("accuracy",)
"""Fields without columns: ``scores`` and ``baselines`` hold the same numbers, also if a record has this field alone."""
UNITS = (
    (r"samples_per_s$", "samples/s"),
    (r"_bytes$|\.by_kind\.", "bytes"),
    (r"_s$", "s"),
    (r"_j$", "J"),
    (r"\bpct$", "%"),
    (r"\bparams\.", "parameters"),
    (r"\bflops\.", "FLOPs"),
    (r"^(scores|baselines)\..*\.(correct|n)$", "examples"),
    (r"^(scores|baselines)\..*\.value$", "task's scale; 1 is perfect"),
    (r"^overlap\.(same|n)$", "examples"),
    (r"^texts_cut\.", "texts"),
    (r"^steps$|_steps$", "steps"),
    (r"\.max_batch$", "examples"),
)
"""Pattern of a column's name -> unit."""
ENVIRONMENT: dict[str, tuple[Kind, str]] = {
    "device": ("text", "`cpu` or the name of the GPU the cell ran on"),
    "versions.<package>": ("text", "Version of Python or of a package that may affect the result"),
    "tested_versions.python": ("json", "Python versions that the program was tested with"),
    "tested_versions.oldest.<package>": ("text", "Oldest tested version of the package"),
    "tested_versions.newest.<package>": ("text", "Newest tested version of the package"),
    "tested_versions.below.<package>": ("text", "First version of the package that the program refuses"),
    "os": ("text", "Operating system"),
    "cpu": ("text", "Model of the CPU"),
    "cores": ("integer", "CPU cores available to the process"),
    "ram_bytes": ("integer", "Main memory of the machine"),
    "gpus": ("json", "Visible GPUs: name and memory"),
    "gpu_driver": ("text", "Version of the NVIDIA driver; null without one"),
    "git.commit": ("text", "Commit of the program; null outside a checkout"),
    "git.dirty": ("boolean", "Whether tracked files differed from the commit"),
    "pytorch_alloc_conf": ("text", "Settings of PyTorch's allocator from the environment variable"),
    "cuda_visible_devices": ("text", "Value of the environment variable"),
    "cublas_workspace_config": ("text", "Value of the environment variable; sets the size of cuBLAS's workspaces"),
    "cublaslt_workspace_size": ("text", "Value of the environment variable, KiB"),
    "torch_cublas_workspace_cache": ("text", "Value of the environment variable: whether cuBLAS keeps its workspaces"),
    "nvidia_tf32_override": ("text", "Value of the environment variable; 0 disables TF32"),
    "tf32_matmul": ("boolean", "Whether fp32 matrix products used TF32; null on a CPU"),
    "tf32_cudnn": ("boolean", "Whether fp32 operations of cuDNN used TF32; null on a CPU"),
    "cudnn_benchmark": ("boolean", "Whether cuDNN benchmarked its algorithms; null on a CPU"),
    "not_measured": ("json", "GPU measurement that is null -> reason; null on a CPU"),
    "cuda": ("text", "CUDA version of the PyTorch build; null on a CPU"),
    "torch_threads": ("integer", "CPU threads of PyTorch"),
}
"""Key of ``environment`` -> kind and meaning."""
SETTINGS = (
    "Setting of the cell by its dotted key in the spec, such as `settings.train.optimizer.lr`; "
    "`specs/spec.schema.json` describes each. A setting that is null in all records has no column"
)


@dataclass(frozen=True, slots=True)
class RecordColumn:
    """A column; a name with ``<key>`` stands for a column per key."""

    name: str
    kind: Kind
    unit: str
    """Empty if the column has none."""
    about: tuple[str, ...]
    """Descriptions of the enclosing fields, outermost first, and of the field itself."""

    @property
    def meaning(self) -> str:
        return " ".join(self.about)

    @property
    def group(self) -> str:
        """The record's top-level field."""
        return self.name.partition(".")[0]

    @property
    def fixed(self) -> bool:
        """Whether the name is the same for all records."""
        return "<" not in self.name


STALE = RecordColumn(
    "stale",
    "text",
    "",
    (
        "Why the record is out of date, such as `data changed`; null if it is up to date, or if records were exported "
        "without their spec.",
    ),
)
"""The only column that is not a field of the record."""


@cache
def columns() -> tuple[RecordColumn, ...]:
    """All columns in table order."""
    return (*_of_model(CellRecord, "", ()), STALE)


@cache
def describe(name: str) -> RecordColumn:
    """The column, or pattern of columns, of this name. Raises KeyError if there is none."""
    for column in columns():
        pattern = ".+".join(re.escape(piece) for piece in re.split(r"<\w+>", column.name))
        if re.fullmatch(pattern, name):
            return column
    raise KeyError(name)


def _of_model(model: type[BaseModel], prefix: str, about: tuple[str, ...]) -> Iterator[RecordColumn]:
    for field, info in model.model_fields.items():
        name = f"{prefix}{info.serialization_alias or field}"
        if name == "settings":
            yield RecordColumn("settings.<key>", "any", "", (_sentence(SETTINGS),))
        elif name == "environment":
            outer = _sentence(info.description)
            for key, (kind, meaning) in ENVIRONMENT.items():
                yield RecordColumn(f"{name}.{key}", kind, _unit(f"{name}.{key}"), (outer, _sentence(meaning)))
            yield RecordColumn(f"{name}.<key>", "any", "", (outer, "Any other key of the environment."))
        elif name not in LEFT_OUT:
            yield from _of_type(info.annotation, name, (*about, _sentence(info.description)))


def _of_type(annotation: Any, name: str, about: tuple[str, ...]) -> Iterator[RecordColumn]:
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (option for option in get_args(annotation) if option is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is dict:
        yield from _of_type(get_args(annotation)[1], f"{name}.<{KEYS[name]}>", about)
    elif get_origin(annotation) is list:
        yield RecordColumn(name, "json", _unit(name), about)
    elif annotation is Any:
        yield RecordColumn(name, "any", _unit(name), about)
    elif issubclass(annotation, BaseModel):
        yield from _of_model(annotation, f"{name}.", about)
    else:
        kind = next(kind for known, kind in _KINDS.items() if issubclass(annotation, known))
        yield RecordColumn(name, kind, _unit(name), about)


def _unit(name: str) -> str:
    return next((unit for pattern, unit in UNITS if re.search(pattern, name)), "")


def _sentence(text: str | None) -> str:
    """The text on one line, with a full stop."""
    plain = " ".join((text or "").replace("``", "`").split())
    return plain if plain.endswith(".") else f"{plain}."
