"""From settings to a transformers model with its weights: configuration, auto-class, strict loading, checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.environment import is_out_of_host_memory
from bench.errors import SpecError, WeightsError
from bench.models.common import labels
from bench.models.common.files import refuse_quantised_tensors
from bench.models.common.weights import check_kind, raise_misfit
from bench.models.hf import architectures, checks, files, tokens
from bench.models.hf.images import ImageClassifier, set_image_size
from bench.models.hf.model import Built, HfModel
from bench.models.hf.settings import Settings
from bench.models.hf.text import CausalLM, Seq2SeqLM, SequenceClassifier
from bench.models.hf.vision_language import BlipVqa, ImageTextToText
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

# Kind -> auto-class of the library, class of this family, check of what its task assumes.
_KINDS: dict[str, tuple[str, type[HfModel], Callable[[Any], None]]] = {
    architectures.LABELS: ("SequenceClassification", SequenceClassifier, checks.check_sequence_classifier),
    architectures.IMAGES: ("ImageClassification", ImageClassifier, checks.check_image_classifier),
    architectures.CAUSAL: ("CausalLM", CausalLM, checks.check_generative_model),
    architectures.SEQ2SEQ: ("Seq2SeqLM", Seq2SeqLM, checks.check_generative_model),
    architectures.VISION_TEXT: ("ImageTextToText", ImageTextToText, checks.check_generative_model),
    architectures.VQA: ("VisualQuestionAnswering", BlipVqa, checks.check_generative_model),
}
_LABEL_FIELDS = ("num_labels", "id2label", "label2id", "problem_type")
# Fields of a configuration file that its class may lack.
_OPTIONAL_FIELDS = frozenset(
    ("model_type", "architectures", "torch_dtype", "dtype", "_name_or_path", "auto_map", *_LABEL_FIELDS)
)
_LISTED = 5


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> HfModel:
    """Build a model and check it, except on meta. Raises SpecError, WeightsError."""
    meta = device == "meta"
    built = _build_module(settings, texts, task, meta=meta)
    if device not in ("meta", "cpu"):
        built.module.to(device)
    _, model_class, check = _KINDS[built.kind]
    model = model_class(built)
    if not meta:
        check(model)
    return model


def _build_module(settings: Settings, texts: Sequence[str], task: TaskFacts, *, meta: bool) -> Built:
    content = files.model_config(settings)
    assert content is not None
    untrained = settings.is_untrained
    config = make_config(content)
    kind = architectures.kind(config.model_type, task, config.is_encoder_decoder)
    tokenizer, has_vocabulary = tokens.load(settings, texts, meta=meta) if "text" in task.inputs else (None, True)
    if tokenizer is not None and (has_vocabulary or untrained):
        if settings.config is not None and "vocab_size" not in content and "text_config" not in content:
            config.get_text_config().vocab_size = len(tokenizer)
            if hasattr(config, "decoder_vocab_size") and "decoder_vocab_size" not in content:  # Marian's
                config.decoder_vocab_size = len(tokenizer)
        tokens.align_special_tokens(config, tokenizer, untrained=untrained)
    head = _set_labels(config, content, task, untrained=untrained) if task.output == "label" else None
    for field in ("is_decoder", "causal") if kind == architectures.CAUSAL else ():
        if hasattr(config, field):  # else BERT, XLM and their kin look ahead
            setattr(config, field, True)
    if hasattr(config, "rescale_every"):
        config.rescale_every = 0  # else RWKV halves its frozen layers in evaluation, but not the adapters on them
    if settings.image.size is not None and untrained:
        set_image_size(config, settings.image.size)
    folder = tokens.folder_of(settings, meta=meta)
    module, new = _make_module(settings, config, kind, with_weights=not (untrained or meta), meta=meta)
    if head is not None and not (untrained or meta):
        _check_head(head, new, config, task)
    in_order = head is None or head.order == tuple(range(config.num_labels))
    return Built(
        settings=settings,
        task=task,
        kind=kind,
        module=module,
        tokens=tokenizer,
        folder=folder,
        has_vocabulary=has_vocabulary,
        label_order=None if head is None or in_order else head.order,
    )


def make_config(content: dict[str, Any]) -> Any:
    """The library's configuration. Raises SpecError, with near names, for an unknown field or model type."""
    name = content["model_type"]
    mapping: Any = transformers.CONFIG_MAPPING
    if name not in mapping:
        raise SpecError(f"model_type {name!r} is unknown to transformers{did_you_mean(name, sorted(mapping))}")
    config_class = mapping[name]
    _check_fields(content, config_class, "model.config")
    try:
        config = config_class.from_dict({key: value for key, value in content.items() if key != "model_type"})
    except Exception as error:  # the library's own checks raise several kinds
        reason = " ".join(str(error).split())  # one line, as lists of cells show no more
        raise SpecError(f"model.config: {type(error).__name__}: {reason}; correct the field") from error
    try:
        config.get_text_config()
    except ValueError as error:
        raise SpecError(f"model_type {name!r} has several text models ({error}); choose one of them") from error
    config.architectures = config.architectures or []  # some auto-classes choose by them
    return config


