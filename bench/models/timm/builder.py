"""Building timm models: arguments checked, weights loaded safely and strictly, layers grouped into parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.layers import config as layer_config
from timm.models import get_pretrained_cfg, group_parameters, is_model, load_state_dict, split_model_name_tag
from torch import nn

from bench.errors import SpecError, WeightsError
from bench.models.common import labels, parts
from bench.models.common.weights import check_kind
from bench.models.timm.settings import Settings, tensors, weights_config
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

OF_THE_DATA = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""Preprocessing that weights may set. Not the size: an estimate needs it, and reads no weights."""

# Tokens and tables of positions, which join the image in front of the blocks.
_TOKENS = re.compile(r"(cls|dist|reg|class|latent)_?tokens?_?\d*|(abs(olute)?_)?(pos|position)_?embed(ding)?s?_?\w*")


def create(settings: Settings, task: TaskFacts, *, on_meta: bool) -> tuple[Any, tuple[int, ...] | None]:
    """The model on meta, or on the CPU with weights; and the row of each label in a classifier of the weights.

    ``pretrained_cfg`` of the model has its preprocessing. Raises SpecError, WeightsError.
    """
    classes, order = len(task.labels), None
    known = _known(settings.architecture)
    stored: dict[str, Any] = {}
    if on_meta:
        try:
            with torch.device("meta"):
                model = _create(settings, classes)
        except (NotImplementedError, RuntimeError):  # some architectures read values while they are built
            model = _create(settings, classes).to("meta")
    elif settings.weights is None:
        model = _create(settings, classes)
    else:
        stored = weights_config(settings.weights)
        model, rows = _with_weights(settings, classes, stored, known)
        order = _rows_of_labels(rows, stored, task) if rows == classes else None
    model.pretrained_cfg |= _data_config(settings, stored, model)
    model.default_cfg = model.pretrained_cfg
    return model, order


