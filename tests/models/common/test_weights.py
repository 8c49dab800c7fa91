"""Checkpoints are read without running anything that they name, configurations of the authors' scripts included."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from bench.errors import WeightsError
from bench.models.common import weights

CONFIG = """# as the released configs/vqa.yaml, with every kind of scalar
vit: 'base'      # base or large
title: "double"
train_files: ['a', 'b']
more: {nested: [1, 2.5]}
vit_grad_ckpt: False
nothing: null
init_lr: 1e-5
weight_decay: 0.05
hexadecimal: 0x10
octal: 0o17
underscored: 1_000
anchored: &a {x: 1}
again: *a
long: |
  two
  lines
folded: >
  one
  line
"""


def checkpoint(config: Any) -> dict[str, Any]:
    """As train_MILE.py writes it."""
    tensors = {"visual_encoder.cls_token": torch.ones(1, 1, 4)}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": config["init_lr"], "params": [0]}]}
    return {"model": tensors, "optimizer": optimizer, "config": config, "epoch": 129}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_the_authors_scripts_is_read(tmp_path: Path, zipped: bool) -> None:
    content = checkpoint(YAML(typ="rt").load(CONFIG))
    torch.save(content, tmp_path / "checkpoint_129.pth", _use_new_zipfile_serialization=zipped)
    if torch.__version__ < "2.12":  # whose unpickler fills no stand-in for a list
        with pytest.raises(WeightsError, match=r"holds lists of ruamel.yaml, which PyTorch 2\.11"):
            weights.read(tmp_path / "checkpoint_129.pth")
        return
    state = weights.read(tmp_path / "checkpoint_129.pth")
    assert state.keys() == {"visual_encoder.cls_token"}
    assert torch.equal(state["visual_encoder.cls_token"], torch.ones(1, 1, 4))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda path: Evil(path / "owned"), "posix.mkdir"),
        (lambda _: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (lambda _: datetime.date(2024, 6, 25), "datetime.date"),
        (lambda _: YAML(typ="rt"), "ruamel.yaml.main.YAML"),
    ],
    ids=["call", "module", "date", "parser"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_plain_data_is_named_and_not_built(tmp_path: Path, made: Any, named: str, zipped: bool) -> None:
    path = tmp_path / "checkpoint.pth"
    content = {"model": {"a": torch.zeros(1)}, "config": made(tmp_path)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=re.escape(f"it names {named}, which is no plain data")) as caught:
        weights.read(path)
    assert str(path) in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_attributes_that_a_file_sets_are_never_called(tmp_path: Path) -> None:
    """A mapping of the file can have any attribute, ``get`` too."""
    config = YAML(typ="rt").load("{a: 1}")
    config.get = config.values = "x"
    torch.save(config, tmp_path / "checkpoint.pth")
    with pytest.raises(WeightsError, match="no state_dict"):
        weights.read(tmp_path / "checkpoint.pth")
