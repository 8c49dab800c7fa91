"""CellRecord: everything known about one cell's run. Raw values, units in the names, null for "not measured"."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from bench.records.bounds import Amount, Count, Environment, Finite, check_correct, device_bytes
from bench.records.record_parts import CutCount, Flops, Overlap, Part

SCHEMA_VERSION = 1
HOST_OUT_OF_MEMORY = "HostOutOfMemory"


class Status(StrEnum):
    """How a cell ended."""

    OK = "ok"
    OOM = "oom"
    """Out of memory, on the GPU or the host: a result, not a failure of the harness."""
    TIMEOUT = "timeout"
    DIVERGED = "diverged"
    """The loss became NaN or infinite: a result."""
    ERROR = "error"
    """An exception."""
    CRASHED = "crashed"
    """The worker ended without a result."""
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    """Cannot fit the given budget."""

    @property
    def is_result(self) -> bool:
        """Whether it says something about the cell, not only about the harness or the machine."""
        return self in (Status.OK, Status.OOM, Status.DIVERGED)


class Failure(Part):
    """Why a cell did not end ``ok``."""

    type: str
    """Class of the exception, or ``HostOutOfMemory``, ``Timeout``, ``Signal``, ``NoResult``, ``Interrupted``,
    ``DoesNotFit``."""
    message: str
    """What went wrong, as the exception says it."""
    phase: str | None = None
    """``setup``, ``load``, ``train`` or ``eval``; null if unknown."""
    step: Count | None = None
    """Optimizer step (from 0) in training, or batch in evaluation; null outside them."""
    log_tail: str = ""
    """Last lines of the cell's log."""


class PartParams(Part):
    """Parameter counts of one part."""

    trainable: Count
    """Parameters that get gradients."""
    total: Count
    """All parameters of the part, adapters included."""


class Params(Part):
    """Parameter counts of the adapted model, tied tensors once."""

    trainable: Count
    """Parameters that get gradients."""
    total: Count
    """All parameters, adapters included."""
    pct: Annotated[float, Field(ge=0, le=100)]
    """100 * trainable / total, percent."""
    stored: Count
    """Elements of what one must keep per task: saved adapters plus trained tensors."""
    by_part: dict[str, PartParams]
    """Part -> its counts."""


class PhaseMemory(Part):
    """CUDA memory peaks of one phase, after a reset at its start; bytes; null without CUDA."""

    allocated_peak_bytes: Count | None = None
    """Most that live tensors took at one moment."""
    reserved_peak_bytes: Count | None = None
    """Most that PyTorch's allocator held, cached and fragmented memory included."""


LEAST_CONTEXT_BYTES = 64 << 20
"""No process with a CUDA context takes less of a GPU; the driver alone shows a few MiB on an idle one."""
_MUCH = 0.05
"""Share of a GPU's memory that decides whether a cell fits; a desktop takes less of most."""


class Memory(Part):
    """Peaks of a run."""

    load: PhaseMemory = PhaseMemory()
    """While the model was loaded."""
    train: PhaseMemory = PhaseMemory()
    """In training."""
    eval: PhaseMemory = PhaseMemory()
    """In evaluation."""
    nvml_process_peak_bytes: Count | None = None
    """Peak of what NVML reports for the worker's process (includes the CUDA context), sampled; null without NVML."""
    host_rss_peak_bytes: Count | None = None
    """Peak resident set of the worker, bytes."""
    foreign_bytes: Count | None = None
    """GPU memory that others held when the cell started; null without NVML, where its driver cannot say, or where
    the process of the cell held some itself."""

    @property
    def shared(self) -> bool:
        """Whether another process held memory of the GPU when the cell started."""
        return self.foreign_bytes is not None and self.foreign_bytes >= LEAST_CONTEXT_BYTES


class Time(Part):
    """Seconds; synchronised with the device."""

    load_s: Amount | None = None
    """Building the model, loading its weights and putting the adapters in place."""
    train_s: Amount | None = None
    """Training without data set-up, warm-up steps and evaluation."""
    eval_s: Amount | None = None
    """Predicting the test examples and scoring the predictions."""
    step_median_s: Amount | None = None
    """Median of the timed training steps."""
    step_p95_s: Amount | None = None
    """Their 95th percentile."""
    samples_per_s: Amount | None = None
    """Training samples per second over ``train_s``."""
    data_wait_s: Amount | None = None
    """Part of ``train_s`` in which training waited for its next batch (decoding, tokenising)."""
    warmup_steps: Count | None = None
    """Steps at the start left out of ``train_s`` and the step times."""


class Score(Part):
    """A share with its numerator and denominator."""

    correct: Count
    n: Count

    @model_validator(mode="after")
    def _within(self) -> Score:
        check_correct(self.correct, self.n)
        return self


