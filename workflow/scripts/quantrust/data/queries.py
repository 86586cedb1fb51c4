"""Queries of retrieval: a caption that looks for its image, or an image that looks for its captions.

All queries of a split make up what is searched: its images, and the captions among its queries.
"""

import re
from collections.abc import Mapping, Sequence

from quantrust.data.official import Question

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"
"""The `question_kind` of a caption that looks for an image, and of an image that looks for captions."""
MOST_WORDS = 50
"""Of a caption; longer ones are cut off."""
MOST_TOKENS = 35
"""Of a caption as a model reads it, the two around it included; longer ones are cut off."""

_MARKS = re.compile(r"""[.!"()*#:;~]""")


def compared_text(caption: str) -> str:
    """Return a caption as it is compared with images.

    Parameters
    ----------
    caption : str

    Returns
    -------
    str
        In lower case, with spaces in the place of the marks ``. ! " ( ) * # : ; ~``, and of at most `MOST_WORDS` words.

    Notes
    -----
    As captions are prepared for the published results of BLIP-2 (Li et al., ICML 2023) on Flickr30k.

    Examples
    --------
    >>> compared_text("A man (left), and a dog.")
    'a man left , and a dog'
    """
    return " ".join(_MARKS.sub(" ", caption.lower()).split()[:MOST_WORDS])


def queries_of(image_id: str, image: str | None, captions: Mapping[str, str]) -> list[Question]:
    """Return the queries of an image and its captions: the image first, then every caption.

    Parameters
    ----------
    image_id : str
        Of the image; also that of the query that it is.
    image : str or None
        Path of its file; None where that is not known.
    captions : mapping of str to str
        By their identifiers.

    Returns
    -------
    list of Question
        The reference answers of a caption are the identifier of its image, those of an image the identifiers of its
        captions.
    """
    looking = Question(image_id, image_id, image, "", tuple(captions), None, IMAGE_TO_TEXT)
    return [
        looking,
        *(
            Question(caption_id, image_id, image, caption, (image_id,), None, TEXT_TO_IMAGE)
            for caption_id, caption in captions.items()
        ),
    ]


def repeated_captions(queries: Sequence[Question]) -> str | None:
    """Return a note where captions are the same once they are compared, so that one finds the other's image.

    Examples
    --------
    >>> first, second = ({"a#0": "Dogs."}, {"b#0": "dogs", "b#1": "Two dogs."})
    >>> repeated_captions([*queries_of("a", None, first), *queries_of("b", None, second)])
    '2 of 3 captions are not the only one of their words; each counts as wrong where it finds the image of another'
    """
    captions = [compared_text(query.question) for query in queries if query.question_kind == TEXT_TO_IMAGE]
    counts: dict[str, int] = {}
    for caption in captions:
        counts[caption] = counts.get(caption, 0) + 1
    repeated = sum(counts[caption] > 1 for caption in captions)
    if not repeated:
        return None
    return (
        f"{repeated:,} of {len(captions):,} captions are not the only one of their words; each counts as wrong where "
        "it finds the image of another"
    )
