"""The SmolVLM family (arXiv 2504.05299): the architecture of Idefics3 under a name of its own."""

from transformers.models.smolvlm.modeling_smolvlm import SmolVLMForConditionalGeneration

from quantrust.models.families.idefics3 import Idefics3


class SmolVLM(Idefics3):
    """Adapter of `SmolVLMForConditionalGeneration`; pictures and prompts are made as for Idefics3."""

    name = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    processor_keys = ("do_image_splitting", "size.longest_edge")


FAMILY = SmolVLM()
