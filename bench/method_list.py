"""``--methods``: every method that a spec can name, from the plugins here and from the installed peft."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from bench.methods import Entry, catalogue

_TITLES = {
    "type": "Methods of this package, named by `type`",
    "peft_type": "Methods of the installed peft, named by `peft_type`; fields as in its configuration class",
}


def print_methods(*, as_json: bool) -> None:
    """A list for people, or one JSON list of entries, on stdout."""
    entries = catalogue()
    if as_json:
        print(json.dumps([asdict(entry) | {"applies_to": entry.applies_to} for entry in entries], default=str))
        return
    console = Console()
    for key, group in groupby(entries, lambda entry: entry.key):
        console.print(Text(_TITLES[key], style="bold underline"))
        for entry in group:
            console.print(_heading(entry))
            console.print(Padding(Text(entry.summary), (0, 0, 0, 4)))
        console.print()


def _heading(entry: Entry) -> Text:
    needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
    return Text.assemble((entry.name, "bold"), f"  {entry.kind}, on {entry.applies_to}{needs}")
