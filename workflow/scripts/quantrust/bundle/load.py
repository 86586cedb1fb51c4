"""A bundle in memory: it answers questions about pictures, or abstains."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from quantrust.bundle.answering import Answered, BundleAnswerer, Usage
from quantrust.bundle.items import Chunk, Failure, Item, as_item, cut
from quantrust.bundle.record import CHECKPOINT, RECORD, REPAIR, SELECTOR, BundleRecord, read_bundle
from quantrust.confidence.catalogue import has_learned
from quantrust.confidence.selector import Selectors, load_selector
from quantrust.errors import QuantrustError
from quantrust.evaluation.operating_points import Conditions, OperatingPoint, name_kernels
from quantrust.inference.answering import DTYPES, Answerer
from quantrust.inference.settings import DumpSettings
from quantrust.models.bounded_tokenizer import check_tokenizer
from quantrust.models.device import device_name
from quantrust.models.model_config import attention_of
from quantrust.models.trial import try_processor
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.kernels.int4_grid import KERNEL_DTYPE
from quantrust.quantization.kernels.packed import describe_kernels

MOST_THREADS = 1024
"""More than processors have. With a million of them torch ends the process."""


@dataclass(frozen=True)
class Answer:
    """What a bundle says to a question.

    Attributes
    ----------
    answer : str
        What the model says, also where the bundle abstains.
    confidence : float
        By the bundle's estimator.
    answered : bool
        Whether the confidence is not below the threshold. Otherwise the bundle abstains: do not use the answer.
    operating_point : OperatingPoint
        The threshold, and what it was measured on.
    certified : bool
        Whether the threshold is certified and the bundle runs under the conditions of the certificate.
    note : str or None
        In what the bundle runs otherwise than it was measured.
    usage : Usage
        Tokens, and whether the answer ended by itself.
    item_id : str or None
        That of the item.
    """

    answer: str
    confidence: float
    answered: bool
    operating_point: OperatingPoint
    certified: bool
    note: str | None
    usage: Usage
    item_id: str | None = None


class Bundle:
    """A variant, ready to answer or to abstain; `Bundle.load` makes one.

    Several threads may ask the same bundle. One of them computes at a time.

    Attributes
    ----------
    record : BundleRecord
    conditions : Conditions
        Under which it runs here.

    Examples
    --------
    >>> bundle = Bundle.load("data/bundles/qwen2-vl-tiny/hqq-w4g64-full")  # doctest: +SKIP
    >>> bundle.answer("cat.png", "what color is the cat?", risk=0.05).answered  # doctest: +SKIP
    True
    """

    def __init__(self, record: BundleRecord, answerer: BundleAnswerer, conditions: Conditions, threads: int) -> None:
        self.record, self.conditions = record, conditions
        self._answerer, self._threads = answerer, threads
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "cpu",
        kernel: str | None = None,
        *,
        dtype: str | None = None,
        attention: str | None = None,
        threads: int = 1,
    ) -> "Bundle":
        """Load the folder of a bundle, after every byte of it has been checked.

        Parameters
        ----------
        path : str or Path
        device : {"cpu", "cuda"}
        kernel : {"reference", "packed"}, optional
            How quantized layers multiply; by default as they did in the study. The packed kernels compute in bfloat16.
        dtype : {"float32", "bfloat16"}, optional
            By default that of the study, or what the kernel needs.
        attention : {"eager", "sdpa", "flash_attention_2"}, optional
            By default that of the study, or what the device has.
        threads : int
            Of the processor, while the bundle computes. The study's answers were given with one. More are faster for
            large models; sums are then added up in another order, which moves confidences as other batches do.

        Raises
        ------
        QuantrustError
            If it is no bundle or is damaged, there is no such device or kernel here, a part is of another model, or the
            tokenizer, chat template or image processor does not end soon.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise QuantrustError(f"{threads:,} threads of the processor were asked for; expected 1 to {MOST_THREADS:,}")
        record = read_bundle(path)
        settings = _settings_here(record, device, kernel, dtype, attention)
        folder = Path(path) / CHECKPOINT
        # whoever wrote a bundle can have sealed anything
        check_tokenizer(folder)
        family, model, processor, checkpoint = load_checkpoint(
            folder, DTYPES[settings.dtype], settings.kernel, device, settings.attention
        )
        try_processor(str(folder), family, model, processor)
        if checkpoint["sha256"] != record.operating_points.weights_sha256:
            raise QuantrustError(
                f"{Path(path) / RECORD}: the operating points belong to other weights than those in {CHECKPOINT}/; "
                f"{REPAIR}"
            )
        conditions = Conditions(
            device_name(device), settings.dtype, name_kernels(describe_kernels(model)), attention_of(model)
        )
        answerer = Answerer(family, model, processor, settings)
        selectors = _selectors(Path(path), record, answerer.hidden)
        return cls(record, BundleAnswerer(answerer, record, selectors), conditions, threads)

    @property
    def settings(self) -> DumpSettings:
        """With which it answers here."""
        return self._answerer.settings

    @property
    def note(self) -> str | None:
        """In what the bundle runs otherwise than it was measured; None if in nothing."""
        differences = self.record.operating_points.conditions.differences(self.conditions)
        return f"measured under other conditions: here {', '.join(differences)}" if differences else None

    def question_tokens(self, question: str) -> int:
        """Return how many tokens a question has in its prompt; the rest of the prompt is not counted."""
        with self._lock:
            return self._answerer.question_tokens(question)

    def answer(
        self, image: object, question: str | None = None, risk: float | None = None, *, kind: str | None = None
    ) -> Answer:
        """Answer one question, or abstain.

        Parameters
        ----------
        image : str, Path, bytes or PIL.Image.Image
            A path, the content of an image file, or a picture.
        question : str, optional
            Left out of a bundle that asks the same about every image, as one for captions does.
        risk : float, optional
            The risk limit, one of those that the bundle has an operating point for; by default its own.
        kind : {"val", "certified"}, optional
            By default the certified threshold of that limit where there is one.

        Raises
        ------
        QuantrustError
            If there is no such operating point, or the image or the question cannot be used.
        """
        (found,) = self.answer_many([Item(image, question)], risk, kind=kind)
        if isinstance(found, Failure):
            raise QuantrustError(found.error)
        return found

    def answer_many(
        self,
        items: Iterable[object],
        risk: float | None = None,
        *,
        kind: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Answer | Failure]:
        """Answer questions as they come, some at a time.

        Items are taken until they are about as many pictures as the study held at a time (`images_per_chunk`). Of a
        whole split of the study, in the order of its files, these are the study's own batches: answers and confidences
        are then the same numbers.

        Parameters
        ----------
        items : iterable of Item, or of pairs of an image and a question (None: what the bundle asks about every image)
        risk, kind
            As in `answer`.
        batch_size : int, optional
            Questions that are decoded together; by default as in the study.

        Returns
        -------
        iterator of Answer or Failure
            One for each item, in their order. A `Failure` says why an item cannot be answered; it disturbs no other.

        Raises
        ------
        QuantrustError
            If there is no such operating point; before any item is taken.
        """
        point = self.record.point(risk, kind)
        return self._stream(items, point, batch_size)

    def _stream(
        self, items: Iterable[object], point: OperatingPoint, batch_size: int | None
    ) -> Iterator[Answer | Failure]:
        for chunk in cut(map(as_item, items), self.record.settings.images_per_chunk):
            yield from self.answer_chunk(chunk, point, batch_size)

    def answer_chunk(
        self, chunk: Chunk, point: OperatingPoint, batch_size: int | None = None
    ) -> list[Answer | Failure]:
        """Answer items whose pictures are open already.

        Parameters
        ----------
        chunk : Chunk
        point : OperatingPoint
            One of the bundle's.
        batch_size : int, optional
            As in `answer_many`.
        """
        with self._lock, _using_threads(self._threads):
            found = self._answerer.answer(chunk, batch_size)
        note = self.note
        return [_decide(one, point, note) if isinstance(one, Answered) else one for one in found]


