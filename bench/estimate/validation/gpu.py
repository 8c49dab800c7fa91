"""The 23 cells of Tables 1 to 4 on a real NVIDIA GPU beside their predictions: random weights, generated inputs.

Each cell is measured in a process of its own, with the trainer, the phases and the meters of a run, and takes batches
of exactly the shapes that its estimate took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from bench.errors import BenchError
from bench.estimate.gpus import DEFAULT, generation
from bench.estimate.meta_run import generate_to_max_length
from bench.estimate.validation.cases import build_model, generated_inputs, meta_batch, take_steps
from bench.estimate.validation.paper import PaperRow, lengths_of, memory_of
from bench.records.costs import Estimate, PredictedPhase
from bench.records.record import PhaseMemory
from bench.spec.cell import Cell
from bench.training.device import describe_environment, forbid_tf32, seed_everything
from bench.training.failure import memory_error
from bench.training.measure import cuda_peaks, open_gpu_meter

LIMITS = {"allocated": 0.02, "reserved": 0.05}
"""Largest relative errors of a phase's predicted peaks."""
PHASES = ("train", "eval")


def require_gpu() -> None:
    """Raises BenchError, which says what is missing, where there is no CUDA device."""
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise BenchError(
            f"gpu: torch {torch.__version__} ({built}) finds no CUDA device. Run this command on a machine with an "
            "NVIDIA GPU, its driver and a torch with CUDA; it needs neither weights nor data"
        )


def measured_environment() -> dict[str, Any]:
    """The environment as a run records it, with the GPU's ``capability``."""
    # In its own process, as it opens a context on the GPU.
    return _in_process(_environment)


def _environment() -> dict[str, Any]:
    forbid_tf32(torch.device("cuda"))
    return describe_environment(torch.device("cuda")) | {"capability": torch.cuda.get_device_capability()}


def assumed_generation(environment: Mapping[str, Any]) -> str:
    """Generation of the GPU of ``measured_environment``; the default for one older than all."""
    return generation(tuple(environment["capability"])) or DEFAULT


def _in_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_in_process(cell: Cell, assumed: Mapping[str, Any]) -> dict[str, Any]:
    """``measure`` in a process of its own, whose failure is a status, ``error`` or ``crashed``."""
    try:
        return _in_process(measure, cell, dict(assumed))
    except BrokenProcessPool:
        return {"status": "crashed", "message": "the process died"}
    except Exception as error:
        return {"status": "error", "message": f"{type(error).__name__}: {error}"}


def measure(cell: Cell, assumed: Mapping[str, Any], device: str = "cuda") -> dict[str, Any]:
    """``status``, peaks of each phase, the process's peak by NVML and its context after the first step, bytes.

    Out of memory is a result (``oom``), with what was measured before it.
    """
    target = torch.device(device)
    if target.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # resetting peaks needs it
    forbid_tf32(target)
    seed_everything(cell.seed, target)
    meter = open_gpu_meter(target)
    meter.start()
    peaks: dict[str, PhaseMemory] = {}
    result: dict[str, Any] = {"status": "ok", "context_bytes": None}
    started = time.perf_counter()
    try:
        _run_phases(cell, assumed, target, peaks, result)
    except Exception as error:
        out_of_memory = memory_error(error)
        if out_of_memory is None:
            raise
        result |= {"status": "oom", "message": str(out_of_memory).splitlines()[0]}
    finally:
        meter.stop()
    reserved = max((peak.reserved_peak_bytes or 0 for peak in peaks.values()), default=0)
    return result | {
        "phases": {name: peak.model_dump() for name, peak in peaks.items()},
        "nvml_process_peak_bytes": meter.process_peak_bytes(at_least=reserved),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _run_phases(
    cell: Cell,
    assumed: Mapping[str, Any],
    device: torch.device,
    peaks: dict[str, PhaseMemory],
    result: dict[str, Any],
) -> None:
    with cuda_peaks(device, peaks, "load"):
        model = build_model(cell, str(device))
    precision = generated_inputs(cell.train.precision, str(device))
    train, evaluation = lengths_of(assumed)

    def after_step(step: int) -> None:
        if step == 0:
            result["context_bytes"] = _context_bytes(device)

    with cuda_peaks(device, peaks, "train"):
        take_steps(model, cell.train, train, precision, after_step)
        _synchronize(device)
    with cuda_peaks(device, peaks, "eval"):
        model.module.eval()
        settings = cell.evaluate
        batch = meta_batch(model, settings.batch_size, evaluation)
        with torch.no_grad(), precision.context(), generate_to_max_length(settings.max_new_tokens):
            model.generate(precision.to_device(batch.tensors), settings.options())
        _synchronize(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _context_bytes(device: torch.device) -> int | None:
    """GPU memory of the process outside torch's allocator; None if NVML does not list the process."""
    _synchronize(device)
    reserved = torch.cuda.memory_reserved(device)
    meter = open_gpu_meter(device)
    meter.sample()
    total = meter.process_peak_bytes(at_least=reserved)
    return None if total is None else total - reserved


def compare(row: PaperRow, estimate: Estimate, measured: Mapping[str, Any]) -> dict[str, Any]:
    """A line of ``gpu.jsonl``: predicted, measured, errors and verdicts of each phase that was measured."""
    memory, _ = memory_of(estimate)
    phases = {}
    for name in PHASES:
        predicted, peak = getattr(memory, name), measured.get("phases", {}).get(name)
        if measured["status"] == "ok" and predicted is not None and peak is not None:
            phases[name] = phase_errors(predicted, PhaseMemory.model_validate(peak))
    return {
        "spec": row.table,
        "label": row.cell.label,
        "printed_gib": row.printed,
        "estimate": estimate.model_dump(mode="json"),
        "measured": dict(measured),
        "phases": phases,
    }


def phase_errors(predicted: PredictedPhase, measured: PhaseMemory) -> dict[str, Any]:
    """Relative error of each kind of peak, and whether it holds."""
    errors: dict[str, Any] = {}
    for kind, limit in LIMITS.items():
        ours, theirs = getattr(predicted, f"{kind}_peak_bytes"), getattr(measured, f"{kind}_peak_bytes")
        if theirs:
            error = ours / theirs - 1
            errors |= {f"{kind}_error": error, f"{kind}_holds": abs(error) <= limit}
    return errors


def verdicts(line: Mapping[str, Any]) -> list[bool]:
    """Whether each measured peak of a line holds."""
    return [value for phase in line["phases"].values() for name, value in phase.items() if name.endswith("_holds")]


def holds(line: Mapping[str, Any]) -> bool:
    """Whether the cell ended in an allowed way and all its peaks are within their limits."""
    return line["measured"]["status"] in ("ok", "oom") and all(verdicts(line))
