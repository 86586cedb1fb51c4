"""The Selector learns what the states say, the same way every time, and its scores carry every row."""

import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from quantrust.artifacts.folder_record import RECORD, write_record
from quantrust.artifacts.tables import write_table
from quantrust.confidence import scores, selector_training
from quantrust.confidence.scores import KEYS, write_scores
from quantrust.confidence.selector import load_selector, selector_confidence, selector_inputs
from quantrust.confidence.selector_training import Dropout, Selector, SelectorSettings, dev_images, train_selector
from quantrust.errors import QuantrustError
from quantrust.inference.features_file import read_slices

SETTINGS = SelectorSettings(hidden=16, dropout=0.1, learning_rate=3e-3, batch_size=16, epochs=12, members=2, seed=3)


def _features(n: int = 900, seed: int = 0) -> pl.DataFrame:
    """Rows whose quality follows the first channel of the answer state, while the probability is noise."""
    rng = np.random.default_rng(seed)
    states = {name: rng.normal(size=(n, 8)).astype(np.float32) for name in ("image_state", "question_state")}
    states["answer_state"] = rng.normal(size=(n, 8)).astype(np.float32)
    quality = np.round(1 / (1 + np.exp(-4 * states["answer_state"][:, 0])), 1)
    return pl.DataFrame(
        {
            "dataset": ["scenes"] * n,
            "split": ["dev"] * (n // 3) + ["val"] * (n // 3) + ["test"] * (n - 2 * (n // 3)),
            "question_id": [str(k) for k in range(n)],
            "image_id": [str(k // 3) for k in range(n)],
            "answer_type": ["other"] * n,
            "question_kind": ["colour"] * n,
            "quality": quality,
            "joint_log_prob": np.log(rng.uniform(0.1, 1.0, n)).astype(np.float32),
            **states,
        },
        schema_overrides={name: pl.Array(pl.Float32, 8) for name in states},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selector")
    write_table(_features(), folder / "features.parquet")
    train_selector(folder / "features.parquet", folder / "selector", SETTINGS)
    return folder


def test_the_selector_ranks_by_what_the_states_say(trained):
    test = _features().filter(pl.col("split") == "test")
    columns = selector_confidence(load_selector(trained / "selector"), test)
    for name in ("selector", "selector-ensemble"):
        assert ((columns[name] >= 0) & (columns[name] <= 1)).all()
        assert np.corrcoef(columns[name], test["quality"])[0, 1] > 0.85
    maxprob = np.exp(test["joint_log_prob"].to_numpy())
    assert abs(np.corrcoef(maxprob, test["quality"])[0, 1]) < 0.3


def test_the_residual_selector_learns_what_the_states_say_too(trained):
    test = _features().filter(pl.col("split") == "test")
    residual = selector_confidence(load_selector(trained / "selector"), test)["selector-residual"]
    maxprob = np.exp(test["joint_log_prob"].to_numpy())
    assert np.corrcoef(residual, test["quality"])[0, 1] > np.corrcoef(maxprob, test["quality"])[0, 1] + 0.3
    # The first point of its curve is MaxProb, and none that is worse is kept.
    areas = [
        point["val_aurc"]
        for point in json.loads((trained / "selector" / "selector.json").read_text())["residual_curves"][0]
    ]
    val = _features().filter(pl.col("split") == "val")
    order = np.argsort(-val["joint_log_prob"].to_numpy(), kind="stable")
    risk = 1 - val["quality"].to_numpy()[order]
    assert areas[0] == pytest.approx(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)), abs=1e-6)
    assert min(areas) < areas[0]


def test_a_network_is_applied_as_it_was_trained(trained):
    features = _features(1500, seed=1)
    stored = load_file(trained / "selector" / "selector.safetensors")
    inputs = torch.from_numpy(selector_inputs(features))
    columns = selector_confidence(load_selector(trained / "selector"), features)
    for member, name in enumerate(("selector", "selector@2")):
        network = Selector(inputs.shape[1], SETTINGS.hidden, 0.0).eval()
        prefix = f"plain-{member}."
        network.load_state_dict({key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)})
        with torch.no_grad():
            expected = torch.sigmoid(network(inputs)).numpy()
        np.testing.assert_allclose(columns[name], expected, rtol=1e-12)


def test_an_answer_alone_has_the_confidence_that_it_has_among_others(trained):
    features = _features(200, seed=1)
    selectors = load_selector(trained / "selector")
    together = selector_confidence(selectors, features)
    for row in (0, 63, 64, 150, 199):
        alone = selector_confidence(selectors, features[row : row + 1])
        assert all(alone[name][0] == together[name][row] for name in together)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, r"weights are missing or unexpected: residual-1\.layers\.4\.bias"),
        (torch.zeros(1), "the weights of residual-1 do not fit together"),
    ],
)
def test_a_selector_that_lacks_a_weight_or_has_one_of_another_shape_is_refused(trained, tmp_path, wrong, message):
    folder = shutil.copytree(trained / "selector", tmp_path / "selector")
    path = folder / "selector.safetensors"
    tensors = load_file(path)
    del tensors["residual-1.layers.4.bias"]
    if wrong is not None:
        tensors["residual-1.layers.4.bias"] = wrong
    for changed in (path, folder / RECORD):
        os.chmod(changed, 0o644)
    save_file(tensors, path)
    write_record(folder)
    with pytest.raises(QuantrustError, match=message):
        load_selector(folder)


