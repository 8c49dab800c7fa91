"""Rendered shapes: endless pictures of one coloured shape, with texts, to pre-train the demo's small MISS on.

Pictures look like easy-VQA's (64x64, the same shapes and colours) but vary more. Texts are image-text pairs, none an
easy-VQA question: captions, single words, and statements to be confirmed or denied, so that the decoder has said every
word that an answer needs. Everything follows from seed, split and index: nothing is stored and nothing repeats.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import Field, PositiveFloat

from bench.datasets.common.dataset import DataSet
from bench.plugins import DataSettings, Example
from bench.plugins import Settings as Base

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 64
"""Pixels."""
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "teal": (0, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "brown": (165, 42, 42),
}
BACKGROUND, BACKGROUND_SPREAD = (150.0, 230.0), 25.0
"""Range of a background's level, and the largest deviation of a channel from it."""
COLOUR_SPREAD = 30.0
"""Largest deviation of a channel from the colour's name."""
CONTRAST = 130.0
"""Least sum of the channels' differences between shape and background."""
SIZE, MARGIN = (16.0, 44.0), 1.0
"""Range of width (and, for a rectangle, height), and least distance to the border; pixels."""
LIGHT = (0.35, 0.7)
"""All levels of a picture are multiplied by one number of this range, as if the lamp were dim: easy-VQA's pictures are
brighter than any of these, so that a frozen encoder is at a disadvantage, as on a real new domain."""
SAMPLES = 64
"""Examples of each split in the digest."""
EARLIER = {
    "de4400edc70f2b3da608c73c0ee632e090f4ff067de11ed3d7e5270d793350d3": (
        "17370621ca18dccfe7aaf146682a92d2fdba49a7a0310aab596e4e25b83d6444"
    ),
}
"""Digest -> that of stored records of the same pictures and texts, which was taken over this file's source."""

Task = Literal["caption", "colour", "shape", "match_colour", "match_shape", "deny_colour", "deny_shape"]

PROMPTS: dict[Task, tuple[str, ...]] = {
    "caption": ("", "image", "what is in the image ?"),
    "colour": (
        *("color", "color ?", "what color ?", "what is the color ?", "what color is present ?", "color of the {shape}"),
        *("the {shape} is", "the color of the shape is", "the {shape} is what color ?", "the shape is of what color ?"),
    ),
    "shape": (
        *("shape", "shape ?", "what shape ?", "what is the shape ?", "what is present ?", "the shape is what ?"),
        *("the {colour} shape is a", "in the image there is a", "the image does contain a", "what does it contain ?"),
    ),
    "match_colour": (
        *("{colour}", "{colour} ?", "the shape is {colour}", "a {colour} shape is present", "is it {colour} ?"),
        *("there is a {colour} shape", "the image does contain {colour}", "is the shape {colour} ?"),
        *("is {colour} present ?", "is there {colour} in the image ?", "does it contain {colour} ?"),
    ),
    "match_shape": (
        *("{shape}", "{shape} ?", "the shape is a {shape}", "a {shape} is present", "is it a {shape} ?"),
        *("there is a {shape}", "the image does contain a {shape}", "is the shape a {shape} ?"),
        *("is {shape} present ?", "a {shape} in the image ?", "does it contain a {shape} ?"),
    ),
    "deny_colour": (
        *("not {colour}", "no {colour}", "the shape is not {colour}", "there is no {colour} shape", "not {colour} ?"),
        *("is it not {colour} ?", "is the shape not {colour} ?", "is {colour} not present ?"),
        *("is there no {colour} in the image ?", "does it not contain {colour} ?"),
    ),
    "deny_shape": (
        *("not {shape}", "no {shape}", "the shape is not a {shape}", "there is no {shape}", "not {shape} ?"),
        *("is it not a {shape} ?", "is the shape not a {shape} ?", "is {shape} not present ?"),
        *("no {shape} in the image ?", "does it not contain a {shape} ?"),
    ),
}


