"""Logs of samples as the harnesses write them: the metric is the quality, the choices give the confidence."""

import json
import math

import polars as pl
import pytest

from quantrust.data.table import Wanted, read_score_table
from quantrust.errors import QuantrustError


def lm_eval(scores, target, doc_id=0, texts=None, **metrics):
    """A sample of lm-evaluation-harness; scores of choices, or a generated text."""
    chosen = isinstance(scores, list)
    texts = texts or [f" choice {place}" for place in range(len(scores))]
    responses = [[str(score), "False"] for score in scores] if chosen else [scores]
    return {
        "doc_id": doc_id,
        "doc": {"question": "?", "image": f"picture-{doc_id // 2}"},
        "target": str(target),
        "arguments": {f"gen_args_{k}": {"arg_0": "?", "arg_1": text} for k, text in enumerate(texts)},
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
        "filter": "none",
        "metrics": list(metrics),
        **dict.fromkeys(("doc_hash", "prompt_hash", "target_hash"), "0" * 64),
        **metrics,
    }


def lmms_eval(scores, target, doc_id=0, **metrics):
    """A sample of lmms-eval; losses of choices, or a generated text."""
    chosen = isinstance(scores, list)
    return {
        "doc_id": doc_id,
        "target": str(target),
        "filtered_resps": [[str(score), "False"] for score in scores] if chosen else scores,
        "token_counts": [None],
        "doc_hash": "0" * 64,
        **metrics,
        "input": "?",
    }


@pytest.fixture
def read(tmp_path):
    def read(samples, **wanted):
        path = tmp_path / "samples.jsonl"
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        return read_score_table(path, Wanted(**wanted))

    return read


def column(table, name):
    return table.answers[name].to_list()


def test_the_confidence_is_the_share_of_the_likeliest_choice(read):
    samples = [
        lm_eval([math.log(0.3), math.log(0.1)], 0, acc=1.0),
        lm_eval([math.log(0.01), math.log(0.03), math.log(0.01)], 0, doc_id=1, acc=0.0),
    ]
    table = read(samples)
    assert table.format == "lm_eval"
    assert column(table, "id") == ["0", "1"]
    assert column(table, "quality") == [1.0, 0.0]
    assert column(table, "confidence") == pytest.approx([0.75, 0.6])
    assert table.notes == ("quality: the metric acc; confidence: softmax of the choices' log-likelihoods, in "
                           "filtered_resps",)  # fmt: skip


def test_a_metric_that_divides_by_length_has_the_confidence_of_its_own_choice(read):
    # The first choice is likelier, the second for its length: -2 / 1 against -4 / 4, and -4 / 5 in bytes.
    sample = lm_eval([-2.0, -4.0], 1, texts=[" a", " b\u00e9cd"], acc=0.0, acc_norm=1.0, acc_bytes=1.0)
    expected = {
        "acc": 1 / (1 + math.exp(-2)),
        "acc_norm": 1 / (1 + math.exp(-1)),
        "acc_bytes": 1 / (1 + math.exp(-1.2)),
    }
    for metric, confidence in expected.items():
        assert column(read([sample], metric=metric), "confidence") == pytest.approx([confidence])


def test_a_log_that_was_made_a_parquet_file_is_read_alike(read, tmp_path):
    # Eleven choices, whose names are sorted in another order than the choices.
    scores = [-3.0 - place for place in range(11)]
    samples = [lm_eval(scores, 0, acc_norm=1.0, acc=1.0), lm_eval([-4.0, -2.0], 1, doc_id=1, acc_norm=1.0, acc=1.0)]
    expected = read(samples, metric="acc_norm")
    pl.DataFrame(samples).write_parquet(tmp_path / "samples.parquet")
    found = read_score_table(tmp_path / "samples.parquet", Wanted(metric="acc_norm"))
    assert found.answers.equals(expected.answers)


def test_metrics_and_filters_are_named_where_there_are_several(read):
    samples = [
        {**lm_eval([-1.0, -2.0], 0, acc=1.0, acc_norm=1.0), "filter": name, "f1": [0, 0]} for name in ("none", "strict")
    ]
    with pytest.raises(QuantrustError, match="has 2 filters, 'none', 'strict'; expected one of them in --filter"):
        read(samples)
    with pytest.raises(QuantrustError, match="no filter 'loose'; expected one of 'none', 'strict' in --filter"):
        read(samples, filter="loose")
    with pytest.raises(QuantrustError, match="has 2 metrics, 'acc', 'acc_norm'; expected one of them in --metric"):
        read(samples, filter="none")
    with pytest.raises(QuantrustError, match="no metric 'f1'; expected one of 'acc', 'acc_norm' in --metric"):
        read(samples, filter="none", metric="f1")
    assert column(read(samples, filter="strict", metric="acc"), "quality") == [1.0]


