"""The whole flow of one cell, in order; called by ``python -m bench.worker`` and by the inline executor."""

from __future__ import annotations

import traceback
from functools import partial
from pathlib import Path

import torch

from bench import registry, versions
from bench.estimate.gpus import DEFAULT, generation
from bench.execution.contracts import Progress
from bench.execution.inputs import data_digest, weights_digest
from bench.files import write_atomic
from bench.plugins.contracts import BenchModel, Task
from bench.records.record import CellRecord
from bench.spec.cell import Cell
from bench.training.adapt import AppliedMethod, adapt, check_on_meta, method_groups
from bench.training.audit import check_frozen
from bench.training.audit_evaluation import EXAMPLES, check_evaluation
from bench.training.data import LoadedData, evaluation_batches, load_data, task_of, training_batches
from bench.training.device import Precision, choose_device, forbid_tf32, make_precision, seed_everything
from bench.training.evaluate import predict, write_predictions
from bench.training.inputs import count_cut, overlap
from bench.training.measure import write_tensors
from bench.training.optimizer import ParamGroup, make_schedule
from bench.training.params import count_params, stored_tensors
from bench.training.train import train
from bench.worker.heartbeat import Heartbeat
from bench.worker.recorder import PREDICTIONS_FILE, Recorder


def run_cell(cell: Cell, job: Path) -> CellRecord:
    """Set up, freeze and adapt, audit, train, evaluate and measure; files go into ``job``.

    Always returns a record: an exception becomes its status and failure. KeyboardInterrupt and SystemExit pass.
    """
    job.mkdir(parents=True, exist_ok=True)
    draft = Recorder(cell, job)
    try:
        _run(cell, job, draft)
    except Exception as error:
        traceback.print_exception(error)
        draft.fail(error)
    return draft.record()


def run_and_estimate(cell: Cell, job: Path, result: Path) -> CellRecord:
    """Run the cell and write its record to ``result``; then once more, with its estimate.

    The estimate comes last: it disturbs nothing that is measured, and what ends it early leaves the record whole.
    """
    record = run_cell(cell, job)
    write_atomic(result, record.model_dump_json(by_alias=True).encode())
    Heartbeat(job / "progress.json").beat(Progress(phase="estimate"))
    try:
        from bench.estimate.estimator import estimate

        record = record.model_copy(update={"estimate": estimate(cell, gpu=_gpu())})
    except Exception as error:  # a want of ours, no fault of the cell
        print("no estimate of this cell:")
        traceback.print_exception(error)
    else:
        write_atomic(result, record.model_dump_json(by_alias=True).encode())
    return record


def _gpu() -> str:
    """Generation of the GPU in use, or the one assumed without any."""
    found = generation(torch.cuda.get_device_capability()) if torch.cuda.is_available() else None
    return found or DEFAULT


def _run(cell: Cell, job: Path, draft: Recorder) -> None:
    with draft.phase("setup"):
        versions.check()
        device = choose_device(cell.run.device)
        draft.use(device)
        forbid_tf32(device)
        check_on_meta(cell)  # before anything is loaded, and before the seed: it may draw random numbers
        if cell.run.threads is not None:
            torch.set_num_threads(cell.run.threads)
        seed_everything(cell.seed, device)
        draft.data_digest = data_digest(cell)  # first of all: a record without says of no files that they are others
        draft.weights_digest = weights_digest(cell)
        data = load_data(cell.data)
        if ask := getattr(data.source, "notes", None):
            draft.noted.append(ask)
        task = task_of(cell, data)
        draft.overlap = overlap(data, task, cell.data)
    with draft.phase("load"):
        plugin = registry.load("models", cell.model.family)
        model: BenchModel = plugin.build(cell.model, texts=data.source.texts(), device=str(device), task=task.facts)
        if learn := getattr(model, "learn_answers", None):
            learn(example.answer for example in data.train)
        adapters = adapt(model, model.part_facts, cell.parts, cell.methods)
        for part, adapted in adapters.items():
            print(f"{cell.parts[part]} on {part}: {adapted.note}", flush=True)
        precision = make_precision(cell.train.precision, device)
        model.module.to(device, precision.weights)
        draft.params = count_params(model, cell.parts, adapters)
        check_frozen(model, cell.parts, adapters)
    draft.texts_cut = count_cut(data, model, task) or None
    with draft.phase("train"):
        _train(cell, data, task, model, method_groups(model, cell.parts, cell.methods), precision, draft)
    _store(cell, job, model, adapters, draft)
    with draft.phase("eval"):
        _evaluate(cell, job, data, task, model, precision, draft)
    with draft.unmeasured():
        _audit(cell, data, task, model, adapters, precision, draft)


def _train(
    cell: Cell,
    data: LoadedData,
    task: Task,
    model: BenchModel,
    groups: list[ParamGroup],
    precision: Precision,
    draft: Recorder,
) -> None:
    if not any(p.requires_grad for p in model.module.parameters()):
        return  # all parts frozen: the model is evaluated as it came
    plan = make_schedule(cell.train, len(data.train))
    batches = training_batches(data, model, task, cell.train, steps=plan.steps, seed=cell.seed)
    try:
        train(model, partial(task.loss, model), batches, plan, precision, draft.training, draft.beat, groups)
    finally:
        draft.gpu.energy_to_here()


def _store(cell: Cell, job: Path, model: BenchModel, adapters: dict[str, AppliedMethod], draft: Recorder) -> None:
    """Write what one must keep per task, to know its size, and keep it if asked to."""
    tensors = stored_tensors(model, cell.parts, adapters)
    draft.host.note()  # writing copies the tensors: not the cell's own memory
    if tensors:
        file = job / "adapter" / "adapter.safetensors"
        draft.adapter_bytes = write_tensors(file, tensors)
        if not cell.train.save_adapter:
            file.unlink()
            file.parent.rmdir()
    if cell.train.save_model is not None:
        registry.load("models", cell.model.family).save(model, cell.train.save_model)
    draft.host.restart()


def _audit(
    cell: Cell,
    data: LoadedData,
    task: Task,
    model: BenchModel,
    adapters: dict[str, AppliedMethod],
    precision: Precision,
    draft: Recorder,
) -> None:
    """After the evaluation, whose times and peaks it must not touch."""
    few = data.test[: min(EXAMPLES, cell.evaluate.batch_size)]
    batch = LoadedData(source=data.source, train=(), test=few).test_batch(model, task, few)
    unjudged = check_evaluation(model, task, batch, cell.evaluate.options(), precision, cell.parts, adapters)
    if unjudged:
        draft.noted.append(lambda: unjudged)


def _evaluate(
    cell: Cell, job: Path, data: LoadedData, task: Task, model: BenchModel, precision: Precision, draft: Recorder
) -> None:
    batches = evaluation_batches(data, model, task, batch_size=cell.evaluate.batch_size)
    predictions = predict(model, task, batches, cell.evaluate, precision, len(data.test), draft.beat)
    write_predictions(job / PREDICTIONS_FILE, task, data.test, predictions)
    draft.scores = task.score(data.test, predictions)
    draft.baselines = task.baselines(data.train, data.test)
