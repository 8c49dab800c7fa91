"""A cell from set-up to record; called by ``python -m bench.worker`` and by the inline executor."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from bench import registry, versions
from bench.estimate.gpus import DEFAULT, generation
from bench.execution.contracts import Progress
from bench.execution.inputs import data_digest, weights_digest
from bench.files import write_atomic
from bench.plugins.contracts import BenchModel
from bench.records.record import CellRecord
from bench.spec.cell import Cell
from bench.training.adapt import Run, adapt, check_on_meta
from bench.training.audit import EXAMPLES, check_evaluation, check_frozen
from bench.training.data import count_cut, load_data, overlap, task_of
from bench.training.device import choose_device, forbid_tf32, make_precision, seed_everything
from bench.training.evaluate import predict, write_predictions
from bench.training.params import count_params, stored_tensors, write_tensors
from bench.training.train import train
from bench.worker.recorder import PREDICTIONS_FILE, PROGRESS_FILE, Heartbeat, Recorder


def run_cell(cell: Cell, job: Path) -> CellRecord:
    """Set up, freeze and adapt, audit, train, evaluate and measure; files go into ``job``.

    Always returns a record: an exception becomes its status and failure. KeyboardInterrupt and SystemExit pass.
    """
    job.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(cell, job)
    try:
        _run(cell, job, recorder)
    except Exception as error:
        traceback.print_exception(error)
        recorder.fail(error)
    return recorder.record()


def run_and_estimate(cell: Cell, job: Path, result: Path) -> CellRecord:
    """Run the cell and write its record to ``result``, then again with its estimate."""
    record = run_cell(cell, job)
    write_atomic(result, record.model_dump_json(by_alias=True).encode())
    # Last: the estimate disturbs nothing that is measured, and if it ends early the record is already there.
    Heartbeat(job / PROGRESS_FILE).beat(Progress(phase="estimate"))
    try:
        from bench.estimate.estimator import estimate

        gpu = generation(torch.cuda.get_device_capability()) if torch.cuda.is_available() else None
        record = record.model_copy(update={"estimate": estimate(cell, gpu=gpu or DEFAULT)})
    except Exception as error:  # a fault of the estimate, not of the cell
        print("no estimate of this cell:")
        traceback.print_exception(error)
    else:
        write_atomic(result, record.model_dump_json(by_alias=True).encode())
    return record


def _run(cell: Cell, job: Path, recorder: Recorder) -> None:
    with recorder.phase("setup"):
        versions.check()
        device = choose_device(cell.run.device)
        recorder.use(device)
        forbid_tf32(device)
        check_on_meta(cell)  # before anything is loaded, and before the seed: it may draw random numbers
        if cell.run.threads is not None:
            torch.set_num_threads(cell.run.threads)
        seed_everything(cell.seed, device)
        recorder.data_digest = data_digest(cell)  # before the data is read, so that even a failure's record has it
        recorder.weights_digest = weights_digest(cell)
        data = load_data(cell.data)
        if notes := getattr(data.source, "notes", None):
            recorder.notes.append(notes)
        task = task_of(cell, data)
        recorder.overlap = overlap(data, task, cell.data)
    with recorder.phase("load"):
        family = registry.load("models", cell.model.family)
        model: BenchModel = family.build(cell.model, texts=data.source.texts(), device=str(device), task=task.facts)
        if learn := getattr(model, "learn_answers", None):
            learn(example.answer for example in data.train)
        adapters = adapt(model, model.part_facts, cell.parts, cell.methods)
        for part, applied in adapters.items():
            print(f"{cell.parts[part]} on {part}: {applied.note}", flush=True)
        precision = make_precision(cell.train.precision, device)
        model.module.to(device, precision.weights)
        recorder.params = count_params(model, cell.parts, adapters)
        check_frozen(model, cell.parts, adapters)
    run = Run(cell=cell, data=data, task=task, model=model, adapters=adapters, precision=precision)
    recorder.texts_cut = count_cut(data, model, task) or None
    with recorder.phase("train"):
        try:
            train(run, recorder.training, recorder.beat)
        finally:
            recorder.gpu.mark_energy("end")
    _store(run, job, recorder)
    with recorder.phase("eval"):
        predictions = predict(run, recorder.beat)
        write_predictions(job / PREDICTIONS_FILE, task, data.test, predictions)
        recorder.scores = task.score(data.test, predictions)
        recorder.baselines = task.baselines(data.train, data.test)
    with recorder.unmeasured():
        examples = data.test[: min(EXAMPLES, cell.evaluate.batch_size)]
        if unjudged := check_evaluation(run, data.test_batch(model, task, examples)):
            recorder.notes.append(lambda: unjudged)


def _store(run: Run, job: Path, recorder: Recorder) -> None:
    """Write the tensors stored per task, to measure their size; keep the file if the cell asks for it."""
    train = run.cell.train
    tensors = stored_tensors(run.model, run.cell.parts, run.adapters)
    recorder.host.note()  # writing copies the tensors, which is not part of the cell's memory
    if tensors:
        file = job / "adapter" / "adapter.safetensors"
        recorder.adapter_bytes = write_tensors(file, tensors)
        if not train.save_adapter:
            file.unlink()
            file.parent.rmdir()
    if train.save_model is not None:
        registry.load("models", run.cell.model.family).save(run.model, train.save_model)
    recorder.host.restart()
