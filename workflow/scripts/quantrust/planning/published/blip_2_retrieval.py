"""BLIP-2 for retrieval, finetuned on COCO, as it is published."""

from quantrust.planning.published import PublishedModel
from quantrust.planning.published.blip_2 import MODELS as ANSWERING

SIDE = 364
_ANSWERING = ANSWERING["Salesforce/blip2-opt-2.7b"]

MODELS = {
    # Its config.json at the commit in config/mmq.yaml, and the tower and the Q-Former of the model that answers, which
    # are this one's. Its weights file has 4,690,593,960 bytes in float32. The size of its tokenizer's files is BERT's,
    # about.
    "Salesforce/blip2-itm-vit-g-coco": PublishedModel(
        config={
            "architectures": ["Blip2ForImageTextRetrieval"],
            "model_type": "blip-2",
            "image_text_hidden_size": 256,
            "image_token_index": None,
            "num_query_tokens": 32,
            "torch_dtype": "float32",
            "qformer_config": {
                **_ANSWERING.config["qformer_config"],
                "use_qformer_text_input": True,
                "vocab_size": 30523,
            },
            "text_config": {"model_type": "opt"},
            "vision_config": {**_ANSWERING.config["vision_config"], "image_size": SIDE},
        },
        preprocessor={**_ANSWERING.preprocessor, "size": {"height": SIDE, "width": SIDE}},
        template="",
        special=("[PAD]", "[CLS]", "[SEP]"),
        companions=1_000_000,
        matches=True,
    ),
}
