"""Sections and fields of a spec; plugins declare their fields in their own modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, model_validator

from bench import registry, tasks
from bench.plugins.contracts import GenerateOptions
from bench.plugins.settings import (
    DataSettings,
    LocalPath,
    MethodSettings,
    ModelSettings,
    Settings,
    TaskSettings,
    TrackerSettings,
)

if TYPE_CHECKING:
    AnyModel = ModelSettings
    AnyData = DataSettings
    AnyTask = TaskSettings
    AnyMethod = MethodSettings
    AnyTracker = TrackerSettings
else:

    def _any_of(kind: registry.Kind, discriminator: str) -> Any:
        classes = tuple(registry.load(kind, name).Settings for name in registry.names(kind))
        if len(classes) == 1:  # pydantic takes a discriminator only where there is a choice
            return classes[0]
        return Annotated[Union[classes], Field(discriminator=discriminator)]  # noqa: UP007

    def _with_type(value: Any) -> Any:
        """Add the ``type`` of a method whose fields imply it."""
        if isinstance(value, dict) and "type" not in value:
            for name in registry.names("methods"):
                if any(field in value for field in getattr(registry.load("methods", name), "IMPLIED_BY", ())):
                    return {"type": name, **value}
        return value

    def _or_name(kind: registry.Kind, word: str) -> Any:
        """Settings that may be written as a bare name."""

        def with_name(value: Any) -> Any:
            if isinstance(value, str) and value not in (known := registry.names(kind)):
                raise ValueError(f"no {word} {value!r}{registry.did_you_mean(value, known)}")
            return {"name": value} if isinstance(value, str) else value

        settings = _any_of(kind, "name")
        return Annotated[settings, BeforeValidator(with_name, json_schema_input_type=str | settings)]

    AnyModel = _any_of("models", "family")
    AnyData = _any_of("datasets", "name")
    AnyTask = _or_name("tasks", "task")
    AnyTracker = _or_name("trackers", "tracker")
    AnyMethod = Annotated[_any_of("methods", "type"), BeforeValidator(_with_type)]


class OptimizerSettings(Settings):
    name: Literal["adamw", "adamw_8bit", "sgd"] = "adamw"
    """``adamw_8bit``: AdamW of bitsandbytes (``[8bit]`` extra), with moments of 8 bits."""
    lr: float = Field(gt=0)
    """Peak learning rate, the same for all trained tensors."""
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Momentum of ``sgd``."""
    implementation: Literal["auto", "foreach", "fused", "for_loop"] = "auto"
    """Kernels of torch that update the weights; ``auto``: torch's default, ``foreach`` on CUDA and ``for_loop`` on a
    CPU. ``foreach`` is faster than a loop and needs memory for a copy of the trained tensors. Not for ``adamw_8bit``,
    which has its own kernels."""

    @model_validator(mode="after")
    def _belongs(self) -> OptimizerSettings:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum is of sgd, not of {self.name}: set betas instead")
        if self.implementation != "auto" and self.name == "adamw_8bit":
            raise ValueError("implementation is of adamw and sgd; adamw_8bit has its own: set it to auto")
        return self


