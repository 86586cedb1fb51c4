"""A bundle over HTTP: replies are the bundle's own answers, alone and together, and the command starts a server."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image

from bundled_study import Study
from quantrust import cli
from quantrust.bundle.load import Bundle
from quantrust.commands.serve import KEY_VARIABLE
from quantrust.errors import QuantrustError
from quantrust.serving.bundled import BundledModel, what_is_served
from quantrust.serving.refusal import Refusal
from serving.served import Process, data_url, serving_bundle

TOLERANCE = 1e-4
"""Of a random model, whose weights are wide; a trained one stays within 1e-6."""


def questions_of(study: Study) -> list[tuple[Image.Image, str]]:
    rows = study.test_questions().select("image", "question").head(8).iter_rows()
    return [(Image.open(path).convert("RGB"), question) for path, question in rows]


def test_a_batch_gets_the_replies_that_the_bundle_gives_alone(bundled_study: Study, bundle: Bundle) -> None:
    model, asked = BundledModel(bundle), questions_of(bundled_study)
    point = bundle.record.point(0.2)
    replies = model.answer(*zip(*asked, strict=True), 0.2)
    said = []
    for (picture, question), reply in zip(asked, replies, strict=True):
        alone = bundle.answer(picture, question, 0.2)
        assert reply.extra["confidence"] == pytest.approx(alone.confidence, abs=TOLERANCE)
        assert reply.extra["abstained"] == (reply.extra["confidence"] < point.threshold)
        assert reply.content == (None if reply.extra["abstained"] else alone.answer)
        assert reply.extra["operating_point"]["threshold"] == point.threshold
        assert reply.extra["operating_point"]["certified"] is True and reply.extra["note"] is None
        assert (reply.prompt_tokens, reply.completion_tokens) == (alone.usage.prompt_tokens, alone.usage.answer_tokens)
        said.append(reply.content)
    assert None in said and len(set(said)) > 1


def test_tokens_are_those_that_the_model_reads_and_makes(bundled_study: Study, bundle: Bundle) -> None:
    inner = bundle._answerer._answerer
    seen, language_inputs = [], type(inner.family).language_inputs

    def counting(self, *arguments, **options):
        inputs = language_inputs(self, *arguments, **options)
        seen.extend(inputs.attention_mask.sum(dim=1).tolist())
        return inputs

    picture, question = questions_of(bundled_study)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(inner.family), "language_inputs", counting)
        answer = bundle.answer(picture, question)
    assert [answer.usage.prompt_tokens] == seen
    assert 1 <= answer.usage.answer_tokens <= inner.settings.max_new_tokens == 3
    assert answer.usage.whole or answer.usage.answer_tokens == 3
    assert 0 < BundledModel(bundle).question_tokens(question) < answer.usage.prompt_tokens


def test_a_question_that_the_bundle_refuses_is_refused_alone(bundled_study: Study, bundle: Bundle) -> None:
    picture, question = questions_of(bundled_study)[0]
    token = min(bundle._answerer._answerer.processor.tokenizer.get_added_vocab())
    good, bad = BundledModel(bundle).answer([picture, picture], [question, f"is it {token}?"], 0.2)
    assert isinstance(bad, Refusal) and "is a token of the model's prompts" in bad.message
    assert isinstance(good.extra["confidence"], float)


def test_each_risk_limit_is_offered_once_with_the_point_that_is_used(bundle: Bundle) -> None:
    served = what_is_served(bundle, None, None)
    assert (served.model, served.risk, served.max_new_tokens) == ("tiny/rtn-w8g64-full", 0.2, 3)
    assert [(risk, point["kind"]) for risk, point in served.points.items()] == [(0.05, "val"), (0.2, "certified")]
    assert what_is_served(bundle, "mine", 0.05).risk == 0.05
    with pytest.raises(QuantrustError, match=r"no operating point for risk limit 0\.1; .* has 0\.05 \(val\), 0\.2"):
        what_is_served(bundle, None, 0.1)


@pytest.fixture(scope="module")
def command(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving_bundle(tmp_path_factory.mktemp("command"), bundle_folder, "--risk", "0.05") as server:
        yield server


def test_the_command_serves_a_bundle_to_the_openai_client(
    command: Process, bundled_study: Study, bundle: Bundle
) -> None:
    client = openai.OpenAI(base_url=f"{command.url}/v1", api_key="none")
    (model,) = client.models.list().data
    for picture, question in questions_of(bundled_study)[:4]:
        image = {"type": "image_url", "image_url": {"url": data_url(picture)}}
        messages = [{"role": "user", "content": [{"type": "text", "text": question}, image]}]
        completion = client.chat.completions.create(model=model.id, messages=messages)
        alone = bundle.answer(picture, question, 0.05)
        assert completion.quantrust["confidence"] == pytest.approx(alone.confidence, abs=TOLERANCE)
        assert completion.quantrust["abstained"] == (not alone.answered)
        assert completion.quantrust["operating_point"]["risk_limit"] == 0.05
    assert command.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--port", "0", "--host", "0.0.0.0"], None, "so that it needs a key"),
        (["--port", "0", "--host", "0.0.0.0"], "short", "QUANTRUST_API_KEY: holds no key"),
        (["--port", "0"], "x" * 15 + "ä", "QUANTRUST_API_KEY: holds no key"),
        (["--port", "0", "--api-key-file", "none.txt"], None, "none.txt: cannot be read"),
        (["--port", "0", "--allow-image-host", "http://x"], None, "is no name of a host"),
        (["--port", "0", "--risk", "0.1"], None, "no operating point for risk limit 0.1"),
        (["--port", "0", "--host", "no such host"], None, "no address of this name"),
    ],
)
def test_what_cannot_be_served_is_one_message(
    bundle_folder: Path, tmp_path: Path, monkeypatch, capsys, arguments: list[str], key: str | None, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    assert cli.main(["serve", str(bundle_folder), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert expected in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_one_message(tmp_path: Path, capsys) -> None:
    assert cli.main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "expected the folder of a bundle" in capsys.readouterr().err
