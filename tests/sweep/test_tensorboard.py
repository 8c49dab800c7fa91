"""What TensorBoard's own readers find in the event files of real and of failing cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import metrics
from bench.execution.runner import OverBudget
from bench.records.record import CellRecord
from bench.spec.cell import Cell
from tests.factories import make_estimate
from tests.sweep.real_runs import run_here, small_cell
from tests.sweeps import Sweep, make_cell

pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")

TRACKER = {"name": "tensorboard"}
METHODS = {"LoRA": {"type": "lora", "r": 4}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Cell], dict[str, CellRecord]]:
    """Two cells that ended well, in the default folder."""
    results = tmp_path_factory.mktemp("results")
    adapted = {"parts": {"vit": "F", "jtm": "F", "dec": "LoRA"}, "methods": METHODS, "labels": {"rank": 4}}
    cells = [small_cell("F-F-LoRA rank=4", TRACKER, **adapted), small_cell("F-F-T", TRACKER)]
    _, records = run_here(cells, results)
    return results / "tensorboard", cells, records


def scalars(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Tag -> (step, value) of each point; a text is bytes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, make_ndarray(event.tensor_proto).item()) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if "_hparams_" not in tag
    }


def folder_of(cell: Cell, folder: Path) -> Path:
    (found,) = (folder / cell.scale).glob(f"*-{cell.cell_id[:8]}")
    return found


def sessions(folder: Path) -> Any:
    """What the HParams tab shows, as its plugin answers the page."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    ctx = RequestContext()
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=statuses, include_metrics=True
    )
    metadata = context.hparams_metadata(ctx, "")
    experiment = context.experiment_from_metadata(ctx, "", True, metadata, [])
    request.col_params.extend(api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos)
    return list_session_groups.Handler(
        request_context=ctx, backend_context=context, experiment_id="", request=request
    ).run()


def test_the_curves_are_those_of_the_record(finished: tuple[Path, list[Cell], dict[str, CellRecord]]) -> None:
    folder, cells, records = finished
    for cell in cells:
        found, record = scalars(folder_of(cell, folder)), records[cell.label]
        assert found["train/loss"] == [(p.step, pytest.approx(p.loss)) for p in record.loss_curve]
        assert found["train/lr"] == [(p.step, pytest.approx(p.lr)) for p in record.loss_curve]
        timed = [value for _, value in found["train/step_s"]]
        assert [step for step, _ in found["train/step_s"]] == [2, 3, 4, 5], "warm-up is not timed"
        assert sum(timed) == pytest.approx(record.time.train_s)
        assert found["eval/seconds"] == [(5, pytest.approx(record.time.eval_s))]
        assert found["status"] == [(0, b"ok")]


def test_results_are_those_of_the_tables(finished: tuple[Path, list[Cell], dict[str, CellRecord]]) -> None:
    folder, cells, records = finished
    found, record = scalars(folder_of(cells[0], folder)), records[cells[0].label]
    for name in ("params", "adapter_size", "global", "step_time"):
        assert found[f"result/{name}"] == [(6, pytest.approx(metrics.get(name).value(record)))]
    assert "result/memory" not in found, "no GPU: nothing was measured"


def test_the_hparams_tab_compares_cells(finished: tuple[Path, list[Cell], dict[str, CellRecord]]) -> None:
    from tensorboard.plugins.hparams import api_pb2

    folder, cells, records = finished
    shown = {}
    for group in sessions(folder).session_groups:
        (session,) = group.sessions
        assert session.status == api_pb2.STATUS_SUCCESS
        named = {value.name.tag: value.value for value in group.metric_values}
        shown[group.hparams["parts.dec"].string_value] = (dict(group.hparams), named)
    assert set(shown) == {"LoRA", "T"}
    hparams, named = shown["LoRA"]
    assert hparams["rank"].number_value == 4
    assert hparams["lr"].number_value == cells[0].train.optimizer.lr
    expected = metrics.get("params").value(records[cells[0].label])
    assert named["result/params"] == pytest.approx(expected)


def test_a_failed_cell_is_there_and_a_new_attempt_takes_its_place(sweep: Sweep, tmp_path: Path) -> None:
    cell = make_cell("kill@train", trackers=[TRACKER | {"folder": str(tmp_path / "logs")}])
    sweep.run([cell])
    place = folder_of(cell, tmp_path / "logs")
    ((_, status),) = scalars(place)["status"]
    assert status.startswith(b"crashed: Signal: the worker was killed by SIGKILL")
    (before,) = place.iterdir()
    sweep.run([cell])
    (after,) = place.iterdir()
    assert before != after
    assert len(scalars(place)["status"]) == 1


def test_a_skipped_cell_is_there(sweep: Sweep, tmp_path: Path) -> None:
    cell = make_cell("ok", trackers=[TRACKER | {"folder": str(tmp_path / "logs")}])
    unfit = {cell.cell_id: OverBudget(reason="needs 26 GiB", estimate=make_estimate())}
    sweep.run([cell], check_budget=lambda _: unfit)
    found = scalars(folder_of(cell, tmp_path / "logs"))
    assert found["status"] == [(0, b"skipped: DoesNotFit: needs 26 GiB")]
    assert "result/params" in found
    assert "train/loss" not in found