def _known(architecture: str) -> dict[str, Any]:
    """timm's configuration of an architecture. Raises SpecError, with near names, if there is none."""
    name, tag = split_model_name_tag(architecture)
    if not is_model(name):
        raise SpecError(f"timm has no architecture {name!r}{did_you_mean(name, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise SpecError(f"timm's {name} has no tag {tag!r}{did_you_mean(tag, tags)}")
    known: Any = get_pretrained_cfg(architecture, allow_unregistered=False)
    return dict(known.to_dict()) if known is not None else {}


def _create(settings: Settings, classes: int, **loading: Any) -> Any:
    """timm's model. Raises SpecError for an argument that the architecture refuses."""
    arguments = dict(settings.arguments)
    if settings.image.size is not None and _known(settings.architecture).get("fixed_input_size", False):
        arguments["img_size"] = settings.image.size
    try:
        with _attention(settings.attention):
            return timm.create_model(settings.architecture, num_classes=classes, **arguments, **loading)
    except (TypeError, ValueError, AssertionError) as error:
        with torch.device("meta"):
            plain = timm.create_model(settings.architecture)
        taken = list(inspect.signature(type(plain).__init__).parameters)[1:]
        hint = next((did_you_mean(name, taken) for name in settings.arguments if name not in taken), "")
        raise SpecError(f"timm's {settings.architecture} refuses model.arguments {arguments}: {error}{hint}") from error


@contextmanager
def _attention(kind: str) -> Iterator[None]:
    """Let timm build layers with this kind of attention."""
    before = layer_config.use_fused_attn()
    layer_config.set_fused_attn(kind == "sdpa")
    try:
        yield
    finally:
        layer_config.set_fused_attn(bool(before))


def _with_weights(settings: Settings, classes: int, stored: dict[str, Any], known: dict[str, Any]) -> tuple[Any, int]:
    """The model with weights, its classifier new for another number of classes; and the weights' number of classes.

    Raises WeightsError with the tensors that do not fit.
    """
    assert settings.weights is not None
    path = tensors(settings.weights)
    name, trained = split_model_name_tag(settings.architecture)[0], stored.get("architecture")
    if trained and trained != name:
        raise WeightsError(f"{path.parent} has weights of {trained}; set model.architecture to it, not to {name}")
    check_kind(path)
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
        named = {isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()} == {True}
    except Exception as error:  # what a file that is no checkpoint raises depends on its bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be loaded safely as a state_dict (names -> tensors): {reason}") from error
    if not named:
        raise WeightsError(f"{path} holds no state_dict (names -> tensors)")
    rows = stored.get("num_classes", _rows(state, known))
    overlay: dict[str, Any] = {"state_dict": state, "num_classes": rows, "custom_load": False, "source": ""}
    overlay |= {key: stored[key] for key in ("label_offset", "classifier") if key in stored}
    try:
        loaded = _create(settings, rows, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        raise WeightsError(
            f"{path} does not fit {settings.architecture} with arguments {settings.arguments}: {str(error)[:1000]}"
        ) from error
    loaded.pretrained_cfg.pop("state_dict", None)
    if rows == classes:
        return loaded, rows
    model = _create(settings, classes)
    _copy_body(model, loaded.state_dict())
    print(f"head: new, with a row for each of the {classes} classes; that of the weights has {rows}")
    return model, rows


def _rows(state: dict[str, torch.Tensor], known: dict[str, Any]) -> int:
    """Number of classes of the classifier in ``state``, else of timm's weights."""
    for name in _classifier_names(known):
        if f"{name}.weight" in state:
            return int(state[f"{name}.weight"].shape[0])
    return int(known.get("num_classes", 1000))


def _classifier_names(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _copy_body(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Copy all tensors except the classifier's."""
    heads = classifier(model)
    head = tuple(f"{name}." for name, module in model.named_modules() if module in heads)
    result = model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head)}, strict=False)
    wrong = [n for n in [*result.missing_keys, *result.unexpected_keys] if not n.startswith(head)]
    assert not wrong, f"another number of classes changes {wrong}"


def _rows_of_labels(rows: int, stored: dict[str, Any], task: TaskFacts) -> tuple[int, ...]:
    """Row of each label, by the weights' names of the rows, or ImageNet's. Raises WeightsError without a match."""
    names = stored.get("label_names")
    if not isinstance(names, list) or len(names) != rows:
        subset = infer_imagenet_subset({"num_classes": rows})
        info: Any = ImageNetInfo(subset) if subset else None
        wnids = info.label_names() if info else []
        names = [f"{wnid}, {info.label_name_to_description(wnid)}" for wnid in wnids] if info else None
    match = labels.match([f"LABEL_{row}" for row in range(rows)] if names is None else list(map(str, names)), task)
    if match.order is None:
        raise WeightsError(match.problem)
    return match.order


def _data_config(settings: Settings, stored: dict[str, Any], model: Any) -> dict[str, Any]:
    """Preprocessing: timm's, overridden by the weights', overridden by the spec's."""
    given = settings.image.model_dump(exclude_none=True, exclude={"size"})
    chosen = {key: stored[key] for key in OF_THE_DATA if stored.get(key) is not None} | given
    size = settings.image.size or settings.arguments.get("img_size")
    if size is not None:
        chosen["input_size"] = (3, size, size) if isinstance(size, int) else (3, *size)
    resolved: dict[str, Any] = resolve_model_data_config(model, args=chosen)  # type: ignore[no-untyped-call]
    return resolved


def classifier(model: Any) -> list[nn.Module]:
    """Output layers for the labels, without hidden layers in front; distilled models have two."""
    layers = model.get_classifier()
    tops = [top for top in (layers if isinstance(layers, tuple | list) else [layers]) if list(top.parameters())]
    modules = dict(model.named_modules())
    outputs = [modules[path] for path in _classifier_names(model.pretrained_cfg) if path in modules]
    return [layer for top in tops for layer in ([o for o in outputs if o in set(top.modules())] or [top])]


def default_paths(model: Any, architecture: str) -> parts.Paths:
    """Paths of ``stem``, timm's group for layer-wise rates with all tokens and tables of positions; of ``head``, the
    classifier; and of ``blocks``, all other tensors. Raises SpecError for a model without blocks."""
    named = dict(model.named_parameters(remove_duplicate=False))
    heads = classifier(model)
    head = {
        f"{at}.{n}" for at, module in model.named_modules() if module in heads for n, _ in module.named_parameters()
    }
    ends = {name: (name.partition(".")[0], name.rpartition(".")[2]) for name in named}
    tokens = {name for name, steps in ends.items() if any(map(_TOKENS.fullmatch, steps))}
    stem = (_stem(model, architecture) | tokens) - head
    # A tensor of several names is in one part.
    tensors_of_stem = {id(named[name]) for name in stem}
    stem |= {name for name, tensor in named.items() if id(tensor) in tensors_of_stem}
    blocks = named.keys() - stem - head
    if not blocks:  # patterns of an older timm may name none of its modules
        raise SpecError(f"timm {timm.__version__} does not say what blocks {architecture} has; declare model.parts")
    return {
        "stem": parts.minimal_paths(model, stem),
        "blocks": parts.minimal_paths(model, blocks),
        "head": parts.minimal_paths(model, head),
    }


def _stem(model: Any, architecture: str) -> set[str]:
    """Parameters of timm's group ``stem``, else of the outermost module with the first convolution."""
    try:
        matcher = model.group_matcher(coarse=True) if hasattr(model, "group_matcher") else {}
    except AssertionError:  # timm has none for it
        matcher = {}
    if isinstance(matcher, dict) and matcher.get("stem"):
        groups = group_parameters(model, {"stem": matcher["stem"]}, reverse=True)
        return {name for name, group in groups.items() if group == 0}
    first = model.pretrained_cfg.get("first_conv") or next(
        (name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), None
    )
    if not isinstance(first, str):
        raise SpecError(f"timm does not say what the stem of {architecture} is; declare model.parts")
    top = first.partition(".")[0]
    return {f"{top}.{name}" for name, _ in model.get_submodule(top).named_parameters()}
