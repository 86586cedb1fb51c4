"""The BLIP-2 family with an OPT decoder (arXiv 2301.12597)."""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration
from transformers.models.blip_2.processing_blip_2 import Blip2Processor

from quantrust.errors import QuantrustError
from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.blip_2 import FLOAT32, VISION, load_pictures, qformer_blocks, squares
from quantrust.models.families.shared.feature_layer import check_parts
from quantrust.models.family import Family, ScaleGroup, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_tokenizer

PARTS = {"vision_config": "blip_2_vision_model", "qformer_config": "blip_2_qformer", "text_config": "opt"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

OPT = {
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    "layer_norm_elementwise_affine": True,
    "enable_bias": True,
    "activation_function": "relu",
}
"""What this adapter knows of the decoder, as in OPT of 2.7 and 6.7 billion weights; that of 350 million differs."""

BEGIN, END = "</s>", "\n"
"""What begins a text, behind the image, and what ends an answer: BLIP-2 was trained on texts that end with a line."""

TEMPLATE = (
    "{% for turn in messages %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>{% endfor %}</s>"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endfor %}"
)
"""The published prompt, which no file of a folder describes: the image, what begins a text, and the text, if any."""

DECODER, PROJECTION = "language_model.model.decoder", "language_projection"

LANGUAGE = Blocks(
    f"{DECODER}.layers",
    {"self_attn": "attention", "fc1": "mlp", "fc2": "mlp"},
    (
        GroupRule(
            ".self_attn_layer_norm",
            (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"),
            "attention",
            inspected=".self_attn",
        ),
        GroupRule(".self_attn.v_proj", (".self_attn.out_proj",), "attention"),
        GroupRule(".final_layer_norm", (".fc1",), "mlp"),
        # ReLU passes a scale on
        GroupRule(".fc1", (".fc2",), "mlp"),
    ),
)


class Blip2(Family):
    """Adapter of `Blip2ForConditionalGeneration` with an OPT decoder."""

    name = "blip_2"
    model_class = Blip2ForConditionalGeneration
    vision = Component(("vision_model",), (VISION,))
    # what absorbs the scale of the projection depends on the number of blocks before it
    connector = Component(
        ("qformer", "query_tokens", PROJECTION),
        (qformer_blocks(), Blocks(PROJECTION, {}, (GroupRule(None, (PROJECTION,), "mlp"),), single=True)),
    )
    language = Component((DECODER,), (LANGUAGE,))
    embedding = f"{DECODER}.embed_tokens"
    head = "language_model.lm_head"
    final_norm = f"{DECODER}.final_layer_norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT),)
    blocks_in_connector = True
    float32 = FLOAT32
    attentions = ("eager", "sdpa")
    answer_prefix = " "
    published_image_tokens = ("<image>",)

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return that all blocks run."""
        check_parts(config, self.name, PARTS, "BLIP-2 with OPT (others have a T5 there)")
        text = config.text_config
        expected = OPT | {"word_embed_proj_dim": text.hidden_size}
        for key, value in expected.items():
            if (found := getattr(text, key)) != value:
                raise QuantrustError(
                    f"text_config.{key} is {found!r}, but the adapter of {self.name} knows only {value!r} there; write "
                    "an adapter of its own for this model"
                )
        if config.qformer_config.use_qformer_text_input:
            raise QuantrustError(
                "qformer_config.use_qformer_text_input is true, but a Q-Former before a language model reads no text; "
                "get config.json again"
            )
        if config.image_token_index is None:
            raise QuantrustError(
                "image_token_index is missing, so that a prompt has no place for the image; get config.json and "
                "tokenizer.json of a newer release of the model"
            )
        return {}, []

    def _scale_group(self, model: nn.Module, block_name: str, rule: GroupRule) -> ScaleGroup:
        if block_name == PROJECTION:
            *_, last, _ = self.blocks(model, "connector")
            # nothing but the projection reads the norm behind the last sum
            rule = replace(rule, previous=f"{last}.output_query.LayerNorm")
        return super()._scale_group(model, block_name, rule)

    def load_processor(self, folder: str) -> Blip2Processor:
        """Load image processor and tokenizer of a model folder, and its chat template where it has one."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_pictures(folder, config.vision_config.image_size)
        processor = Blip2Processor(image_processor, load_tokenizer(folder), config.num_query_tokens)
        processor.chat_template = load_chat_template(folder, default=TEMPLATE)
        if len(ids := processor.tokenizer(END, add_special_tokens=False)["input_ids"]) != 1:
            raise QuantrustError(
                f"{folder}: tokenizer.json makes {len(ids)} tokens of the end of a line, which ends an answer; "
                "expected 1: get the tokenizer of this model"
            )
        return processor

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into squares, each of which becomes as many tokens as there are queries."""
        placeholder = self.image_token(processor) * processor.num_query_tokens
        pixels = squares(processor, images)
        return VisionInputs({"pixel_values": pixels}, (placeholder,) * len(images), (None,) * len(images))

    def decode(
        self,
        model: nn.Module,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor],
        position_ids: torch.Tensor,
        cache: Any | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder on new tokens, of whose positions it has learned so many and no more."""
        most = model.get_submodule(self.decoder).max_target_positions
        if attention_mask.shape[-1] > most:
            raise QuantrustError(
                f"a prompt with its answer has {attention_mask.shape[-1]:,} tokens, but the decoder has positions for "
                f"{most:,}; shorten the text, or lower max_new_tokens"
            )
        return super().decode(model, inputs_embeds, attention_mask, position_ids, cache)

    def image_token(self, processor: Any) -> str:
        """Return the token that stands for one row of image features."""
        return str(processor.image_token)

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts are put together with."""
        return (self.image_token(processor), BEGIN)

    def end_token(self, processor: Any) -> str:
        """Return the end of a line, which ends an answer."""
        return END

    def end_token_id(self, processor: Any) -> int:
        """Return the id of the token that is the end of a line, whatever the vocabulary calls it."""
        (token,) = processor.tokenizer(END, add_special_tokens=False)["input_ids"]
        return token


FAMILY = Blip2()
