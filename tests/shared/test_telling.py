"""What a command prints: numbers, and sentences as they are."""

import pytest

from shared.telling import tell


def test_sentences_with_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    tell({"sentence 0": "food[italian] , [/b] :star:", "share": 0.5}, as_json=False)
    printed = capsys.readouterr().out
    assert "food[italian] , [/b] :star:" in printed
    assert "0.5000" in printed
