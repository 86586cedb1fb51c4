"""Whether a model can be asked the questions of a dataset: its tokenizer alone says so, before a model is quantized.

A text that the reader of a dataset takes may still be none to a model: its tokenizer may make no token of it, or read a
part of it as one of the tokens that prompts are put together with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.artifacts.tables import write_table
from quantrust.data.format import file_of_questions
from quantrust.data.official import place_of
from quantrust.data.questions import read_part
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError
from quantrust.models.family import Family, first_held
from quantrust.models.loading import family_of
from quantrust.progress import progress

TEXTS_AT_ONCE = 4096

CHECKED_SCHEMA = pl.Schema({"split": pl.String(), "questions": pl.Int64()})


def check_questions(
    model_folder: str | Path,
    dataset: str,
    splits: Mapping[str, Mapping[str, Any]],
    prompt: str,
    out_path: str | Path,
) -> None:
    """Let a model's tokenizer read every question of a dataset, and write how many these are.

    Parameters
    ----------
    model_folder : str or Path
        A prepared model. Only its tokenizer and processor are read.
    dataset : str
        The dataset's name.
    splits : mapping of str to mapping
        Its official files, as `quantrust.data.questions.build_questions_table` takes them.
    prompt : str
        The user's text around `{question}`.
    out_path : str or Path
        The Parquet file to write, with the columns of `CHECKED_SCHEMA`.

    Raises
    ------
    QuantrustError
        As the readers of the files; or if a question leaves no token, or holds a token of the model's prompts. The
        message names file, question and model.
    """
    family = family_of(model_folder)
    processor, model = family.load_processor(str(model_folder)), Path(model_folder).name
    counts = {}
    for split, spec in splits.items():
        questions = read_part(dataset, spec)
        path = file_of_questions(spec["format"], spec)
        with progress(f"checking the questions of {dataset}", len(questions), "questions") as bar:
            for start in range(0, len(questions), TEXTS_AT_ONCE):
                # an item without text has passed the reader of a format that allows it
                part = [item for item in questions[start : start + TEXTS_AT_ONCE] if item.question]
                texts = [question.question for question in part]
                for place, fault in faults_of_texts(family, processor, prompt, texts, model).items():
                    raise QuantrustError(
                        f"{place_of(path, part[place].question_id)} {fault}, or take it out of the dataset's files"
                    )
                bar.update(min(TEXTS_AT_ONCE, len(questions) - start))
        counts[split] = len(questions)
    write_table(pl.DataFrame([*counts.items()], schema=CHECKED_SCHEMA, orient="row"), out_path)


def faults_of_texts(
    family: Family, processor: Any, prompt: str, texts: Sequence[str], model: str = "the model"
) -> dict[int, str]:
    """Return why a model cannot be asked some of several texts, by their places.

    Parameters
    ----------
    family : Family
    processor : object
        As the family loads it.
    prompt : str
        The user's text around `{question}`.
    texts : sequence of str
    model : str
        What the reasons call the model.

    Returns
    -------
    dict of int to str
        In the order of the texts. A reason follows on the name of a question.
    """
    if not texts:
        return {}
    reserved = family.reserved_tokens(processor)
    counts = family.question_tokens(processor, list(texts), prompt)
    faults = {}
    for place, (text, count) in enumerate(zip(texts, counts, strict=True)):
        if (token := first_held(reserved, text)) is not None:
            faults[place] = f"holds {token!r}, which is a token of {model}'s prompts; reword it"
        elif count == 0:
            faults[place] = f"is {shown(text)}, and {model}'s tokenizer makes no token of it; reword it"
    return faults


def refuse_unreadable(questions: pl.DataFrame, family: Family, processor: Any, prompt: str, path: str | Path) -> None:
    """Raise when a question cannot be asked: a study finds it earlier, unless the table came by another way.

    Parameters
    ----------
    questions : polars.DataFrame
        Rows of a questions table.
    family : Family
    processor : object
        As the family loads it.
    prompt : str
        The user's text around `{question}`.
    path : str or Path
        The table, for the message.
    """
    texts = questions["question"].unique(maintain_order=True).to_list()
    for place, fault in faults_of_texts(family, processor, prompt, texts).items():
        first = questions.filter(pl.col("question") == texts[place])["question_id"][0]
        raise QuantrustError(f"{place_of(path, first)} {fault}")
