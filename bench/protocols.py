"""What a plugin of each kind offers: typed contracts, checked by mypy and by tests/test_architecture.py.

A plugin is a *module* (one file). Its top level stays light; torch and friends are imported in functions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from peft import PeftConfig
    from PIL.Image import Image

    from bench.cell import Cell
    from bench.settings import DataSettings, MethodSettings, ModelSettings

AnswerType = Literal["open", "closed"]


# --- data sets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One question about one image."""

    question_id: str
    """Unique within its split, stable between runs."""
    image: str
    """What ``VqaData.image`` needs to find it: for a data set of files, the path below its root."""
    questions: tuple[str, ...]
    """The question, or a pool of prompts of which one is drawn at each visit."""
    answer: str
    answer_type: AnswerType | None = None
    """As the data set's own annotation says; null if it has none."""

    def question(self, rng: random.Random | None = None) -> str:
        """One of the questions: drawn by ``rng``, or the first without it (evaluation)."""
        if rng is None or len(self.questions) == 1:
            return self.questions[0]
        return rng.choice(self.questions)


class VqaData(Protocol):
    """An opened data set."""

    def split(self, name: str) -> Sequence[Example]:
        """All examples of a split, in the order of the file; may be lazy. Raises DataError for an unknown split."""
        ...

    def image(self, example: Example) -> Image:
        """The decoded RGB image of any size. Raises DataError that names file and question_id if it is broken."""
        ...

    def texts(self) -> Sequence[str]:
        """All texts a vocabulary must cover (questions and answers of every split, or a representative list)."""
        ...


class DataPlugin(Protocol):
    """A file in ``bench/datasets``."""

    Settings: type[DataSettings]

    @staticmethod
    def digest(settings: Any) -> str:
        """SHA-256 (hex) that changes when annotations or images change; fast (well under 1 s), no torch.

        Raises DataError if the data is not there: where to get it, which layout is expected, what runs without it.
        """
        ...

    @staticmethod
    def load(settings: Any) -> VqaData: ...

    # A plugin whose ``load`` looks for images may have ``load_annotations(settings) -> VqaData``, too: questions and
    # answers without them, for an estimate.


