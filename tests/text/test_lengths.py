"""An explicit length: padding has no part in a sentence, and a length comes out as it is told."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from shared.denoiser import Denoiser
from shared.drawing import draw
from shared.errors import CheckpointError, ConfigError
from shared.learner import DiffusionLearner
from shared.objective.loss import first_estimate
from shared.objective.moment import noised
from shared.objective.streams import NOISE
from shared.runs import load_learner
from shared.sampling import Sampling, Start
from shared.tokenizer import BOS, EOS, FILE, PAD, load_tokenizer, train_tokenizer
from tests.test_command import assert_refused, diptych
from tests.text.conftest import text_config
from text.ask import Ask, Near
from text.codec import Ended
from text.control import (
    Automata,
    Vocabulary,
    compile_controls,
    parse_controls,
    possible_lengths,
)
from text.control.paths import log_accepted
from text.data import read_corpus, to_rows
from text.drawing import draw_rows
from text.lengths import Lengths, count, limited, tell, untell
from text.net import TextNet
from text.pipeline import Pipeline
from text.template import parse_template
from text.template import possible_lengths as lengths_of_template

KINDS = ("embedding", "bits")
TOLD = "codec.explicit_length=true"
READS = ("data.source=scene", "data.source_length=40", "net.cross_attention=true")
SOURCE = (*READS, "net.source_depth=1", "data.partial_sources=0.5")
SCENE = "plain adult , large red solid circle top"
RARE = 1e-3  # what a chi-square test gives by chance
WORDS = train_tokenizer(["red star is near . ?"], "word", size=50)


@pytest.fixture(scope="module", params=KINDS)
def run(request, make_run):
    return make_run(TOLD, f"codec.kind={request.param}")


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run)


@pytest.fixture(scope="module")
def told_pipe(make_run):
    return Pipeline.from_pretrained(make_run(TOLD, *SOURCE))


def learned(run: Path) -> tuple[DiffusionLearner, TextNet, Ended]:
    """The model, its network and its codec."""
    learner = load_learner(run)
    assert isinstance(learner, DiffusionLearner)
    net, codec = learner.denoiser.net, learner.codec
    assert isinstance(net, TextNet)
    assert isinstance(codec, Ended)
    return learner, net, codec


def table(pipe: Pipeline) -> Tensor:
    """The lengths that are kept with it."""
    assert isinstance(pipe.learner, DiffusionLearner)
    assert isinstance(pipe.learner.beside, Lengths)
    return pipe.learner.beside.counts


def p_value(drawn: Tensor, law: Tensor) -> float:
    """That of Pearson's test of numbers (n,) against their law, seldom ones taken together."""
    from scipy.stats import chisquare

    expected = law.double() / law.double().sum() * len(drawn)
    found = torch.bincount(drawn, minlength=len(law)).double()
    often = expected >= 5
    rest = (found[~often].sum()[None], expected[~often].sum()[None])
    both = [torch.cat([found[often], rest[0]]), torch.cat([expected[often], rest[1]])]
    kept = both[1] > 0
    assert bool((both[0][~kept] == 0).all())
    return float(chisquare(both[0][kept].numpy(), both[1][kept].numpy()).pvalue)


def lengths_of(pipe: Pipeline, texts: list[str]) -> list[int]:
    return [len(pipe.tokenizer.encode(text)) for text in texts]


def cut(net: TextNet, length: int) -> TextNet:
    """The same network with places for so many tokens alone."""
    weights = {
        name: value[:length] if name in ("trunk.place", "trunk.to_go") else value
        for name, value in net.state_dict().items()
    }
    channels, out = weights["trunk.embed.weight"].shape[1] // 2, len(weights["trunk.out.bias"])
    config = text_config().net
    made = TextNet(channels, out, length, config, self_condition=True, explicit_length=True)
    made.load_state_dict(weights)
    return made.eval()