class TrainSettings(Settings):
    """Either ``epochs`` or ``steps``."""

    epochs: int | None = Field(default=None, ge=1, le=1_000_000)
    steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Optimizer steps."""
    batch_size: int = Field(ge=1, le=1_000_000)
    """Examples per forward pass."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=1_000_000)
    """Batches whose gradients are added up for an optimizer step; fewer at the end of an epoch. ``steps``,
    ``warmup_steps`` and the like count optimizer steps."""
    shuffle: bool = True
    """Whether each epoch takes the examples in a new random order, or else in that of the data set."""
    optimizer: OptimizerSettings
    schedule: Literal["constant", "cosine", "cosine_per_epoch", "one_cycle", "polynomial"] = "cosine"
    """``cosine_per_epoch`` changes the rate once an epoch, as the released MISS code does. ``polynomial`` is fairseq's
    polynomial decay with its power of 1: a straight line down."""
    min_lr: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000_000)
    """Linear warm-up of the learning rate, steps."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Maximum global norm of the gradients; null: no clipping."""
    precision: Literal["fp32", "bf16", "fp16", "bf16_autocast", "fp16_autocast"] = "fp32"
    """Type of the weights; ``*_autocast``: fp32 weights under autocast of this type."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    zero_grad: Literal["before_forward", "before_backward"] = "before_forward"
    """``before_backward`` keeps the last step's gradients alive during the forward pass, as the released code does."""
    timing_warmup_steps: int = Field(default=3, ge=0, le=1_000_000_000)
    """Initial steps that are not timed."""
    log_every: int = Field(default=10, ge=1, le=1_000_000_000)
    """Steps per point of the loss curve."""
    save_adapter: bool = False
    """Keep the adapters and trained tensors in the cell's job folder (their size is measured either way)."""
    save_model: LocalPath | None = None
    """Folder to write the whole trained model to, in the layout that ``model.weights`` reads."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("gives both epochs and steps; set one of them to null")
        if self.epochs is None and self.steps is None:
            raise ValueError("gives neither epochs nor steps; add one of them, e.g. `epochs: 10`")
        return self


class EvaluateSettings(Settings):
    batch_size: int = Field(ge=1, le=1_000_000)
    num_beams: int = Field(default=3, ge=1, le=1000)
    max_new_tokens: int = Field(default=10, ge=1, le=1_000_000)
    length_denominator: Literal["generated", "as_transformers_4"] = "generated"
    """Length by which beam search divides the log-likelihood of an answer: ``generated``, its tokens;
    ``as_transformers_4``, one more for an answer cut off by ``max_new_tokens``, as the library did in 2024. For
    ``miss`` only."""
    attend_padding: bool = False
    """Whether the decoder attends to the padding of shorter questions while it generates, as BLIP's and the released
    MISS code does: an answer then depends on the other questions of its batch. For ``miss`` only."""
    closed: Literal["yes_no", "answer_type"] = "answer_type"
    """Closed questions: ``yes_no``, those with gold answer yes or no; ``answer_type``, those annotated as closed."""

    def options(self) -> GenerateOptions:
        """Generation options for a model."""
        return GenerateOptions(
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            length_denominator=self.length_denominator,
            attend_padding=self.attend_padding,
        )


OPTIONAL_SEARCH = ("length_denominator", "attend_padding")
"""Fields of ``EvaluateSettings`` that only some families support."""


class RunSettings(Settings):
    """How a cell is run; changes no result and is not part of ``cell_id``."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of a worker; null for all cores."""
    parallel: int = Field(default=1, ge=1, le=1024)
    """Cells run in parallel on a CPU, each with ``threads``: a few for small models. Their times are comparable only
    within a setting. On GPUs it is one cell per GPU."""
    wall_clock_limit_s: float = Field(default=24 * 3600, gt=0, le=1e9)
    """Duration after which a cell ends as ``timeout``."""
    no_progress_limit_s: float = Field(default=1800, gt=0, le=1e9)
    """Duration without progress after which a cell ends as ``timeout``."""
    trackers: list[AnyTracker] = []
    """Trackers that log a run beside its records; a bare name is short for ``{name: ...}``."""


DEFAULT_TASK: TaskSettings = registry.load("tasks", tasks.DEFAULT).Settings(name=tasks.DEFAULT)
"""Left out of cell ids, like all defaults."""