@pytest.mark.parametrize("names", [{}, {"plain-0": "other-0"}, {"residual-1": "residual-2"}])
def test_a_selector_whose_networks_have_other_names_is_refused(trained, tmp_path, names):
    folder = shutil.copytree(trained / "selector", tmp_path / "selector")
    path = folder / "selector.safetensors"
    tensors = {}
    for key, value in load_file(path).items() if names else ():
        network, part = key.split(".", 1)
        tensors[f"{names.get(network, network)}.{part}"] = value
    for changed in (path, folder / RECORD):
        os.chmod(changed, 0o644)
    save_file(tensors, path)
    write_record(folder)
    with pytest.raises(QuantrustError, match="weights are missing or unexpected"):
        load_selector(folder)


def test_scores_of_a_selector_are_written_without_torch(trained, tmp_path):
    """It takes longer to import than such a job takes."""
    code = (
        "import sys; from quantrust.confidence.scores import write_scores;"
        "write_scores([sys.argv[1]], *sys.argv[2:], ['maxprob', 'selector']); sys.exit('torch' in sys.modules)"
    )
    paths = (trained / "features.parquet", trained / "selector", tmp_path / "scores.parquet")
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)


def test_a_residual_selector_that_adds_nothing_is_maxprob_up_to_certainty(trained):
    selectors = load_selector(trained / "selector")
    for parameter in selectors.residuals[0].linears[-1]:
        parameter[:] = 0
    log_probability = np.array([-30.0, -3.0, -0.7, -1e-3, -1e-6, 0.0], dtype=np.float32)
    features = _features(len(log_probability)).with_columns(joint_log_prob=pl.Series(log_probability))
    residual = selector_confidence(selectors, features)["selector-residual"]
    np.testing.assert_allclose(residual, np.exp(log_probability.astype(np.float64)), rtol=1e-7)
    # Near certainty as well, MaxProb's order is kept.
    assert (np.diff(residual) > 0).all()


