"""Which scale runs when none is named: the paper's where everything it needs is there, else the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import environment, files, registry
from bench.errors import BenchError
from bench.plugins.settings import DataSettings, ModelSettings
from bench.spec.load import ResolvedSpec, SpecSource

DEMO = "demo"


@dataclass(frozen=True, slots=True)
class Choice:
    """A scale and, in words, why it was taken."""

    scale: str
    reason: str


def choose(source: SpecSource, named: str | None, sets: Sequence[str], *, weights: bool = True) -> Choice:
    """The named scale; else the spec as it stands if its device, data and weights are there; else ``demo``.

    ``weights=False`` takes the weights for granted: to look for them may download and read gigabytes.
    """
    base = source.base_scale
    if named is not None and named != "auto":
        return Choice(named, "as asked for")
    if DEMO not in source.scales:
        return Choice(base, "the spec has no scale demo")
    if not environment.visible_gpus() or not environment.torch_has_cuda():
        return Choice(DEMO, f"{base} needs a CUDA device and none is visible; --scale {base} takes it all the same")
    missing = _missing(source.resolve(base, sets), weights=weights)
    if missing:
        return Choice(DEMO, f"{base} cannot run here: {missing}")
    return Choice(base, f"a CUDA device{', the data and the weights' if weights else ' and the data'} are there")


def choose_for_estimate(source: SpecSource, named: str | None) -> Choice:
    """The named scale, else the spec as it stands: an estimate needs neither device nor data nor weights."""
    if named not in (None, "auto"):
        return Choice(named, "as asked for")
    return Choice(source.base_scale, "an estimate needs no GPU, data or weights")


def choose_for_report(source: SpecSource, named: str | None, sets: Sequence[str], results: Path) -> Choice:
    """As ``choose`` without a look at the weights; but if only one scale has results, that one."""
    run = [scale for scale in source.scales if (results / f"{scale}.jsonl").is_file()]
    if named in (None, "auto") and len(run) == 1:
        return Choice(run[0], f"the only scale with results under {results}")
    return choose(source, named, sets, weights=False)


def choose_for_paper(source: SpecSource, named: str | None, results: Path) -> Choice:
    """The named scale; else the spec as it stands, unless only another scale has results."""
    run = [scale for scale in source.scales if (results / f"{scale}.jsonl").is_file()]
    if named not in (None, "auto"):
        return Choice(named, "as asked for")
    if source.base_scale not in run and len(run) == 1:
        return Choice(run[0], f"the only scale with results under {results}")
    return Choice(source.base_scale, "the spec as it stands")


def _missing(resolved: ResolvedSpec, *, weights: bool) -> str | None:
    """First line of what the first missing data set or weights say, or None."""
    if resolved.spec.run.device == "cpu":
        return "run.device is cpu"
    needed: dict[str, DataSettings | ModelSettings] = {}
    for checked in resolved.points:
        for settings in (checked.settings.data, checked.settings.model):
            needed[repr(settings)] = settings
    for settings in needed.values():
        try:
            with files.limited_reading(0, patient=True):  # to know that they are there nothing need be read
                if isinstance(settings, DataSettings):
                    registry.load("datasets", settings.name).digest(settings)
                elif weights:
                    registry.load("models", settings.family).weights_digest(settings)
        except files.UnreadError:
            continue
        except BenchError as error:
            return str(error).splitlines()[0]
    return None
