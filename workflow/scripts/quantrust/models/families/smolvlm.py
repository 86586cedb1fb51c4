"""The SmolVLM family (SmolVLM2, arXiv 2504.05299): the architecture of Idefics3 under names of its own."""

from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMForConditionalGeneration
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.processing_utils import ProcessorMixin

from quantrust.models.families.idefics3 import Idefics3


class ImageOnlySmolVLMProcessor(SmolVLMProcessor):
    """SmolVLM's processor without videos: their processor needs torchvision, and their prompts need num2words."""

    def __init__(
        self,
        image_processor: SmolVLMImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        image_seq_len: int,
        chat_template: str,
    ) -> None:
        self.fake_image_token, self.image_token = "<fake_token_around_image>", "<image>"
        self.global_image_token = "<global-img>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the parts that the processor is made of."""
        return ["image_processor", "tokenizer"]

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render a conversation as other processors do; SmolVLM's own asks its video processor for frames."""
        return ProcessorMixin.apply_chat_template(self, *args, **kwargs)


class SmolVLM(Idefics3):
    """Adapter of `SmolVLMForConditionalGeneration`."""

    name = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    image_processor_class = SmolVLMImageProcessorPil
    processor_class = ImageOnlySmolVLMProcessor
    processor_keys = ("do_image_splitting", "size.longest_edge")
    published_image_tokens = ("<image>", "<fake_token_around_image>", "<global-img>")


FAMILY = SmolVLM()