def _decide(one: Answered, point: OperatingPoint, note: str | None) -> Answer:
    answered = one.confidence >= point.threshold
    certified = point.certified and note is None
    return Answer(one.answer, one.confidence, answered, point, certified, note, one.usage, one.item_id)


@contextmanager
def _using_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _settings_here(
    record: BundleRecord, device: str, kernel: str | None, dtype: str | None, attention: str | None
) -> DumpSettings:
    """Return the settings of the study, changed as far as it is asked for, or the device or kernel needs it."""
    asked = {"device": device, "kernel": kernel, "dtype": dtype, "attention": attention}
    settings = replace(record.settings, **{name: value for name, value in asked.items() if value is not None})
    if settings.dtype not in DTYPES:
        raise QuantrustError(f"{RECORD}: settings: dtype is {settings.dtype!r:.100}, expected {' or '.join(DTYPES)}")
    if dtype is None and settings.kernel == "packed" and DTYPES[settings.dtype] != KERNEL_DTYPE:
        settings = replace(settings, dtype=next(name for name, known in DTYPES.items() if known == KERNEL_DTYPE))
    if attention is None and device == "cpu" and settings.attention == "flash_attention_2":
        settings = replace(settings, attention="sdpa")
    return settings


def _selectors(folder: Path, record: BundleRecord, hidden: int) -> Selectors | None:
    if not has_learned([record.estimator]):
        return None
    selectors = load_selector(folder / SELECTOR)
    inputs = selectors.members[0].mean.size
    if inputs != 3 * hidden + 1:
        raise QuantrustError(
            f"{folder / SELECTOR}: the Selector reads {inputs} inputs, and the model has {3 * hidden + 1}; {REPAIR}"
        )
    return selectors
