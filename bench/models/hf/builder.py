"""From settings to a transformers model with its weights: configuration, auto-class, strict loading."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.environment import is_out_of_host_memory
from bench.errors import BenchError, SpecError, WeightsError
from bench.models.common import labels, weights
from bench.models.common.files import refuse_quantised_tensors
from bench.models.hf import architectures, images
from bench.models.hf import files as _hf_source
from bench.models.hf import tokens as _hf_tokens
from bench.models.hf.tokens import Tokens
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from bench.models.hf import Settings

_AUTO = {
    architectures.LABELS: "AutoModelForSequenceClassification",
    architectures.IMAGES: "AutoModelForImageClassification",
    architectures.CAUSAL: "AutoModelForCausalLM",
    architectures.SEQ2SEQ: "AutoModelForSeq2SeqLM",
    architectures.VISION_TEXT: "AutoModelForImageTextToText",
    architectures.VQA: "AutoModelForVisualQuestionAnswering",
}
_LABEL_FIELDS = ("num_labels", "id2label", "label2id", "problem_type")
_ALWAYS = frozenset(
    ("model_type", "architectures", "torch_dtype", "dtype", "_name_or_path", "auto_map", *_LABEL_FIELDS)
)
"""Fields of a configuration file that its class need not have."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A model and what came with it."""

    settings: Settings
    task: TaskFacts
    kind: str
    """The library's list of classes that it is from."""
    module: Any
    tokens: Tokens | None
    """Null for a task without text."""
    folder: Path | None
    """Of weights or tokenizer, as far as it is here: where a processor would lie."""
    has_vocabulary: bool
    label_order: tuple[int, ...] | None
    """Rows of the head in the order of the task's labels, where the weights have the same names in another order."""

    @property
    def decoder_only(self) -> bool:
        """Whether a text can only be read from left to right, by a model without an encoder."""
        config = self.module.config
        return architectures.decoder_only(self.kind, config.model_type, config.is_encoder_decoder)


def build(settings: Settings, texts: Sequence[str], task: TaskFacts, *, meta: bool) -> Built:
    """On the CPU, or on meta. Raises SpecError, WeightsError."""
    content = _hf_source.config(settings)
    assert content is not None
    fresh = settings.config is not None or settings.random_weights
    config = make_config(content)
    kind = architectures.kind(config.model_type, task, config.is_encoder_decoder)
    tokens, known = _hf_tokens.load(settings, texts, meta=meta) if "text" in task.inputs else (None, True)
    if tokens is not None and (known or fresh):
        if settings.config is not None and "vocab_size" not in content and "text_config" not in content:
            config.get_text_config().vocab_size = len(tokens)
            if hasattr(config, "decoder_vocab_size") and "decoder_vocab_size" not in content:  # Marian's
                config.decoder_vocab_size = len(tokens)
        _hf_tokens.settle(config, tokens, fresh=fresh)
    head = _set_labels(config, content, task, fresh=fresh) if task.output == "label" else None
    if kind == architectures.CAUSAL:
        _look_back(config)
    if hasattr(config, "rescale_every"):
        config.rescale_every = 0  # RWKV would halve its frozen layers in evaluation, yet not the adapters on them
    if settings.image.size is not None and fresh:
        images.set_edge(config, settings.image.size)
    folder = _hf_tokens.folder_of(settings, meta=meta)
    module, new = _module(
        settings, config, kind, folder=None if fresh or meta else folder_of_weights(settings), meta=meta
    )
    if head is not None and not (fresh or meta):
        _check_head(head, new, config, task)
    return Built(
        settings=settings,
        task=task,
        kind=kind,
        module=module,
        tokens=tokens,
        folder=folder,
        has_vocabulary=known,
        label_order=None if head is None or head.order == tuple(range(config.num_labels)) else head.order,
    )


def _look_back(config: Any) -> None:
    """BERT, XLM and their kin would look ahead."""
    for field in ("is_decoder", "causal"):
        if hasattr(config, field):
            setattr(config, field, True)


def folder_of_weights(settings: Settings) -> Path:
    """Raises WeightsError if they are not there."""
    folder = _hf_source.folder(settings)
    assert folder is not None, "random weights have no folder"
    refuse_quantised_tensors(_hf_source.weights_in(folder))
    return folder


def make_config(content: dict[str, Any]) -> Any:
    """The library's configuration. Raises SpecError, with the nearest names, for a field or a type it does not know."""
    from transformers import CONFIG_MAPPING

    name = content["model_type"]
    if name not in CONFIG_MAPPING:
        raise SpecError(f"model_type {name!r} is unknown to transformers{did_you_mean(name, sorted(CONFIG_MAPPING))}")
    config_class = CONFIG_MAPPING[name]
    _check_fields(content, config_class, "model.config")
    try:
        config = config_class.from_dict({key: value for key, value in content.items() if key != "model_type"})
    except Exception as error:  # the library's own checks raise several kinds
        told = " ".join(str(error).split())  # in one line, as lists of cells show no other
        raise SpecError(f"model.config: {type(error).__name__}: {told}; correct the field") from error
    try:
        config.get_text_config()
    except ValueError as error:
        raise SpecError(f"model_type {name!r} has several text models ({error}); choose one of them") from error
    config.architectures = config.architectures or []  # some auto-classes choose by them
    return config