def test_the_loss_is_that_of_the_words_in_a_network_without_places_for_padding(run) -> None:
    learner, net, codec = learned(run)
    rows = to_rows(read_corpus(text_config().data), load_tokenizer(run / FILE), text_config().data)
    data, t = rows.ids[:4], torch.tensor([0.2, 0.4, 0.6, 0.8])
    keys = torch.tensor([10, 11, 12, 13])  # even ones are self-conditioned
    losses, _ = learner(data, None, keys, t)
    level = learner.schedule(t)
    x_t = noised(codec.encode(data), level, keys, NOISE)
    for i, k in enumerate(count(data).tolist()):
        alone = Denoiser(cut(net, k), "categorical", self_condition=True, codec=codec)
        at = type(level)(*(part[i : i + 1] for part in (level.logsnr, level.alpha, level.sigma)))
        x, key = x_t[i : i + 1, :k], keys[i : i + 1]
        output = alone.output(x, at, None, first_estimate(alone, x, at, None, key))
        nll = codec.nll(output, data[i : i + 1, :k])
        assert_close(losses[i], nll[0] / data.shape[1], rtol=1e-4, atol=1e-5)


def test_words_do_not_depend_on_what_stands_beyond_them(run) -> None:
    learner, _, codec = learned(run)
    places, channels = codec.latent_shape
    lengths = torch.tensor([5, 9, places - 1])
    generator = torch.Generator().manual_seed(0)
    start, other = (torch.randn(3, places, channels, generator=generator) for _ in range(2))
    within = (torch.arange(places) < lengths[:, None])[..., None]
    drawn = [
        draw(
            learner, [1, 2, 3], Sampling(solver="ddim", steps=5), tell(lengths, None),
            start=Start(None, 1.0, noise), progress=False,
        )
        for noise in (start, torch.where(within, start, other))
    ]  # fmt: skip
    assert_close(*(x.masked_fill(~within, 0.0) for x in drawn), atol=1e-5, rtol=0)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-2)


def test_nothing_is_learned_of_ends_and_padding(run) -> None:
    _, _, codec = learned(run)
    ids = torch.tensor([[7, 5, EOS, PAD], [4, EOS, PAD, PAD]])
    logits = torch.randn(2, 4, codec.logit_channels, requires_grad=True)
    (gradient,) = torch.autograd.grad(codec.nll(logits, ids).sum(), logits)
    assert (gradient.abs().sum(-1) > 0).tolist() == [
        [True, True, False, False],
        [True, False, False, False],
    ]
    by_word = torch.cat(
        [codec.tokens.nll(logits[0, i][None, None], ids[:1, i : i + 1]) for i in (0, 1)]
    )
    assert_close(codec.nll(logits, ids)[0], by_word.sum())


def test_a_length_and_a_source_come_apart_again() -> None:
    lengths = torch.tensor([3, 5])
    for source in (None, torch.tensor([[4, 7, 0], [9, 0, 0]]), torch.rand(2, 3, 5)):
        told = tell(lengths, source)
        again, rest = untell(told)
        assert again.tolist() == [3, 5]
        assert (rest is None) == (source is None)
        if source is not None and rest is not None:
            assert told.shape == (2, 4, *source.shape[2:])
            assert torch.equal(rest, source)


def test_lengths_are_drawn_as_those_of_the_sources_with_as_many_tokens() -> None:
    counts = torch.tensor(
        [[0, 50, 30, 20, 70], [0, 0, 0, 0, 0], [0, 50, 0, 20, 30], [0, 0, 30, 0, 40]]
    )
    found = Lengths(counts)
    n = 8000
    free = torch.arange(5).expand(n, -1) > 0
    for tokens, row in ((None, 0), (2, 2), (3, 3), (1, 0), (7, 3)):
        source = None if tokens is None else (torch.arange(8) < tokens).long().expand(n, -1)
        drawn = found.draw(range(n), source, free)
        assert p_value(drawn, counts[row]) > RARE, tokens
        assert torch.equal(
            found.draw(range(100, 200), None, free[:100]), found.draw(range(n), None, free)[100:200]
        )
    some = free & torch.tensor([False, True, True, False, False])
    assert p_value(found.draw(range(n), None, some), torch.tensor([0, 50, 30, 0, 0])) > RARE
    none_seen = torch.tensor([False, False, False, True, False]).expand(n, -1)
    two = torch.tensor([[0, 9, 0, 0, 0]])
    assert set(Lengths(two).draw(range(n), None, none_seen).tolist()) == {3}


def test_sentences_are_as_long_as_training_sentences(pipe, run) -> None:
    texts = pipe(seeds=range(600), num_inference_steps=2).texts
    counts = table(pipe)[0]
    assert int(counts.sum()) == 400
    assert p_value(torch.tensor(lengths_of(pipe, texts)), counts) > RARE
    rows = to_rows(read_corpus(text_config().data), pipe.tokenizer, text_config().data).ids
    assert torch.equal(counts, torch.bincount(count(rows), minlength=rows.shape[1]))


