"""Small models of `transformers` with random weights, from their configurations: nothing is downloaded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.zoo.comparing import Case, mean_square

VOCABULARY = 61
_TEXT = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_MIDDLE = {"intermediate_size": 48}
_IMAGE = {"image_size": 32, "num_channels": 3}


def _tokens() -> Tensor:
    return torch.randint(2, VOCABULARY, (2, 9))


def text() -> dict[str, Any]:
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 7:] = 0
    return {"input_ids": _tokens(), "attention_mask": mask}


def plain_text() -> dict[str, Any]:
    return {"input_ids": _tokens()}


def both_texts() -> dict[str, Any]:
    return {"input_ids": _tokens(), "decoder_input_ids": _tokens()[:, :6]}


def pixels(size: int = 32) -> Callable[[], dict[str, Any]]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def sound(length: int, name: str = "input_values") -> Callable[[], dict[str, Any]]:
    return lambda: {name: torch.randn(2, length)}


def whisper_input() -> dict[str, Any]:
    return {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": _tokens()[:, :6]}


def clip_input() -> dict[str, Any]:
    return text() | {"pixel_values": torch.randn(2, 3, 32, 32)}


def series() -> dict[str, Any]:
    return {"past_values": torch.randn(2, 32, 3)}


def loss(output: Any, x: Any) -> Tensor:
    """The mean square of what a head returns, or of the last hidden states where there is none."""
    for name in ("logits", "last_hidden_state", "prediction_outputs", "predicted_depth", "reconstruction"):
        if getattr(output, name, None) is not None:
            return mean_square(getattr(output, name), x)
    return mean_square(
        [t for t in (getattr(output, "logits_per_text", None), getattr(output, "text_embeds", None)) if t is not None],
        x,
    )


def _case(
    kind: str, head: str, batch: Callable, lr: float = 0.05, dtype: torch.dtype = torch.float32, **config: Any
) -> Case:
    def make() -> torch.nn.Module:
        import transformers

        settings = getattr(transformers, f"{kind}Config")(**config)
        return getattr(transformers, f"{kind}{head}")(settings).train()

    return Case(f"transformers {kind}{head}", make, batch, loss, lr, dtype=dtype, options={"out": strip})


def strip(output: Any) -> Any:
    """A cache of keys and values is no result to compare."""
    if getattr(output, "past_key_values", None) is not None:
        output.past_key_values = None
    return output


_GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4}
_DECODER = {**_TEXT, **_MIDDLE, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
_SEQ = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_MIDDLE, **_IMAGE, "patch_size": 8}
_SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_MIDDLE, "vocab_size": VOCABULARY,
    "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0,
}  # fmt: skip

CASES = [
    _case("Bert", "ForSequenceClassification", text, **_TEXT, **_MIDDLE),
    _case("GPT2", "LMHeadModel", text, **_GPT),
    _case("Llama", "ForCausalLM", text, **_DECODER),
    _case("T5", "ForConditionalGeneration", both_texts, **_T5),
    _case("ViT", "ForImageClassification", pixels(), **_VIT, hidden_dropout_prob=0.1),
    _case(
        "ConvNext",
        "ForImageClassification",
        pixels(),
        depths=[1, 1],
        hidden_sizes=[16, 32],
        num_stages=2,
        drop_path_rate=0.2,
    ),
    _case("ResNet", "ForImageClassification", pixels(), depths=[1, 1], hidden_sizes=[16, 32], embedding_size=16),
    _case(
        "Whisper",
        "ForConditionalGeneration",
        whisper_input,
        **_SEQ,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        dropout=0.1,
    ),
    _case("Mamba", "ForCausalLM", plain_text, vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
    _case("Roberta", "ForMaskedLM", text, **_TEXT, **_MIDDLE, pad_token_id=0),
    _case(
        "DistilBert",
        "ForSequenceClassification",
        text,
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
    ),
    _case("Albert", "ForMaskedLM", text, **_TEXT, **_MIDDLE, embedding_size=16, hidden_dropout_prob=0.1),
    _case("Electra", "ForMaskedLM", text, **_TEXT, **_MIDDLE, embedding_size=16),
    _case("DebertaV2", "ForMaskedLM", text, **_TEXT, **_MIDDLE, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    _case("MPNet", "ForMaskedLM", text, **_TEXT, **_MIDDLE),
    _case("XLNet", "LMHeadModel", text, vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48),
    _case("FNet", "ForMaskedLM", plain_text, vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, **_MIDDLE),
    _case("Longformer", "ForMaskedLM", text, **_TEXT, **_MIDDLE, attention_window=[4, 4]),
    _case("BigBird", "ForMaskedLM", text, **_TEXT, **_MIDDLE, attention_type="original_full"),
    _case(
        "Funnel",
        "ForMaskedLM",
        text,
        vocab_size=VOCABULARY,
        block_sizes=[1, 1],
        d_model=32,
        n_head=4,
        d_head=8,
        d_inner=48,
    ),
    _case(
        "GPTNeo",
        "ForCausalLM",
        text,
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=48,
        attention_types=[[["global", "local"], 1]],
    ),
    _case("GPTNeoX", "ForCausalLM", text, **_TEXT, **_MIDDLE),
    _case("GPTJ", "ForCausalLM", text, **_GPT, rotary_dim=4),
    _case(
        "OPT",
        "ForCausalLM",
        text,
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        word_embed_proj_dim=32,
        max_position_embeddings=32,
    ),
    _case("Bloom", "ForCausalLM", text, vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.1),
    _case("Mistral", "ForCausalLM", text, **_DECODER, sliding_window=4),
    _case("Qwen2", "ForCausalLM", text, **_DECODER),
    _case("Qwen3", "ForCausalLM", text, **_DECODER, head_dim=8),
    _case("Gemma", "ForCausalLM", text, **_DECODER, head_dim=8),
    _case("Gemma2", "ForCausalLM", text, **_DECODER, head_dim=8, sliding_window=4),
    _case("Phi", "ForCausalLM", text, **_DECODER, resid_pdrop=0.1),
    _case("Olmo", "ForCausalLM", text, **_DECODER),
    _case("Mixtral", "ForCausalLM", text, **_DECODER, num_local_experts=2, num_experts_per_tok=1),
    _case(
        "Mamba2",
        "ForCausalLM",
        plain_text,
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        head_dim=8,
        num_heads=8,
        n_groups=1,
        chunk_size=4,
    ),
    _case("Bart", "ForConditionalGeneration", both_texts, **_SEQ),
    _case("MBart", "ForConditionalGeneration", both_texts, **_SEQ),
    _case("Pegasus", "ForConditionalGeneration", both_texts, **_SEQ),
    _case("Blenderbot", "ForConditionalGeneration", both_texts, **_SEQ),
    _case("Marian", "MTModel", both_texts, **_SEQ),
    _case("MT5", "ForConditionalGeneration", both_texts, **_T5),
    _case("LED", "ForConditionalGeneration", both_texts, **_SEQ, attention_window=4),
    _case("DeiT", "ForImageClassification", pixels(), **_VIT),
    _case("Beit", "ForImageClassification", pixels(), **_VIT, drop_path_rate=0.2),
    _case(
        "Swin",
        "ForImageClassification",
        pixels(),
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
        drop_path_rate=0.2,
    ),
    _case(
        "Dinov2",
        "ForImageClassification",
        pixels(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        drop_path_rate=0.2,
    ),
    _case("ConvNextV2", "ForImageClassification", pixels(), depths=[1, 1], hidden_sizes=[16, 32], num_stages=2),
    _case("MobileNetV2", "ForImageClassification", pixels(), dtype=torch.float64, lr=1e-4, depth_multiplier=0.25),
    _case(
        "MobileViT",
        "ForImageClassification",
        pixels(64),
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 16, 16, 32],
        image_size=64,
        num_attention_heads=2,
    ),
    _case(
        "RegNet",
        "ForImageClassification",
        pixels(),
        dtype=torch.float64,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 32, 32],
        groups_width=8,
        embedding_size=16,
    ),
    _case(
        "Levit",
        "ForImageClassification",
        pixels(64),
        lr=1e-3,
        dtype=torch.float64,
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 2, 2],
        key_dim=[8, 8, 8],
        depths=[1, 1, 1],
    ),
    _case(
        "PoolFormer",
        "ForImageClassification",
        pixels(),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 32],
        drop_path_rate=0.2,
    ),
    _case(
        "Segformer",
        "ForImageClassification",
        pixels(),
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
    ),
    _case(
        "CLIP",
        "Model",
        clip_input,
        text_config={**_TEXT, **_MIDDLE, "eos_token_id": 1},
        vision_config=_VIT,
        projection_dim=16,
    ),
    _case("Wav2Vec2", "ForCTC", sound(800), **_SPEECH, num_feat_extract_layers=2),
    _case("Hubert", "ForCTC", sound(800), **_SPEECH, num_feat_extract_layers=2),
    _case(
        "PatchTST",
        "ForPrediction",
        series,
        num_input_channels=3,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        ffn_dim=32,
        prediction_length=4,
        loss="mse",
        scaling=None,
    ),
]
