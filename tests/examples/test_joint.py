"""The joint model: its objective by hand, its modes, its data, its measures, and the command."""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from examples.joint.__main__ import main
from examples.joint.choice import Best, ChosenRequest
from examples.joint.config import DataConfig, JointConfig
from examples.joint.data import Captioned, read_pairs, to_pairs
from examples.joint.evaluation import JointEvaluation, agreement, evaluate
from examples.joint.learner import Balance, JointLearner, pair_losses
from examples.joint.modes import clean_condition
from examples.joint.net import JointNet
from examples.joint.panel import PANEL
from examples.joint.pipeline import JointPipeline
from examples.joint.sides import PairCodec, PairDenoiser, Side
from image.clip.encoder import RunEncoder
from image.codec import Pixels
from image.render import render
from shared import noise
from shared.codec import Identity
from shared.config import NetConfig
from shared.denoiser import Tempered, unit_scaled
from shared.errors import CheckpointError, ConfigError, DataError
from shared.sampling import Sampling
from shared.scene import Thing, split_of_scene
from shared.scene_facts import Facts, Part, Relation
from shared.schedule import Cosine
from shared.schema import override, validate
from shared.tokenizer import EOS, train_tokenizer
from shared.train.loop import train
from text.codec import Embedding

TINY = (
    "data.limit=60", "net.dim=16", "net.depth=1", "net.heads=2", "train.steps=3", "train.batch=6",
    "train.warmup=1", "train.precision=fp32",
)  # fmt: skip
SCHEDULE = Cosine(-9, 9)


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    folder = tmp_path_factory.getbasetemp() / "caches"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")


def joint_config(*assignments: str) -> JointConfig:
    return validate(JointConfig, override({"panel": "joint"}, [*TINY, *assignments]), "test")


class Mixing(nn.Module):
    """Outputs that depend on both states and both levels, and on the last estimates."""

    def __init__(self) -> None:
        super().__init__()
        self.across = nn.Parameter(torch.tensor([0.3, -0.7]))
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(
        self, x: list[Tensor], logsnr: list[Tensor], previous: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        if previous is not None:
            self.seen.append((previous[0].clone(), previous[1].clone()))
        self.given.append((x[0].clone(), x[1].clone()))
        first, second = x
        a, b = (torch.tanh(one / 10)[:, None] for one in logsnr)
        return (
            first * a + self.across[0] * second.mean(1, keepdim=True) * b,
            second * b + self.across[1] * first.mean(1, keepdim=True) * a,
        )


def continuous(weighting: str = "eps", self_condition: bool = False, **words: Any) -> JointLearner:
    """A pair of plain vectors, 2 and 3 long, whose noise is predicted."""
    sides = tuple(Side(Identity((n,)), "eps", std, weighting) for n, std in ((2, 0.5), (3, 2.0)))
    codec = PairCodec((sides[0].codec, sides[1].codec), ((2,), (3,)))
    denoiser = PairDenoiser(Mixing(), (sides[0], sides[1]), self_condition)
    return JointLearner(denoiser, codec, SCHEDULE, **words)


# ---- the objective


def test_loss_is_that_of_unidiffuser_written_out():
    """|eps^x - eps_hat^x|^2 + |eps^y - eps_hat^y|^2 at x_{t^x}, y_{t^y}, t^x and t^y independent
    (Bao et al. 2023, eq. 5), here with means over a side's elements."""
    learner = continuous()
    data = torch.tensor([[1, -2, 3, 0, 2], [0, 1, -1, 4, -3], [2, 2, 0, 1, 1], [-1, 0, 5, 2, 0]])
    keys, t = torch.arange(4) + 7, torch.tensor([0.1, 0.4, 0.6, 0.9])
    losses, logsnr = learner(data, None, keys, t)
    assert logsnr is None
    u = noise.uniform(keys, -8)
    across = torch.tensor([0.3, -0.7])
    for i in range(4):
        sides = []
        for part, time, stream, std in ((data[i, :2], t[i], -2, 0.5), (data[i, 2:], u[i], -9, 2.0)):
            start, end = (torch.tensor(e / -2).exp().atan() for e in (9.0, -9.0))
            angle = start + time * (end - start)
            alpha, sigma = angle.cos(), angle.sin()
            eps = noise.normal(keys[i : i + 1], stream, part.shape)[0]
            state = alpha * part + sigma * eps
            seen = state / (sigma**2 + (alpha * std) ** 2).sqrt()
            level = torch.tanh(2 * (alpha / sigma).log() / 10)
            sides.append((seen, level, eps))
        (x, a, eps_x), (y, b, eps_y) = sides
        by_hand = (eps_x - (x * a + across[0] * y.mean() * b)).square().mean()
        by_hand = by_hand + (eps_y - (y * b + across[1] * x.mean() * a)).square().mean()
        torch.testing.assert_close(losses[i], by_hand, rtol=1e-4, atol=1e-5)


def test_balance_is_least_where_each_side_is_divided_by_its_expected_loss():
    """There the gradient of l^i is 1 / E[l^i], and the sum is 2 + ln E[l^0] + ln E[l^1]."""
    learner = continuous(balance=True)
    balance = learner.balance
    assert isinstance(balance, Balance)
    data, keys, t = torch.ones(4, 5, dtype=torch.int64), torch.arange(4), torch.rand(4)
    clean, levels = learner.clean(keys), learner.levels(keys, t)
    plain = pair_losses(learner.denoiser, learner.codec.data(data), levels, keys, clean)
    torch.testing.assert_close(learner(data, None, keys, t)[0], plain[0] + plain[1])  # u = 0
    losses = torch.tensor([0.004, 0.002]), torch.tensor([3.0, 1.0])
    parts = tuple(one.clone().requires_grad_() for one in losses)
    with torch.no_grad():
        balance.weights.copy_(torch.tensor([0.003, 2.0]).log() / Balance.RATE)
    balance((parts[0], parts[1]), clean=(torch.zeros(2).bool(),) * 2).mean().backward()
    for part, mean in zip(parts, (0.003, 2.0), strict=True):
        torch.testing.assert_close(part.grad, torch.full((2,), 0.5 / mean))
    assert balance.weights.grad is not None
    torch.testing.assert_close(balance.weights.grad, torch.zeros(2), atol=1e-5, rtol=0)


def test_times_of_the_sides_are_independent_and_uniform():
    keys, t = torch.arange(20_000), (torch.arange(20_000) * 0.6180339887498949) % 1.0
    first, second = continuous().levels(keys, t)
    u = SCHEDULE.time(second.logsnr)
    torch.testing.assert_close(SCHEDULE.time(first.logsnr), t.float(), atol=1e-4, rtol=0)
    counts = torch.histc(u, 20, 0, 1)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5
    assert torch.corrcoef(torch.stack([t, u]))[0, 1].abs() < 4 / 20_000**0.5


def test_each_side_is_noised_by_its_own_noise():
    learner = continuous()
    keys = torch.arange(5_000)
    drawn = [noise.normal(keys, stream, (1,))[:, 0] for stream in (-2, -9)]
    assert torch.corrcoef(torch.stack(drawn))[0, 1].abs() < 4 / 5_000**0.5
    assert learner.denoiser.both[0].size == 2


def test_temperature_divides_the_logits_of_words_alone():
    learner = small()
    for parameter in learner.denoiser.net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x_t = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 6)
    levels = SCHEDULE(torch.tensor(0.3)), SCHEDULE(torch.tensor(0.6))
    outputs = learner.denoiser.outputs(x_t, levels)
    plain, sharp = learner.denoiser(x_t, levels), learner.denoiser(x_t, levels, temperature=0.5)
    torch.testing.assert_close(sharp[0], plain[0])
    table = learner.denoiser.both[1].codec.table()  # type: ignore[attr-defined]
    torch.testing.assert_close(sharp[1], (2 * outputs[1]).softmax(-1) @ table)
    rows = torch.cat([one.flatten(1) for one in x_t], 1)
    together = learner.together().denoiser
    assert isinstance(together, Tempered)
    level = SCHEDULE(torch.tensor(0.3))
    found = learner.codec.split(together.tempered(0.5)(rows, level))[1]
    expected = learner.denoiser(x_t, (level, level), temperature=0.5)[1]
    torch.testing.assert_close(found, expected)


