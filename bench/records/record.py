"""CellRecord: everything known about the run of a cell; raw values, units in field names, null for "not measured"."""

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
    """Not run: it cannot fit the given memory budget."""

    @property
    def is_result(self) -> bool:
        """Whether it is an outcome of the cell, not of the harness or the machine."""
        return self in (Status.OK, Status.OOM, Status.DIVERGED)


class Failure(RecordModel):
    """Why a cell did not end ``ok``."""

    type: str
    """Class of the exception, or ``HostOutOfMemory``, ``Timeout``, ``Signal``, ``NoResult``, ``Interrupted``,
    ``DoesNotFit``."""
    message: str
    """Message of the exception, or what went wrong."""
    phase: str | None = None
    """``setup``, ``load``, ``train`` or ``eval``; null if unknown."""
    step: Count | None = None
    """Optimizer step (from 0) in training, or batch in evaluation; null outside them."""
    log_tail: str = ""
    """Last lines of the cell's log."""


class PhaseMemory(RecordModel):
    """CUDA memory peaks of one phase, reset at its start, bytes; null without CUDA."""

    allocated_peak_bytes: Count | None = None
    """Peak memory of live tensors."""
    reserved_peak_bytes: Count | None = None
    """Peak memory held by PyTorch's allocator, cached and fragmented blocks included."""


LEAST_CONTEXT_BYTES = 64 << 20
"""Less than any process with a CUDA context holds; the driver alone shows a few MiB on an idle GPU."""
_SIGNIFICANT_SHARE = 0.05
"""Share of a GPU's memory from which other processes may be why a cell did not fit; a desktop takes less of most."""


class Memory(RecordModel):
    """Measured memory peaks of a run."""

    load: PhaseMemory = PhaseMemory()
    """While loading the model."""
    train: PhaseMemory = PhaseMemory()
    """In training."""
    eval: PhaseMemory = PhaseMemory()
    """In evaluation."""
    nvml_process_peak_bytes: Count | None = None
    """Peak of what NVML reports for the worker's process (includes the CUDA context), sampled; null without NVML."""
    host_rss_peak_bytes: Count | None = None
    """Peak resident set of the worker, bytes."""
    foreign_bytes: Count | None = None
    """GPU memory that other processes held when the cell started; null without NVML, if the driver does not report it,
    or if the worker itself held some."""

    @property
    def shared(self) -> bool:
        """Whether another process held memory of the GPU when the cell started."""
        return self.foreign_bytes is not None and self.foreign_bytes >= LEAST_CONTEXT_BYTES


class Time(RecordModel):
    """Times in seconds, synchronised with the device."""

    load_s: Amount | None = None
    """Building the model, loading its weights and putting the adapters in place."""
    train_s: Amount | None = None
    """Training without data set-up, warm-up steps and evaluation."""
    eval_s: Amount | None = None
    """Predicting the test examples and scoring the predictions."""
    step_median_s: Amount | None = None
    """Median of the timed training steps."""
    step_p95_s: Amount | None = None
    """95th percentile of the timed training steps."""
    samples_per_s: Amount | None = None
    """Training samples per second over ``train_s``."""
    data_wait_s: Amount | None = None
    """Part of ``train_s`` in which training waited for its next batch (decoding, tokenising)."""
    warmup_steps: Count | None = None
    """Initial steps excluded from ``train_s`` and the step times."""


class CutCount(RecordModel):
    """Number of texts longer than the model allows."""

    cut: Count
    """Texts that were truncated."""
    n: Count
    """Texts that were checked: all, or evenly spaced ones of a large split."""


class Overlap(RecordModel):
    """Test examples that are training examples, too."""

    splits: list[str] = []
    """Splits used for both training and evaluation; empty if they have different names."""
    same: Count
    """Test examples whose input (text and image) equals that of a training example."""
    n: Count
    """Test examples."""
    images: str | None = None
    """How images were compared: by ``contents``, or by ``names`` if there are too many; null without images."""


class LossPoint(RecordModel):
    """One point of the training curve."""

    step: Count
    """Optimizer step, from 0."""
    loss: Finite
    """Mean loss since the previous point."""
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
    """Seed of all random numbers of the run."""
    status: Status
    """How the cell ended."""
    error: Failure | None = None
    """Why the cell did not end ``ok``; null if it did."""
    params: Params | None = None
    """Parameter counts, exact; null if the cell ended before they were counted."""
    memory: Memory = Memory()
    """Measured peaks."""
    estimate: Estimate | None = None
    """Predicted costs of this cell for the data and weights it ran with; null if it was not estimated."""
    time: Time = Time()
    """Measured times."""
    energy_j: Amount | None = None
    """GPU energy over training, joules; null without NVML support."""
    task: str | None = None
    """Name of the task; null in old records, all of generative VQA."""
    accuracy: Accuracy | None = None
    """Accuracy of a task with open and closed questions."""
    scores: dict[str, Score] = {}
    """Metric -> score, of every task."""
    baselines: dict[str, dict[str, Score]] = {}
    """Baseline -> metric -> score, on the same examples."""
    overlap: Overlap | None = None
    """Test examples that are training examples, too; null if not checked."""
    texts_cut: dict[str, CutCount] | None = None
    """``train_questions``, ``train_answers``, ``test_questions`` -> truncated texts; null if not counted."""
    loss_curve: list[LossPoint] = []
    """Mean training loss, a point every ``train.log_every`` steps."""
    steps: Count | None = None
    """Optimizer steps done."""
    adapter_bytes: Count | None = None
    """Size of the tensors stored per task (adapters and trained tensors) as safetensors; null if nothing was saved."""
    predictions: str | None = None
    """File of per-question predictions, relative to the results folder of the spec."""
    data_digest: str | None = None
    """SHA-256 of the data's annotations and images; null if the cell ended before it was computed."""
    weights_digest: str | None = None
    """SHA-256 over the files that the model and its methods were built from: weights, configuration, tokenizer,
    preprocessing, ...; null if there were none."""
    notes: list[str] | None = None
    """Notes on the scores: how the data were read (files left out, frames not used, ...), and what could not be checked
    in evaluation; null in old records."""
    environment: Environment = {}
    """Versions, hardware, git commit; ``environment.device`` is the device's name (``cpu`` or the GPU's)."""
    settings: dict[str, Any] = {}
    """The resolved cell."""
    started_at: str | None = None
    """Start of the run, ISO 8601, UTC."""
    finished_at: str | None = None
    """End of the run, ISO 8601, UTC."""

    @property
    def is_final(self) -> bool:
        """Whether a rerun skips the cell: a result, except out of memory on a GPU that others used much of."""
        if self.status is not Status.OOM or not self.memory.shared:
            return self.status.is_result
        on_host = self.error is not None and self.error.type == HOST_OUT_OF_MEMORY
        return on_host or (self.memory.foreign_bytes or 0) < _SIGNIFICANT_SHARE * device_bytes(self.environment)

    def score(self, metric: str) -> Score | None:
        """Score by this metric; null if the cell has none."""
        if not self.scores and self.accuracy is not None:
            return self.accuracy.scores().get(metric)
        return self.scores.get(metric)

    def baseline_scores(self) -> dict[str, dict[str, Score]]:
        """Baseline -> metric -> score, also of old records with ``accuracy`` alone."""
        if not self.baselines and self.accuracy is not None:
            return self.accuracy.baseline_scores()
        return self.baselines
