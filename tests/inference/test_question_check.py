"""Questions that a model cannot be asked are found before it is quantized, by its tokenizer alone."""

import json
import shutil
import sys
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantrust.errors import QuantrustError
from quantrust.inference.question_check import check_questions, faults_of_texts
from quantrust.models.loading import family_of

# Controls, marks of direction and joining, spaces and line ends: all that a text can hold and hardly shows.
HARDLY_SEEN = [
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs", "Zl", "Zp")
]


def ask(folder: Path, *texts: str) -> dict:
    """Write questions in VizWiz's format, and return them as the splits of a dataset."""
    answers = [{"answer": "yes"}] * 10
    records = [{"image": f"{k}.jpg", "question": text, "answers": answers} for k, text in enumerate(texts)]
    (folder / "annotations.json").write_text(json.dumps(records))
    files = {"format": "vizwiz", "annotations": str(folder / "annotations.json"), "images": "images"}
    return {"test": files}


def check(model: Path, splits: dict, folder: Path) -> pl.DataFrame:
    check_questions(model, "own", splits, "{question}", folder / "out.parquet")
    return pl.read_parquet(folder / "out.parquet")


@pytest.fixture(params=["qwen2_vl", "idefics3"])
def folder(request, model_folders, tmp_path) -> Path:
    """A model called `mine`, whose tokenizer takes the letters of one script out of every text."""
    shutil.copytree(model_folders[request.param], tmp_path / "mine")
    tokenizer = json.loads((tmp_path / "mine" / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": r"\p{Greek}"}, "content": ""}
    (tmp_path / "mine" / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tmp_path / "mine"


def test_a_text_that_a_tokenizer_takes_out_is_named_with_file_question_and_model(folder, tmp_path):
    asked = ask(tmp_path, "what is this?", "what is τι?", "τι")
    with pytest.raises(QuantrustError) as caught:
        check(folder, asked, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/annotations.json: question 2.jpg is 'τι', and mine's tokenizer makes no token of it; reword it, "
        "or take it out of the dataset's files"
    )
    assert not (tmp_path / "out.parquet").exists()


def test_a_token_of_the_prompt_in_a_question_is_named_as_well(folder, tmp_path):
    token = family_of(folder).load_processor(str(folder)).image_token
    with pytest.raises(QuantrustError, match=r"annotations\.json: question 1\.jpg holds '.+', .* of mine's prompts"):
        check(folder, ask(tmp_path, "what is this?", f"is {token} red?"), tmp_path)


def test_questions_that_can_be_asked_are_counted(folder, tmp_path):
    assert check(folder, ask(tmp_path, "what is this?", "τι x", "\u200b"), tmp_path).rows() == [("test", 3)]


def test_pictures_about_which_nothing_is_asked_are_counted_too(folder, tmp_path):
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)]
    captions = [{"image_id": k % 3, "caption": "a bus"} for k in range(6)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    files = {"format": "coco_captions", "annotations": str(tmp_path / "captions.json"), "images": "images"}
    assert check(folder, {"test": files}, tmp_path).rows() == [("test", 3)]


@pytest.fixture(scope="module")
def shipped() -> list:
    """The families and processors of the shipped models that are asked questions."""
    folders = sorted((Path(__file__).parents[2] / "resources" / "models").glob("*/config.json"))
    families = [(path.parent, family_of(path.parent)) for path in folders]
    return [(family, family.load_processor(str(folder))) for folder, family in families if family.has_language_model]


def test_the_shipped_tokenizers_leave_a_token_of_every_character_that_is_hardly_seen(shipped):
    assert {family.name for family, _ in shipped} == {"qwen2_vl", "idefics3", "llava", "blip_2"}
    for family, processor in shipped:
        assert faults_of_texts(family, processor, "{question}", HARDLY_SEEN) == {}


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), before=st.sampled_from(["", " "])
)
@example(text="\u200b\u200b", before="")
@example(text="\n\n", before="\n")
def test_the_shipped_tokenizers_leave_a_token_of_every_text(shipped, text, before):
    for family, processor in shipped:
        assert faults_of_texts(family, processor, before + "{question}", [text]) == {}
