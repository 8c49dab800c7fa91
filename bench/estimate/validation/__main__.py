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
from bench.estimate.validation import cases, cpu, cpu_page, gpu, gpu_page, output, paper, paper_page, plain
from bench.training.device import describe_environment

OUT = Path("results/gallery/validation")
_NOWHERE = "data.root=no-such-folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 if a comparison does not hold; 2 for a wrong argument or something missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimate.validation", description=__doc__)
    parser.add_argument("what", choices=["cpu", "paper", "gpu", "all"])
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results (default: %(default)s)")
    parser.add_argument("--specs", type=Path, default=Path("specs"), help="folder of table1.yaml ... table4.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. data.root=data/slake")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's, by which a number means the same to both
    todo = ["cpu", "paper", "gpu"] if given.what == "all" else [given.what]
    if given.what == "all" and not torch.cuda.is_available():
        todo.remove("gpu")
        _say("no CUDA device: gpu is left out")
    commands = {
        "cpu": lambda: on_cpu(given.out),
        "paper": lambda: against_paper(given.out, given.specs, given.set),
        "gpu": lambda: on_gpu(given.out, given.specs, given.set),
    }
    try:
        held = [commands[name]() for name in todo]
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(held) else 1


def on_cpu(out: Path) -> bool:
    """Whether all cases hold."""
    rows = []
    for case in (*cases.cells(), *plain.models()):
        rows.append(cpu_page.row(case, cpu.compare(case)))
        _say(f"{case.name}: {output.percent(rows[-1]['error'], 4)}")
    environment = describe_environment(torch.device("cpu"))
    output.write(out, "cpu", environment, rows, cpu_page.page(rows, environment))
    return all(row["holds"] for row in rows)


def against_paper(out: Path, specs: Path, sets: Sequence[str]) -> bool:
    """Whether the mean and the worst error hold. Raises BenchError without annotations: the paper had their lengths."""
    found = paper.rows(specs, sets)
    estimates = paper.predict(found, DEFAULT)
    source = estimates[0].assumed["lengths_from"]
    if source != "annotations":
        raise BenchError(f"lengths of the batches from the {source}: name the annotations with --set data.root=FOLDER")
    from_spec = paper.predict(paper.rows(specs, [*sets, _NOWHERE]), DEFAULT)
    readings = paper.readings(found, estimates, from_spec)
    ours = next(iter(readings.values()))
    fragmented = {
        row.cell.label: paper.fragmentation(row.cell, paper.lengths_of(estimate.assumed)[0], DEFAULT)
        for row, estimate in zip(found, estimates, strict=True)
        if row.cell.label in paper.FRAGMENTED
    }
    environment = describe_environment(torch.device("cpu"))
    lines = paper_page.lines(found, estimates, readings, fragmented)
    output.write(out, "paper", environment, lines, paper_page.page(lines, environment))
    _say(f"mean absolute error {100 * ours.mean:.2f} %, worst {output.percent(ours.worst)}")
    return ours.mean <= paper.MEAN_LIMIT and abs(ours.worst) <= paper.WORST_LIMIT


def on_gpu(out: Path, specs: Path, sets: Sequence[str]) -> bool:
    """Whether every cell ended as a cell may and every peak that was measured holds; written down after each cell."""
    gpu.require_gpu()
    found = paper.rows(specs, sets)
    environment = gpu.measured_environment()
    estimates = paper.predict(found, gpu.assumed_generation(environment))
    lines: list[dict[str, Any]] = []
    for row, estimate in zip(found, estimates, strict=True):
        lines.append(gpu.compare(row, estimate, gpu.measure_in_own_process(row.cell, estimate.assumed)))
        output.write(out, "gpu", environment, lines, gpu_page.page(lines, environment))
        _say(f"{row.table}: {row.cell.label}: {lines[-1]['measured']['status']} {lines[-1]['phases']}")
    return all(map(gpu_page.holds, lines))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
