"""What README and docs say is so: commands, examples, shown output, numbers, names and links."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner, Result

from bench import cli, commands, metrics, registry, trackers
from bench.analysis.compare import COSTS
from bench.analysis.reproduction import MEASURED
from bench.analysis.tolerances import CompareOptions, default
from bench.estimate.estimator import estimate
from bench.estimate.gpus import GPUS, MIB, cublas_of
from bench.execution.contracts import PhaseEnd, Step
from bench.records.costs import MEMORY_KINDS, Estimate, PredictedPhase
from bench.records.store import ResultsFile
from bench.spec.load import read_spec
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.sweep import Sweep
from tests import golden
from tests.conftest import ROOT
from tests.factories import load_cells

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
README, ESTIMATES, COMPARE = (PAGES[name] for name in ("README.md", "docs/estimates.md", "docs/compare-and-export.md"))
TRACKERS = PAGES["docs/trackers.md"]


def commands_of(*texts: str) -> list[str]:
    lines = (line.split("  #")[0].strip() for text in texts for line in text.splitlines() if line.startswith("    "))
    found = [line.removeprefix("python run_bench.py ") for line in lines if line.startswith("python run_bench.py ")]
    return sorted(set(found) - {"my_question.yaml --list"})  # a spec that the page shows


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


class Accepted(Exception):  # noqa: N818
    """Arguments and specs are right: now something would be run, read or written."""


@pytest.mark.parametrize("command", commands_of(README, ESTIMATES, TRACKERS))
def test_a_command_is_accepted(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def accept(*_: Any, **__: Any) -> None:
        raise Accepted

    for name in ("run", "list_cells", "report"):
        monkeypatch.setattr(Sweep, name, accept)
    for name in ("estimate_costs", "compare_records", "compare_published", "export"):
        monkeypatch.setattr(commands, name, accept)
    globs = [sorted(map(str, Path().glob(word))) if word.startswith("specs/") else [] for word in shlex.split(command)]
    arguments = [word for found, one in zip(globs, shlex.split(command), strict=True) for word in found or [one]]
    assert isinstance(run(*arguments).exception, Accepted)


@pytest.mark.parametrize("command", commands_of(COMPARE))
def test_a_command_on_the_gallery_works(command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command)
    if any(":" in word for word in arguments) and subprocess.run(["git", "rev-parse"], check=False).returncode:
        pytest.skip("no git checkout")
    output = tmp_path / "nothing"
    if "-o" in arguments:
        place = arguments.index("-o") + 1
        output = tmp_path / arguments[place]
        arguments[place] = str(output)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert "-o" not in arguments or output.stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)", target.read_text(encoding="utf-8"))
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, link


# --- README --------------------------------------------------------------------------------------------------------


def section(page: str, name: str) -> tuple[str, str]:
    """The first line of a marked section, and the rest."""
    text = page.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0].strip()
    command, _, shown = text.partition("\n")
    return command.removeprefix("$ python run_bench.py "), shown


def test_the_commands_that_install_and_test_are_there() -> None:
    assert "    python -m pip install -e . && python run_bench.py specs/table1.yaml\n" in README
    assert '    python -m pip install -e ".[test]" && python -m pytest\n' in README


@pytest.mark.parametrize(
    ("after", "lines", "cells"),
    [("", 100, None), ("## Your own model", 24, ["F-F-T", "F-BitFit-T", "F-LoRA-T", "T-T-T"])],
)
def test_an_example_spec_is_valid_and_short(tmp_path: Path, after: str, lines: int, cells: list[str] | None) -> None:
    text = README[README.index(after) :].partition("```yaml\n")[2].partition("```")[0]
    assert len(text.splitlines()) <= lines
    (tmp_path / "my_question.yaml").write_text(text, encoding="utf-8")
    done = run(str(tmp_path / "my_question.yaml"), "--list", "--results", str(tmp_path / "results"))
    assert done.exit_code == 0, done.output
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == cells if cells else len(listed) == 6


def test_the_shown_error_is_the_real_one() -> None:
    command, shown = section(README, "typo")
    done = run(*shlex.split(command))
    assert done.exit_code == 2
    assert [line.strip() for line in shown.splitlines()] == [line.strip() for line in done.stderr.splitlines()]


def test_the_shown_costs_are_those_of_a_fresh_estimate(tmp_path: Path) -> None:
    """Of the shown cells. Memory may differ a little: other versions of the libraries allocate differently."""
    _, shown = section(README, "estimate")
    labels = sorted(set(re.findall(r"(?m)^ +([FTL][^ ]* rank=\d)  ", shown)))
    assert len(labels) == 4
    only = [argument for label in labels for argument in ("--only", label)]
    # From an empty folder: what is shown was estimated without data.
    found = golden.bench(tmp_path, str(ROOT / "specs/table1.yaml"), "--estimate", "--gpu", "ampere", *only)
    for label in labels:
        ours, theirs = numbers(found, label), numbers(shown, label)
        assert len(ours) == 7 + 5 + 7
        assert ours[:4] == theirs[:4]  # parameters and adapter: exact
        assert ours == pytest.approx(theirs, rel=0.02, abs=0.02)
    for text in re.split("…|" + "|".join(f"(?m:^ *{label}.*)" for label in labels), shown):
        assert words(text.replace("─", "")) in words(found.replace("─", ""))


def numbers(text: str, label: str) -> list[float]:
    rows = re.findall(rf"(?m)^ *{re.escape(label)}  (.*)$", text)
    return [float(number.replace(",", "")) for row in rows for number in row.split()]


@pytest.mark.parametrize("name", ["table1", "vqa_rad_small"])
def test_the_shown_tables_are_the_gallery_s(name: str) -> None:
    table = (ROOT / "reports" / "gallery" / name / "table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows
    assert "\n".join(rows) in README


# --- docs/estimates.md -----------------------------------------------------------------------------------------------


def test_all_names_of_estimates_are_explained() -> None:
    settings = {
        option
        for model, field in ((TrainSettings, "precision"), (OptimizerSettings, "name"))
        for option in get_args(model.model_fields[field].annotation)
    }
    names = {*MEMORY_KINDS, *GPUS, *settings, *Estimate.model_fields, *PredictedPhase.model_fields}
    assert {name for name in names if not re.search(rf"\b{name}\b", ESTIMATES)} == set()


def test_the_figures_of_estimates_are_those_of_the_code() -> None:
    (context,) = {f"{gpu.context_bytes / MIB:,.1f} MiB, for every generation" for gpu in GPUS.values()}
    assert context in words(ESTIMATES)
    for name, gpu in GPUS.items():
        digits = 0 if name in ("hopper", "blackwell") else 1
        assert f"{cublas_of(gpu, '2.14.1').workspace_bytes / MIB:.{digits}f} MiB" in words(ESTIMATES)


def test_the_examples_of_estimates_are_those_of_the_gallery_s_records() -> None:
    """Parameters and file sizes of runs; counted against measured time of two of them."""
    adapted = estimated("table1", "LoRA-LoRA-LoRA rank=4")
    costliest = estimated("table1", "T-T-LoRA rank=8")
    for spec, label in (("table2", "F-Prefix-Prefix"), ("table3", "IA3-IA3-IA3"), ("table4", "T-PTV2-PTV2")):
        estimated(spec, label)
    assert f"counts {adapted[0] / costliest[0]:.2f} of" in words(ESTIMATES)
    assert f"took {adapted[1] / costliest[1]:.2f} times as long" in words(ESTIMATES)


def estimated(spec: str, label: str) -> tuple[int, float]:
    """FLOPs and measured seconds of a step of a cell in the gallery, whose exact costs are compared."""
    records = ResultsFile(ROOT / "results" / "gallery" / spec / "demo.jsonl").read()
    record = next(record for record in records.values() if record.label == label)
    cells = load_cells(ROOT / "specs" / f"{spec}.yaml", "demo")[1]
    found = estimate(next(cell for cell in cells if cell.label == label))
    assert (found.params, found.adapter_bytes) == (record.params, record.adapter_bytes)
    assert found.flops is not None
    assert found.flops.train_step is not None
    assert record.time.step_median_s is not None
    return found.flops.train_step, record.time.step_median_s


# --- docs/compare-and-export.md --------------------------------------------------------------------------------------


def test_the_shown_comparison_is_the_real_one() -> None:
    command, output = section(COMPARE, "inconsistencies")
    assert run(*shlex.split(command)).stdout.split() == output.split()


def test_the_tolerances_are_those_of_the_code() -> None:
    text = words(COMPARE)
    sizes = {name: f"{100 * default(metrics.get(name)).size:g} %" for name in COSTS}
    memory, reserved, nvml = (sizes[name] for name in ("memory", "memory_reserved", "memory_nvml"))
    assert f"{memory} (allocated), {reserved} (reserved), {nvml} (NVML)" in text
    assert f"{nvml} (NVML) or {sizes['memory_host']} (host)" in text
    assert sizes["memory_eval"] == memory
    assert f"| energy | it is larger than {sizes['energy']} |" in text
    assert f"| `step_time` | it is larger than {sizes['step_time']}," in text
    assert {sizes[name] for name in ("params", "params_trainable", "adapter_size")} == {"0 %"}
    assert f"`--alpha` {CompareOptions().alpha:g}" in text
    assert f"| memory, times | {100 * MEASURED.size:g} %;" in text


# --- docs/trackers.md ------------------------------------------------------------------------------------------------


def test_the_spec_of_trackers_is_valid_and_shows_every_setting(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TRACKERS, flags=re.DOTALL)
    path = tmp_path / "s.yaml"
    path.write_text(re.sub(r"(?m)^run:\n(  .*\n)+", block, (ROOT / "specs/table1.yaml").read_text()))
    shown = read_spec(path).resolve("paper").spec.run.trackers
    assert tuple(sorted(tracker.name for tracker in shown)) == registry.names("trackers")
    assert all(tracker.model_fields_set == set(type(tracker).model_fields) for tracker in shown)


def test_the_names_are_those_logged() -> None:
    step = Step(step=0, loss=1.0, lr=0.1, step_s=0.1, at=0.0)
    end = PhaseEnd(phase="<phase>", seconds=1.0, allocated_peak_bytes=1, reserved_peak_bytes=1, at=0.0)
    for name in (*trackers.step_values(step), *trackers.phase_values(end)):
        assert f"`{name}`" in TRACKERS
