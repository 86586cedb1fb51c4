"""Answers of calibration and training are tokenized apart from the prompt; the model must see them as if they were not.

The splits are those that the published tokenizers make before they merge bytes: Llama 3's and Qwen2's regular
expressions, over a vocabulary in which every pair of neighbours within a split may be one token.
"""

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from quantrust.models.loading import load_model

NUMBERS = {"idefics3": r"\p{N}{1,3}", "qwen2_vl": r"\p{N}"}
ANSWERS = ["yes", "3", "12345", "2 dogs", "don't", "(blue)", '"stop"', "$5.00", "a circle, and a bar.\nTwo", "é"]


def tokenizer_of(family: str, texts: list[str]) -> Tokenizer:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + NUMBERS[family]
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<end_of_utterance>", "<image>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts * 4, trainer)
    return tokenizer


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
def test_an_answer_has_the_tokens_that_it_has_behind_its_prompt(family_name, model_folders):
    family, _, processor = load_model(model_folders[family_name])
    prompt = "What is it?".join(family.prompt_frame(processor, "{question}"))
    answers = [family.answer_prefix + answer + family.end_token(processor) for answer in ANSWERS]
    tokenizer = tokenizer_of(family_name, [prompt + answer for answer in answers])
    alone = tokenizer.encode(prompt, add_special_tokens=False).ids
    for answer in answers:
        whole = tokenizer.encode(prompt + answer, add_special_tokens=False).ids
        assert whole == alone + tokenizer.encode(answer, add_special_tokens=False).ids, answer
    # a colon and a word that follows it at once are split as one
    assert prompt.endswith("Assistant:" if family_name == "idefics3" else "<|im_start|>assistant\n")
