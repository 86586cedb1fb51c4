"""A training that was killed goes on from its last checkpoint and ends in the bytes of one that was not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from quantrust.embedded.checkpoints import Checkpoints, Order, TrainingState
from quantrust.embedded.models import SPECS
from quantrust.embedded.training import train as train_module
from quantrust.embedded.training.language import language_cycles
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.embedded.training.train import train_embedded_model
from quantrust.errors import QuantrustError
from quantrust.models.loading import load_family

TRAINING = {"model": "toy", "seed": 3}


class Killed(BaseException):
    pass


def toy():
    torch.manual_seed(0)
    module, rng = nn.Linear(3, 2), np.random.default_rng(1)
    trained = [*module.parameters()]
    return TrainingState({"toy": module}, trained, torch.optim.AdamW(trained, lr=0.1), Order(7, 2, rng), rng)


def train_toy(folder, state, steps, killed_after=None, every=4):
    checkpoints = Checkpoints(folder, TRAINING, every, ("only",))
    for step in range(checkpoints.resume("only", state), steps):
        rows = torch.from_numpy(state.order.following()).float()
        noise = torch.from_numpy(state.rng.normal(size=2)).float() + torch.randn(2)
        state.optimizer.zero_grad()
        (state.modules["toy"](rows[:, None].expand(2, 3)) - noise[:, None]).square().mean().backward()
        state.optimizer.step()
        checkpoints.after("only", step + 1, steps, state, {})
        if step + 1 == killed_after:
            raise Killed
    return state.modules["toy"].weight.detach()


@pytest.mark.parametrize("killed_after", [1, 4, 6, 9])
def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path, killed_after):
    whole = train_toy(tmp_path / "whole", toy(), 11)
    with pytest.raises(Killed):
        train_toy(tmp_path / "killed", toy(), 11, killed_after)
    torch.manual_seed(99)
    assert torch.equal(train_toy(tmp_path / "killed", toy(), 11), whole)


def test_an_order_shows_every_image_once_a_pass_and_leaves_an_incomplete_batch_out():
    order = Order(7, 3, np.random.default_rng(0))
    first, second = ([*order.following(), *order.following()] for _ in range(2))
    assert len({*first}) == len({*second}) == 6 and first != second


def test_a_checkpoint_of_another_training_is_not_used(tmp_path):
    train_toy(tmp_path / "c", toy(), 4)
    other = Checkpoints(tmp_path / "c", TRAINING | {"seed": 4}, 4, ("only",))
    assert other.log is None and other.resume("only", toy()) == 0


def test_a_damaged_checkpoint_is_refused(tmp_path):
    train_toy(tmp_path / "c", toy(), 4)
    path = tmp_path / "c" / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(QuantrustError, match=r"state\.safetensors"):
        Checkpoints(tmp_path / "c", TRAINING, 4, ("only",))


SETTINGS = TrainingSettings(
    images=12,
    questions=3,
    questions_per_step=2,
    caption_every=2,
    people_s_captions=True,
    slots_by_length=True,
    vision_steps=4,
    vision_batch=4,
    language_steps=5,
    language_horizon=6,
    language_cooldown=2,
    language_batch=4,
    refining_cycles=2,
    refining_steps=3,
    contrast_steps=3,
    hardening_steps=4,
    matching_steps=5,
    matching_batch=4,
    warmup=2,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "kills"),
    [("llava-tiny", {"layers": 2}, (3, 2, 4, 3, 3)), ("blip2-itm-tiny", {}, (3, 2, 4, 3))],
    ids=["llava-tiny", "blip2-itm-tiny"],
)
def test_a_model_whose_training_was_killed_has_the_bytes_of_one_whose_was_not(
    name, changes, kills, tmp_path, monkeypatch
):
    """In each of its stages, at a checkpoint and between two."""
    monkeypatch.setitem(SPECS, name, replace(SPECS[name], vision_layers=2, **changes))
    after, left = Checkpoints.after, []

    def killing(self, *values):
        after(self, *values)
        if left and not left.append(left.pop() - 1) and left[0] == 0:
            left.clear()
            raise Killed

    monkeypatch.setattr(Checkpoints, "after", killing)
    train_embedded_model(name, tmp_path / "whole", SETTINGS)
    for steps in kills:
        left.append(steps)
        with pytest.raises(Killed):
            train_embedded_model(name, tmp_path / "killed", SETTINGS, checkpoint_every=2)
        assert not (tmp_path / "killed").exists()
    train_embedded_model(name, tmp_path / "killed", SETTINGS, checkpoint_every=2)
    for file in ("model.safetensors", "training.csv", "training.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["killed", "whole"]


@pytest.mark.slow
def test_a_second_cycle_from_rounded_weights_is_one_from_the_folder_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setitem(SPECS, "llava-tiny", replace(SPECS["llava-tiny"], layers=2, vision_layers=2))
    settings = replace(SETTINGS, refining_cycles=1, refine_rounded=True)
    train_embedded_model("llava-tiny", tmp_path / "whole", settings)
    train_embedded_model("llava-tiny", tmp_path / "first", replace(settings, refining_steps=0))

    def load_first(*values):
        return load_family("llava").model_class.from_pretrained(tmp_path / "first", dtype=torch.float32)

    monkeypatch.setattr(train_module, "build_model", load_first)
    train_embedded_model("llava-tiny", tmp_path / "second", replace(settings, vision_steps=0, language_steps=0))
    first, second, whole = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second", "whole")
    )
    assert second == whole != first


def test_each_refining_cycle_has_a_stage_and_an_order_of_the_images_of_its_own():
    cycles = language_cycles(SETTINGS)
    assert [(cycle.stage, cycle.steps) for cycle in cycles] == [("language", 5), ("refining", 3), ("refining-2", 3)]
    assert len({cycle.stream for cycle in cycles}) == 3
    assert [cycle.refines for cycle in cycles] == [False, True, True]
    assert language_cycles(replace(SETTINGS, refining_steps=0)) == cycles[:1]
