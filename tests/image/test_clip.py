"""Dual encoders: the loss, one batch on two processes, retrieval, and what training sees."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from image.clip.config import ClipConfig
from image.clip.learner import ClipLearner, contrastive_losses
from image.clip.network import DualEncoder
from image.clip.retrieval import retrieval
from image.panel import PANEL
from shared.errors import ConfigError
from shared.requests import EvaluateRequest, SampleRequest
from shared.train.progress import read_log
from tests.folders import SIDE, tiny_clip
from tests.image.conftest import image_config

SMALL = ClipConfig(width=8, dim=16, depth=1, heads=2, space=6, dropout=0.0)
SHAPE, LEVELS, IDS = (3, 10, 12), 256, 9
CLIP = (
    "model=clip", "data.name=scene", "data.caption_column=scene", "data.limit=80", "clip.width=8",
    "clip.dim=16", "clip.depth=1", "clip.heads=2", "clip.space=8",
)  # fmt: skip


def learner(drop_words: float = 0.0) -> ClipLearner:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ClipLearner(DualEncoder(SHAPE, IDS, SMALL), LEVELS, drop_words)


def batch(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(n)
    images = torch.randint(LEVELS, (n, *SHAPE), generator=g)
    ids = torch.randint(1, IDS, (n, 5), generator=g)
    return images, ids.masked_fill(torch.arange(5) >= torch.randint(1, 6, (n, 1), generator=g), 0)


def points(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=g, dtype=torch.float64), dim=-1)


# -- the loss ----------------------------------------------------------------------------------


@torch.no_grad()
def test_loss_is_that_of_transformers_clip_on_the_same_features():
    model, (images, ids) = tiny_clip(), batch(7)
    x = F.interpolate(images.float() / 255, (SIDE, SIDE))
    said = model(input_ids=ids + 2, pixel_values=x, return_loss=True)
    ours = contrastive_losses(said.image_embeds, said.text_embeds, model.logit_scale.exp())
    assert ours.shape == (7,)
    assert_close(ours.mean(), said.loss, atol=1e-5, rtol=0)


def test_loss_of_each_pair_is_the_mean_of_its_two_cross_entropies():
    pictures, captions = points(4, 3), points(4, 3, seed=1)
    logits = 5 * pictures @ captions.T
    for i, loss in enumerate(contrastive_losses(pictures, captions, torch.tensor(5.0))):
        row = -math.log(math.exp(logits[i, i]) / sum(math.exp(x) for x in logits[i]))
        column = -math.log(math.exp(logits[i, i]) / sum(math.exp(x) for x in logits[:, i]))
        assert float(loss) == pytest.approx((row + column) / 2, abs=1e-9)


def _half(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    model, (images, ids) = learner().eval(), batch(6)
    mine = slice(3 * rank, 3 * rank + 3)
    keys = torch.arange(6)[mine]
    losses, _ = model(images[mine], ids[mine], keys, keys)
    losses.mean().backward()
    parameters = dict(model.named_parameters())
    gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
        gradient /= 2
    torch.save({"losses": losses.detach(), "gradients": gradients}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_half_the_batch_give_loss_and_gradients_of_one(tmp_path: Path):
    torch.multiprocessing.spawn(_half, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    model, (images, ids) = learner().eval(), batch(6)
    losses, _ = model(images, ids, torch.arange(6), torch.arange(6))
    losses.mean().backward()
    assert_close(torch.cat([half["losses"] for half in halves]), losses.detach())
    assert halves[0]["gradients"].keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        for half in halves:
            assert_close(half["gradients"][name], parameter.grad, atol=1e-5, rtol=1e-4)


# -- the network -------------------------------------------------------------------------------


def test_temperature_begins_at_0_07_and_never_sharpens_beyond_a_scale_of_100():
    network = learner().network
    assert network.scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    with torch.no_grad():
        network.log_scale.fill_(9.0)
    assert network.scale.item() == pytest.approx(100.0, rel=1e-5)


def test_points_are_of_unit_length_and_padding_says_nothing():
    network = learner().network.eval()
    images, ids = batch(4)
    x = images.float() / 127.5 - 1
    for found in (network.pictures(x), network.captions(ids)):
        assert found.shape == (4, 6)
        assert_close(found.norm(dim=1), torch.ones(4))
    longer = torch.cat([ids, torch.zeros_like(ids)], dim=1)
    assert_close(network.captions(longer), network.captions(ids), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_caption_is_read_in_its_order_once_blocks_have_learned():
    network = learner().network.eval()
    for parameter in network.read.parameters():
        parameter.normal_(std=0.3)
    ids = torch.tensor([[1, 2, 3], [3, 2, 1]])
    one, other = network.captions(ids)
    assert float((one - other).abs().max()) > 1e-3


def test_dropout_is_of_training_alone():
    config = dataclasses.replace(SMALL, dropout=0.5)
    network, (_, ids) = DualEncoder(SHAPE, IDS, config), batch(4)
    for parameter in network.read.parameters():  # branches start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    one, other = (network.train().captions(ids) for _ in range(2))
    assert not torch.equal(one, other)
    assert torch.equal(network.eval().captions(ids), network.captions(ids))


def test_training_alone_shifts_pictures_and_leaves_words_out_by_their_key():
    model, (images, ids) = learner(drop_words=0.5), batch(5)
    keys, t = torch.arange(5), torch.zeros(5)
    first, again = (model.train()(images, ids, keys, t)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(images, ids, keys + 5, t)[0])
    plain = model.eval()(images, ids, keys, t)[0]
    assert torch.equal(plain, model(images, ids, keys + 5, t)[0])
    assert not torch.equal(plain, first)


# -- retrieval ---------------------------------------------------------------------------------


def test_retrieval_is_the_mean_over_all_choices_of_candidates():
    """Every subset of the others that a row could be compared with, written out. The own ones are
    beaten by one, two (one of them right as well), three and no others."""
    scores = torch.tensor(
        [[9, 1, 8, 2, 3, 4, 5], [7, 1, 2, 9, 8, 3, 4], [1, 2, 3, 7, 8, 9, 6], [1, 2, 9, 3, 4, 5, 6]]
    ).float()
    own = torch.tensor([2, 0, 6, 2])
    right = F.one_hot(own, 7).bool()
    right[1, 3] = True  # two captions are right: the other one never competes
    found = retrieval(scores, own, right, among=4, top=(1, 2))
    assert (found["among"], found["top1_chance"], found["top2_chance"]) == (4, 0.25, 0.5)
    for k in (1, 2):
        shares: list[float] = []
        for i in range(4):
            others = [j for j in range(7) if not right[i, j]]
            ranks = [
                sum(bool(scores[i, j] > scores[i, own[i]]) for j in chosen)
                for chosen in itertools.combinations(others, 3)
            ]
            shares.append(sum(rank < k for rank in ranks) / len(ranks))
        assert found[f"top{k}"] == pytest.approx(sum(shares) / 4, abs=1e-12)


def test_an_encoder_that_knows_nothing_finds_as_much_as_chance():
    own = torch.arange(150)
    found = retrieval(torch.zeros(150, 150), own, F.one_hot(own).bool())
    assert found["top1"] == pytest.approx(0.01)
    assert found["top5"] == pytest.approx(0.05)
    few = retrieval(torch.zeros(4, 4), own[:4], torch.eye(4).bool())
    assert (few["among"], few["top1"], few["top5"], few["top5_chance"]) == (4, 0.25, 1.0, 1.0)


def test_retrieval_refuses_an_own_candidate_that_is_not_right():
    with pytest.raises(ValueError, match="must be one of the right ones"):
        retrieval(torch.zeros(2, 3), torch.tensor([0, 1]), torch.eye(2, 3).bool().flip(1))


# -- runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("model=clip",), "data.caption_column = null: model = 'clip'"),
        (("clip.dim=64",), "clip: model = 'diffusion' does not read it"),
        ((*CLIP, "train.accumulation=2"), "compares all pairs of a batch at once"),
        ((*CLIP, "clip.width=9"), "clip.width = 9: expected a multiple of 8"),
        ((*CLIP, "clip.heads=5"), "clip.dim = 16: expected a multiple of 2 x clip.heads"),
        ((*CLIP, "clip.dropout=1"), "clip.dropout"),
        ((*CLIP, "clip.drop_words=-0.1"), "clip.drop_words"),
        ((*CLIP, "clip.space=0"), "clip.space"),
    ],
)
def test_impossible_dual_encoders_are_refused(assignments: tuple[str, ...], words: str):
    with pytest.raises(ConfigError, match=words):
        image_config(*assignments)


def test_a_run_learns_pairs_and_its_retrieval_is_measured_both_ways(make_run):
    run = make_run(*CLIP, "train.steps=60", "train.batch=40", "train.lr=1e-2")
    curve = [row["loss"] for row in read_log(run / "log.jsonl")]
    assert curve[0] > 0.8 * math.log(40)
    assert curve[-1] < 0.5 * math.log(40)
    found = PANEL.evaluate(run, EvaluateRequest(n=30))
    assert found["images"] == found["image_to_text_among"] == 30
    for way in ("image_to_text", "text_to_image"):
        assert found[f"{way}_top1_chance"] == pytest.approx(1 / 30)
        assert 2 / 30 < found[f"{way}_top1"] <= found[f"{way}_top5"] <= 1
    assert found["clip"]["trained_on"] == "scene, train"
    assert found["clip"]["trained_on_images"] == 80
    with pytest.raises(ConfigError, match="clip: a dual encoder draws no pictures"):
        PANEL.evaluate(run, EvaluateRequest(clip="x"))
    with pytest.raises(ConfigError, match="it draws nothing"):
        PANEL.sample(run, SampleRequest(n=1), run / "samples")
