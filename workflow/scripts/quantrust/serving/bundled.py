"""A bundle as the worker of a server asks it."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from quantrust.bundle.items import Failure, Item
from quantrust.bundle.load import Answer, Bundle
from quantrust.evaluation.operating_points import OperatingPoint
from quantrust.serving.app import Served
from quantrust.serving.refusal import invalid
from quantrust.serving.worker import Reply


class BundledModel:
    """Answers with a bundle.

    Parameters
    ----------
    bundle : Bundle
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def question_tokens(self, question: str) -> int:
        """Return how many tokens a question has in the prompt."""
        return self.bundle.question_tokens(question)

    def answer(self, pictures: Sequence[Image.Image], questions: Sequence[str], risk: float) -> list[Reply | Exception]:
        """Answer a batch, or say of each question why it cannot be answered."""
        items = [Item(*asked) for asked in zip(pictures, questions, strict=True)]
        return [_reply(found) for found in self.bundle.answer_many(items, risk, batch_size=len(items))]


def _reply(found: Answer | Failure) -> Reply | Exception:
    if isinstance(found, Failure):
        return invalid(f"the model cannot answer this: {found.error}", "messages", "invalid_question")
    point = point_in_words(found.operating_point, certified=found.certified)
    extra = {"confidence": found.confidence, "abstained": not found.answered, "operating_point": point}
    # What the bundle is not sure of is kept from the client.
    content = found.answer if found.answered else None
    used = found.usage
    return Reply(content, extra | {"note": found.note}, used.prompt_tokens, used.answer_tokens, used.whole)


def point_in_words(point: OperatingPoint, *, certified: bool) -> dict[str, Any]:
    """Return what replies and the list of models say of an operating point, floats in full.

    Parameters
    ----------
    point : OperatingPoint
    certified : bool
        Whether its certificate holds here, under the conditions that the bundle runs under.
    """
    return {
        "risk_limit": point.risk_limit,
        "threshold": point.threshold,
        "kind": point.kind,
        "certified": certified,
        "delta": point.delta,
        "estimator": point.estimator,
        "dataset": point.dataset,
        "split": point.split,
        "questions": point.questions,
        "images": point.images,
    }


def what_is_served(bundle: Bundle, name: str | None, risk: float | None) -> Served:
    """Return what there is to ask a bundle: for each risk limit, the operating point that it uses by itself.

    Parameters
    ----------
    bundle : Bundle
    name : str, optional
        What clients call it; by default model and scheme.
    risk : float, optional
        The limit of requests that name none; by default the bundle's own.

    Raises
    ------
    QuantrustError
        If there is no operating point for that limit.
    """
    limits = sorted({point.risk_limit for point in bundle.record.points})
    points = [bundle.record.point(limit) for limit in limits]
    return Served(
        name or bundle.record.name,
        bundle.record.point(risk).risk_limit,
        {p.risk_limit: point_in_words(p, certified=p.certified and bundle.note is None) for p in points},
        bundle.record.settings.max_new_tokens,
        bundle.record.asked,
    )