def test_balance_learns_from_what_is_not_clean_alone():
    """Least at u_i = ln of the mean loss of the samples whose side i is noised, however many."""
    balance = Balance()
    losses = torch.tensor([0.0, 0.0, 0.004, 0.002]), torch.tensor([3.0, 1.0, 0.0, 2.0])
    clean = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 0, 1, 0]).bool()
    with torch.no_grad():
        balance.weights.copy_(torch.tensor([0.003, 2.0]).log() / Balance.RATE)
    balance(losses, clean).mean().backward()
    assert balance.weights.grad is not None
    torch.testing.assert_close(balance.weights.grad, torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("balance", [False, True])
def test_without_clean_samples_the_loss_is_the_sum_to_the_last_bit(balance: bool):
    """Of losses at t and at the uniforms of another stream, weighed or not, in this order."""
    learner = continuous(balance=balance)
    data, keys = torch.arange(60).view(12, 5) % 7, torch.arange(12) + 3
    t = torch.linspace(0, 1, 12)
    levels, none = (SCHEDULE(t), SCHEDULE(noise.uniform(keys, -8))), torch.zeros(12).bool()
    one, two = pair_losses(
        learner.denoiser, learner.codec.data(data), levels, keys, clean=(none, none)
    )
    expected = one + two
    if learner.balance is not None:
        with torch.no_grad():
            learner.balance.weights.copy_(torch.tensor([-0.3, 0.1]))
        u = 16 * learner.balance.weights
        expected = one * torch.exp(-u)[0] + u[0] + two * torch.exp(-u)[1] + u[1]
    assert torch.equal(learner(data, None, keys, t)[0], expected)


def test_shares_of_the_samples_see_one_side_clean():
    learner, count = continuous(shares=(0.2, 0.5)), 20_000
    keys, t = torch.arange(count), (torch.arange(1, count + 1) * 0.6180339887498949) % 1.0
    clean, levels = learner.clean(keys), learner.levels(keys, t)
    assert not (clean[0] & clean[1]).any()
    for one, share in zip(clean, (0.2, 0.5), strict=True):
        assert abs(float(one.float().mean()) - share) < 4 * (share * (1 - share) / count) ** 0.5
    for level, one in zip(levels, clean, strict=True):
        assert level.logsnr[one].min() > 8.9999
        assert (level.logsnr[~one] > 8.9999).float().mean() < 0.001
    for level, given in ((levels[1], clean[0]), (levels[0], clean[1])):  # all times of what is left
        found = torch.histc(SCHEDULE.time(level.logsnr)[given], 10, 0, 1)
        assert (found - given.sum() / 10).abs().max() < 5 * (given.sum() / 10) ** 0.5


def test_clean_side_is_seen_as_a_draw_is_given_it_and_is_not_learned():
    """Its latents at the time of `clean_condition`, without a loss."""
    learner = continuous(shares=(0.4, 0.5), self_condition=True)
    net = learner.denoiser.net
    assert isinstance(net, Mixing)
    data, keys = torch.arange(80).view(16, 5) % 5 - 2, torch.arange(16)
    clean, levels = learner.clean(keys), learner.levels(keys, torch.full((16,), 0.5))
    assert all(one.any() for one in clean)
    assert not (clean[0] | clean[1]).all()
    losses = pair_losses(learner.denoiser, learner.codec.data(data), levels, keys, clean)
    last, given = net.seen[-1], net.given[-1]
    for side, (one, std, part) in enumerate(
        zip(learner.codec.data(data), (0.5, 2.0), given, strict=True)
    ):
        row = clean_condition(one.float())
        assert row.shape[1] == 1 + one.shape[1]
        there = SCHEDULE(row[:, 0])
        as_drawn = unit_scaled(row[:, 1:], there, std)
        torch.testing.assert_close(part[clean[side]], as_drawn[clean[side]], rtol=0, atol=1e-6)
        assert ((part - as_drawn).abs().amax(1) > 1e-3)[~clean[side]].all()
        torch.testing.assert_close(levels[side].logsnr[clean[side]], there.logsnr[clean[side]])
        assert torch.equal(losses[side] == 0, clean[side])
        assert not last[side][clean[side]].any()  # a draw has no estimate of what it is given
    assert torch.equal(learner(data, None, keys, torch.full((16,), 0.5))[0], losses[0] + losses[1])


@pytest.mark.parametrize("alone", [0, 1])
def test_dedicated_model_has_one_loss_and_the_other_side_clean(alone: int):
    learner = continuous(shares=((0.0, 1.0), (1.0, 0.0))[alone])
    data, keys, t = torch.ones(4, 5, dtype=torch.int64), torch.arange(4), torch.rand(4)
    levels = learner.levels(keys, t)
    torch.testing.assert_close(levels[1 - alone].logsnr, torch.full((4,), 9.0))
    torch.testing.assert_close(SCHEDULE.time(levels[alone].logsnr), t, atol=1e-4, rtol=0)
    clean = learner.clean(keys)
    assert clean[1 - alone].all()
    assert not clean[alone].any()
    both = pair_losses(learner.denoiser, learner.codec.data(data), levels, keys, clean)
    torch.testing.assert_close(learner(data, None, keys, t)[0], both[alone])


@pytest.mark.parametrize(
    ("assignments", "shares"),
    [
        ((), (0.0, 0.0)),
        (("clean={text: 0.3, image: 0.25}",), (0.25, 0.3)),
        (("alone=image",), (0.0, 1.0)),
        (("alone=text", "clean={text: 0.3, image: 0.25}"), (1.0, 0.0)),
    ],
)
def test_shares_are_those_of_the_configuration(
    run: Path, assignments: tuple[str, ...], shares: tuple[float, float]
):
    learner = PANEL.learner(joint_config(*assignments), run)
    assert isinstance(learner, JointLearner)
    assert learner.shares == shares
    assert (learner.balance is None) == any("alone" in one for one in assignments)


def test_last_estimates_are_there_for_each_side_by_itself():
    learner = continuous(self_condition=True)
    net = learner.denoiser.net
    assert isinstance(net, Mixing)
    data, keys = torch.ones(4, 5, dtype=torch.int64), torch.arange(4)
    learner(data, None, keys, torch.full((4,), 0.5))
    first_pass, second_pass = net.seen
    assert len(first_pass[0]) == 3  # key 3 asks for neither
    assert not first_pass[0].any()
    there = [(side != 0).any(1).tolist() for side in second_pass]
    assert there == [[True, False, True, False], [True, True, False, False]]


def test_no_network_is_given_an_empty_batch():
    learner = continuous(self_condition=True)
    net = learner.denoiser.net
    assert isinstance(net, Mixing)
    data = torch.ones(1, 5, dtype=torch.int64)
    learner(data, None, torch.tensor([3]), torch.full((1,), 0.5))  # key 3 asks for no estimate
    assert [len(first) for first, _ in net.seen] == [1, 1]
    assert not net.seen[1][0].any()
    assert not net.seen[1][1].any()


def test_rows_that_are_no_pairs_and_conditions_are_refused():
    learner, keys, t = continuous(), torch.arange(2), torch.rand(2)
    with pytest.raises(ValueError, match=r"expected \(B, 2 \+ 3\), both of a pair"):
        learner(torch.ones(2, 2), None, keys, t)
    with pytest.raises(ValueError, match="pairs have none"):
        learner(torch.ones(2, 5), torch.ones(2, 1), keys, t)


# ---- the network and its codec


def small() -> JointLearner:
    """Pictures (3, 4, 4) and rows of 5 words of 7, with last estimates."""
    torch.manual_seed(0)
    pixels, words = Pixels(256, (3, 4, 4)), Embedding(7, 5, 6)
    net = JointNet((3, 4, 4), 2, (5, 6), 7, NetConfig(dim=16, depth=2, heads=2), True)
    sides = Side(pixels, "v", 1.0, "sigmoid"), Side(words, "categorical", 1.0, "x0")
    codec = PairCodec((pixels, words), ((3, 4, 4), (5,)))
    return JointLearner(PairDenoiser(net, sides, True), codec, SCHEDULE)


def test_network_gives_both_sides_and_each_sees_both_states_and_levels():
    learner = small()
    for parameter in learner.denoiser.net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 6)]
    logsnr, last = [torch.zeros(2), torch.ones(2)], [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 6)]
    outputs = learner.denoiser.net(x, logsnr, last)
    assert [tuple(one.shape) for one in outputs] == [(2, 3, 4, 4), (2, 5, 7)]
    for group in (x, logsnr, last):
        for which in (0, 1):
            changed = [one + 1 if i == which else one for i, one in enumerate(group)]
            args = [changed if part is group else part for part in (x, logsnr, last)]
            for before, after in zip(outputs, learner.denoiser.net(*args), strict=True):
                assert (before - after).abs().amax((1, 2)).min() > 1e-3


