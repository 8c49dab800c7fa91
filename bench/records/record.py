"""CellRecord: everything known about one cell's run. Raw values, units in the names, null for "not measured"."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from bench.records.costs import Estimate, Params
from bench.records.fields import Amount, Count, Environment, Finite, RecordModel, device_bytes
from bench.records.scores import Accuracy, Score

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


class Failure(RecordModel):
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


class PhaseMemory(RecordModel):
    """CUDA memory peaks of one phase, after a reset at its start; bytes; null without CUDA."""

    allocated_peak_bytes: Count | None = None
    """Most that live tensors took at one moment."""
    reserved_peak_bytes: Count | None = None
    """Most that PyTorch's allocator held, cached and fragmented memory included."""


LEAST_CONTEXT_BYTES = 64 << 20
"""No process with a CUDA context takes less of a GPU; the driver alone shows a few MiB on an idle one."""
_MUCH = 0.05
"""Share of a GPU's memory that decides whether a cell fits; a desktop takes less of most."""


class Memory(RecordModel):
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


class Time(RecordModel):
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


class CutCount(RecordModel):
    """How many texts were longer than what the model takes."""

    cut: Count
    """Texts whose end was left out."""
    n: Count
    """Texts that were counted: all, or of a large split evenly spread ones."""


class Overlap(RecordModel):
    """Test examples that are training examples, too."""

    splits: list[str] = []
    """Splits that are both trained on and scored; empty if the two are apart by name."""
    same: Count
    """Test examples whose input, text and image, some training example has, too."""
    n: Count
    """Test examples."""
    images: str | None = None
    """What images were compared by: ``contents``, or ``names`` where there are too many; null without images."""


class LossPoint(RecordModel):
    """One point of the training curve."""

    step: Count
    """Optimizer step, from 0."""
    loss: Finite
    """Mean loss since the last point."""
    lr: Finite
    """Learning rate of the step."""


class CellRecord(RecordModel):
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
    scores: dict[str, Score] = {}
    """Metric -> score, of every task."""
    baselines: dict[str, dict[str, Score]] = {}
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

    def score(self, metric: str) -> Score | None:
        """Of the record's task; null if the cell was not scored, or not by this metric."""
        if not self.scores and self.accuracy is not None:
            return self.accuracy.scores().get(metric)
        return self.scores.get(metric)

    def baseline_scores(self) -> dict[str, dict[str, Score]]:
        """Baseline -> metric -> score, whatever program wrote the record."""
        if not self.baselines and self.accuracy is not None:
            return self.accuracy.baseline_scores()
        return self.baselines