class Stage(Base):
    """A stretch of the split ``train``."""

    share: PositiveFloat
    """Length relative to the other stages."""
    tasks: dict[Task, PositiveFloat] = Field(min_length=1)
    """Kind of text -> relative frequency."""
    balanced: bool = True
    """Whether half of the statements are true; if not, the word that may be wrong is drawn at random, so that one in
    eight colours and one in three shapes is right: a language prior, as most questions of a yes/no data set have."""


_EVERYTHING = Stage(share=1, tasks={"caption": 1, "colour": 1, "shape": 2, "match_colour": 2, "match_shape": 3})


class RenderedShapesSettings(DataSettings):
    """Pictures and texts rendered on demand."""

    name: Literal["rendered_shapes"]
    size: int = Field(default=1_000_000, ge=1)
    """Examples in the split ``train``."""
    test_size: int = Field(default=1_000, ge=1)
    """Examples in the split ``test``."""
    seed: int = 0
    stages: list[Stage] = Field(default=[_EVERYTHING], min_length=1)
    """A curriculum, for a training that takes the examples in order (``train.shuffle: false``). The split ``test`` is
    as the last stage."""


Settings = RenderedShapesSettings


def digest(settings: RenderedShapesSettings) -> str:
    """SHA-256 over the settings and what they render, however this file is written: all texts, and the pixels and texts
    of ``SAMPLES`` examples of each split."""
    return load(settings).digest()


