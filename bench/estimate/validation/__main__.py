"""``python -m bench.estimate.validation cpu|paper|gpu|all``: measure how far an estimate can be trusted; write it down.

``cpu`` needs nothing; ``paper`` the annotations of the data that the specs name; ``gpu`` an NVIDIA GPU, and takes the
lengths of batches from the specs where there are no annotations. ``all`` leaves out ``gpu`` where there is none.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError
from bench.estimate.gpus import DEFAULT
from bench.estimate.validation import cases, cpu, gpu, pages, paper
from bench.training.device import describe_environment

OUT = Path("results/gallery/validation")
_NO_DATA = "data.root=no-such-folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 if a comparison does not hold; 2 for a wrong argument or a missing input."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimate.validation", description=__doc__)
    parser.add_argument("what", choices=["cpu", "paper", "gpu", "all"])
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results (default: %(default)s)")
    parser.add_argument("--specs", type=Path, default=Path("specs"), help="folder of table1.yaml ... table4.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. data.root=data/slake")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML counts: a number means the same GPU to both
    todo = ["cpu", "paper", "gpu"] if options.what == "all" else [options.what]
    if options.what == "all" and not torch.cuda.is_available():
        todo.remove("gpu")
        _say("no CUDA device: gpu is left out")
    commands = {
        "cpu": lambda: on_cpu(options.out),
        "paper": lambda: against_paper(options.out, options.specs, options.set),
        "gpu": lambda: on_gpu(options.out, options.specs, options.set),
    }
    try:
        held = [commands[name]() for name in todo]
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(held) else 1


def on_cpu(out: Path) -> bool:
    """Validate on a CPU; returns whether all cases hold."""
    lines = []
    for case in (*cases.cells(), *cases.plain_models()):
        lines.append(cpu.compare(case).line(case))
        _say(f"{case.name}: {pages.percent(lines[-1]['error'], 4)}")
    pages.write(out, "cpu", describe_environment(torch.device("cpu")), lines)
    return all(line["holds"] for line in lines)


def against_paper(out: Path, specs: Path, sets: Sequence[str]) -> bool:
    """Compare with the paper; returns whether mean and worst error hold. Raises BenchError without annotations."""
    rows = paper.read_rows(specs, sets)
    estimates = paper.predict(rows, DEFAULT)
    source = estimates[0].assumed["lengths_from"]
    if source != "annotations":
        raise BenchError(f"lengths of the batches from the {source}: name the annotations with --set data.root=FOLDER")
    from_spec = paper.predict(paper.read_rows(specs, [*sets, _NO_DATA]), DEFAULT)
    readings = paper.readings(rows, estimates, from_spec)
    fragmented = {
        row.cell.label: paper.fragmentation(row.cell, paper.lengths_of(estimate.assumed)[0], DEFAULT)
        for row, estimate in zip(rows, estimates, strict=True)
        if row.cell.label in paper.FRAGMENTED
    }
    lines = paper.lines(rows, estimates, readings, fragmented)
    pages.write(out, "paper", describe_environment(torch.device("cpu")), lines)
    ours = paper.mean_and_worst(next(iter(readings.values())))
    _say(f"mean absolute error {100 * ours['mean']:.2f} %, worst {pages.percent(ours['worst'])}")
    return ours["mean"] <= paper.MEAN_LIMIT and abs(ours["worst"]) <= paper.WORST_LIMIT


def on_gpu(out: Path, specs: Path, sets: Sequence[str]) -> bool:
    """Validate on a GPU, writing after each cell; returns whether all cells end as they may and all peaks hold."""
    gpu.require_gpu()
    rows = paper.read_rows(specs, sets)
    environment = gpu.measured_environment()
    estimates = paper.predict(rows, gpu.assumed_generation(environment))
    lines: list[dict[str, Any]] = []
    for row, estimate in zip(rows, estimates, strict=True):
        lines.append(gpu.compare(row, estimate, gpu.measure_in_process(row.cell, estimate.assumed)))
        pages.write(out, "gpu", environment, lines)
        _say(f"{row.table}: {row.cell.label}: {lines[-1]['measured']['status']} {lines[-1]['phases']}")
    return all(map(gpu.holds, lines))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
