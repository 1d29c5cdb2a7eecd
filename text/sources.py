"""What a sentence is written from, or begins with, in words -> ids."""

from collections.abc import Sequence

from torch import Tensor

from shared.errors import ConfigError
from shared.prompts import check_words, prompt_ids
from shared.tokenizer import Tokenizer
from text.config import DataConfig
from text.parts import signs_apart


def source_ids(prompts: Sequence[str], tokenizer: Tokenizer, config: DataConfig) -> Tensor:
    """Prompts -> (n, config.source_length) int64, PAD behind. ConfigError as of `prompt_ids`."""
    said = [signs_apart(prompt) if config.source_signs else prompt for prompt in prompts]
    return prompt_ids(said, tokenizer, config.source_length, "data.source_length")


def beginning_ids(prompt: str, tokenizer: Tokenizer, config: DataConfig) -> tuple[int, ...]:
    """How a sentence begins -> its ids. ConfigError as above, and when nothing could follow."""
    check_words("prompt", prompt, tokenizer)
    ids = tokenizer.encode(prompt)
    if len(ids) >= config.length:
        raise ConfigError(
            f"prompt: {len(ids):,} tokens, expected at most {config.length - 1}: this model's "
            f"data.length is {config.length} with the end"
        )
    return tuple(ids)