@pytest.mark.parametrize("length", [1, 7, 23])
@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m"])
def test_a_given_length_is_exact(pipe, length: int, solver: str) -> None:
    texts = pipe(seeds=range(12), length=length, num_inference_steps=3, solver=solver).texts
    assert lengths_of(pipe, texts) == [length] * 12
    assert pipe(seeds=[5], length=length, num_inference_steps=3, solver=solver).texts == [texts[5]]
    clamped = pipe(seeds=range(3), length=length, num_inference_steps=3, clamp=True).texts
    assert lengths_of(pipe, clamped) == [length] * 3
    auto = pipe(seeds=range(3), length=length, num_inference_steps=3, solver="auto").texts
    assert lengths_of(pipe, auto) == [length] * 3


def test_what_is_filled_in_has_room(pipe) -> None:
    closed = pipe(seeds=range(8), given="a [MASK] star", num_inference_steps=3).texts
    assert lengths_of(pipe, closed) == [3] * 8
    opened = pipe(seeds=range(40), given="there is a red [MASK] [MASK]*", num_inference_steps=3)
    assert all(text.split()[:4] == ["there", "is", "a", "red"] for text in opened.texts)
    assert min(lengths_of(pipe, opened.texts)) >= 5
    assert len(set(lengths_of(pipe, opened.texts))) > 2
    exact = pipe(seeds=range(8), given="a [MASK]*", length=6, num_inference_steps=3).texts
    assert lengths_of(pipe, exact) == [6] * 8
    with pytest.raises(ConfigError, match="length = 4: expected 1 to 23"):
        pipe(n=2, given="a [MASK] star", length=4)


def test_controls_hold_and_say_how_long_a_sentence_may_be(pipe) -> None:
    asked = ["contains=red", "length=7-9"]
    texts = pipe(seeds=range(12), controls=asked, num_inference_steps=3).texts
    assert all("red" in text.split() for text in texts)
    assert set(lengths_of(pipe, texts)) == {7, 8, 9}
    exact = pipe(seeds=range(6), controls=["prefix=there is"], length=9, num_inference_steps=3)
    assert lengths_of(pipe, exact.texts) == [9] * 6
    assert all(text.startswith("there is ") for text in exact.texts)
    with pytest.raises(ConfigError, match="length = 10"):
        pipe(n=1, controls=asked, length=10)


def rows_of(length: int) -> list[list[int]]:
    """Every row of words, an end, and padding."""
    words = [i for i in range(len(WORDS)) if i not in (PAD, BOS, EOS)]
    return [
        [*chosen, EOS, *[PAD] * (length - 1 - k)]
        for k in range(1, length)
        for chosen in itertools.product(words, repeat=k)
    ]


CONTROLS = (
    ("length=2",), ("length=2-3", "contains=red"), ("prefix=red star", "avoids=."),
    ("pattern=red ([MASK] [MASK])* star",), ("suffix=near .",),
)  # fmt: skip


def test_possible_lengths_are_those_of_the_accepted_rows() -> None:
    automata = [compile_controls(parse_controls(names), Vocabulary(WORDS), 5) for names in CONTROLS]
    found = possible_lengths(Automata.of([*automata, automata[0]]), 5)
    assert torch.equal(found[-1], found[0])
    for automaton, possible in zip(automata, found.tolist(), strict=False):
        accepted = {row.index(EOS) for row in rows_of(5) if automaton.accepts_row(row)}
        assert {k for k, can in enumerate(possible) if can} == accepted


@pytest.mark.parametrize(
    ("template", "possible"),
    [("red [MASK]", [2]), ("red [MASK] [MASK]*", [2, 3, 4]), ("[MASK]*", [1, 2, 3, 4])],
)
def test_possible_lengths_are_those_that_fill_a_template(template: str, possible: list[int]):
    found = lengths_of_template(parse_template(template, WORDS, 5))
    assert found.nonzero().flatten().tolist() == possible