class TaskScore(Part):
    """A score of a task, as it is defined: a share or a mean from 0 to 1, a correlation from -1 to 1."""

    value: Finite | None
    """Null where there was nothing to score."""
    n: Count
    """Examples it was taken over."""
    correct: Count | None = None
    """Numerator of a share; null for a score that is none, such as F1."""

    @model_validator(mode="after")
    def _within(self) -> TaskScore:
        check_correct(self.correct, self.n)
        return self

    @classmethod
    def share(cls, correct: int, n: int) -> TaskScore:
        """``correct`` of ``n``."""
        return cls(value=correct / n if n else None, n=n, correct=correct)


class Baseline(Part):
    open: Score
    closed: Score
    overall: Score = Field(alias="global", serialization_alias="global")
    model_config = ConfigDict(populate_by_name=True)


class Accuracy(Part):
    """Exact-match accuracy after normalisation."""

    open: Score
    closed: Score
    overall: Score = Field(alias="global", serialization_alias="global")
    """open + closed, numerators and denominators added."""
    baselines: dict[str, Baseline] = {}
    """``always_yes``, ``always_no``, ``question_only`` on the same questions."""
    model_config = ConfigDict(populate_by_name=True)

    @classmethod
    def of(cls, scores: Mapping[str, TaskScore], baselines: Mapping[str, Mapping[str, TaskScore]]) -> Accuracy | None:
        """Of a task that tells open and closed questions apart; null of any other."""
        own = _shares(scores)
        if own is None:
            return None
        others = {name: shares for name, found in baselines.items() if (shares := _shares(found)) is not None}
        return cls(**own, baselines={name: Baseline(**shares) for name, shares in others.items()})

    def score(self, metric: str) -> TaskScore | None:
        """One of them by the name of its metric; null for a metric of another task."""
        share = {"open": self.open, "closed": self.closed, "global": self.overall}.get(metric)
        return None if share is None else _task_score(share.correct, share.n)

    def scores(self) -> dict[str, TaskScore]:
        """All of them, by name."""
        return _task_scores(self)

    def baseline_scores(self) -> dict[str, dict[str, TaskScore]]:
        """Likewise of the baselines."""
        return {name: _task_scores(baseline) for name, baseline in self.baselines.items()}


def _shares(scores: Mapping[str, TaskScore]) -> dict[str, Score] | None:
    shares = {
        name: Score(correct=s.correct, n=s.n)
        for name in ("open", "closed", "global")
        if (s := scores.get(name)) is not None and s.correct is not None
    }
    return shares if len(shares) == 3 else None


def _task_scores(shares: Accuracy | Baseline) -> dict[str, TaskScore]:
    found = {"open": shares.open, "closed": shares.closed, "global": shares.overall}
    return {name: _task_score(share.correct, share.n) for name, share in found.items()}


@lru_cache(maxsize=1024)
def _task_score(correct: int, n: int) -> TaskScore:
    """The baselines of all cells of a data set are the same few, and a report asks for them again and again."""
    return TaskScore.share(correct, n)


MEMORY_KINDS = ("weights", "gradients", "optimizer_state", "activations", "inputs", "temporary")
"""What a predicted peak is made of. ``activations``: made by a forward pass, kept for backward or not; ``temporary``:
made in backward, in the optimizer's step or by a library (cuBLAS workspaces)."""


class PredictedPhase(Part):
    """What CUDA's caching allocator would report for one phase, bytes."""

    allocated_peak_bytes: Count
    """Most that live tensors take at one moment."""
    reserved_peak_bytes: Count
    """Most that the allocator holds, cached and fragmented memory included."""
    by_kind: dict[str, int]
    """``MEMORY_KINDS`` -> bytes at the moment of the allocated peak; they add up to it."""

    @model_validator(mode="after")
    def _adds_up(self) -> PredictedPhase:
        if sum(self.by_kind.values()) != self.allocated_peak_bytes:
            raise ValueError("the kinds of memory do not add up to the peak")
        return self


class PredictedMemory(Part):
    """Predicted peaks of a run on a CUDA device."""

    train: PredictedPhase | None
    """In training; null if the cell trains nothing."""
    eval: PredictedPhase
    """In evaluation."""
    context_bytes: Count
    """What the process takes on the GPU beside PyTorch's allocator: CUDA context and loaded kernels."""

    @property
    def process_peak_bytes(self) -> int:
        """What the whole process needs: the highest reserved peak and the context."""
        return max(p.reserved_peak_bytes for p in (self.train, self.eval) if p is not None) + self.context_bytes


