"""Which architectures the installed transformers has for a task, read from its sources: importing them takes seconds
and torch. A library whose sources read otherwise is asked when the model is built.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from bench.errors import SpecError
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

CAUSAL, SEQ2SEQ, MASKED = "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM"
LABELS, IMAGES, VISION_TEXT, VQA = (
    "SEQUENCE_CLASSIFICATION",
    "IMAGE_CLASSIFICATION",
    "IMAGE_TEXT_TO_TEXT",
    "VISUAL_QUESTION_ANSWERING",
)
_KINDS: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {
    (("text",), "label"): (LABELS,),
    (("image",), "label"): (IMAGES,),
    (("text",), "text"): (SEQ2SEQ, CAUSAL),
    (("image", "text"), "text"): (VQA, VISION_TEXT),
    (("image",), "text"): (VISION_TEXT,),
}
"""Inputs and output of a task -> the library's lists of classes for it, as ``MODEL_FOR_..._MAPPING_NAMES`` is named;
the first that has the architecture decides."""
_NO_TEXT = frozenset(("vilt",))
"""Chooses among fixed answers, whatever the list is called."""
_TASK_TYPES = {LABELS: "SEQ_CLS", CAUSAL: "CAUSAL_LM", SEQ2SEQ: "SEQ_2_SEQ_LM"}
"""peft's wrapper of a whole model. It has none for images, and its prompts hide the places of an image in a text."""


def kinds(task: TaskFacts) -> tuple[str, ...]:
    """The lists of classes for a task. Raises SpecError if the library has none."""
    inputs = tuple(sorted(task.inputs))
    found = _KINDS.get((inputs, task.output))
    if found is None:
        able = "; ".join(f"{' and '.join(given)} -> {output}" for given, output in _KINDS)
        raise SpecError(
            f"family 'hf' has no kind of model for task {task.name!r}, {' and '.join(inputs)} -> {task.output}; "
            f"it does {able}"
        )
    return found


def kind(model_type: str, task: TaskFacts, encoder_decoder: bool | None = None) -> str:
    """The list that has the architecture; ``encoder_decoder``: what its configuration says of itself, if anything.

    Raises SpecError, with the nearest names, if none has it or it is unknown.
    """
    wanted = kinds(task)
    known = model_types()
    if known and model_type not in known:
        raise SpecError(
            f"model_type {model_type!r} is unknown to the installed transformers{did_you_mean(model_type, known)}; "
            "models that bring their own code (trust_remote_code) are not supported"
        )
    lists = {name: _able(name) for name in wanted}
    found = [name for name in wanted if model_type in lists[name]]
    if not found and all(lists.values()):
        able = tuple(sorted(set().union(*lists.values())))
        raise SpecError(
            f"transformers has no class of {model_type!r} for task {task.name!r}{did_you_mean(model_type, able)}; "
            "choose another model or task"
        )
    if encoder_decoder is False and CAUSAL in found:
        return CAUSAL
    return found[0] if found else wanted[-1]


def _able(name: str) -> set[str]:
    """The list, without what does not do what it says."""
    if name == VQA:  # the others of it are made as all that see and write
        return {key for key, own in classes(name).items() if own.endswith("QuestionAnswering") and key not in _NO_TEXT}
    return set(classes(name))


def decoder_only(kind: str, model_type: str, encoder_decoder: bool) -> bool:
    """Whether a text can only be read from left to right, by a model without an encoder."""
    if kind != LABELS:
        return kind == CAUSAL
    return model_type in classes(CAUSAL) and model_type not in classes(MASKED) and not encoder_decoder


def task_type(kind: str, model_type: str = "") -> str | None:
    """peft's name of the task of a whole model from this list; null if its prompts do not fit: the library's T5, BART
    and their kin take no virtual tokens when they choose a label."""
    return None if kind == LABELS and model_type in classes(SEQ2SEQ) else _TASK_TYPES.get(kind)


@cache
def classes(name: str) -> dict[str, str]:
    """Model type -> class of the list ``MODEL_FOR_<name>_MAPPING_NAMES``; empty if the library reads otherwise."""
    return _pairs("modeling_auto.py", f"MODEL_FOR_{name}_MAPPING_NAMES")


@cache
def model_types() -> tuple[str, ...]:
    """All model types, sorted; empty if the library reads otherwise."""
    files = ("auto_mappings.py", "configuration_auto.py")
    return tuple(sorted(set().union(*(_pairs(file, "CONFIG_MAPPING_NAMES") for file in files))))


def _pairs(file: str, name: str) -> dict[str, str]:
    """The pairs of texts in what is assigned to ``name``."""
    found: dict[str, str] = {}
    for line in _body(file):
        targets = line.targets if isinstance(line, ast.Assign) else []
        value = line.value if isinstance(line, ast.Assign) else None
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call):  # NAME.update({...})
            function = line.value.func
            targets, value = [function.value] if isinstance(function, ast.Attribute) else [], line.value
        if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
            nodes = list(ast.walk(value))
            own = {id(entry) for node in nodes for _, entry in _entries(node)}  # two classes of one type are no entry
            found |= {_text(k): _text(v) for node in nodes if id(node) not in own for k, v in _entries(node)}
    return {key: own for key, own in found.items() if key}


def _entries(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Tuple) and len(node.elts) == 2:
        return [(node.elts[0], node.elts[1])]
    if isinstance(node, ast.Dict):
        return [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
    return []


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@cache
def _body(file: str) -> list[ast.stmt]:
    found = importlib.util.find_spec("transformers")
    folders = (found.submodule_search_locations if found else None) or []
    path = Path(folders[0], "models", "auto", file) if folders else Path()
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
