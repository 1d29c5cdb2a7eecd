import pytest

from text.grammar import Choice, Leaf, Slot
from text.language import derivations
from text.notation import OPTIONAL, Compiler, Register, read_rules

TAGS = {token: token.upper() for token in ["a", "b", "c", "d"]}
REGISTER = Register("formal", "child", n=2, full=False)


def sentences(source: str, symbol: str = "top", register: Register = REGISTER):
    node = Compiler(read_rules(source), TAGS, register).build(symbol)
    return {" ".join(tokens): p for p, _, tokens in derivations(node)}


def test_alternatives_are_weighed():
    assert sentences("top: 3* a / b") == {"a": 0.75, "b": 0.25}
    assert sentences("top:\n    3* (S a\n      b)\n    c") == {"a b": 0.75, "c": 0.25}


def test_brackets_are_optional():
    assert sentences("top: (S a [b {x}] c)\nx: d") == {
        "a b d c": pytest.approx(OPTIONAL),
        "a c": pytest.approx(1 - OPTIONAL),
    }


def test_tags_come_from_the_rule_or_the_lexicon():
    node = Compiler(read_rules("top: (S a b/VERB)"), TAGS, REGISTER).build("top")
    leaves = [leaf for leaf in node.options() if isinstance(leaf, Leaf)]
    assert [leaf.tree for leaf in leaves] == [("A", "a"), ("VERB", "b")]


def test_a_rule_of_values_is_a_slot_about_the_things_of_the_rule_around():
    source = "top: (S {one:1} {hue:0})\none: {hue} / {hue.soft}\nhue=r: a\nhue=b: b"
    source += "\nhue.soft=r: c\nhue.soft=b: d"
    node = Compiler(read_rules(source), TAGS, REGISTER).build("top")
    first, second = node.options()
    assert isinstance(first, Choice)
    assert isinstance(second, Slot)
    assert [slot.fact for slot in first.nodes if isinstance(slot, Slot)] == [("hue", 1)] * 2
    assert second.fact == ("hue", 0)
    assert list(second.by_value) == ["r", "b"]


def test_arguments_are_passed_through():
    source = "top: {left:0:1 x:1}\nleft: (PP b {arg})\nx: {hue}\nhue=r: c"
    node = Compiler(read_rules(source), TAGS, REGISTER).build("top")
    assert list(derivations(node)) == [(1.0, ((("hue", 1), "r"),), ["b", "c"])]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["x", "x@child", "x@formal", "x@formal-child", "x2"], "x2"),
        (["x", "x@child", "x@formal", "x@formal-child"], "x@formal-child"),
        (["x", "x@child", "x@formal", "x@plain"], "x@formal"),
        (["x", "x@child", "x@adult", "x3", "full x"], "x@child"),
    ],
)
def test_the_nearest_rule_of_the_register_is_taken(names, chosen):
    rules = {name: ["b"] for name in names} | {chosen: ["a"], "top": ["{x}"]}
    ((_, _, tokens),) = derivations(Compiler(rules, TAGS, REGISTER).build("top"))
    assert tokens == ["a"]


def test_rules_for_all_that_is_told_come_first_in_full():
    source = "top: {x}\nx2: a\nfull x: b"
    assert set(sentences(source)) == {"a"}
    assert set(sentences(source, register=Register("formal", "child", 2, full=True))) == {"b"}


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="twice"):
        read_rules("top: a\ntop: b")
    with pytest.raises(KeyError, match="'y'"):
        sentences("top: {y}")
    with pytest.raises(ValueError, match="cannot read"):
        sentences("top: (S a } b)")
    with pytest.raises(KeyError, match="unheard"):
        sentences("top: unheard")
