"""Which architectures the installed transformers has for a task."""

from __future__ import annotations

from bench import libraries
from bench.errors import SpecError
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

CAUSAL, SEQ2SEQ, MASKED = "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM"
LABELS, IMAGES = "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION"
VISION_TEXT, VQA = "IMAGE_TEXT_TO_TEXT", "VISUAL_QUESTION_ANSWERING"
# Inputs and output of a task -> the library's lists of classes (``MODEL_FOR_..._MAPPING_NAMES``); the first list with
# the architecture decides.
_KINDS: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {
    (("text",), "label"): (LABELS,),
    (("image",), "label"): (IMAGES,),
    (("text",), "text"): (SEQ2SEQ, CAUSAL),
    (("image", "text"), "text"): (VQA, VISION_TEXT),
    (("image",), "text"): (VISION_TEXT,),
}
# peft's wrapper of a whole model: none for images, and none for images in texts, whose positions its prompts hide.
_TASK_TYPES = {LABELS: "SEQ_CLS", CAUSAL: "CAUSAL_LM", SEQ2SEQ: "SEQ_2_SEQ_LM"}


def kinds(task: TaskFacts) -> tuple[str, ...]:
    """Lists of classes for a task. Raises SpecError if the library has none."""
    inputs = tuple(sorted(task.inputs))
    if (inputs, task.output) not in _KINDS:
        able = "; ".join(f"{' and '.join(given)} -> {output}" for given, output in _KINDS)
        raise SpecError(
            f"family 'hf' has no kind of model for task {task.name!r}, {' and '.join(inputs)} -> {task.output}; "
            f"it does {able}"
        )
    return _KINDS[inputs, task.output]


def kind(model_type: str, task: TaskFacts, encoder_decoder: bool | None = None) -> str:
    """The list with the architecture; ``encoder_decoder``: the configuration's, if set.

    Raises SpecError, with near names, for an architecture that is unknown or in no list.
    """
    wanted = kinds(task)
    known = model_types()
    if known and model_type not in known:
        raise SpecError(
            f"model_type {model_type!r} is unknown to the installed transformers{did_you_mean(model_type, known)}; "
            "models that bring their own code (trust_remote_code) are not supported"
        )
    able = {name: set(classes(name)) for name in wanted}
    if VQA in able:  # the rest of its list is built as image-text-to-text; ViLT chooses among fixed answers
        able[VQA] = {key for key, own in classes(VQA).items() if own.endswith("QuestionAnswering") and key != "vilt"}
    fitting = [name for name in wanted if model_type in able[name]]
    if not fitting and all(able.values()):
        hint = did_you_mean(model_type, sorted(set().union(*able.values())))
        raise SpecError(
            f"transformers has no class of {model_type!r} for task {task.name!r}{hint}; choose another model or task"
        )
    if encoder_decoder is False and CAUSAL in fitting:
        return CAUSAL
    return fitting[0] if fitting else wanted[-1]


def decoder_only(kind: str, model_type: str, encoder_decoder: bool) -> bool:
    """Whether a model has no encoder, and so reads a text from left to right only."""
    if kind != LABELS:
        return kind == CAUSAL
    return model_type in classes(CAUSAL) and model_type not in classes(MASKED) and not encoder_decoder


def task_type(kind: str, model_type: str = "") -> str | None:
    """peft's task type of a whole model from this list; null if its prompts do not fit."""
    # T5, BART and their kin take no virtual tokens when they choose a label.
    return None if kind == LABELS and model_type in classes(SEQ2SEQ) else _TASK_TYPES.get(kind)


def classes(name: str) -> dict[str, str]:
    """Model type -> class in the list ``MODEL_FOR_<name>_MAPPING_NAMES``; an empty name for several classes."""
    of_list: dict[str, str] = libraries.facts()["transformers"]["classes"].get(name, {})
    return of_list


def model_types() -> tuple[str, ...]:
    """All model types, sorted."""
    return tuple(libraries.facts()["transformers"]["model_types"])
