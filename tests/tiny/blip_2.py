"""BLIP-2."""

from tiny import Tiny

TINY = Tiny(
    repository="Salesforce/blip2-opt-2.7b",
    config={
        "num_query_tokens": 6,
        "qformer_config": {
            "encoder_hidden_size": 96,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            # the first and the last have cross-attention
            "num_hidden_layers": 3,
        },
        "text_config": {
            "bos_token_id": 641,
            "eos_token_id": 198,
            "ffn_dim": 128,
            "hidden_size": 64,
            "max_position_embeddings": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "pad_token_id": 640,
            "vocab_size": 704,
            "word_embed_proj_dim": 64,
        },
        "vision_config": {
            "hidden_size": 96,
            "image_size": 56,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={
        "qformer_config": {"num_hidden_layers": 2},
        "text_config": {"num_hidden_layers": 2},
        "vision_config": {"num_hidden_layers": 2},
    },
    preprocessor={"size": {"height": 56, "width": 56}},
    settings={},
    end="\n",
    # every picture becomes as many tokens as there are queries
    tokens=(6,) * 4,
    # both norms and values of a block; values of three blocks and of two cross-attentions, and the last norm; both
    # norms, values and the first linear of the MLP
    folds={"vision": 2 * 3, "connector": 3 + 2 + 1, "language": 2 * 4},
    refused=(
        *("mlp.fc2", "attention.query", "attention.key", "attention.value"),
        *("intermediate_query.dense", "output_query.dense"),
    ),
    # four of attention and two of the MLP
    wide_linears=2 * 6,
    # the library's processor puts it in
    given=lambda text: text.replace("<image>", ""),
)
