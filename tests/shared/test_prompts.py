"""From words to condition ids, and what is said of words that do not fit."""

import pytest

from shared.errors import ConfigError
from shared.prompts import prompt_ids
from shared.tokenizer import PAD, train_tokenizer

KEY = "data.caption_length"


def test_a_prompt_is_ids_and_padding_and_says_what_is_wrong_with_it() -> None:
    tokenizer = train_tokenizer(["red star", "blue circle"], "word", size=20)
    ids = prompt_ids(["red star", "blue"], tokenizer, 3, KEY)
    assert ids.tolist() == [[*tokenizer.encode("red star"), PAD], [*tokenizer.encode("blue"), 0, 0]]
    with pytest.raises(ConfigError, match=r"prompt = .* does not know 'bleu'; did you mean 'blue'"):
        prompt_ids(["bleu star"], tokenizer, 3, KEY)
    with pytest.raises(ConfigError, match=f"negative = .*4 tokens, expected 1 to 3, .*{KEY}"):
        prompt_ids(["red star blue circle"], tokenizer, 3, KEY, "negative")
    with pytest.raises(ConfigError, match="0 tokens"):
        prompt_ids([""], tokenizer, 3, KEY)
