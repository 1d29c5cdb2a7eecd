import pytest

from shared import scene_facts
from text.english import DETAILS, RULES, TAGS, english
from text.grammar import Leaf, Slot
from text.language import is_ambiguous, max_length, vocabulary

# https://universaldependencies.org/u/pos, less those that never occur in scenes
UNIVERSAL = [
    "ADJ",
    "ADP",
    "ADV",
    "AUX",
    "CCONJ",
    "DET",
    "INTJ",
    "NOUN",
    "NUM",
    "PART",
    "PRON",
    "PUNCT",
    "SCONJ",
    "VERB",
]


def nodes(root):
    """All nodes, each once."""
    found, queue = {id(root): root}, [root]
    while queue:
        for node in queue.pop().options():
            if id(node) not in found:
                found[id(node)] = node
                queue.append(node)
    return list(found.values())


@pytest.mark.parametrize("detail", DETAILS)
def test_every_sentence_has_one_reading(detail):
    # Exact, for the whole grammar. Tone and audience are part of a reading, so each sentence also
    # belongs to one register.
    assert not is_ambiguous(english(detail))


@pytest.mark.parametrize(("detail", "limit"), [("some", 22), ("full", 48)])
def test_no_sentence_is_longer_than_promised(detail, limit):
    assert max_length(english(detail)) == limit


def test_the_grammar_is_rich_enough():
    frames = [frame for name, body in RULES.items() if name.startswith("frame@") for frame in body]
    assert len(frames) == len(set(frames)) >= 30
    assert len(vocabulary(english())) + len({"an"}) >= 150


def test_no_token_of_the_lexicon_is_idle():
    assert set(TAGS) <= vocabulary(english()) | vocabulary(english("full"))


@pytest.mark.parametrize("detail", DETAILS)
def test_every_slot_has_an_option_for_each_value_of_its_fact(detail):
    slots = [node for node in nodes(english(detail)) if isinstance(node, Slot)]
    assert {slot.fact[0] for slot in slots} >= {"tone", "audience", "count", "shape", "place"}
    for slot in slots:
        assert slot.by_value.keys() == scene_facts.prior(slot.fact).keys(), slot.fact


@pytest.mark.parametrize("detail", DETAILS)
def test_tokens_are_lower_case_without_blanks_and_tags_are_universal(detail):
    for node in nodes(english(detail)):
        if isinstance(node, Leaf):
            assert node.token == node.token.lower().strip()
            assert " " not in node.token
            assert node.tree[0] in UNIVERSAL


def test_another_detail_is_refused():
    with pytest.raises(ValueError, match="detail = 'most'"):
        english("most")
