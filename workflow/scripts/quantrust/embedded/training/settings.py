"""How an embedded model is trained."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingSettings:
    """How an embedded model is trained; the defaults made qwen2-vl-tiny and idefics3-tiny.

    `questions` are written for each image; each pass over the images uses `questions_per_step` of them. With
    `slots_by_length` those of an image are laid out longest first, so that less padding is computed. Captions join them
    in every `caption_every`-th step. With `people_s_captions` an image has those of five people, of which one is drawn
    each time; otherwise it has one caption. The language model's rate follows a cosine over `language_horizon` steps
    and falls linearly to 2 % of its peak over the last `language_cooldown` of the `language_steps`. From there it goes
    on for `refining_cycles` cycles of `refining_steps`, each with a new optimizer and a cosine of its own from
    `refining_rate`. With `refine_rounded` each begins with weights that are rounded to bfloat16, as if it began with
    the folder of a model that was trained for the cycles before it alone. The matrix products of the language model are
    computed in `precision`, bfloat16 or float32. A processor without instructions for bfloat16 takes six times as long
    for it as for float32.

    A model that matches images with texts has no language model. It learns on `matching_batch` images a step, each with
    one of its captions: for `contrast_steps` to compare them, then for `matching_steps` to judge pairs, beside which
    contrast counts `contrast_weight`. The rate follows a cosine over each. Wrong pairs are drawn at random at first.
    Then their likeness counts more and more, in full after `hardening_steps`.
    """

    images: int = 30_000
    questions: int = 12
    questions_per_step: int = 6
    caption_every: int = 3
    people_s_captions: bool = False
    slots_by_length: bool = False
    vision_steps: int = 3_500
    vision_batch: int = 32
    vision_rate: float = 3e-3
    language_steps: int = 4_000
    language_horizon: int = 6_000
    language_cooldown: int = 1_800
    language_batch: int = 32
    language_rate: float = 2e-3
    refining_cycles: int = 1
    refining_steps: int = 5_000
    refining_rate: float = 1.5e-3
    refine_rounded: bool = False
    contrast_steps: int = 3_000
    contrast_weight: float = 0.05
    hardening_steps: int = 3_000
    matching_steps: int = 4_000
    matching_batch: int = 64
    matching_rate: float = 1e-3
    warmup: int = 300
    weight_decay: float = 0.05
    precision: str = "bfloat16"
    seed: int = 1
    data_seed: int = 0


def settings_from(values: dict[str, Any]) -> TrainingSettings:
    """Return the settings with `values` in the place of defaults; an unknown name raises TypeError."""
    return TrainingSettings(**values)


def cosine_rate(step: int, steps: int, settings: TrainingSettings, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to 2 % of the peak."""
    if step < settings.warmup:
        return peak * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, steps - settings.warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