class Estimate(Part):
    """The costs that need no run: no GPU, no weights, no data."""

    params: Params | None = None
    """Exact."""
    memory: PredictedMemory | None = None
    """Predicted; null if it cannot be modelled (see ``refused``)."""
    flops: Flops | None = None
    """Counted; null if it cannot be."""
    adapter_bytes: Count | None = None
    """Size of what is stored per task as safetensors, exact; null if the cell trains nothing."""
    assumed: dict[str, Any] = {}
    """What the numbers hold for: batch and image size, tokens, precision, attention, optimizer, GPU generation, ..."""
    max_batch: Count | None = None
    """Largest training batch whose process fits the given budget, evaluation included; 0 if none does, null if not
    asked."""
    refused: list[str] = []
    """What cannot be modelled, by name and with the reason; what stands beside it holds all the same."""


class LossPoint(Part):
    """One point of the training curve."""

    step: Count
    """Optimizer step, from 0."""
    loss: Finite
    """Mean loss since the last point."""
    lr: Finite
    """Learning rate of the step."""


class CellRecord(Part):
    """One line of ``results/<spec>/<scale>.jsonl``."""

    schema_version: int = SCHEMA_VERSION
    """Version of the schema the record was written by."""
    cell_id: str
    """First 16 hex digits of the SHA-256 of what determines the cell's result."""
    spec: str
    """Name of the spec."""
    scale: str
    """Name of the scale it was run at, such as ``paper`` or ``demo``."""
    label: str
    """Readable name of the cell, matched by ``--only``."""
    labels: dict[str, Any]
    """Axis name -> value."""
    parts: dict[str, str]
    """Part -> action (``F``, ``T`` or a method's name)."""
    seed: Count
    """Of all random numbers of the run."""
    status: Status
    """How the cell ended."""
    error: Failure | None = None
    """Why it did not end ``ok``; null if it did."""
    params: Params | None = None
    """Parameter counts, exact; null if the cell ended before they were counted."""
    memory: Memory = Memory()
    """Measured peaks."""
    estimate: Estimate | None = None
    """What was predicted for this cell, for the data and weights it ran with; null if it was not made."""
    time: Time = Time()
    """Measured times."""
    energy_j: Amount | None = None
    """GPU energy over training, joules; null without NVML support."""
    task: str | None = None
    """Name of the task; null in records of a program that knew but one, generative VQA."""
    accuracy: Accuracy | None = None
    """Of a task that tells open and closed questions apart."""
    scores: dict[str, TaskScore] = {}
    """Metric -> score, of every task."""
    baselines: dict[str, dict[str, TaskScore]] = {}
    """Baseline -> metric -> score, on the same examples."""
    overlap: Overlap | None = None
    """Test examples that are training examples, too; null if it was not looked for."""
    texts_cut: dict[str, CutCount] | None = None
    """``train_questions``, ``train_answers``, ``test_questions`` -> how many were cut; null if not counted."""
    loss_curve: list[LossPoint] = []
    """Mean training loss, a point every ``train.log_every`` steps."""
    steps: Count | None = None
    """Optimizer steps done."""
    adapter_bytes: Count | None = None
    """Size of what is stored per task (adapters and trained tensors) as safetensors; null if nothing was saved."""
    predictions: str | None = None
    """File of per-question predictions, relative to the results folder of the spec."""
    data_digest: str | None = None
    """SHA-256 of the data's annotations and images; null if the cell ended before it was taken."""
    weights_digest: str | None = None
    """SHA-256 over the files that the model was built from: weights, configuration, tokenizer, preprocessing, and those
    that its methods name; null if there were none."""
    notes: list[str] | None = None
    """What a reader of the scores must know: of how the data were read, files left out, frames not used, ...; of the
    evaluation, what could not be checked; null in records of a program that kept none."""
    environment: Environment = {}
    """Versions, hardware, git commit; ``environment.device`` is the device's name (``cpu`` or the GPU's)."""
    settings: dict[str, Any] = {}
    """The whole resolved cell."""
    started_at: str | None = None
    """ISO 8601, UTC."""
    finished_at: str | None = None
    """ISO 8601, UTC."""

    @property
    def is_final(self) -> bool:
        """Whether a rerun skips the cell: a result, unless others held much of the GPU memory that it lacked."""
        return self.status.is_result and not (self.status is Status.OOM and self._lacked_what_others_held())

    def _lacked_what_others_held(self) -> bool:
        if not self.memory.shared or (self.error is not None and self.error.type == HOST_OUT_OF_MEMORY):
            return False
        return (self.memory.foreign_bytes or 0) >= _MUCH * device_bytes(self.environment)

    def score(self, metric: str) -> TaskScore | None:
        """Of the record's task; null if the cell was not scored, or not by this metric."""
        if not self.scores and self.accuracy is not None:
            return self.accuracy.score(metric)
        return self.scores.get(metric)

    def baseline_scores(self) -> dict[str, dict[str, TaskScore]]:
        """Baseline -> metric -> score, whatever program wrote the record."""
        if not self.baselines and self.accuracy is not None:
            return self.accuracy.baseline_scores()
        return self.baselines
