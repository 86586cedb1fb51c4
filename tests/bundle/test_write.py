"""What a bundle is not written of, and what its model card says."""

import dataclasses
import shutil

import polars as pl
import pytest
from huggingface_hub import ModelCard

from bundled_study import write
from quantrust.artifacts.tables import read_table
from quantrust.bundle.card import model_card
from quantrust.bundle.record import read_bundle
from quantrust.bundle.write import BundleChoice, write_bundle
from quantrust.errors import QuantrustError
from quantrust.evaluation.operating_points import read_operating_points, write_operating_points
from quantrust.evaluation.shipped_points import DIVIDED
from quantrust.files import read_object


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (BundleChoice("guess", 0.2), "estimator 'guess': no estimator of this name"),
        (BundleChoice("margin", 0.2), "no operating point of the estimator 'margin'; it has those of maxprob,"),
        (BundleChoice("maxprob", 0.1), r"for the risk limit 0.1; it has 0.05 \(val\), 0.2 \(val, certified\)"),
    ],
)
def test_what_the_study_has_no_operating_point_for_is_refused(bundled_study, tmp_path, choice, message):
    with pytest.raises(QuantrustError, match=message):
        write_bundle(tmp_path / "bundle", bundled_study.sources(), choice)
    assert list(tmp_path.iterdir()) == []


def test_operating_points_of_other_weights_are_refused(bundled_study, tmp_path):
    points = read_operating_points(bundled_study.folder / "points.json")
    write_operating_points(dataclasses.replace(points, weights_sha256="0" * 64), tmp_path / "points.json")
    sources = dataclasses.replace(bundled_study.sources(), operating_points=tmp_path / "points.json")

    with pytest.raises(QuantrustError, match="was not measured on the answers of"):
        write_bundle(tmp_path / "bundle", sources, BundleChoice("maxprob", 0.2))


def test_a_damaged_checkpoint_is_not_bundled(bundled_study, tmp_path):
    checkpoint = shutil.copytree(bundled_study.folder / "checkpoint", tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").write_text("{}")
    sources = dataclasses.replace(bundled_study.sources(), checkpoint=checkpoint)

    with pytest.raises(QuantrustError, match=r"tokenizer\.json is damaged"):
        write_bundle(tmp_path / "bundle", sources, BundleChoice("maxprob", 0.2))


def test_the_hub_reads_the_card(bundle_folder):
    card = ModelCard.load(bundle_folder / "README.md")

    assert card.data.base_model == "someone/tiny"
    assert card.data.license == "apache-2.0"
    assert card.data.quantization["method"] == "rtn"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["coverage_at_certified_threshold_0.2"] == 0.5
    assert {result.dataset_name for result in card.data.eval_results} == {"pictures"}


def test_the_card_says_where_limits_break_and_has_whole_thresholds(bundle_folder):
    record, text = read_bundle(bundle_folder), (bundle_folder / "README.md").read_text()

    for point in record.points:
        assert f"`{point.threshold!r}`" in text
    # a risk of three times the limit, with an interval above it
    assert "| others | 5 % | val | 10 of 30: 33.3 % (10.0 to 90.0) | 15.0 % (7.5 to 30.0) | **broken** |" in text
    assert "except with probability 0.1" in text


def test_a_card_without_certificates_licence_and_shifts_says_so(bundled_study, bundle_folder):
    record = read_bundle(bundle_folder)
    val = [dataclasses.replace(point, measured=()) for point in record.points if not point.certified]
    points = dataclasses.replace(record.operating_points, points=tuple(val), certification=None)
    bare = dataclasses.replace(record, operating_points=points, license=None)
    quantization = read_object(bundle_folder / "checkpoint" / "quantization.json")
    text = model_card(bare, quantization, read_table(bundled_study.sources().metrics))

    assert "No threshold of this bundle is certified" in text
    assert "names no licence" in text
    assert "has no shifted dataset" in text


def test_the_card_of_a_bundle_for_captions_speaks_of_pictures(bundled_study, bundle_folder):
    record = read_bundle(bundle_folder)
    certification = dataclasses.replace(record.operating_points.certification, divided=DIVIDED)
    captions = dataclasses.replace(
        record,
        operating_points=dataclasses.replace(record.operating_points, certification=certification),
        item="picture",
        quality="F1 of facts",
        asked="describe the picture.",
    )
    quantization = read_object(bundle_folder / "checkpoint" / "quantization.json")
    metrics = read_table(bundled_study.sources().metrics)
    accuracy = metrics.filter(pl.col("metric") == "accuracy")
    metrics = pl.concat([metrics, accuracy.with_columns(metric=pl.lit("cider_d"), value=pl.lit(1.25))])
    text = model_card(captions, quantization, metrics)
    assert "question" not in text and "accuracy" not in text
    assert "pipeline_tag: image-to-text" in text
    assert "It is shown a picture, asked `describe the picture.`, and answers, or abstains" in text
    assert "quantrust answer . --image picture.png --risk 0.2" in text
    assert 'bundle.answer("picture.png", risk=0.2)' in text
    assert (
        "| F1 of facts (1 = every answer fully right) |" in text and "| CIDEr-D (higher is better) | 1.2500 |" in text
    )
    alone = model_card(dataclasses.replace(captions, asked=""), quantization, metrics)
    assert "It is shown a picture, without a question, and answers" in alone


def test_the_card_of_what_others_quantized_says_what_its_layers_are(bundled_study, bundle_folder):
    quantization = read_object(bundle_folder / "checkpoint" / "quantization.json")
    quantization |= {"scheme": "others", "settings": {"method": "gptq", "external": {}}}
    for row in quantization["layers"]:
        if row["component"] == "vision" and row["block"] == 0:
            row["bits"] = None if row["bits"] is None else 4
    text = model_card(read_bundle(bundle_folder), quantization, read_table(bundled_study.sources().metrics))
    said = ModelCard(text).data.quantization
    assert (said["scheme"], said["method"], said["group_size"]) == ("others", "gptq", 64)
    # the widths of the vision tower differ
    assert said["bits"] == {"connector": 8, "language": 8, "embedding": 8, "head": 8}


def test_a_learned_estimator_brings_its_networks(bundled_study, tmp_path):
    assert not (write(bundled_study, tmp_path / "plain") / "selector").exists()
    assert (write(bundled_study, tmp_path / "learned", "selector") / "selector" / "selector.safetensors").is_file()
