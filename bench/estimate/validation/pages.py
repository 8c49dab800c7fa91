"""Files of a validation: JSON lines, the environment first, and a Markdown page made from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jinja2

from bench.estimate.gpus import GPUS, cublas_of
from bench.estimate.validation import cases, cpu, gpu, paper
from bench.files import write_atomic
from bench.records.costs import PredictedMemory
from bench.units import gib

Lines = Sequence[Mapping[str, Any]]


def write(folder: Path, name: str, environment: Mapping[str, Any], lines: Lines) -> None:
    """``name.jsonl``: ``{"environment": ...}``, then the lines; ``name.md``: the page."""
    folder.mkdir(parents=True, exist_ok=True)
    content = [{"environment": environment}, *lines]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in content)
    write_atomic(folder / f"{name}.jsonl", text.encode())
    write_atomic(folder / f"{name}.md", page(name, environment, lines).encode())


def page(name: str, environment: Mapping[str, Any], lines: Lines) -> str:
    """``cpu.md``, ``paper.md`` or ``gpu.md``."""
    facts = {"cpu": _cpu_facts, "paper": _paper_facts, "gpu": _gpu_facts}[name](environment, lines)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"gib": gib, "mib": mib, "percent": percent}
    templates.globals["cells"] = lambda *texts: f"| {' | '.join(texts)} |"
    return templates.get_template(f"{name}.md.jinja").render(facts, made_with=_made_with(environment))


def _cpu_facts(_: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    def rest(phase: Mapping[str, Any]) -> float:
        kinds, peak = phase["by_kind"], phase["allocated_peak_bytes"]
        return float((peak - kinds["weights"] - kinds["gradients"] - kinds["optimizer_state"]) / peak)

    return {
        "steps": len(cases.LENGTHS),
        "limit": cpu.LIMIT,
        "rows": [(line, rest(line["predicted"])) for line in lines],
        "held": sum(line["holds"] for line in lines),
        "worst": max((line["error"] for line in lines), key=abs),
        "excess": max(line["mem_tracker_bytes"] / line["predicted"]["allocated_peak_bytes"] - 1 for line in lines),
    }


def _paper_facts(environment: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    *rows, summary = lines
    assumed = rows[0]["estimate"]["assumed"]
    train, evaluation = paper.lengths_of(assumed)
    return {
        "rows": [(row, PredictedMemory.model_validate(row["estimate"]["memory"])) for row in rows],
        "readings": summary["readings"],
        "ours": next(iter(summary["readings"].values())),
        "mean_limit": paper.MEAN_LIMIT,
        "worst_limit": paper.WORST_LIMIT,
        "assumed": assumed,
        "context_bytes": rows[0]["estimate"]["memory"]["context_bytes"],
        "workspace_bytes": cublas_of(GPUS[assumed["gpu"]], environment["versions"]["torch"]).workspace_bytes,
        "train": train,
        "evaluation": evaluation,
        "fragmentation": summary["fragmentation"],
        "sequences": {
            name: [_pair(phases[name]) for phases in summary["fragmentation"].values()]
            for name in next(iter(summary["fragmentation"].values()))
        },
    }


def _pair(phase: Mapping[str, int]) -> str:
    return f"{gib(phase['allocated_peak_bytes'])} / {gib(phase['reserved_peak_bytes'])}"


def _gpu_facts(_: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    verdicts = [verdict for line in lines for verdict in gpu.verdicts(line)]
    ended = Counter(line["measured"]["status"] for line in lines)
    contexts = (line["measured"].get("context_bytes") for line in lines)
    return {
        "rows": [_gpu_row(line) for line in lines],
        "headers": ["row", *map(" ".join, product(gpu.PHASES, gpu.LIMITS)), "process by NVML", "ended"],
        "generation": lines[0]["estimate"]["assumed"]["gpu"],
        "assumed_context": lines[0]["estimate"]["memory"]["context_bytes"],
        "held": sum(verdicts),
        "peaks": len(verdicts),
        "others": {status: ended[status] for status in sorted(set(ended) - {"ok"})},
        "limits": gpu.LIMITS,
        "contexts": sorted(value for value in contexts if value is not None),
    }


def _gpu_row(line: Mapping[str, Any]) -> list[str]:
    """Name, predicted / measured peaks, the process's peak and how the cell ended."""
    measured = line["measured"]
    peaks = []
    for phase, kind in product(gpu.PHASES, gpu.LIMITS):
        errors = line["phases"].get(phase, {})
        text = f"{gib(line['estimate']['memory'][phase][f'{kind}_peak_bytes'])} / "
        if f"{kind}_error" in errors:
            error, mark = percent(errors[f"{kind}_error"]), "" if errors[f"{kind}_holds"] else " **!**"
            peaks.append(f"{text}{gib(measured['phases'][phase][f'{kind}_peak_bytes'])} ({error}){mark}")
        else:
            peaks.append(f"{text}–")
    process = measured.get("nvml_process_peak_bytes")
    return [f"{line['spec']}: {line['label']}", *peaks, gib(process) if process else "–", measured["status"]]


def mib(nbytes: float) -> str:
    """``1,245.3``."""
    return f"{nbytes / 2**20:,.1f}"


def percent(error: float, digits: int = 1) -> str:
    """``+3.1 %``."""
    return f"{100 * error:+.{digits}f} %"


def _made_with(environment: Mapping[str, Any]) -> str:
    versions = environment["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)
    machine = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    return f"Made with {packages} on {machine}."
