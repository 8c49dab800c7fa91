"""Building timm models: arguments checked, weights loaded safely and strictly, layers grouped into parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.layers import config as layers
from timm.models import get_pretrained_cfg, group_parameters, is_model, load_state_dict, split_model_name_tag
from torch import nn

from bench.errors import SpecError, WeightsError
from bench.models.common import labels, parts, weights
from bench.models.timm import files
from bench.plugins.contracts import TaskFacts
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from bench.models.timm import Settings

OF_THE_DATA = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""What weights say about their images. The size is the architecture's or the spec's, so that an estimate, which reads
no weights, has it, too."""

_TOKENS = re.compile(r"(cls|dist|reg|class|latent)_?tokens?_?\d*|(abs(olute)?_)?(pos|position)_?embed(ding)?s?_?\w*")


def create(settings: Settings, task: TaskFacts, *, on_meta: bool) -> tuple[Any, tuple[int, ...] | None]:
    """The model, with weights unless it is on meta, else on the CPU; ``pretrained_cfg`` says how images reach it. With
    it, where the weights' classifier goes on, the row of each label. Raises WeightsError if that cannot be told.
    """
    classes, order = len(task.labels), None
    known = _known(settings.architecture)
    told: dict[str, Any] = {}
    if on_meta:
        model = _on_meta(settings, classes)
    elif settings.weights is None:
        model = _create(settings, classes)
    else:
        told = files.config(settings.weights)
        model, rows = _with_weights(settings, classes, told, known)
        order = _rows_of_labels(rows, told, task) if rows == classes else None
    model.pretrained_cfg |= _data_config(settings, told, model)
    model.default_cfg = model.pretrained_cfg
    return model, order


def _rows_of_labels(rows: int, told: dict[str, Any], task: TaskFacts) -> tuple[int, ...]:
    """By the names that the weights give the rows, or ImageNet's."""
    names = told.get("label_names")
    if not isinstance(names, list) or len(names) != rows:
        subset = infer_imagenet_subset({"num_classes": rows})
        found: Any = ImageNetInfo(subset) if subset else None
        wnids = found.label_names() if found else []
        names = [f"{wnid}, {found.label_name_to_description(wnid)}" for wnid in wnids] if found else None
    match = labels.match([f"LABEL_{row}" for row in range(rows)] if names is None else list(map(str, names)), task)
    if match.order is None:
        raise WeightsError(match.problem)
    return match.order


def classifier(model: Any) -> list[nn.Module]:
    """The layers that put out the labels, without hidden layers in front of them; distilled models have two."""
    found = model.get_classifier()
    given = [own for own in (found if isinstance(found, tuple | list) else [found]) if list(own.parameters())]
    named = model.pretrained_cfg.get("classifier") or ()
    paths = (named,) if isinstance(named, str) else tuple(named)
    modules = dict(model.named_modules())
    outputs = [modules[path] for path in paths if path in modules]
    return [own for top in given for own in ([o for o in outputs if o in set(top.modules())] or [top])]


def default_paths(model: Any, architecture: str) -> parts.Paths:
    """``stem`` as timm groups layers for layer-wise rates, with all tokens and tables of positions; ``head`` the
    classifier alone; ``blocks`` all else. A tensor of several names is in one part. Raises SpecError if nothing else
    is left."""
    named = dict(model.named_parameters(remove_duplicate=False))
    heads = classifier(model)
    head = {f"{at}.{n}" for at, own in model.named_modules() if own in heads for n, _ in own.named_parameters()}
    stem = (_stem(model, architecture) | {name for name in named if _is_in_front(name)}) - head
    of_stem = {id(named[name]) for name in stem}
    stem |= {name for name, tensor in named.items() if id(tensor) in of_stem}
    if not named.keys() - stem - head:  # patterns of an older timm may name none of its modules
        raise SpecError(f"timm {timm.__version__} does not say what blocks {architecture} has; declare model.parts")
    return {
        "stem": parts.minimal_paths(model, stem),
        "blocks": parts.minimal_paths(model, named.keys() - stem - head),
        "head": parts.minimal_paths(model, head),
    }


def _is_in_front(name: str) -> bool:
    """Whether a tensor is a token or a table of positions, which are put to the image in front of the blocks."""
    first, _, _ = name.partition(".")
    last = name.rpartition(".")[2]
    return any(_TOKENS.fullmatch(step) for step in (first, last))


def _stem(model: Any, architecture: str) -> set[str]:
    """Parameters of timm's group ``stem``; without one, of the outermost module that holds the first convolution, or
    that is the first to hold any."""
    try:
        matcher = model.group_matcher(coarse=True) if hasattr(model, "group_matcher") else {}
    except AssertionError:  # timm has none for it
        matcher = {}
    if isinstance(matcher, dict) and matcher.get("stem"):
        groups = group_parameters(model, {"stem": matcher["stem"]}, reverse=True)
        return {name for name, group in groups.items() if group == 0}
    first = model.pretrained_cfg.get("first_conv") or next(
        (name for name, own in model.named_modules() if isinstance(own, nn.Conv2d)), None
    )
    if not isinstance(first, str):
        raise SpecError(f"timm does not say what the stem of {architecture} is; declare model.parts")
    top = first.partition(".")[0]
    return {f"{top}.{name}" for name, _ in model.get_submodule(top).named_parameters()}


