"""The weights that are shipped: they load, and they have learned what their spec says they were taught."""

from __future__ import annotations

from bench.datasets import rendered_shapes
from bench.models import miss
from bench.plugins.contracts import GenerateOptions

HALF = (0.5, 0.5, 0.5)


def test_the_demo_backbone_answers_about_pictures_it_never_saw() -> None:
    settings = miss.Settings(
        family="miss",
        preset="tiny",
        image=miss.ImageSettings(mean=HALF, std=HALF),
        weights=miss.BundledWeights(kind="bundled"),
    )
    model = miss.build(settings, texts=[], device="cpu")
    model.module.eval()
    tasks = {"colour": 1, "shape": 1, "match_colour": 1, "match_shape": 1}
    stage = rendered_shapes.Stage.model_validate({"share": 1, "tasks": tasks})
    data = rendered_shapes.load(rendered_shapes.Settings(name="rendered_shapes", seed=7, stages=[stage]))
    examples = data.split("test")[:120]
    batch = model.collate([data.image(e) for e in examples], [e.question() for e in examples], [])
    answers = model.generate(batch, GenerateOptions(num_beams=3, max_new_tokens=9))
    correct = sum(answer == e.answer for answer, e in zip(answers, examples, strict=True))
    assert correct / len(examples) > 0.85
    assert sum(p.numel() for p in model.module.parameters()) < 2_000_000