def test_patch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="patch = 3: expected a divisor of the picture's 4 x 4"):
        JointNet((3, 4, 4), 3, (5, 6), 7, NetConfig(dim=16), False)


def test_pairs_come_back_from_their_latents():
    codec = small().codec
    rows = torch.cat([torch.randint(256, (6, 48)), torch.randint(7, (6, 5))], 1)
    x0 = codec.encode(rows)
    assert x0.shape == (6, *codec.latent_shape) == (6, 48 + 30)
    assert torch.equal(codec.decode(x0), rows)
    level = SCHEDULE(torch.zeros(6))
    parts = zip(codec.codecs, codec.data(rows), codec.split(x0), strict=True)
    expected = sum(one.log_prob(data, z, level) for one, data, z in parts)
    torch.testing.assert_close(codec.log_prob(rows, x0, level), expected)


def test_model_learns_which_word_belongs_to_which_picture_both_ways():
    """Black pictures are 'b', white ones 'w': pairs, both conditionals, and not when shuffled."""
    learner = small()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for step in range(200):
        keys = torch.arange(64) + 64 * step
        kind = (noise.uniform(keys, -20) < 0.5).long()
        picture, words = (kind * 255)[:, None].expand(-1, 48), (kind + 4)[:, None].expand(-1, 4)
        data = torch.cat([picture, words, torch.full((64, 1), EOS)], 1)
        losses, _ = learner(data, None, keys, noise.uniform(keys, -1))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    pipe, how = _toy_pipeline(learner), Sampling(solver="ancestral", steps=24)
    seeds = range(64)
    images, texts = pipe.pairs(seeds, how)
    white, w = images.float().mean((1, 2, 3)) > 128, torch.tensor([t == "w w w w" for t in texts])
    assert (white == w).float().mean() > 0.95
    assert 0.25 < white.float().mean() < 0.75
    asked = ["b b b b", "w w w w"] * 32
    drawn = pipe.images(seeds, how, texts=asked).float().mean((1, 2, 3)) > 128
    right = torch.tensor([text[0] == "w" for text in asked])
    assert (drawn == right).float().mean() > 0.95
    assert (drawn == right.roll(1)).float().mean() < 0.05
    shown = (torch.arange(64) % 2 * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    written = pipe.texts(seeds, how, images=shown)
    assert sum(text == ask for text, ask in zip(written, asked, strict=True)) > 60
    guided = pipe.texts(seeds, Sampling(solver="ancestral", steps=24, guidance=2.0), images=shown)
    assert sum(text == ask for text, ask in zip(guided, asked, strict=True)) > 60
    near = pipe.images(seeds, how, vary=shown, strength=0.3).float().mean((1, 2, 3)) > 128
    assert (near == right).float().mean() > 0.9


def _toy_pipeline(learner: JointLearner) -> JointPipeline:
    tokenizer = train_tokenizer(["b b b", "b w"], "word", 10)
    ids = {word: tokenizer.encode(word)[0] for word in "bw"}
    assert ids == {"b": 4, "w": 5}
    return JointPipeline(learner.eval(), tokenizer, joint_config("data.length=5"))


# ---- data


def test_rows_hold_the_picture_and_the_sentence():
    config = DataConfig(limit=40)
    read = read_pairs(config)
    assert read.scenes is not None
    tokenizer = train_tokenizer(read.sentences, "word", 8192)
    found = to_pairs(read, tokenizer, config)
    rows, condition = found.take(torch.tensor([3, 1]))
    assert condition is None
    assert rows.shape == (2, 3 * 32 * 32 + 24)
    assert torch.equal(rows[0, :-24].view(3, 32, 32).to(torch.uint8), render(read.scenes[3:4])[0])
    ids = rows[1, -24:].tolist()
    assert EOS in ids
    assert tokenizer.decode(ids) == read.sentences[1]


def test_splits_share_no_board():
    config = DataConfig(limit=300)
    for held_out, split in ((False, "train"), (True, "validation")):
        scenes = read_pairs(config, held_out).scenes
        assert scenes is not None
        assert {split_of_scene(one) for one in scenes} == {split}


def test_sentences_tell_their_pictures():
    from image.reader import read
    from text.reader import read as parse

    for detail in ("some", "full"):
        found = read_pairs(DataConfig(limit=50, detail=detail))
        said = [parse(text, detail) for text in found.sentences]
        measured = agreement(said, read(found.images))
        assert set(measured.values()) == {1.0}


def captioned_folder(
    folder: Path, captions: Sequence[str | None], pictures: int | None = None
) -> Path:
    folder.mkdir(parents=True)
    for i in range(len(captions) if pictures is None else pictures):
        array = np.full((32, 32, 3), 10 * i, np.uint8)
        Image.fromarray(array).save(folder / f"{i:02d}.png")
    lines = [
        json.dumps({"file_name": f"{i:02d}.png", "text": text}) for i, text in enumerate(captions)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_pairs_are_written_as_they_are_read(tmp_path: Path):
    narrow = "{count: 1, tone: plain, audience: adult}"
    which = ("data.limit=7", "data.split=test", f"data.only={narrow}")
    told = ("pairs", "examples/joint/scene.yaml", tmp_path / "new", *which)
    code, _, err = command(*told)
    assert code == 0, err
    read = read_pairs(joint_config(*which).data)
    again = read_pairs(DataConfig(name=str(tmp_path / "new")))
    assert torch.equal(again.images, read.images)
    assert again.sentences == read.sentences
    code, _, err = command(*told)
    assert (code, "there is something already" in err) == (2, True)


def test_pairs_of_files_are_read(tmp_path: Path):
    folder = captioned_folder(tmp_path / "pictures", [f"picture {i}" for i in range(12)])
    config = DataConfig(name=str(folder))
    train_split, held_out = read_pairs(config), read_pairs(config, held_out=True)
    assert len(train_split.sentences) + len(held_out.sentences) == 12
    for found in (train_split, held_out):
        shade = [10 * int(text.split()[1]) for text in found.sentences]
        assert found.images[:, 0, 0, 0].tolist() == shade


def test_picture_without_a_sentence_is_refused_or_left_out(tmp_path: Path):
    captions = [None if i == 4 else f"picture {i}" for i in range(12)]
    folder = captioned_folder(tmp_path / "pictures", captions)
    with pytest.raises(DataError, match=r"row 4 .*has no caption.*skip_bad"):
        read_pairs(DataConfig(name=str(folder)))
    config = DataConfig(name=str(folder), skip_bad=True)
    both = [read_pairs(config, held_out) for held_out in (False, True)]
    assert sum(len(found.sentences) for found in both) == 11
    assert sum(len(found.left_out) for found in both) == 1


def test_picture_that_is_not_listed_is_refused_or_left_out(tmp_path: Path):
    told: list[str | None] = [f"picture {i}" for i in range(11)]
    folder = captioned_folder(tmp_path / "pictures", told, pictures=12)
    with pytest.raises(DataError, match=r"nothing of 1 of its pictures, .*11\.png first"):
        read_pairs(DataConfig(name=str(folder)))
    found = read_pairs(DataConfig(name=str(folder), skip_bad=True))
    assert [why for why in found.left_out if "11.png" in why] == list(found.left_out)
    assert len(found.left_out) == 1


def test_sentence_without_a_picture_is_refused(tmp_path: Path):
    folder = captioned_folder(tmp_path / "pictures", [f"picture {i}" for i in range(8)], pictures=7)
    with pytest.raises(DataError, match=r"07\.png"):
        read_pairs(DataConfig(name=str(folder)))


def test_pictures_without_any_sentences_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="digits': pictures without sentences"):
        joint_config("data.name=digits")
    folder = captioned_folder(tmp_path / "pictures", ["a", "b"])
    with pytest.raises(DataError, match=r"data.caption_column = 'words'.* has .*text"):
        read_pairs(DataConfig(name=str(folder), text_column="words"))


def test_unequal_numbers_are_refused():
    read = read_pairs(DataConfig(limit=4))
    tokenizer = train_tokenizer(read.sentences, "word", 8192)
    with pytest.raises(DataError, match="4 pictures and 3 sentences"):
        to_pairs(Captioned(read.images, read.sentences[:3], None), tokenizer, DataConfig())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("diffusion.fit_density=true", "fit_density = True: a joint model does not read it"),
        ("diffusion.drop_condition=0.5", "nothing is dropped"),
        ("diffusion.prediction=categorical", "it is that of pictures"),
        ("alone=pictures", "alone = 'pictures': expected one of image, text"),
        ("clean.text=1.5", "clean.text = 1.5: expected a share, 0 to 1"),
        ("clean={text: 0.5, image: 0.5}", "expected a sum below 1"),
        ("data.size=40", "multiple of 32"),
        ("data.only={count: 7}", "count = '7'"),
        ("data.vocabulary=70000", "expected 5 to 32768"),
    ],
)
def test_impossible_configurations_are_refused(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        joint_config(assignment)


# ---- measures


def test_agreement_counts_what_is_said_and_shown():
    star = Thing("star", "red", "solid", "small", "top left")
    moon = Thing("moon", "blue", "dots", "large", "centre")
    said = [
        Facts(
            "plain",
            "adult",
            (Part("moon", "blue"), Part("star", "red")),
            (Relation(1, "above", 0),),
        ),
        Facts("plain", "adult", (Part("star", "green", None, None, "top left"),)),
        None,
        Facts("plain", "adult", (Part("star", "red"),)),
    ]
    measured = agreement(said, [(star, moon), (star,), (star,), None])
    assert measured == {
        "grammatical": 3 / 4,
        "readable": 3 / 4,
        "agree": 1 / 4,
        "count": 2 / 3,
        "shape": 3 / 4,
        "colour": 2 / 4,
        "place": 1.0,
        "relation": 1.0,
    }


def test_relation_between_things_that_are_not_so_is_wrong():
    star = Thing("star", "red", "solid", "small", "top left")
    moon = Thing("moon", "blue", "dots", "large", "centre")
    said = Facts("plain", "adult", (Part("moon"), Part("star")), (Relation(0, "above", 1),))
    measured = agreement([said], [(star, moon)])
    assert (measured["agree"], measured["shape"], measured["relation"]) == (0.0, 1.0, 0.0)


# ---- a run from outside


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint") / "run"
    train(joint_config(), folder, PANEL, quiet=True)
    return folder


def command(*words: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_same_seed_gives_the_same_pair_alone_and_in_a_batch(run: Path):
    pipe, how = JointPipeline.from_pretrained(run), Sampling(solver="ancestral", steps=3)
    for parameter in pipe.learner.parameters():  # as it is after three steps it says little
        nn.init.normal_(parameter, std=0.2)
    images, texts = pipe.pairs([5, 6, 7], how)
    alone = pipe.pairs([6], how)
    assert (images[1].int() - alone[0][0].int()).abs().max() <= 1
    assert texts[1] == alone[1][0]
    assert texts[0] != texts[1]
    told = ["there is a red star ."] * 2
    drawn, one = pipe.images([5, 6], how, texts=told), pipe.images([6], how, texts=told[:1])
    assert (drawn[1].int() - one[0].int()).abs().max() <= 1
    assert not torch.equal(drawn, pipe.images([5, 6], how))  # a sentence makes a difference
    written = pipe.texts([5, 6], how, images=images[:2])
    assert written[1] == pipe.texts([6], how, images=images[1:2])[0]
    assert written != pipe.texts([5, 6], how)


def test_loss_of_a_batch_does_not_depend_on_how_it_is_cut(run: Path):
    learner = PANEL.learner(joint_config(), run)
    data, _ = PANEL.examples(joint_config(), run).take(torch.arange(6))
    keys, t = torch.arange(6), torch.linspace(0.1, 0.9, 6)
    whole = learner(data, None, keys, t)[0]
    parts = [learner(data[i : i + 2], None, keys[i : i + 2], t[i : i + 2])[0] for i in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_command_trains_goes_on_samples_and_measures(tmp_path: Path):
    run, recipe = tmp_path / "run", "examples/joint/scene.yaml"
    code, _, err = command("train", recipe, f"run={run}", *TINY, "--quiet")
    assert code == 0, err
    longer = [word for word in TINY if not word.startswith("train.steps")]
    code, out, err = command("train", recipe, f"run={run}", *longer, "train.steps=4", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == 4
    few = ("-n", "3", "--steps", "2", "--json")
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    for words, written in (
        ((), {"grid.png", "images.npz", "samples.txt"}),
        (("--only", "images"), {"grid.png"}),
        (("--only", "texts"), {"samples.txt"}),
        (("--prompt", "there is a red star .", "--guidance", "2"), {"grid.png"}),
        (("--picture", picture), {"samples.txt"}),
        (("--prompt", "there is a red star .", "--vary"), {"samples.txt"}),
        (("--picture", picture, "--vary", "--strength", "0.4"), {"grid.png"}),
    ):
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        code, _, err = command("sample", run, *few, "--out", out, *words)
        assert code == 0, err
        found = {path.name for path in out.iterdir()}
        assert written <= found
        assert ("samples.txt" in found) == ("samples.txt" in written)
        settings = json.loads((out / "samples.json").read_text())["settings"]
        assert settings["picture"] == (str(picture) if "--picture" in words else None)
    for words, name in (((), "evaluation.json"), (("--shuffle",), "evaluation_shuffled.json")):
        code, out, err = command("evaluate", run, *few, *words)
        assert code == 0, err
        result = json.loads(out)
        assert result == json.loads((run / name).read_text())
        assert {"text_to_image", "image_to_text", "joint", "image", "text"} <= set(result)
        assert (result["n"], result["settings"]["seed"]) == (3, 0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--prompt", "there is a rd star ."), 2, "does not know 'rd'"),
        (("--prompt", " ".join(["red"] * 24)), 2, "24 tokens, expected 1 to 23"),
        (("--prompt", "a star .", "--picture", "x.png"), 2, "give one of them"),
        (("--picture", "nowhere.png"), 3, "is missing"),
        (("--only", "sounds"), 2, "expected images or texts"),
        (("--vary",), 2, "vary: of what"),
        (("--prompt", "there is a red star .", "--strength", "0.4"), 2, "strength = 0.4: of --v"),
        (("--guidance", "2"), 2, "pairs are drawn from nothing"),
        (("--only", "images", "--guidance", "2"), 2, "towards what"),
        (("--picture", "p.png", "--vary", "--strength", "1.5"), 2, "expected a number in (0, 1]"),
        (("--only", "texts", "--solver", "auto"), 2, "choose another solver"),
        (("--only", "images", "--temperature", "0.5"), 2, "pictures have no logits"),
        (("--guide", "runs/other", "--only", "texts", "--guidance", "2"), 2, "by its marginals"),
    ],
)
def test_bad_requests_are_refused(
    run: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("p.png")
    found, _, err = command("sample", run, "-n", "2", "--steps", "2", *words)
    assert found == code
    assert message in err


def test_dedicated_run_draws_its_side_given_the_other_only(tmp_path: Path):
    folder = tmp_path / "run"
    train(joint_config("alone=image"), folder, PANEL, quiet=True)
    pipe, how = JointPipeline.from_pretrained(folder), Sampling(solver="ancestral", steps=2)
    assert pipe.images([1], how, texts=["there is a red star ."]).shape == (1, 3, 32, 32)
    for refused in (pipe.pairs, pipe.texts, pipe.images):
        with pytest.raises(ConfigError, match="alone = image"):
            refused([1], how)


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no run folder"):
        JointPipeline.from_pretrained(tmp_path)


def test_scenes_are_what_is_measured(run: Path):
    pipe = JointPipeline.from_pretrained(run)
    files = Captioned(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["a star ."], None)
    with pytest.raises(ConfigError, match="scene world only"):
        evaluate(pipe, files, JointEvaluation())


def test_held_out_sentences_that_do_not_fit_are_told(run: Path):
    pipe = JointPipeline.from_pretrained(run)
    scenes = read_pairs(pipe.config.data, held_out=True)
    strange = replace(scenes, sentences=["a zebra ."] * len(scenes.sentences))
    with pytest.raises(DataError, match=r"data.held_out = .*: none of 60 sentences .*'a zebra .'"):
        evaluate(pipe, strange, JointEvaluation(n=2))
    fits = next(text for text in scenes.sentences if pipe.fits(text))
    one = replace(strange, sentences=[fits, *strange.sentences[1:]])
    with pytest.raises(DataError, match="shuffle: 1 held-out sentence fits"):
        evaluate(pipe, one, JointEvaluation(n=2, shuffle=True))
    with pytest.raises(ConfigError, match="n = 1, shuffle: "):
        JointEvaluation(n=1, shuffle=True)


def test_shuffled_samples_are_held_against_other_conditions(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    """A model that draws what is true of its condition: it agrees with that, not with another."""
    scenes = read_pairs(JointPipeline.from_pretrained(run).config.data, held_out=True)
    own = dict(zip(scenes.sentences, scenes.images, strict=True))

    def images(self, seeds: Sequence[int], how: Sampling, texts: Sequence[str] | None = None):
        return torch.stack([own[text] for text in texts or scenes.sentences[: len(seeds)]])

    def texts(self, seeds: Sequence[int], how: Sampling, images: Tensor | None = None):
        if images is None:
            return scenes.sentences[: len(seeds)]
        return [next(t for t, known in own.items() if torch.equal(known, one)) for one in images]

    def pairs(self, seeds: Sequence[int], how: Sampling):
        return scenes.images[: len(seeds)], scenes.sentences[: len(seeds)]

    for name, true in (("images", images), ("texts", texts), ("pairs", pairs)):
        monkeypatch.setattr(JointPipeline, name, true)
    straight, shuffled = (
        json.loads(command("evaluate", run, "-n", "20", "--json", *more)[1])
        for more in ((), ("--shuffle",))
    )
    for mode in ("text_to_image", "image_to_text", "joint"):
        assert straight[mode]["agree"] == 1.0
        assert shuffled[mode]["agree"] < 0.5


# ---- the best of several candidates by a dual encoder


def dual_encoder(folder: Path, captions: list[str], *assignments: str) -> Path:
    """A run of `model: clip` that has seen a few pictures of these captions for two steps."""
    from image.config import ImageConfig
    from image.panel import PANEL as IMAGES

    settings = (
        "model=clip", f"data.name={captioned_folder(folder / 'pictures', captions)}",
        "data.caption_column=text", "clip.width=8", "clip.dim=16", "clip.depth=1", "clip.heads=2",
        "clip.space=8", "train.steps=2", "train.batch=4", "train.precision=fp32",
    )  # fmt: skip
    config = validate(ImageConfig, override({"panel": "image"}, [*settings, *assignments]), "test")
    train(config, folder / "run", IMAGES, quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = read_pairs(joint_config().data).sentences
    return dual_encoder(tmp_path_factory.mktemp("clip"), [*captions[:25], " ".join(captions)])


def saying_more(run: Path) -> JointPipeline:
    """After three steps all samples are alike; these are not."""
    pipe = JointPipeline.from_pretrained(run)
    torch.manual_seed(1)
    for parameter in pipe.learner.parameters():
        nn.init.normal_(parameter, std=0.2)
    return pipe


def test_kept_pair_is_the_best_of_its_candidates_by_the_encoders_own_score(run: Path, clip: Path):
    pipe, encoder = saying_more(run), RunEncoder(clip)
    how = Sampling(solver="ancestral", steps=2)
    best, seeds = Best.of(pipe, ChosenRequest(n=2, clip=str(clip), candidates=4)), [5, 9]
    told = ["there is a red star .", "there is a blue moon ."]
    pictures = pipe.images([1, 2], how)
    kept = best.pairs(seeds, how), best.images(seeds, how, told), best.texts(seeds, how, pictures)
    chosen: list[int] = []
    for i, seed in enumerate(seeds):
        own = [seed + k * 2**41 for k in range(4)]
        drawn = (
            pipe.pairs(own, how),
            (pipe.images(own, how, texts=told[i : i + 1] * 4), told[i : i + 1] * 4),
            (pictures[i].expand(4, -1, -1, -1),
             pipe.texts(own, how, images=pictures[i].expand(4, -1, -1, -1))),
        )  # fmt: skip
        for found, (images, texts) in zip(kept, drawn, strict=True):
            cosines = (encoder.pictures(images, 256) * encoder.captions(texts)).sum(1)
            first = int(cosines.argmax())
            assert found.texts[i] == texts[first]
            assert (found.images[i].int() - images[first].int()).abs().max() <= 1
            assert found.report is not None
            torch.testing.assert_close(
                torch.tensor(found.report["candidates"][i]), 100 * cosines.clamp(min=0),
                atol=0.5, rtol=0,
            )  # fmt: skip
            assert found.report["scores"][i] == max(found.report["candidates"][i])
            chosen.append(first)
    assert len(set(chosen)) > 1  # not always the first


def test_pieces_of_words_need_not_be_known_to_the_encoder(run: Path, clip: Path):
    """Whatever data.tokenizer says: a run in latents has the tokenizer of its autoencoder."""
    pipe, asked = JointPipeline.from_pretrained(run), ChosenRequest(n=1, clip=str(clip))
    strange = ["quartz judge vow", "fjords nymph"] * 9
    Best.of(replace(pipe, tokenizer=train_tokenizer(strange, "unigram", 26)), asked)
    with pytest.raises(ConfigError, match="the model does not know 'fjords'"):
        Best.of(replace(pipe, tokenizer=train_tokenizer(strange[1:2], "word", 30)), asked)


def test_one_candidate_is_what_is_drawn_without_an_encoder(run: Path, clip: Path):
    pipe, how = saying_more(run), Sampling(solver="ancestral", steps=2)
    best = Best.of(pipe, ChosenRequest(n=2, clip=str(clip)))
    kept, (images, texts) = best.pairs([3, 4], how), pipe.pairs([3, 4], how)
    assert torch.equal(kept.images, images)
    assert kept.texts == texts
    without = Best.of(pipe, ChosenRequest(n=2)).pairs([3, 4], how)
    assert torch.equal(without.images, images)
    assert (without.texts, without.report) == (texts, None)


def test_command_keeps_the_best_and_tells_by_whom(run: Path, clip: Path, tmp_path: Path):
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    asked = ("-n", "2", "--steps", "2", "--clip", clip, "--candidates", "3", "--json")
    for words in ((), ("--prompt", "there is a red star ."), ("--picture", picture)):
        code, _, err = command("sample", run, *asked, "--out", tmp_path / "out", *words)
        assert code == 0, err
        written = json.loads((tmp_path / "out" / "samples.json").read_text())
        assert np.array(written["clip"]["candidates"]).shape == (2, 3)
        assert written["clip"]["network"] == RunEncoder(clip).name
        assert written["settings"]["candidates"] == 3
    code, out, err = command("evaluate", run, *asked)
    assert code == 0, err
    result = json.loads(out)
    assert result["settings"]["candidates"] == 3
    assert result["clip"]["network"] == RunEncoder(clip).name
    assert {"text_to_image", "image_to_text", "joint"} <= set(result)


def test_encoders_that_cannot_judge_these_pairs_are_refused(run: Path, clip: Path, tmp_path: Path):
    other = dual_encoder(tmp_path / "words", ["red star", "blue moon"] * 4)
    small = dual_encoder(tmp_path / "small", ["red star"] * 8, "data.size=16")
    for words, message in (
        (("--candidates", "3"), "by whose score? Give clip = RUN"),
        (("--clip", clip, "--candidates", "0"), "candidates = 0: expected 1 or more"),
        (("--clip", clip, "--only", "texts"), "only and vary draw one of them"),
        (("--clip", clip, "--prompt", "a star .", "--vary"), "only and vary draw one of them"),
        (("--clip", small), "(3, 16, 16), channels, height and width, and is to see (3, 32, 32)"),
        (("--clip", other), "prompt = 'a': the model does not know 'a'; "),
        (("--clip", other), "It has to know all words of this model: train it on what"),
    ):
        code, _, err = command("sample", run, "-n", "2", "--steps", "2", *words)
        assert code == 2, err
        assert message in err