@contextmanager
def attention(kind: str) -> Iterator[None]:
    """Inside, timm builds layers with this attention."""
    before = layers.use_fused_attn()
    layers.set_fused_attn(kind == "sdpa")
    try:
        yield
    finally:
        layers.set_fused_attn(bool(before))


def _known(architecture: str) -> dict[str, Any]:
    """timm's own configuration of it. Raises SpecError, with the nearest name, if there is none."""
    name, tag = split_model_name_tag(architecture)
    if not is_model(name):
        raise SpecError(f"timm has no architecture {name!r}{did_you_mean(name, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise SpecError(f"timm's {name} has no tag {tag!r}{did_you_mean(tag, tags)}")
    found: Any = get_pretrained_cfg(architecture, allow_unregistered=False)
    return dict(found.to_dict()) if found is not None else {}


def _create(settings: Settings, classes: int, **loading: Any) -> Any:
    """Raises SpecError for an argument that the architecture does not take."""
    arguments = dict(settings.arguments)
    fixed = _known(settings.architecture).get("fixed_input_size", False)
    if settings.image.size is not None and fixed:
        arguments["img_size"] = settings.image.size
    try:
        with attention(settings.attention):
            return timm.create_model(settings.architecture, num_classes=classes, **arguments, **loading)
    except (TypeError, ValueError, AssertionError) as error:
        raise SpecError(
            f"timm's {settings.architecture} refuses model.arguments {arguments}: {error}{_nearest(settings)}"
        ) from error


def _nearest(settings: Settings) -> str:
    with torch.device("meta"):
        plain = timm.create_model(settings.architecture)
    taken = list(inspect.signature(type(plain).__init__).parameters)[1:]
    for name in settings.arguments:
        if name not in taken:
            return did_you_mean(name, taken)
    return ""


def _on_meta(settings: Settings, classes: int) -> Any:
    try:
        with torch.device("meta"):
            return _create(settings, classes)
    except (NotImplementedError, RuntimeError):  # some ask for values while they are built
        return _create(settings, classes).to("meta")


def _with_weights(settings: Settings, classes: int, told: dict[str, Any], known: dict[str, Any]) -> tuple[Any, int]:
    """Built for the weights' own classes, all tensors accounted for; then the classifier exchanged if there are others.
    With it, how many the weights' own are.

    Raises WeightsError that names the tensors.
    """
    assert settings.weights is not None
    path = files.tensors(settings.weights)
    name, own = split_model_name_tag(settings.architecture)[0], told.get("architecture")
    if own and own != name:
        raise WeightsError(f"{path.parent} has weights of {own}; set model.architecture to it, not to {name}")
    weights.check_kind(path)
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
        named = {isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()} == {True}
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be loaded safely as a state_dict (names -> tensors): {reason}") from error
    if not named:
        raise WeightsError(f"{path} holds no state_dict (names -> tensors)")
    theirs = told.get("num_classes", _rows(state, known))
    of_weights: dict[str, Any] = {key: told[key] for key in ("label_offset", "classifier") if key in told}
    overlay: dict[str, Any] = {
        "state_dict": state,
        "num_classes": theirs,
        "custom_load": False,
        "source": "",
        **of_weights,
    }
    try:
        loaded = _create(settings, theirs, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        raise WeightsError(
            f"{path} does not fit {settings.architecture} with arguments {settings.arguments}: {str(error)[:1000]}"
        ) from error
    loaded.pretrained_cfg.pop("state_dict", None)
    if theirs == classes:
        return loaded, theirs
    model = _create(settings, classes)
    _take_over(model, loaded.state_dict())
    print(f"head: new, with a row for each of the {classes} classes; that of the weights has {theirs}")
    return model, theirs


def _rows(state: dict[str, torch.Tensor], known: dict[str, Any]) -> int:
    """Classes that the classifier in ``state`` has, if it is under its name in timm."""
    names = known.get("classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        if f"{name}.weight" in state:
            return int(state[f"{name}.weight"].shape[0])
    return int(known.get("num_classes", 1000))


def _take_over(model: Any, state: dict[str, torch.Tensor]) -> None:
    """All tensors but the classifier's."""
    heads = classifier(model)
    head = tuple(f"{name}." for name, own in model.named_modules() if own in heads)
    result = model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head)}, strict=False)
    wrong = [n for n in [*result.missing_keys, *result.unexpected_keys] if not n.startswith(head)]
    assert not wrong, f"another number of classes changes {wrong}"


def _data_config(settings: Settings, told: dict[str, Any], model: Any) -> dict[str, Any]:
    """How images reach the model: timm's, over that the weights', over that the spec's."""
    given = settings.image.model_dump(exclude_none=True, exclude={"size"})
    chosen = {key: told[key] for key in OF_THE_DATA if told.get(key) is not None} | given
    size = settings.image.size or settings.arguments.get("img_size")
    if size is not None:
        edges = (size, size) if isinstance(size, int) else tuple(size)
        chosen["input_size"] = (3, *edges)
    resolved: dict[str, Any] = resolve_model_data_config(model, args=chosen)  # type: ignore[no-untyped-call]
    return resolved