# --- models --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateOptions:
    num_beams: int
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFacts:
    """What a method must know about the part it is put on."""

    name: str
    task_type: str | None
    """peft.TaskType name for prompt methods (``FEATURE_EXTRACTION``, ``CAUSAL_LM``); null if they do not fit here."""
    targets: dict[str, list[str]]
    """Method type -> default target module names; a key ``<method>.<option>`` holds a further list of that method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLengths:
    """Tokens of the longest question and answer of a batch, special tokens included, as ``collate`` pads them."""

    question_tokens: int
    answer_tokens: int


class BenchModel(Protocol):
    """A built model of some family, as the worker and the estimate see it."""

    module: torch.nn.Module
    """The whole model; its ``parameters()`` are what is counted, trained and stored."""
    has_vocabulary: bool
    """Whether the tokenizer is the run's own, so that ``lengths`` can be trusted; false for a model built on meta of
    whose vocabulary nothing is here."""

    def part(self, name: str) -> torch.nn.Module: ...

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in the place of the part."""
        ...

    def collate(
        self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Preprocess and tokenise: tensors on the CPU, ready for ``loss`` and (without answers) ``generate``."""
        ...

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scalar mean training loss, shape ()."""
        ...

    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """One answer text per row, special tokens removed."""
        ...

    def checkpoint_activations(self) -> None:
        """While training, compute activations again in the backward pass instead of keeping them; called when all
        adapters are in place. Raises BenchError, before the first step, where the model cannot.
        """
        ...

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """Of a batch of these texts, neither list empty: what ``collate`` would pad them to, cuts included."""
        ...

    def max_lengths(self) -> InputLengths:
        """The longest that ``collate`` lets through, whatever the texts."""
        ...

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> dict[str, torch.Tensor]:
        """Names, shapes and types of what ``collate`` returns for such a batch, as tensors on the meta device."""
        ...

    def facts(self) -> dict[str, int | str]:
        """What else decides the costs, for the reader of an estimate: e.g. ``image_size``, ``attention``."""
        ...

    # A model that chooses among known answers has ``learn_answers(answers: Iterable[str]) -> None``, too: called once,
    # before training, with the answers of all training examples.


class ModelPlugin(Protocol):
    """A file in ``bench/models``."""

    Settings: type[ModelSettings]
    PARTS: dict[str, PartFacts]

    @staticmethod
    def weights_digest(settings: Any) -> str | None:
        """SHA-256 of the weight files, null for random initialisation; raises WeightsError if they are not there."""
        ...

    @staticmethod
    def build(settings: Any, *, texts: Sequence[str], device: str) -> BenchModel:
        """Build with weights loaded. ``device="meta"``: shapes only, no weights read, for counting."""
        ...

    @staticmethod
    def save(model: BenchModel, folder: Any) -> None:
        """Write the whole model's weights, config and tokenizer into ``folder`` in the layout ``build`` reads."""
        ...


# --- methods -------------------------------------------------------------------------------------------------


class MethodPlugin(Protocol):
    """A file in ``bench/methods``: one of the two kinds below. A file may also have ``IMPLIED_BY``, the names of fields
    with which a method of a spec needs no ``type``.
    """

    Settings: type[MethodSettings]

    @staticmethod
    def check(settings: Any, part: PartFacts) -> None:
        """Raise SpecError if the method cannot be put on this part. Light: runs when the spec is validated."""
        ...


class AdapterPlugin(MethodPlugin, Protocol):
    """A method that puts an adapter on a part."""

    @staticmethod
    def config(settings: Any, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
        """The library's configuration for this part; ``peft.get_peft_model(module, config)`` does the rest."""
        ...


class SelectivePlugin(MethodPlugin, Protocol):
    """A method that trains some of a part's own tensors."""

    @staticmethod
    def select(settings: Any, part: PartFacts, module: torch.nn.Module) -> set[str]:
        """Names of those tensors, as ``module.named_parameters()`` has them. Raises SpecError if there are none."""
        ...


# --- executors -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a worker last wrote to its progress file (``progress.json`` in the cell's job folder)."""

    phase: str
    """``setup``, ``load``, ``train`` or ``eval``."""
    done: int = 0
    total: int = 0
    """Steps in training, questions in evaluation; 0 where there is nothing to count."""
    note: str = ""
    """E.g. ``loss 0.412``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a cell's process ended; whether it left a result is another question."""

    returncode: int
    """Exit code; minus the signal's number if a signal ended it."""
    passed_limit: Literal["wall_clock", "no_progress"] | None = None
    """The limit for which the executor ended it."""
    host_out_of_memory: bool = False
    """The kernel is known to have killed it for want of host memory."""


class RunningCell(Protocol):
    """A cell that was started."""

    device: str
    """``cpu`` or the GPU's name."""

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs. Enforces the cell's limits; leaves no process behind."""
        ...

    def cancel(self, *, grace_s: float) -> None:
        """End it with all its descendants: asked first, killed after ``grace_s`` seconds."""
        ...


class Executor(Protocol):
    """Gives cells a process. Whatever it starts writes ``result.json`` into the job folder."""

    slots: int
    """How many cells it runs at a time."""
    in_process: bool
    """Whether ``start`` returns only when the cell has ended."""

    def start(self, cell: Cell, job: Path) -> RunningCell:
        """Run the cell whose ``cell.json`` lies in the job folder."""
        ...


class ExecutorPlugin(Protocol):
    """A file in ``bench/executors``."""

    @staticmethod
    def create(cells: Sequence[Cell]) -> Executor:
        """An executor for these cells. Raises SpecError if it cannot run them here."""
        ...
