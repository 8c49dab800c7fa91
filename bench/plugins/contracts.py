"""What a plugin of each kind offers: typed contracts, checked by mypy and by tests/test_architecture.py.

A plugin is a *module* (one file). Its top level stays light; torch and friends are imported in functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from peft import PeftConfig
    from PIL.Image import Image

    from bench.plugins.settings import DataSettings, MethodSettings, ModelSettings, TaskSettings
    from bench.records.scores import Score

AnswerType = Literal["open", "closed"]


# --- data sets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What a model is given, an image, a text or both, and what it should answer."""

    question_id: str
    """Unique within its split, stable between runs."""
    image: str | None = None
    """What ``OpenedData.image`` needs to find it: for a data set of files, the path below its root. Null: no image."""
    questions: tuple[str, ...] = ()
    """The question, prompt or text to classify; or a pool, of which one is drawn at each visit. Empty: no text."""
    text_pair: str | None = None
    """The second text of a pair, such as a hypothesis; null: the question stands alone."""
    answer: str
    """The answer, or the name of the class."""
    answer_type: AnswerType | None = None
    """Of a question, as the data set's own annotation says; null if it has none."""

    @property
    def image_name(self) -> str:
        """``image`` where there must be one. Raises DataError if there is none."""
        if self.image is None:
            raise DataError(f"example {self.question_id} has no image; choose other data, or name its images")
        return self.image

    def question(self, rng: random.Random | None = None) -> str:
        """One of the questions: drawn by ``rng``, or the first without it (evaluation); empty if there is none."""
        if not self.questions:
            return ""
        if rng is None or len(self.questions) == 1:
            return self.questions[0]
        return rng.choice(self.questions)


class OpenedData(Protocol):
    """An opened data set."""

    def split(self, name: str) -> Sequence[Example]:
        """All examples of a split, in the order of the file; may be lazy. Raises DataError for an unknown split."""
        ...

    def image(self, example: Example) -> Image:
        """The decoded RGB image of any size; never asked for where ``example.image`` is null. Raises DataError that
        names file and question_id if it is broken."""
        ...

    def texts(self) -> Sequence[str]:
        """All texts a vocabulary must cover (questions and answers of every split, or a representative list)."""
        ...

    # A data set whose images are files may have ``image_digests(names: Sequence[str]) -> list[str]``, too: a digest of
    # the content of each image, by ``Example.image``. Without it images are decoded where contents are compared.


class DataPlugin(Protocol):
    """A file in ``bench/datasets``."""

    Settings: type[DataSettings]

    @staticmethod
    def digest(settings: Any) -> str:
        """SHA-256 (hex) over the contents of annotations and images; no torch.

        ``bench.files`` remembers the hashes of files between runs. What takes long all the same, such as a
        download, calls its ``takes_long`` first, since lists and reports ask, too. Raises DataError if the data is not
        there: where to get it, which layout is expected, what runs without it.
        """
        ...

    @staticmethod
    def load(settings: Any) -> OpenedData: ...

    # What ``load`` returns may have ``notes() -> Sequence[str]``: how the data were read, asked when the cell ends. A
    # plugin that looks for images may have ``load_annotations(settings) -> OpenedData``: examples for an estimate.