def test_losses_of_lmms_eval_are_smaller_where_a_choice_is_likelier(read):
    table = read([lmms_eval([2.0, 1.0], 1, acc=1.0), lmms_eval([0.5, 2.5], 1, doc_id=4, acc=0.0)])
    assert table.format == "lmms_eval"
    assert column(table, "id") == ["0", "4"]
    assert column(table, "confidence") == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])


def test_scores_in_objects_count_and_samples_without_the_metric_are_left_out(read):
    samples = [
        lmms_eval("yes", "yes", 0, pope_accuracy={"score": 1.0, "prediction": "yes"}, sure=0.9),
        lmms_eval("no", "yes", 1, pope_accuracy={"score": 0.0, "prediction": "no"}, sure=0.4),
        lmms_eval("no", "no", 2, mme_score={"score": 1.0}, sure=0.4),
    ]
    table = read(samples, metric="pope_accuracy", confidence="sure")
    assert column(table, "quality") == [1.0, 0.0]
    assert column(table, "confidence") == [0.9, 0.4]
    assert "samples left out, without the metric pope_accuracy: 1" in table.notes


def test_images_and_ids_may_be_entries_of_the_document(read):
    samples = [lm_eval([-1.0, -2.0], 0, doc_id=place, acc=1.0) for place in range(3)]
    table = read(samples, image="doc.image")
    assert column(table, "image") == ["picture-0", "picture-0", "picture-1"]


@pytest.mark.parametrize("sample", [lm_eval("a cat", "cat", exact_match=1.0), lmms_eval("a cat", "cat", exact_match=1)])
def test_generated_answers_have_no_confidence_unless_the_log_has_a_field_for_it(read, sample):
    with pytest.raises(
        QuantrustError, match=r"line 1: filtered_resps is .* this log has no confidence; let the task's"
    ):
        read([sample])
    assert column(read([{**sample, "sure": 0.5}], confidence="sure"), "confidence") == [0.5]


def test_scores_that_the_metric_does_not_judge_are_refused(read):
    right = lm_eval([-1.0, -2.0], 0, acc=1.0)
    with pytest.raises(QuantrustError, match=r"line 2: the likeliest choice is number 0, the target '0' and acc 0\.0"):
        read([right, lm_eval([-1.0, -2.0], 0, doc_id=1, acc=0.0)])
    with pytest.raises(QuantrustError, match=r"the likeliest choice is number 1"):
        # log-likelihoods where losses are expected
        read([lmms_eval([-1.0, -2.0], 0, acc=1.0)])
    with pytest.raises(QuantrustError, match="which choice 'mc2' judges is not known"):
        read([lm_eval([-1.0, -2.0], 0, mc2=0.5)])
    with pytest.raises(QuantrustError, match="which choice 'acc_norm' judges is not known"):
        read([lmms_eval([1.0, 2.0], 0, acc_norm=1.0)])
    with pytest.raises(QuantrustError, match="for acc_mutual_info; log the task"):
        read([lm_eval([-1.0, -2.0, -1.0, -2.0], 0, acc=1.0, acc_mutual_info=1.0)], metric="acc")
    with pytest.raises(QuantrustError, match="the score of one text alone, the reference"):
        read([lm_eval([-1.0], "word", acc=1.0)])
    with pytest.raises(QuantrustError, match="expected a finite score of some choice"):
        read([lm_eval([math.nan, -1.0], 0, acc=1.0)])


def test_a_target_that_is_the_text_of_a_choice_is_no_place(read):
    # The target is the text "1", which is the first choice.
    sample = lm_eval([-1.0, -2.0], "1", texts=[" 1", " 0"], acc=1.0)
    assert column(read([sample]), "quality") == [1.0]


def test_a_metric_of_any_kind_of_number_is_held_against_the_choice_or_named(read):
    with pytest.raises(QuantrustError, match=r"line 1: 'acc' is 1000.*; expected a number from 0 to 1"):
        read([lm_eval([-1.0, -2.0], 0, acc=10**400)])
    assert column(read([lmms_eval([1.0, 2.0], 0, acc={"score": 1})]), "quality") == [1.0]
    with pytest.raises(QuantrustError, match=r"line 1: the likeliest choice is number 0, .* and acc {'score': 0}"):
        read([lmms_eval([1.0, 2.0], 0, acc={"score": 0})])
    with pytest.raises(QuantrustError, match="line 2: has no 'acc'"):
        read([lm_eval([-1.0, -2.0], 0, acc=1.0), lm_eval([-1.0, -2.0], 0, doc_id=1)])
