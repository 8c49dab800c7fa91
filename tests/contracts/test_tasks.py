"""What every task keeps: facts, targets, loss and prediction by its kind of model, scores, baselines and details."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from bench import registry
from bench.plugins.contracts import Example, GenerateOptions, Task

OPTIONS = GenerateOptions(num_beams=1, max_new_tokens=1)
EVALUATE = SimpleNamespace(closed="yes_no")
NAMES = registry.names("tasks")


def examples(*answers: str) -> list[Example]:
    return [Example(question_id=str(n), image="i", questions=("q?",), answer=a) for n, a in enumerate(answers)]


TRAIN, TEST = examples("yes", "no", "yes", "lung"), examples("yes", "no", "lung")


@pytest.fixture(params=NAMES)
def plugin(request: pytest.FixtureRequest) -> Any:
    return registry.load("tasks", request.param)


@pytest.fixture
def task(plugin: Any) -> Task:
    return cast(Task, plugin.create(plugin.Settings(name=plugin.FACTS.name), EVALUATE, TRAIN))


class Model:
    """Predicts the second label, or writes ``yes``; its loss is the sum of its logits."""

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(batch["x"]), -1)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.logits(batch).sum()

    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        assert options is OPTIONS
        return ["yes"] * len(batch["x"])


def test_the_plugin_names_its_task_its_main_metric_and_its_baselines(plugin: Any, task: Task) -> None:
    assert plugin.__name__.endswith(f".{plugin.FACTS.name}")
    assert plugin.MAIN in plugin.METRICS
    assert plugin.BASELINES
    assert (task.facts.name, task.facts.inputs, task.facts.output) == (
        *(plugin.FACTS.name, plugin.FACTS.inputs, plugin.FACTS.output),
    )
    assert bool(task.facts.labels) == (task.facts.output == "label")


def test_loss_and_prediction_follow_the_kind_of_model(task: Task) -> None:
    batch = {"x": torch.zeros(2, 1)}
    targets = task.targets(["no", "yes"])
    assert set(targets) == ({"labels"} if task.facts.output == "label" else set())
    assert task.loss(Model(), batch | targets).shape == ()
    predictions = task.predict(Model(), batch, OPTIONS)
    assert predictions == (["no"] * 2 if task.facts.output == "label" else ["yes"] * 2)


def test_scores_run_from_all_wrong_to_all_right(plugin: Any, task: Task) -> None:
    for example in TEST:
        task.check(example)
    right = task.score(TEST, [example.answer for example in TEST])
    wrong = task.score(TEST, ["no", "lung", "yes"])
    assert list(right) == list(plugin.METRICS)
    assert {score.value for score in right.values()} == {1}
    for name, facts in plugin.METRICS.items():
        assert facts.lowest <= cast(float, wrong[name].value) <= 0
        assert facts.outcome is not None or facts.influence is not None
    with pytest.raises(ValueError, match="shorter"):
        task.score(TEST, ["yes"])


def test_baselines_have_the_same_metrics(plugin: Any, task: Task) -> None:
    found = task.baselines(TRAIN, TEST)
    assert list(found) == list(plugin.BASELINES)
    assert all(list(scores) == list(plugin.METRICS) for scores in found.values())


def test_details_hold_what_each_score_is_a_mean_of(plugin: Any, task: Task) -> None:
    predictions = ["yes", "yes", "lung"]
    details = [task.details(example, given) for example, given in zip(TEST, predictions, strict=True)]
    assert [line["correct"] for line in details] == [True, False, True]
    for name, score in task.score(TEST, predictions).items():
        facts = plugin.METRICS[name]
        if facts.outcome is not None:
            lines = [line for line in details if facts.only is None or line[facts.only[0]] == facts.only[1]]
            assert sum(line[facts.outcome] for line in lines) / len(lines) == pytest.approx(score.value)
        else:
            influence = facts.influence([e.answer for e in TEST], predictions)
            assert influence.mean() == pytest.approx(score.value)
