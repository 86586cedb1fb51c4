"""The size of a features file on disk. No torch: resource plans read it."""

STATE_BYTES = 3 * 2
"""Of a question, for each channel of the language model: three pooled states in float16."""
LOGIT_BYTES = 4 + 4
"""Of a question, for each logit that is kept: its token and its value."""
OTHER_BYTES = 96
"""Of a question: identifiers, answer, tokens and numbers, and its share in the description of its row group."""
FILE_BYTES = 16 * 1024
"""Schema and metadata."""


MATCH_BYTES = 10 * 48
"""Of a query, for the identifiers and scores of what ranks first."""


def matches_bytes(queries: int) -> int:
    """Return an upper bound of the bytes of a features file of so many queries."""
    return FILE_BYTES + queries * (MATCH_BYTES + OTHER_BYTES)


def features_bytes(questions: int, hidden: int, top_k: int) -> int:
    """Return an upper bound of the bytes of a features file.

    States and logits are counted without compression. Compressed, the files of the default study, whose states are
    narrow, take 0.6 of this bound; those of wide models take 0.6 to 0.95, less if more questions share an image. The
    bound holds for answers of up to a dozen tokens and row groups of a hundred questions or more.

    Parameters
    ----------
    questions : int
    hidden : int
        Channels of the language model.
    top_k : int
        Logits that are kept of the first answer token; the size of the vocabulary where all are.

    Returns
    -------
    int
    """
    return FILE_BYTES + questions * (STATE_BYTES * hidden + LOGIT_BYTES * top_k + OTHER_BYTES)