def test_acceptance_of_a_length_is_a_sum_over_its_rows() -> None:
    automaton = compile_controls(parse_controls(["contains=red"]), Vocabulary(WORDS), 5)
    scores = torch.randn(1, 5, len(WORDS), dtype=torch.float64, requires_grad=True)
    for k in (1, 2, 4):
        laws = limited(scores, torch.tensor([k])).log_softmax(-1)
        chance = log_accepted(laws, Automata.of([automaton]))
        words = [i for i in range(len(WORDS)) if i not in (PAD, BOS, EOS)]
        p = scores[0, :k, words].softmax(-1)
        exact = torch.stack(
            [
                torch.stack([p[i, words.index(token)] for i, token in enumerate(row[:k])]).prod()
                for row in rows_of(5)
                if row.index(EOS) == k and automaton.accepts_row(row)
            ]
        ).sum()
        assert_close(chance[0], exact.log(), rtol=1e-6, atol=1e-6)
        (gradient,) = torch.autograd.grad(chance.sum(), scores)
        assert_close(gradient[:, k:], torch.zeros_like(gradient[:, k:]))
        assert bool(torch.isfinite(gradient).all())


def test_guidance_departs_from_the_same_length_without_the_source(told_pipe) -> None:
    how = {"seeds": range(4), "length": 8, "num_inference_steps": 4}
    free = told_pipe(**how).texts
    assert told_pipe(prompt=SCENE, guidance_scale=0.0, **how).texts == free
    assert (
        lengths_of(told_pipe, told_pipe(prompt=SCENE, guidance_scale=3.0, **how).texts) == [8] * 4
    )
    controls = ["contains=red"]
    free = told_pipe(controls=controls, **how).texts
    assert told_pipe(prompt=SCENE, controls=controls, guidance_scale=0.0, **how).texts == free


def test_sentences_from_sources_are_as_long_as_such_ones(told_pipe) -> None:
    tokens = len(told_pipe.tokenizer.encode(SCENE))
    counts = table(told_pipe)
    texts = told_pipe(n=1, seeds=range(400), prompt=SCENE, num_inference_steps=2).texts
    drawn = torch.tensor(lengths_of(told_pipe, texts))
    assert p_value(drawn, counts[tokens]) > RARE
    assert not torch.equal(counts[tokens] / counts[tokens].sum(), counts[0] / counts[0].sum())


def test_a_variation_is_as_long_as_what_it_varies(pipe) -> None:
    rows = to_rows(read_corpus(text_config().data), pipe.tokenizer, text_config().data).ids[:9]
    ask = Ask(near=Near(rows, 0.6))
    drawn = draw_rows(pipe.learner, range(9), Sampling(steps=3, solver="ancestral"), ask)
    assert torch.equal(count(drawn), count(rows))


def test_candidates_have_lengths_of_their_own(pipe) -> None:
    best = pipe(seeds=[4], num_candidates=12, n_best=12, num_inference_steps=2).n_best[0]
    assert len(set(lengths_of(pipe, [one.text for one in best]))) > 3


def test_where_it_does_not_apply_it_is_refused(make_run) -> None:
    with pytest.raises(ConfigError, match="does not apply to model = 'causal'"):
        text_config(TOLD, "model=causal")
    with pytest.raises(ConfigError, match="counts the padding"):
        text_config(
            TOLD, "codec.kind=bits", "diffusion.prediction=v", "diffusion.fit_density=false"
        )
    with pytest.raises(ConfigError, match="latents of whole sentences"):
        text_config(TOLD, "codec.kind=sentence", "codec.run=runs/points")
    with pytest.raises(ConfigError, match="does not apply to the causal reference"):
        Pipeline.from_pretrained(make_run("model=causal"))(n=1, length=4)
    with pytest.raises(ConfigError, match=TOLD):
        Pipeline.from_pretrained(make_run("codec.kind=embedding"))(n=1, length=4)


@pytest.mark.parametrize("length", [0, 24, 99, -1])
def test_impossible_lengths_are_refused(pipe, length: int) -> None:
    with pytest.raises(ConfigError, match=f"length = {length}: expected 1 to 23"):
        pipe(n=1, length=length)


def test_the_command_takes_a_length_and_refuses_a_bound(run) -> None:
    result = diptych("sample", run, "-n", "3", "--length", "6", "--steps", "2")
    assert result.code == 0, result.err
    written = (run / "samples/samples.txt").read_text().splitlines()
    assert [len(text.split()) for text in written] == [6, 6, 6]
    assert_refused(diptych("evaluate", run, "-n", "2", "--likelihood"), 2, "explicit_length")


def test_a_run_without_its_lengths_is_a_checkpoint_error(run, tmp_path) -> None:
    import shutil

    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    (broken / "lengths.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not the lengths of training sentences"):
        Pipeline.from_pretrained(broken)
