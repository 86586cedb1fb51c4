"""The BLIP-2 models that match images with texts, without a language model (arXiv 2301.12597).

Texts go through the Q-Former: alone to be compared with images by their embeddings (image-text contrast, ITC), or
beside the queries that look at an image, for a judgement on the pair (image-text matching, ITM).
"""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.image_processing_backends import PilBackend
from transformers.models.blip_2.modeling_blip_2 import Blip2ForImageTextRetrieval

from quantrust.errors import QuantrustError
from quantrust.models.components import Component, NormKind
from quantrust.models.families.shared.blip_2 import FLOAT32, VISION, load_pictures, qformer_blocks, squares
from quantrust.models.families.shared.feature_layer import check_parts
from quantrust.models.family import EncodedImage, LanguageInputs, MatchingFamily, Role, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_tokenizer

PARTS = {"vision_config": "blip_2_vision_model", "qformer_config": "blip_2_qformer"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

BEGIN, END = "[CLS]", "[SEP]"
"""Around a text."""

PLACE = "<image>"
"""Stands for an image where the length of a prompt is counted; no text of the model has it."""

QUERY = -1
"""In the place of a token where a query stands."""


@dataclass(frozen=True)
class RetrievalProcessor:
    """What prepares images and texts.

    Attributes
    ----------
    image_processor : transformers.image_processing_backends.PilBackend
    tokenizer : transformers.PreTrainedTokenizerFast
    num_query_tokens : int
    """

    image_processor: PilBackend
    tokenizer: PreTrainedTokenizerFast
    num_query_tokens: int


class Blip2Retrieval(MatchingFamily):
    """Adapter of `Blip2ForImageTextRetrieval`."""

    name = "blip_2_retrieval"
    model_type = "blip-2"
    architecture = "Blip2ForImageTextRetrieval"
    model_class = Blip2ForImageTextRetrieval
    vision = Component(("vision_model",), (VISION,))
    connector = Component(
        ("qformer", "query_tokens", "embeddings", "vision_projection", "text_projection", "itm_head"),
        (qformer_blocks(),),
    )
    language = Component(())
    reader = "connector"
    embedding = "embeddings.word_embeddings"
    head = None
    norms = ((nn.LayerNorm, NormKind.WEIGHT),)
    blocks_in_connector = True
    matches = True
    float32 = FLOAT32
    attentions = ("eager", "sdpa")

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return that all blocks run."""
        check_parts(config, self.name, PARTS, "BLIP-2")
        if not config.qformer_config.use_qformer_text_input:
            raise QuantrustError(
                "qformer_config.use_qformer_text_input is not true, so that the Q-Former reads no text; get the "
                "config.json of a model that matches images with texts"
            )
        if config.image_token_index is not None:
            raise QuantrustError(
                f"image_token_index is {config.image_token_index}, but a text here has no place for an image, and the "
                "library would cut off its first tokens; set it to null"
            )
        return {}, []

    def load_processor(self, folder: str) -> RetrievalProcessor:
        """Load image processor and tokenizer of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_pictures(folder, config.vision_config.image_size)
        return RetrievalProcessor(image_processor, load_tokenizer(folder), config.num_query_tokens)

    def preprocess(self, processor: RetrievalProcessor, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into squares."""
        placeholders = (PLACE * processor.num_query_tokens,) * len(images)
        return VisionInputs({"pixel_values": squares(processor, images)}, placeholders, (None,) * len(images))

    def _image_features(self, model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        # what the queries look at: the patches, and the token of the whole
        return list(model.vision_model(tensors["pixel_values"]).last_hidden_state)

    def language_inputs(
        self,
        model: nn.Module,
        processor: RetrievalProcessor,
        questions: list[str],
        images: list[EncodedImage],
        *,
        template: str = "{question}",
        answers: list[str] | None = None,
    ) -> LanguageInputs:
        """Build a batch of pairs of the images with the answers, or with the questions where there are no answers.

        Nothing is put around a text, so that `template` is not looked at. A calibration set has captions as answers;
        their tokens have that role.
        """
        if answers is None:
            return self.pairs(model, processor, questions, images)
        return self.pairs(model, processor, answers, images, role=Role.ANSWER)

    def pairs(
        self,
        model: nn.Module,
        processor: RetrievalProcessor,
        texts: list[str],
        images: list[EncodedImage],
        *,
        most: int | None = None,
        role: Role = Role.QUESTION,
    ) -> LanguageInputs:
        """Build a batch of pairs, each of an image and a text, as the Q-Former judges whether they match.

        Parameters
        ----------
        model : torch.nn.Module
        processor : RetrievalProcessor
        texts : list of str
        images : list of EncodedImage
            The image of each text.
        most : int or None
            As in `text_tokens`.
        role : Role
            Of the tokens of the texts.

        Returns
        -------
        LanguageInputs
            Queries first, then the text, padded on the right.
        """
        ids, mask = self.text_tokens(model, processor, texts, most)
        queries = model.query_tokens.expand(len(texts), -1, -1)
        places = ids.new_full(queries.shape[:2], QUERY)
        roles = torch.where(mask, int(role), int(Role.PAD))
        roles[:, 0] = int(Role.TEXT)
        return LanguageInputs(
            inputs_embeds=torch.cat([queries, self._embedded(model, ids).to(queries)], dim=1),
            attention_mask=torch.cat([torch.ones_like(places, dtype=torch.bool), mask], dim=1),
            position_ids=torch.cat([places, torch.arange(ids.shape[1], device=ids.device).expand_as(ids)], dim=1),
            token_ids=torch.cat([places, ids], dim=1),
            roles=torch.cat([torch.full_like(places, int(Role.IMAGE)), roles], dim=1).to(torch.int8),
            seen=torch.stack([image.features for image in images]).to(ids.device),
        )

    def read_prompts(
        self, model: nn.Module, inputs: LanguageInputs, cache: Any | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the Q-Former over pairs; shape (pairs, queries and tokens, hidden)."""
        states = self._qformer(
            model, inputs.inputs_embeds, model.query_tokens.shape[1], inputs.attention_mask, inputs.seen
        )
        return states, None

    def text_tokens(
        self, model: nn.Module, processor: RetrievalProcessor, texts: list[str], most: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of texts, padded on the right, and where they are none.

        Parameters
        ----------
        model : torch.nn.Module
        processor : RetrievalProcessor
        texts : list of str
        most : int or None
            Tokens of a text, at most, those around it included; longer ones are cut off. None cuts off nothing.

        Returns
        -------
        token_ids : torch.Tensor, int64, shape (texts, tokens)
        mask : torch.Tensor, bool, shape (texts, tokens)
            Which of them are not padding.

        Raises
        ------
        QuantrustError
            If a text has more tokens than the Q-Former has positions, or holds one of those around it.
        """
        self.refuse_reserved(processor, texts)
        tokenizer = processor.tokenizer
        begin, end = (tokenizer.convert_tokens_to_ids(token) for token in (BEGIN, END))
        cut = None if most is None else most - 2
        rows = [[begin, *ids[:cut], end] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        length, positions = max(map(len, rows)), model.get_submodule("embeddings.position_embeddings").num_embeddings
        if length > positions:
            raise QuantrustError(
                f"a text has {length:,} tokens, but the Q-Former has positions for {positions:,}; shorten it"
            )
        padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
        device = model.query_tokens.device
        counts = torch.tensor([len(row) for row in rows], device=device)
        return torch.tensor(padded, device=device), torch.arange(length, device=device) < counts[:, None]

    def image_states(self, model: nn.Module, images: list[EncodedImage]) -> torch.Tensor:
        """Return what the queries saw in images, without a text.

        Parameters
        ----------
        model : torch.nn.Module
        images : list of EncodedImage

        Returns
        -------
        torch.Tensor, shape (images, queries, hidden)
        """
        seen = torch.stack([image.features for image in images])
        queries = model.query_tokens.expand(len(images), -1, -1)
        return self._qformer(model, queries, queries.shape[1], None, seen)

    def image_embeddings(self, model: nn.Module, images: list[EncodedImage]) -> torch.Tensor:
        """Return what images are compared with texts by, one embedding for each query.

        An image is as near to a text as the nearest of its embeddings.

        Parameters
        ----------
        model : torch.nn.Module
        images : list of EncodedImage

        Returns
        -------
        torch.Tensor, shape (images, queries, channels)
            Of unit length.
        """
        states = self.image_states(model, images)
        return functional.normalize(_project(model.vision_projection, states), dim=-1)

    def text_embeddings(
        self, model: nn.Module, processor: RetrievalProcessor, texts: list[str], most: int | None = None
    ) -> torch.Tensor:
        """Return what texts are compared with images by.

        Parameters
        ----------
        model : torch.nn.Module
        processor : RetrievalProcessor
        texts : list of str
        most : int or None
            As in `text_tokens`.

        Returns
        -------
        torch.Tensor, shape (texts, channels)
            Of unit length.
        """
        ids, mask = self.text_tokens(model, processor, texts, most)
        states = self._qformer(model, self._embedded(model, ids), 0, mask, None)
        return functional.normalize(_project(model.text_projection, states[:, 0]), dim=-1)

    def matching_logits(self, model: nn.Module, inputs: LanguageInputs) -> torch.Tensor:
        """Return the judgement on pairs.

        Parameters
        ----------
        model : torch.nn.Module
        inputs : LanguageInputs
            As `pairs` makes them.

        Returns
        -------
        torch.Tensor, shape (pairs, 2)
            Logits of not matching and of matching, the means of all queries.
        """
        states, _ = self.read_prompts(model, inputs)
        return _project(model.itm_head, states[:, : model.query_tokens.shape[1]]).mean(dim=1)

    def image_token(self, processor: RetrievalProcessor) -> str:
        """Return what stands for a query where tokens are counted."""
        return PLACE

    def prompt_tokens(self, processor: RetrievalProcessor) -> tuple[str, ...]:
        """Return the tokens around a text."""
        return (BEGIN, END)

    def prompt_frame(self, processor: RetrievalProcessor, template: str) -> tuple[str, str]:
        """Return what comes before and after a text."""
        return PLACE + BEGIN, END

    def end_token(self, processor: RetrievalProcessor) -> str:
        """Return the token that ends a text."""
        return END

    def _embedded(self, model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Return tokens with their positions as embeddings; the library's own asks a quantized layer for its device."""
        positions = model.get_submodule("embeddings.position_embeddings").weight[: ids.shape[1]]
        return model.get_submodule(self.embedding)(ids) + positions

    def _qformer(
        self,
        model: nn.Module,
        embeds: torch.Tensor,
        queries: int,
        mask: torch.Tensor | None,
        seen: torch.Tensor | None,
    ) -> torch.Tensor:
        output = model.qformer(
            query_embeds=embeds,
            query_length=queries,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=None if seen is None else seen.new_ones(seen.shape[:2], dtype=torch.int64),
        )
        return output.last_hidden_state


def _project(linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Apply a linear in its own dtype, which a quantized one has in its bias alone."""
    return linear(states.to(linear.bias.dtype))


FAMILY = Blip2Retrieval()
