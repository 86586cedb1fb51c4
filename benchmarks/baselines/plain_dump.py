"""Answering a questions table with nothing shared: each question brings its picture, and its prompt is read whole."""

import torch

from quantrust.data.images import read_image
from quantrust.inference.decoding import decode_greedily


def answer(family, model, processor, questions, max_new_tokens, batch_size):
    """Answer questions in the order of their table, batch by batch.

    Parameters
    ----------
    family, model, processor
        As `quantrust.quantization.checkpoint.load_checkpoint` returns them.
    questions : polars.DataFrame
        With the columns ``image`` (a path) and ``question``.
    max_new_tokens, batch_size : int

    Returns
    -------
    answers : list of list of int
        The tokens of each answer.
    log_probs : list of float
        The sum of their log-probabilities.
    """
    ends = family.end_token_ids(model, processor)
    answers, log_probs = [], []
    for start in range(0, len(questions), batch_size):
        rows = questions[start : start + batch_size]
        pictures = [read_image(path) for path in rows["image"]]
        with torch.inference_mode():
            encoded = family.encode_images(model, family.preprocess(processor, pictures))
            prompts = family.language_inputs(model, processor, rows["question"].to_list(), encoded)
        decoded = decode_greedily(family, model, prompts, end_token_ids=ends, max_new_tokens=max_new_tokens)
        answers += decoded.token_ids
        log_probs += map(sum, decoded.token_log_probs)
    return answers, log_probs
