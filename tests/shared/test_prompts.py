"""From words to condition ids, and what is said of words that do not fit."""

from pathlib import Path

import pytest

from shared.errors import ConfigError, DataError
from shared.prompts import one_each, prompt_ids
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


def test_lines_of_a_file_are_said_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "said.txt"
    file.write_text(" red star\n\nblue\n")
    assert one_each(str(file), 3) == ["red star", "blue", "red star"]
    assert one_each("red star", 2) == ["red star"] * 2
    assert one_each(None, 2) is None
    for content in (b" \n\n", b"caf\xe9"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"prompt = .*said.txt: (not UTF-8|nothing in it)"):
            one_each(str(file), 1)