def load(settings: RenderedShapesSettings) -> DataSet:
    """The two splits; examples are rendered on demand."""
    splits = {
        "train": Rendered("train", settings.size, settings.stages, settings.seed),
        "test": Rendered("test", settings.test_size, settings.stages[-1:], settings.seed),
    }
    texts = _texts()

    def image(example: Example) -> Image:
        split, _, index = example.image_name.partition("/")
        return render(splits[split].scene(int(index)))

    def digest() -> str:
        sha = hashlib.sha256(settings.model_dump_json(exclude_defaults=True).encode())
        sha.update("\n".join(texts).encode())
        for examples in splits.values():
            for example in examples[:: -(-len(examples) // SAMPLES)]:
                sha.update(f"{example.question()}\0{example.answer}\n".encode() + image(example).tobytes())
        return EARLIER.get(sha.hexdigest(), sha.hexdigest())

    return DataSet(splits=splits, image=image, digest=digest, known_texts=texts)


def _texts() -> list[str]:
    """All prompts and answers."""
    pairs = list(product(COLOURS, SHAPES))
    prompts = [prompt for prompts in PROMPTS.values() for prompt in prompts]
    texts = {prompt.format(colour=colour, shape=shape) for prompt in prompts for colour, shape in pairs}
    return sorted({*texts, *(f"a {colour} {shape}" for colour, shape in pairs), *COLOURS, *SHAPES, "yes", "no"})


class Rendered(Sequence[Example]):
    """One split."""

    def __init__(self, name: str, size: int, stages: Sequence[Stage], seed: int) -> None:
        self._name, self._size, self._stages, self._seed = name, size, stages, seed
        ends = list(accumulate(stage.share for stage in stages))
        self._ends = [round(size * end / ends[-1]) for end in ends]

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        places = range(self._size)[index]
        return self._example(places) if isinstance(places, int) else [self._example(place) for place in places]

    def scene(self, index: int) -> Scene:
        """What the picture of one example shows."""
        return draw_scene(self._random("scene", index))

    def _example(self, index: int) -> Example:
        rng = self._random("text", index)
        stage = self._stages[bisect_right(self._ends, index)]
        task = rng.choices(list(stage.tasks), list(stage.tasks.values()))[0]
        prompt, answer = describe(self.scene(index), task, rng, balanced=stage.balanced)
        return Example(
            question_id=f"{self._name}-{index}",
            image=f"{self._name}/{index}",
            questions=(prompt,),
            answer=answer,
            answer_type="closed" if answer in ("yes", "no") else "open",
        )

    def _random(self, what: str, index: int) -> random.Random:
        # Seeded by text: the generators of neighbouring examples and of picture and text are independent.
        return random.Random(f"{self._seed}/{self._name}/{index}/{what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What one picture shows: lengths in pixels, colours as red, green, blue from 0 to 255, ``x`` and ``y`` the centre,
    ``light`` what all levels are multiplied by."""

    shape: str
    colour: str
    background: tuple[float, ...]
    foreground: tuple[float, ...]
    width: float
    height: float
    x: float
    y: float
    light: float


def draw_scene(rng: random.Random) -> Scene:
    """One shape wholly inside the picture, and distinct from its background."""
    # The order of the draws is part of the data: another one renders other pictures.
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    foreground = tuple(level + rng.uniform(-COLOUR_SPREAD, COLOUR_SPREAD) for level in COLOURS[colour])
    background = foreground
    while sum(abs(a - b) for a, b in zip(foreground, background, strict=True)) < CONTRAST:
        level = rng.uniform(*BACKGROUND)
        background = tuple(level + rng.uniform(-BACKGROUND_SPREAD, BACKGROUND_SPREAD) for _ in range(3))
    width = rng.uniform(*SIZE)
    height = rng.uniform(*SIZE) if shape == "rectangle" else width
    return Scene(
        shape=shape,
        colour=colour,
        background=background,
        foreground=foreground,
        width=width,
        height=height,
        x=rng.uniform(width / 2 + MARGIN, SIDE - width / 2 - MARGIN),
        y=rng.uniform(height / 2 + MARGIN, SIDE - height / 2 - MARGIN),
        light=rng.uniform(*LIGHT),
    )


def describe(scene: Scene, task: Task, rng: random.Random, *, balanced: bool) -> tuple[str, str]:
    """A prompt about the scene and its answer; statements as ``Stage.balanced`` says."""
    words = {"shape": scene.shape, "colour": scene.colour}
    if task == "caption":
        return rng.choice(PROMPTS[task]), f"a {scene.colour} {scene.shape}"
    if task in ("colour", "shape"):
        return rng.choice(PROMPTS[task]).format(**words), words[task]
    kind, _, attribute = task.partition("_")
    known = list(COLOURS if attribute == "colour" else SHAPES)
    if balanced:
        said = words[attribute] if rng.random() < 0.5 else rng.choice([w for w in known if w != words[attribute]])
    else:
        said = rng.choice(known)
    true = (said == words[attribute]) == (kind == "match")
    return rng.choice(PROMPTS[task]).format(**{**words, attribute: said}), "yes" if true else "no"


def render(scene: Scene) -> Image:
    """The picture, edges smoothed over a pixel."""
    import numpy as np
    import PIL.Image

    inside = np.clip(_depth(scene) + 0.5, 0, 1)[..., None]
    background, foreground = np.array([scene.background, scene.foreground], np.float32)
    pixels = background + (foreground - background) * inside
    return PIL.Image.fromarray((np.clip(pixels, 0, 255) * scene.light).astype(np.uint8))


def _depth(scene: Scene) -> Any:
    """Distance of every pixel's centre to the nearest edge, positive inside; float32, shape (SIDE, SIDE)."""
    import numpy as np

    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    x, y = centres[None, :] - np.float32(scene.x), centres[:, None] - np.float32(scene.y)
    if scene.shape == "circle":
        return scene.width / 2 - np.hypot(x, y)
    if scene.shape == "rectangle":
        return np.minimum(scene.width / 2 - np.abs(x), scene.height / 2 - np.abs(y))
    # An equilateral triangle: its height is sqrt(3) / 2 = 0.866 of its side.
    half = scene.width * 0.866 / 2
    return np.minimum(half - y, (half + y) * 0.5 - np.abs(x) * 0.866)