def _check_fields(content: dict[str, Any], config_class: Any, place: str) -> None:
    """Every field must be one of the class, or one that its model asks for. A file that the library wrote is not
    checked: it has fields that other releases lack."""
    if "transformers_version" in content:
        return
    known = {*config_class().to_dict(), *config_class.attribute_map, *_ALWAYS}
    models = Path(inspect.getfile(config_class)).parent.glob("modeling_*.py")
    asked = "".join(path.read_text(encoding="utf-8") for path in models)
    for field in sorted(field for field in content.keys() - known if f'"{field}"' not in asked):
        raise SpecError(f"{place}: {config_class.__name__} has no field {field!r}{did_you_mean(field, sorted(known))}")
    for field, own in getattr(config_class, "sub_configs", {}).items():
        inner = content.get(field)
        if isinstance(inner, dict) and own.__name__ != "AutoConfig":
            _check_fields({k: v for k, v in inner.items() if k != "model_type"}, own, f"{place}.{field}")


def _set_labels(config: Any, content: dict[str, Any], task: TaskFacts, *, fresh: bool) -> labels.Match:
    """Give the head the rows of the weights if these are the task's labels by name, else a row per label."""
    rows = _head_rows(content, config)
    found = labels.match(rows, task)
    if fresh and len(rows) != len(task.labels):
        found = labels.Match(order=None)  # none of its rows has learned anything
    names = task.labels if found.order is None else rows
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: row for row, name in enumerate(names)}
    return found


def _head_rows(content: dict[str, Any], config: Any) -> list[str]:
    """What a configuration calls the rows of its head. Raises SpecError if it says two things."""
    try:
        by_row = {int(row): str(name) for row, name in (content.get("id2label") or {}).items()}
        by_name = {str(name): int(row) for name, row in (content.get("label2id") or {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise SpecError("id2label and label2id of config.json must give each row of the head a name") from None
    turned = {row: name for name, row in by_name.items()}
    named = [own for own in (by_row, turned) if any(name != f"LABEL_{row}" for row, name in own.items())]
    for row, name in by_row.items() if len(named) == 2 else ():
        if by_name.get(name, row) != row:
            raise SpecError(
                f"config.json has {name!r} as row {row} of the head in id2label, and as row {by_name[name]} in "
                "label2id: correct the one that is wrong"
            )
    rows_of = named[0] if named else {}
    if rows_of and sorted(rows_of) != list(range(len(rows_of))):
        raise SpecError(f"config.json names the rows {sorted(rows_of)} of the head: name all, from 0")
    return [rows_of[row] for row in sorted(rows_of)] or [f"LABEL_{row}" for row in range(config.num_labels)]


def _check_head(head: labels.Match, new: set[str], config: Any, task: TaskFacts) -> None:
    """Say which head is used. Raises WeightsError if the weights bring one whose rows are other classes."""
    if any("pooler" not in name for name in new):
        print(f"head: new, with a row for each of the {len(task.labels)} classes, as the weights have none that fits")
    elif head.order is None:
        raise WeightsError(head.problem)
    else:
        pairs = list(zip(task.labels, head.order, strict=True))
        shown = ", ".join(f"{config.id2label[row]} = {label}" for label, row in pairs[:_SHOWN])
        print(f"head: that of the weights (row = class: {shown}{', ...' if len(pairs) > _SHOWN else ''})")


def _module(settings: Settings, config: Any, kind: str, *, folder: Path | None, meta: bool) -> tuple[Any, set[str]]:
    """The module, and the names of the tensors of a head that the weights lack."""
    import transformers

    auto = getattr(transformers, _AUTO[kind])
    options: dict[str, Any] = {"dtype": torch.float32}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    try:
        if folder is not None:
            return _load(auto, folder, config, options)
        with torch.device("meta" if meta else "cpu"):
            return auto.from_config(config, **options), set()
    except BenchError:
        raise
    except (ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        told = str(error).splitlines()[0] if str(error) else ""
        raise SpecError(f"transformers cannot build {config.model_type!r}: {type(error).__name__}: {told}") from error


def _load(auto: Any, folder: Path, config: Any, options: dict[str, Any]) -> tuple[Any, set[str]]:
    """Strictly: only a head may start at random. The module and the names of such tensors. Raises WeightsError."""
    files = _hf_source.weights_in(folder)
    for file in files:
        weights.check_kind(file)
    try:
        module, told = auto.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except ImportError:
        raise
    except Exception as error:  # what files that are no weights raise is up to their bytes
        if is_out_of_host_memory(error):
            raise
        told = (str(error).splitlines() or [""])[0]
        names = ", ".join(str(file) for file in files[:_SHOWN])
        raise WeightsError(f"the weights in {names} cannot be loaded: {type(error).__name__}: {told}") from error
    mismatched = {entry[0] for entry in told["mismatched_keys"]}
    if errors := [str(error) for error in told.get("error_msgs", ())]:
        raise WeightsError(f"{folder} does not fit {type(module).__name__}: {'; '.join(errors)}")
    weights.raise_misfit(
        folder,
        type(module).__name__,
        missing={name for name in told["missing_keys"] if not _may_be_new(name, module)},
        misshapen={name for name in mismatched if not _may_be_new(name, module)},
    )
    return module.train(False), mismatched | set(told["missing_keys"])


def _may_be_new(name: str, module: Any) -> bool:
    """Whether a tensor is of a head for labels, which a pre-trained model has none of: outside the base model, or a
    pooler. A model that writes text has all of its tensors, or writes noise.
    """
    if not getattr(module, "num_labels", 0) or module.can_generate():
        return False
    prefix = module.base_model_prefix
    return "pooler" in name or (hasattr(module, prefix) and not name.startswith(f"{prefix}."))
