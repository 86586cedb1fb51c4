"""A model that matches images with texts learns from the pairs that it is asked about later, right and wrong ones."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from quantrust.data.queries import MOST_TOKENS
from quantrust.data.questions import build_questions_table
from quantrust.embedded.datasets import write_dataset
from quantrust.embedded.models import SPECS, TEXT_POSITIONS, build_model, train_tokenizer
from quantrust.embedded.training import matching, vision
from quantrust.embedded.training.settings import TrainingSettings
from quantrust.embedded.training.stage import Learner
from quantrust.embedded.training.train import processor_for, train_embedded_model
from quantrust.embedded.training.training_set import TrainingSet
from quantrust.inference.matching import dump_matches
from quantrust.inference.settings import MatchSettings
from quantrust.models.loading import load_family
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.task import load_task

NAME = "blip2-itm-tiny"
SETTINGS = TrainingSettings(
    images=8,
    questions=1,
    people_s_captions=True,
    vision_steps=2,
    vision_batch=4,
    contrast_steps=2,
    hardening_steps=2,
    matching_steps=3,
    matching_batch=4,
    warmup=2,
)


@pytest.fixture(scope="module")
def scenes():
    return TrainingSet(SETTINGS)


@pytest.fixture(scope="module")
def learner(scenes, tmp_path_factory):
    spec = replace(SPECS[NAME], vision_layers=2)
    family = load_family(spec.family)
    tokenizer = train_tokenizer(matching.corpus(scenes, spec), spec.family)
    model = build_model(spec, tokenizer, 0)
    return Learner(family, spec, model, processor_for(family, model, tokenizer, tmp_path_factory.mktemp("model")))


def test_a_wrong_text_is_drawn_by_its_likeness_and_never_a_right_one():
    torch.manual_seed(0)
    likeness = torch.tensor([9.0, 2.0, 0.0, 1.0, 9.0]).log().repeat(30_000, 1)
    right = torch.tensor([True, False, False, False, True]).expand_as(likeness)
    shares = matching.wrong_columns(likeness, right).bincount(minlength=5) / len(likeness)
    torch.testing.assert_close(shares, torch.tensor([0, 2 / 3, 0, 1 / 3, 0]), atol=0.01, rtol=0)


def test_wrong_pairs_are_drawn_at_random_first_and_by_their_likeness_in_the_end():
    settings = replace(SETTINGS, hardening_steps=4)
    assert [matching.hardness(step, settings) for step in (0, 1, 3, 4, 9)] == [0, 0.25, 0.75, 1, 1]


def test_losses_are_those_of_single_images_and_texts(scenes, learner, monkeypatch):
    """In plain loops; two pictures have captions of the same words, and a text is cut as it is later."""
    texts = ["a red 3 at the top left", "a green star top right", "a red 3 at the top left", "a blue 7 " * 20]
    family, model, processor = learner.family, learner.model, learner.processor
    with torch.no_grad():
        images = vision.encode_all(learner, scenes)[:4]
        learning = matching.Matching(learner, images, [[text] for text in texts], SETTINGS)
        wrong = [torch.tensor([1, 0, 1, 2]), torch.tensor([3, 2, 1, 0])]
        drawn = iter(wrong)
        monkeypatch.setattr(matching, "wrong_columns", lambda logits, right: next(drawn))
        alone, _ = learning.contrast().loss(0, np.arange(4), np.random.default_rng(0))
        loss, measured = learning.matching().loss(0, np.arange(4), np.random.default_rng(0))
        logits = torch.zeros(4, 4)
        for i, image in enumerate(images):
            for k, text in enumerate(texts):
                embedded = family.text_embeddings(model, processor, [text], MOST_TOKENS)[0]
                logits[i, k] = float((family.image_embeddings(model, [image])[0] @ embedded).max()) / 0.07
        contrastive = 0.0
        for k in range(4):
            counted = [other for other in range(4) if other == k or texts[other] != texts[k]]
            for line in (logits[k], logits[:, k]):
                contrastive += float(line[counted].logsumexp(0) - line[k]) / 8
        pairs = [(k, k, 1) for k in range(4)]
        pairs += [(k, int(wrong[0][k]), 0) for k in range(4)] + [(int(wrong[1][k]), k, 0) for k in range(4)]
        judged = 0.0
        for image, text, matches in pairs:
            pair = family.pairs(model, processor, [texts[text]], [images[image]], most=MOST_TOKENS)
            judged -= float(family.matching_logits(model, pair)[0].log_softmax(0)[matches]) / len(pairs)
    assert float(alone) == pytest.approx(contrastive, abs=1e-4)
    assert float(measured["contrastive_loss"]) == pytest.approx(contrastive, abs=1e-4)
    assert float(measured["matching_loss"]) == pytest.approx(judged, abs=1e-4)
    assert float(loss) == pytest.approx(SETTINGS.contrast_weight * contrastive + judged, abs=2e-4)


def test_the_vision_stage_names_cells_by_what_the_queries_saw(scenes, learner):
    stage = vision.vision_stage(learner, scenes, SETTINGS)
    loss, _ = stage.loss(0, np.arange(2), np.random.default_rng(0))
    loss.backward()
    model = learner.model
    for name in ("query_tokens", "qformer.encoder.layer.2.crossattention.attention.value.weight"):
        assert model.get_parameter(name).grad.abs().sum() > 0
    assert model.get_parameter("text_projection.weight").grad is None
    model.zero_grad()


def test_the_longest_caption_has_a_position_for_each_token(learner):
    item = " and a 7 in orange at the bottom right corner"
    ids, _ = learner.family.text_tokens(learner.model, learner.processor, [f"the picture shows{item * 7}."])
    assert MOST_TOKENS < ids.shape[1] <= TEXT_POSITIONS


def test_a_trained_folder_is_small_and_finds_pictures(tmp_path):
    train_embedded_model(NAME, tmp_path / "trained", SETTINGS)
    assert (tmp_path / "trained" / "model.safetensors").stat().st_size < 4e6
    curve = pl.read_csv(tmp_path / "trained" / "training.csv")
    assert curve["stage"].to_list() == ["vision", "contrast", "matching"] and curve["step"].to_list() == [2, 2, 3]
    assert curve["contrastive_loss"].is_null().to_list() == [True, False, False]
    assert curve["matching_loss"].is_null().to_list() == [True, True, False]
    images = {"val": 2, "test": 3}
    write_dataset(
        "scenes-retrieval", tmp_path / "set", {"images": images, "captions_per_image": 5, "captions": 1, "seed": 0}
    )
    spec = {
        "format": "flickr30k",
        "annotations": tmp_path / "set" / "dataset_scenes.json",
        "images": tmp_path / "set" / "images",
    }
    splits = {split: spec | {"subset": split} for split in images}
    build_questions_table("scenes-retrieval", splits, tmp_path / "queries.parquet", tmp_path / "skipped.parquet")
    prepare_model(tmp_path / "trained", tmp_path / "prepared", "blip_2_retrieval")
    quantize_model(tmp_path / "prepared", "bf16", None, tmp_path / "checkpoint")
    out = tmp_path / "found.parquet"
    dump_matches(tmp_path / "checkpoint", tmp_path / "queries.parquet", out, MatchSettings(), load_task("retrieval"))
    found = pl.read_parquet(out)
    assert found.filter(split="test", question_kind="image_to_text").height == 3
    assert all(len(scores) for scores in found["match_scores"])