def _check_fields(content: dict[str, Any], config_class: Any, location: str) -> None:
    """Raise SpecError for a field that neither the class nor its model's source mentions."""
    if "transformers_version" in content:  # written by the library, perhaps by another release
        return
    known = {*config_class().to_dict(), *config_class.attribute_map, *_OPTIONAL_FIELDS}
    modeling_files = Path(inspect.getfile(config_class)).parent.glob("modeling_*.py")
    source = "".join(path.read_text(encoding="utf-8") for path in modeling_files)
    for field in sorted(field for field in content.keys() - known if f'"{field}"' not in source):
        hint = did_you_mean(field, sorted(known))
        raise SpecError(f"{location}: {config_class.__name__} has no field {field!r}{hint}")
    for field, inner_class in getattr(config_class, "sub_configs", {}).items():
        inner = content.get(field)
        if isinstance(inner, dict) and inner_class.__name__ != "AutoConfig":
            _check_fields(
                {key: value for key, value in inner.items() if key != "model_type"},
                inner_class,
                f"{location}.{field}",
            )


def _set_labels(config: Any, content: dict[str, Any], task: TaskFacts, *, untrained: bool) -> labels.Match:
    """Name the head's rows as the weights do where they match the task's labels, else one row per label."""
    rows = _head_rows(content, config)
    match = labels.match(rows, task)
    if untrained and len(rows) != len(task.labels):
        match = labels.Match(order=None)  # none of its rows has learned anything
    names = task.labels if match.order is None else rows
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: row for row, name in enumerate(names)}
    return match


def _head_rows(content: dict[str, Any], config: Any) -> list[str]:
    """Names of the head's rows in a configuration. Raises SpecError if its two maps differ."""
    try:
        by_row = {int(row): str(name) for row, name in (content.get("id2label") or {}).items()}
        by_name = {str(name): int(row) for name, row in (content.get("label2id") or {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise SpecError("id2label and label2id of config.json must give each row of the head a name") from None
    inverted = {row: name for name, row in by_name.items()}
    named = [names for names in (by_row, inverted) if any(name != f"LABEL_{row}" for row, name in names.items())]
    for row, name in by_row.items() if len(named) == 2 else ():
        if by_name.get(name, row) != row:
            raise SpecError(
                f"config.json has {name!r} as row {row} of the head in id2label, and as row {by_name[name]} in "
                "label2id: correct the one that is wrong"
            )
    names = named[0] if named else {}
    if names and sorted(names) != list(range(len(names))):
        raise SpecError(f"config.json names the rows {sorted(names)} of the head: name all, from 0")
    return [names[row] for row in sorted(names)] or [f"LABEL_{row}" for row in range(config.num_labels)]


def _check_head(head: labels.Match, new: set[str], config: Any, task: TaskFacts) -> None:
    """Print the choice of head. Raises WeightsError if the weights' head has rows of other classes."""
    if any("pooler" not in name for name in new):
        print(f"head: new, with a row for each of the {len(task.labels)} classes, as the weights have none that fits")
    elif head.order is None:
        raise WeightsError(head.problem)
    else:
        pairs = list(zip(task.labels, head.order, strict=True))
        shown = ", ".join(f"{config.id2label[row]} = {label}" for label, row in pairs[:_LISTED])
        print(f"head: that of the weights (row = class: {shown}{', ...' if len(pairs) > _LISTED else ''})")


def _make_module(settings: Settings, config: Any, kind: str, *, with_weights: bool, meta: bool) -> tuple[Any, set[str]]:
    """The module, and the tensors of a head that the weights lack. Raises SpecError, WeightsError."""
    auto: Any = getattr(transformers, f"AutoModelFor{_KINDS[kind][0]}")
    options: dict[str, Any] = {"dtype": torch.float32}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    folder = files.model_folder(settings) if with_weights else None
    try:
        if folder is not None:
            return _load(auto, folder, config, options)
        with torch.device("meta" if meta else "cpu"):
            return auto.from_config(config, **options), set()
    except (ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise SpecError(f"transformers cannot build {config.model_type!r}: {type(error).__name__}: {reason}") from error


def _load(auto: Any, folder: Path, config: Any, options: dict[str, Any]) -> tuple[Any, set[str]]:
    """The module with its weights, and the tensors of a new head. Raises WeightsError for others that are missing."""
    paths = files.weights_in(folder)
    refuse_quantised_tensors(paths)
    for path in paths:
        check_kind(path)
    try:
        module, info = auto.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except ImportError:
        raise
    except Exception as error:  # what files that are no weights raise depends on their bytes
        if is_out_of_host_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0]
        names = ", ".join(str(path) for path in paths[:_LISTED])
        raise WeightsError(f"the weights in {names} cannot be loaded: {type(error).__name__}: {reason}") from error
    name = type(module).__name__
    if errors := [str(error) for error in info.get("error_msgs", ())]:
        raise WeightsError(f"{folder} does not fit {name}: {'; '.join(errors)}")
    missing, misshapen = set(info["missing_keys"]), {entry[0] for entry in info["mismatched_keys"]}
    required = {tensor for tensor in missing | misshapen if not is_new_head(tensor, module)}
    raise_misfit(folder, name, missing=missing & required, misshapen=misshapen & required)
    return module.train(False), misshapen | missing


def is_new_head(name: str, module: Any) -> bool:
    """Whether a tensor may start at random: of a head for labels, outside the base model, or of a pooler."""
    # A model that writes text needs all of its tensors.
    if not getattr(module, "num_labels", 0) or module.can_generate():
        return False
    prefix = module.base_model_prefix
    return "pooler" in name or (hasattr(module, prefix) and not name.startswith(f"{prefix}."))