class Matrix(Settings):
    """The product of ``axes`` (first axis slowest), minus ``exclude``, plus ``include``.

    Without axes: the cells of ``include``, or the spec itself as one cell if there is no ``include`` either."""

    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Dotted key of the spec -> values, e.g. ``parts``, ``parts.vit``, ``methods.LoRA.r``, ``train.optimizer.lr``. In
    the actions of a part, a text with ``*`` stands for all methods that it matches: ``parts.vit: [F, "*"]``."""
    names: dict[str, str] = {}
    """Dotted key -> short name for labels, columns and published rows (``methods.LoRA.r: rank``)."""
    exclude: list[dict[str, Any]] = []
    """Axis or its name, or a part -> value; a cell that agrees with all of one entry is left out."""
    include: list[dict[str, Any]] = []
    """Further cells, each: dotted key, axis name or part -> value."""


class Column(Settings):
    """A column of the table; a bare text is short for ``{value: text}``."""

    value: str
    """A part, an axis (its key or name), ``seed``, ``status`` or a metric."""
    header: str | None = None
    """Null: the default header of the part, axis or metric."""


def _column(value: Any) -> Any:
    return {"value": value} if isinstance(value, str) else value


class Published(Settings):
    source: str
    """Source of the numbers."""
    rows: list[dict[str, Any]]
    """Parts and axes, which select a cell, and metrics as printed, e.g.
    ``{vit: F, jtm: LoRA, dec: LoRA, rank: 4, params: 0.163, memory: 5.19, open: 3.57, closed: 50.7, global: 20.3}``."""
    counts: dict[Literal["open", "closed"], Annotated[list[int], Field(min_length=1)]] | None = None
    """Plausible numbers of open and of closed questions, e.g. ``{open: [703, 704, 705, 706], closed: [355]}``: a row
    whose ``global`` is not the mean of its ``open`` and ``closed`` weighted by any of them gets a footnote."""
    scales: list[str] = []
    """Scales, beside the spec as it stands, that may be the published setting: their numbers are compared, too."""


class ParetoSettings(Settings):
    """Metrics of the Pareto front."""

    cost: str = "memory"
    score: str | None = None
    """Null: the main metric of the task."""
    costs: list[str] = []
    """Several costs in place of ``cost``: the front is taken over all costs and scores together, and the plot has a
    panel for each pair, e.g. ``costs: [memory, step_time]``."""
    scores: list[str] = []
    """Several scores in place of ``score``, e.g. ``scores: [open, closed]``."""


class Spec(Settings):
    """A spec file."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Folder under ``results`` and ``reports``; default: the name of the file."""
    title: str = ""
    """Caption of the tables."""
    model: AnyModel
    task: AnyTask = DEFAULT_TASK
    """Task of the model; a bare name is short for ``{name: ...}``."""
    data: AnyData
    train: TrainSettings
    evaluate: EvaluateSettings
    run: RunSettings = RunSettings()
    methods: dict[str, AnyMethod] = {}
    """Name -> PEFT configuration; ``F`` and ``T`` are reserved."""
    parts: dict[str, str] = {}
    """Part -> ``F`` (frozen), ``T`` (trained) or a method's name; usually an axis."""
    matrix: Matrix = Matrix()
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[42], min_length=1)
    """Every cell is run once with each seed."""
    columns: list[Annotated[Column, BeforeValidator(_column, json_schema_input_type=str | Column)]] = []
    """Columns of the tables in order; default: the parts, the axes and the usual metrics."""
    published: Published | None = None
    pareto: ParetoSettings = ParetoSettings()
    variants: dict[str, dict[str, Any]] = {}
    """Name -> overrides of this spec, merged like those of a scale: several models, data sets or tasks in one table.
    Each variant has its own matrix; the table has a column ``variant``, which ``exclude``, ``include`` and published
    rows may name. A field that all variants set may be left out of the spec itself."""
    scales: dict[str, dict[str, Any]] = {}
    """Name -> overrides of this spec, merged mapping by mapping; a mapping that names another plugin or variant
    (``family``, ``name``, ``type``, ``peft_type``, ``kind``, ``model_type``) replaces the whole mapping. The spec as it
    stands is the scale ``paper`` if it has published numbers, else ``default``."""