# --- tasks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """What a model family must know about the task it is built for."""

    name: str
    inputs: tuple[Literal["image", "text"], ...]
    """What an example gives the model."""
    output: Literal["label", "text"]
    """A label is chosen among ``labels`` (a ``LabelModel``), a text is generated (a ``TextModel``)."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the order of the logits; empty for text."""
    labels_from: Literal["data", "spec", "assumed"] = "data"
    """``assumed``: nothing says how many classes there are; good enough to look at a model, not to run it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreFacts:
    """How a score of a task is printed. Higher is better."""

    header: str
    title: str = ""
    """Where it stands alone, as on an axis; empty: the header."""
    unit: str = "%"
    factor: float = 100.0
    """From the raw value in a record to the printed one."""
    digits: int = 2
    outcome: str | None = None
    """Field of an example's line in the file of predictions whose mean over the examples is the raw value; null for a
    score that is no mean, such as a correlation. What is known of a score's uncertainty comes from it or from
    ``influence``."""
    only: tuple[str, str] | None = None
    """Field and value of the lines that count; null: all."""
    influence: Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]] | None = None
    """For a score that is no mean: answers and predictions -> (examples,), the raw value plus what each example moves
    it by, to first order (the infinitesimal jackknife; Efron 1982). Their mean is the raw value."""
    lowest: float = 0.0
    """The least raw value there can be; the largest is 1."""


class Task(Protocol):
    """A task with its settings, for one data set."""

    facts: TaskFacts

    def check(self, example: Example) -> None:
        """Raise DataError, with a remedy, if such an example cannot be scored. Called before training."""
        ...

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """What a training batch holds beside the model's own inputs, on the CPU; empty where ``collate`` has it all.

        Raises DataError for an answer that is no label."""
        ...

    def loss(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scalar mean training loss, shape (); ``model`` is the kind that ``facts.output`` asks for."""
        ...

    def predict(self, model: Any, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """One answer, or name of a class, per row."""
        ...

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Metric of ``METRICS`` -> score."""
        ...

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """Baseline of ``BASELINES`` -> the same metrics, of answering without a look at the input."""
        ...

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """Further fields of the example's line in the file of predictions, JSON; ``correct`` (bool) among them."""
        ...


class TaskPlugin(Protocol):
    """A file in ``bench/tasks``."""

    Settings: type[TaskSettings]
    FACTS: TaskFacts
    """Without labels."""
    METRICS: dict[str, ScoreFacts]
    """In the order of a table's columns."""
    MAIN: str
    """The metric by which methods are ranked."""
    BASELINES: dict[str, str]
    """Baseline -> what tables call it. The first is the prior: what knowing the training answers alone scores."""

    @staticmethod
    def create(settings: Any, evaluate: Any, train: Sequence[Example]) -> Task:
        """The task as set by ``task`` and ``evaluate`` of a spec; of ``train`` (all training examples; empty if they
        are not here) it learns the labels."""
        ...


# --- models --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateOptions:
    """What ``evaluate`` of a spec says of generation."""

    num_beams: int
    max_new_tokens: int
    length_denominator: Literal["generated", "as_transformers_4"] = "generated"
    attend_padding: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFacts:
    """What a method must know about the part it is put on."""

    name: str
    task_type: str | None
    """peft.TaskType name for prompt methods (``FEATURE_EXTRACTION``, ``CAUSAL_LM``); null if they do not fit here."""
    targets: dict[str, list[str]]
    """Method type -> default target module names; a key ``<method>.<option>`` holds a further list of that method."""
    optional: bool = False
    """Whether a spec need not name it: it is frozen then, and a model may lack it."""
    architecture: str | None = None
    """``model_type`` of the transformers configuration that it is built from; null: none; empty: not known yet."""
    model_task_type: str | None = None
    """peft.TaskType name of the model that the part is in; null: none, or not known yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLengths:
    """Tokens of the longest question and answer of a batch, special tokens included, as ``collate`` pads them; 0 where
    a task has none."""

    question_tokens: int
    answer_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CutTexts:
    """How many of some texts are longer than what a model takes of them; the rest of each is left out."""

    questions: int
    answers: int


class BenchModel(Protocol):
    """A built model of some family, as the worker and the estimate see it: a ``TextModel`` or a ``LabelModel``."""

    module: torch.nn.Module
    """The whole model; its ``parameters()`` are what is counted, trained and stored."""
    part_facts: Mapping[str, PartFacts]
    """The parts that this model has."""
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
        """Preprocess and tokenise: tensors on the CPU, the batch first. Without answers: ready to predict."""
        ...

    def checkpoint_activations(self) -> None:
        """While training, compute activations again in the backward pass instead of keeping them; called when all
        adapters are in place. Raises BenchError, before the first step, where the model cannot.
        """
        ...

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """Of a batch of these texts: what ``collate`` would pad them to, cuts included."""
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

    # A family whose ``generate`` heeds fields of ``OPTIONAL_SEARCH`` (``bench.spec.sections``) names them in its file's
    # ``SEARCH``; a spec that sets one for another family is refused.
    #
    # A model that cuts long texts has ``cut_texts(questions, answers) -> CutTexts``, too; one that reads pairs of texts
    # is a ``PairModel``. A model that chooses among known answers has ``learn_answers(answers: Iterable[str])``, too:
    # called once, before training, with the answers of all training examples.


class TextModel(BenchModel, Protocol):
    """Answers in words."""

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scalar mean training loss, shape ()."""
        ...

    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """One answer text per row, special tokens removed."""
        ...


class LabelModel(BenchModel, Protocol):
    """Chooses among the labels of its task."""

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shape (batch, labels)."""
        ...


class PairModel(LabelModel, Protocol):
    """Reads pairs of texts, too: where there are ``pairs``, the second text of each question."""

    reads_pairs: bool

    def collate(
        self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()
    ) -> dict[str, torch.Tensor]: ...

    def lengths(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> InputLengths: ...

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> CutTexts: ...


class ModelPlugin(Protocol):
    """A file in ``bench/models``."""

    Settings: type[ModelSettings]
    PARTS: dict[str, PartFacts]
    """The parts of the family, or of a spec that declares none of its own."""

    @staticmethod
    def parts(settings: Any, task: TaskFacts) -> dict[str, PartFacts]:
        """The parts that a spec may speak of. Light: runs when the spec is validated. Raises SpecError if the family
        cannot be built for this task."""
        ...

    @staticmethod
    def weights_digest(settings: Any) -> str | None:
        """SHA-256 over every file that the model is built from: weights, configuration, tokenizer, preprocessing. Null
        if there is none, raises WeightsError if one is not there. As ``DataPlugin.digest``, asked by lists, too."""
        ...

    @staticmethod
    def build(settings: Any, *, texts: Sequence[str], device: str, task: TaskFacts) -> BenchModel:
        """Build for the task, with weights loaded. ``device="meta"``: shapes only, no weights read, for counting."""
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
