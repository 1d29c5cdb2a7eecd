"""Sentences written from a source: the way from a prompt to the network, and that it is used."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from shared.config import NetConfig
from shared.errors import ConfigError
from shared.requests import SampleRequest
from shared.seeds import candidate_seeds
from shared.tokenizer import BOS, EOS, PAD
from text.baseline import CausalLM
from text.mbr import rank
from text.panel import PANEL
from text.pipeline import Pipeline

SIZE, LENGTH, SOURCE = 7, 4, 3
READS = ("data.source=scene", "data.source_length=40", "net.cross_attention=true")
SCENE = "plain adult , large red solid circle top"


@pytest.fixture(scope="module")
def causal() -> CausalLM:
    torch.manual_seed(0)
    net = NetConfig(dim=16, depth=2, heads=2)
    made = CausalLM(SIZE, LENGTH, net, source_length=SOURCE).eval()
    for p in made.parameters():  # far from uniform, so that a mistake shows
        p.data.mul_(6.0)
    return made


def test_the_causal_nll_is_that_of_each_token_given_source_and_prefix(causal: CausalLM) -> None:
    row, source = [4, 5, 1, EOS], [6, 4]
    found = causal.nll(torch.tensor([row]), torch.tensor([[*source, PAD]]))
    for i, token in enumerate(row):
        seen = torch.tensor([[*source, BOS, *row[:i]]])
        exact = -causal.model(input_ids=seen).logits[0, -1].log_softmax(0)[token]
        assert_close(found[0, i], exact, atol=1e-4, rtol=1e-4)


def test_causal_sentences_follow_their_own_source_and_beginning(causal: CausalLM) -> None:
    n = 3000
    source = torch.tensor([[6, 4, PAD], [5, PAD, PAD]]).repeat_interleave(n, 0)
    rows = causal.generate(range(2 * n), source=source, start=[5])
    assert bool((rows[:, 0] == 5).all())
    for half, said in ((rows[:n, 1], [6, 4]), (rows[n:, 1], [5])):
        logits = causal.model(input_ids=torch.tensor([[*said, BOS, 5]])).logits[0, -1].detach()
        logits[[PAD, BOS]] = -torch.inf
        p = logits.softmax(0)
        counts = torch.bincount(half, minlength=SIZE)
        kept = p > 0
        chi2 = float(((counts[kept] - n * p[kept]) ** 2 / (n * p[kept])).sum())
        assert chi2 < 18.5  # 4 degrees of freedom: false alarm 1 in 1,000


def test_a_run_with_a_source_writes_from_prompts(make_run, tmp_path: Path) -> None:
    run = make_run(*READS, "net.source_depth=1")
    pipe = Pipeline.from_pretrained(run)
    other = "formal child , small blue dots star bottom left"
    each = pipe(seeds=[3, 4], prompt=[SCENE, other], num_inference_steps=6).texts
    alone = pipe(seeds=[4], prompt=other, num_inference_steps=6).texts
    assert each[1:] == alone
    (tmp_path / "some.txt").write_text(f"{SCENE}\n{other}\n")

    def written(n: int, seed: int, prompt: str) -> Any:
        PANEL.sample(run, SampleRequest(n=n, seed=seed, steps=6, prompt=prompt), tmp_path)
        return json.loads((tmp_path / "samples.json").read_text())

    told = written(2, 3, str(tmp_path / "some.txt"))
    assert told["prompts"] == [SCENE, other]
    assert told["texts"][1:] == written(1, 4, other)["texts"]
    with pytest.raises(ConfigError, match="2 for 1 sentences"):
        pipe(prompt=[SCENE, other])
    with pytest.raises(ConfigError, match=r"guidance.*Give a prompt"):
        pipe(guidance_scale=2)


def test_candidates_are_written_from_the_source_of_their_sentence(make_run) -> None:
    pipe = Pipeline.from_pretrained(make_run(*READS, "net.source_depth=1"))
    prompts = [SCENE, "formal child , small blue dots star bottom left"]
    found = pipe(seeds=[3, 4], prompt=prompts, num_inference_steps=4, num_candidates=3, n_best=3)
    for seed, prompt, candidates in zip((3, 4), prompts, found.n_best, strict=True):
        seeds = candidate_seeds(seed, 3)
        assert candidates == rank(
            pipe(seeds=seeds, prompt=prompt, num_inference_steps=4).texts, seeds
        )


def test_guidance_follows_the_source_more_strongly_the_larger_it_is(make_run) -> None:
    """At scale 0 the source does not matter; at others it does."""
    pipe = Pipeline.from_pretrained(make_run(*READS, "net.source_depth=1"))
    prompts = [SCENE, "formal child , small blue dots star bottom left"]

    def said(scale: float) -> list[list[str]]:
        return [
            pipe(seeds=range(8), prompt=prompt, num_inference_steps=6, guidance_scale=scale).texts
            for prompt in prompts
        ]

    assert said(0.0)[0] == said(0.0)[1]
    assert said(4.0)[0] != said(4.0)[1]


def test_a_run_without_a_source_says_so(make_run) -> None:
    with pytest.raises(ConfigError, match="writes from nothing"):
        Pipeline.from_pretrained(make_run())(prompt="a")


def test_a_causal_run_goes_on_from_a_beginning_or_writes_from_a_source(make_run) -> None:
    plain = Pipeline.from_pretrained(make_run("model=causal"))
    texts = plain(n=3, prompt="there is").texts
    assert all(text.startswith("there is") for text in texts)
    with pytest.raises(ConfigError, match="expected at most 23"):
        plain(prompt="a " * 24)
    reads = Pipeline.from_pretrained(make_run("model=causal", *READS[:2]))
    assert len(reads(n=2, prompt=SCENE).texts) == 2
    with pytest.raises(ConfigError, match="writes from a source; say which"):
        reads()
