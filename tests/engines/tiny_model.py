"""Make a tiny Llama with random weights, a byte-level tokenizer and a chat template.

Runs inside the engine's environment (transformers, tokenizers, torch). Nothing is downloaded: the
tokenizer is printable ASCII, newline and the special tokens, one token a character, so that a test
can count tokens by hand and an answer is never half of a character. Weights are seeded: the same model
each time.
"""

import sys
from pathlib import Path

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
CONTEXT = 2048
_SPACE, _NEWLINE = "\u0120", "\u010a"  # as the byte-level pre-tokenizer writes them
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make(folder: Path) -> None:
    """Write config, weights (about 1 MB) and tokenizer to ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    letters = [chr(code) for code in range(33, 127)] + [_SPACE, _NEWLINE]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *letters))}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token=SPECIAL[0], pad_token=SPECIAL[0]
    )
    tokenizer.model_max_length = CONTEXT
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)

    torch.manual_seed(20)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
    ).bfloat16()
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIAL)] = 0  # never the likeliest: a greedy answer is text
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