def test_the_same_seed_trains_the_same_bytes(trained, tmp_path):
    train_selector(trained / "features.parquet", tmp_path / "again", SETTINGS)
    for name in ("selector.safetensors", "selector.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / "selector" / name).read_bytes()


def test_weights_move_as_the_optimizer_of_the_library_moves_them():
    torch.manual_seed(0)
    inputs, quality = torch.rand(9, 4, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
    network = Selector(4, 3, 0.0, np.random.default_rng(0))
    expected = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(expected.parameters(), lr=0.1, weight_decay=0.3)
    step = selector_training._adamw([*network.parameters()], replace(SETTINGS, learning_rate=0.1, weight_decay=0.3))
    for _ in range(5):
        step((network(inputs) - quality).square().mean())
        optimizer.zero_grad()
        (expected(inputs) - quality).square().mean().backward()
        optimizer.step()
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_training_imports_nothing_of_the_compiler_of_the_library(trained, tmp_path):
    """It takes longer than to train a network."""
    code = (
        "import sys; from quantrust.confidence.selector_training import SelectorSettings, train_selector;"
        f"train_selector({str(trained / 'features.parquet')!r}, {str(tmp_path / 'out')!r}, SelectorSettings(epochs=1));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_network_of_one_seed_is_a_network_of_the_next(trained, tmp_path):
    train_selector(trained / "features.parquet", tmp_path / "other", replace(SETTINGS, seed=SETTINGS.seed + 1))
    found = [load_selector(folder / name) for folder, name in ((trained, "selector"), (tmp_path, "other"))]
    first, other = ([*selectors.members, *selectors.residuals] for selectors in found)
    for network in first:
        assert not any(np.array_equal(network.linears[0][0], another.linears[0][0]) for another in other)


def test_scores_hold_every_row_and_one_column_an_estimator_and_further_member(trained, tmp_path):
    write_scores(
        [trained / "features.parquet"],
        trained / "selector",
        tmp_path / "scores.parquet",
        ["maxprob", "selector-residual", "selector-ensemble"],
    )
    table = pl.read_parquet(tmp_path / "scores.parquet")
    assert table.columns == [*KEYS, "maxprob", "selector-residual", "selector-ensemble", "selector-residual@2"]
    assert table["question_id"].to_list() == _features()["question_id"].to_list()
    assert table["selector-ensemble"].dtype == pl.Float64


def test_scores_begin_with_those_that_are_there(trained, tmp_path):
    """Two parts that one job each scored hold what one job scores of both."""
    parts = [tmp_path / "first.parquet", tmp_path / "second.parquet"]
    for path, dataset in zip(parts, ("first", "second"), strict=True):
        write_table(_features().with_columns(dataset=pl.lit(dataset)), path)
    names, folder = ["maxprob", "selector"], trained / "selector"
    write_scores(parts, folder, tmp_path / "whole.parquet", names)
    write_scores(parts[:1], folder, tmp_path / "begun.parquet", names)
    write_scores(parts[1:], folder, tmp_path / "added.parquet", names, tmp_path / "begun.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "added.parquet"), pl.read_parquet(tmp_path / "whole.parquet"))


def test_scores_without_a_learned_estimator_need_no_selector(trained, tmp_path):
    write_scores([trained / "features.parquet"], None, tmp_path / "scores.parquet", ["maxprob"])
    assert pl.read_parquet(tmp_path / "scores.parquet").columns == [*KEYS, "maxprob"]


def test_reading_a_few_rows_at_a_time_changes_nothing(trained, tmp_path, monkeypatch):
    """Some slices hold no row of a split."""
    estimators = ["maxprob", "selector", "selector-ensemble", "selector-residual"]
    for name in ("whole", "sliced"):
        train_selector(trained / "features.parquet", tmp_path / name, SETTINGS)
        write_scores([trained / "features.parquet"], tmp_path / name, tmp_path / f"{name}.parquet", estimators)
        for module in (selector_training, scores):
            monkeypatch.setattr(module, "read_slices", partial(read_slices, rows=70))
    weights = [(tmp_path / name / "selector.safetensors").read_bytes() for name in ("whole", "sliced")]
    assert weights[0] == weights[1]
    whole, sliced = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "sliced"))
    # products of fewer rows may be summed in another order
    assert_frame_equal(whole, sliced, rel_tol=1e-12)


def test_members_are_networks_of_their_own_and_the_ensemble_is_their_mean(trained):
    test = _features().filter(pl.col("split") == "test")
    columns = selector_confidence(load_selector(trained / "selector"), test)
    for name in ("selector", "selector-residual"):
        one, other = columns[name], columns[f"{name}@2"]
        assert np.abs(one - other).max() > 0.01
        assert np.corrcoef(one, other)[0, 1] > 0.9
    np.testing.assert_allclose(columns["selector-ensemble"], (columns["selector"] + columns["selector@2"]) / 2)


def test_the_same_features_train_the_same_bytes_whatever_instructions_the_processor_has(trained, tmp_path):
    """In float32 every weight differs, and one training in ten keeps another epoch."""
    script = (
        "import sys; from quantrust.confidence.selector_training import SelectorSettings, train_selector; "
        f"train_selector(*sys.argv[1:], {SETTINGS!r})"
    )
    subprocess.run(
        [sys.executable, "-c", script, trained / "features.parquet", tmp_path / "other"],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        check=True,
    )
    weights, others = (
        (folder / "selector.safetensors").read_bytes() for folder in (trained / "selector", tmp_path / "other")
    )
    assert weights == others


def test_the_units_to_drop_are_drawn_by_no_generator_that_depends_on_the_processor(monkeypatch):
    """torch draws a mask by MKL's generator on Intel's processors and by its own on others."""
    rng, reference = np.random.default_rng(5), np.random.default_rng(5)
    dropped = Dropout(0.25, rng)(torch.ones(64, 100, dtype=torch.float64)).numpy()
    np.testing.assert_array_equal(dropped, np.where(reference.random((64, 100)) < 0.25, 0, 1 / 0.75))

    def refuse(*arguments, **settings):
        raise AssertionError("a mask of torch's")

    monkeypatch.setattr(torch.nn.functional, "dropout", refuse)
    network = Selector(25, 16, 0.5, rng).train()
    assert not torch.equal(*(network(torch.ones(4, 25)) for _ in range(2)))
    assert torch.equal(*(network.eval()(torch.ones(4, 25)) for _ in range(2)))


def test_parts_of_dev_are_whole_images_each_within_the_next():
    images = [str(k // 3) for k in range(30)] + ["10"]
    parts = [dev_images(images, labels, seed=3) for labels in (1, 4, 7, 20, 31)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(parts))
    assert parts[-1] == set(images)
    for part, labels in zip(parts, (1, 4, 7, 20, 31), strict=True):
        asked = sum(image in part for image in images)
        assert labels <= asked < labels + 3
    assert dev_images(images, 7, seed=4) != parts[2]
    with pytest.raises(QuantrustError, match=r"dev has 31 questions, but selector\.learning_curve asks for 32"):
        dev_images(images, 32, seed=3)


def test_a_part_of_dev_trains_on_its_questions_alone_and_all_of_dev_like_no_part(trained, tmp_path):
    features = trained / "features.parquet"
    dev = _features().filter(pl.col("split") == "dev")
    part = dev_images(dev["image_id"].to_list(), 100, SETTINGS.seed)
    write_table(
        _features().filter((pl.col("split") != "dev") | pl.col("image_id").is_in(part)), tmp_path / "part.parquet"
    )
    train_selector(features, tmp_path / "of-part", SETTINGS, labels=100)
    train_selector(tmp_path / "part.parquet", tmp_path / "of-file", SETTINGS)
    train_selector(features, tmp_path / "of-all", SETTINGS, labels=dev.height)
    weights = {
        name: (folder / "selector.safetensors").read_bytes()
        for name, folder in (("all", trained / "selector"), *((path.name, path) for path in tmp_path.glob("of-*")))
    }
    assert weights["of-part"] == weights["of-file"] != weights["all"]
    assert weights["of-all"] == weights["all"]
    record = json.loads((tmp_path / "of-part" / "selector.json").read_text())
    assert 100 <= record["train_questions"] < 103
    assert record["val_questions"] == 300


def test_features_without_a_val_split_are_refused(trained, tmp_path):
    path = tmp_path / "features.parquet"
    write_table(_features().filter(pl.col("split") != "val"), path)
    with pytest.raises(QuantrustError, match="no questions of split 'val'"):
        train_selector(path, tmp_path / "selector", SETTINGS)
    assert not (tmp_path / "selector").exists()


def test_scores_hold_what_answers_add_to_metrics_that_only_some_tasks_have(trained, tmp_path):
    captions, others = tmp_path / "captions.parquet", trained / "features.parquet"
    write_table(_features().with_columns(cider_d=pl.lit(1.5)), captions)
    write_scores([captions, others], None, tmp_path / "scores.parquet", ["maxprob"])
    table = pl.read_parquet(tmp_path / "scores.parquet")
    assert table.columns == [*KEYS, "maxprob", "cider_d"]
    rows = len(table) // 2
    assert table["cider_d"].to_list() == [1.5] * rows + [None] * rows
    write_scores([captions], None, tmp_path / "begun.parquet", ["maxprob"])
    write_scores([others], None, tmp_path / "added.parquet", ["maxprob"], tmp_path / "begun.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "added.parquet"), table)
