"""What docs/estimates.md says of commands, names and numbers is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from bench import cli, commands
from bench.estimate.estimator import estimate
from bench.estimate.gpus import GPUS, MIB, cublas_of
from bench.records.costs import MEMORY_KINDS, Estimate, PredictedPhase
from bench.records.store import ResultsFile
from bench.spec.cell import expand
from bench.spec.load import read_spec
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.sweep import Sweep

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "estimates.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
COMMANDS = [
    line.strip().split("  #")[0].rstrip()
    for line in (PAGE + (ROOT / "README.md").read_text(encoding="utf-8")).splitlines()
    if line.startswith("    python run_bench.py") and re.search("--(estimate|budget)", line)
]


class Accepted(Exception):  # noqa: N818
    """Arguments and spec are right: now cells would be estimated or run."""


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_about_costs_is_accepted(root: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def accept(*_: Any, **__: Any) -> None:
        raise Accepted

    monkeypatch.chdir(root)
    monkeypatch.setattr(commands, "estimate_costs", accept)
    monkeypatch.setattr(Sweep, "run", accept)
    done = CliRunner().invoke(cli.app, shlex.split(command)[2:])
    assert isinstance(done.exception, Accepted), done.output


def test_all_names_are_explained() -> None:
    settings = {
        option
        for model, field in ((TrainSettings, "precision"), (OptimizerSettings, "name"))
        for option in get_args(model.model_fields[field].annotation)
    }
    names = {*MEMORY_KINDS, *GPUS, *settings, *Estimate.model_fields, *PredictedPhase.model_fields}
    assert {name for name in names if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_the_figures_are_those_of_the_code() -> None:
    contexts = {f"{gpu.context_bytes / MIB:,.1f} MiB, for every generation" for gpu in GPUS.values()}
    assert len(contexts) == 1
    assert contexts.pop() in WORDS
    for name, gpu in GPUS.items():
        later = name in ("hopper", "blackwell")
        workspace = cublas_of(gpu, "2.14.1").workspace_bytes
        assert f"{workspace / MIB:.{0 if later else 1}f} MiB" in WORDS


def test_the_examples_are_those_of_the_gallery_s_records(root: Path) -> None:
    """Parameters and file sizes of runs; counted against measured time of two of them."""
    adapted = _estimated(root, "table1", "LoRA-LoRA-LoRA rank=4")
    costliest = _estimated(root, "table1", "T-T-LoRA rank=8")
    for spec, label in (("table2", "F-Prefix-Prefix"), ("table3", "IA3-IA3-IA3"), ("table4", "T-PTV2-PTV2")):
        _estimated(root, spec, label)
    assert f"counts {adapted[0] / costliest[0]:.2f} of" in WORDS
    assert f"took {adapted[1] / costliest[1]:.2f} times as long" in WORDS


def _estimated(root: Path, spec: str, label: str) -> tuple[int, float]:
    """FLOPs and measured seconds of a step of a cell in the gallery, whose exact costs are compared."""
    records = ResultsFile(root / "results" / "gallery" / spec / "demo.jsonl").read()
    record = next(record for record in records.values() if record.label == label)
    cells = expand(read_spec(root / "specs" / f"{spec}.yaml").resolve("demo"))
    found = estimate(next(cell for cell in cells if cell.label == label))
    assert found.params == record.params
    assert found.adapter_bytes == record.adapter_bytes
    assert found.flops is not None
    assert found.flops.train_step is not None
    assert record.time.step_median_s is not None
    return found.flops.train_step, record.time.step_median_s


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE))))
def test_links_lead_somewhere(root: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    assert (root / "docs" / path).exists()
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"(?m)^#+ (.*)", PAGE)}
    assert not anchor or anchor in headings
