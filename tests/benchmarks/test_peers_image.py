"""The peers of unconditional pictures: equal time, equal parameters, and runs that go on."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import contenders, unconditional_peers
from benchmarks.command import command
from benchmarks.contenders import drawn, expected_steps, train_in_turn
from benchmarks.fidelity import denoising_diffusion
from benchmarks.peers_image import OURS, PEERS, run
from benchmarks.recipe import parameters
from benchmarks.unconditional_peers import TOLERANCE, Peer, crop, diffusers_example, nearest, pad
from image.config import DataConfig
from image.data import Pictures, load_pictures
from shared.errors import ConfigError

TINY = ("net.dim=128", "patch=2", "train.batch=4", "judge.train.steps=4", "data.limit=60")
MISSING = pytest.mark.skipif(
    denoising_diffusion() is None,
    reason=f"no denoising-diffusion-pytorch: {unconditional_peers.INSTALL}",
)


@pytest.fixture
def digits() -> Pictures:
    return load_pictures(DataConfig(limit=30))


class Counter:
    """A contender whose update takes `cost` seconds of a clock of its own making."""

    parameters, batch, how, evaluations = 1, 1, "counted", 1

    def __init__(self, clock: list[float], cost: float) -> None:
        self.clock, self.cost, self.step, self.spent = clock, cost, 0, 0.0
        self.shares: list[float] = []
        self.saved: list[float] = []
        self.drawn = 0

    def update(self, share: float) -> None:
        self.shares.append(share)
        self.clock[0] += self.cost
        self.step += 1

    def save(self) -> None:
        self.saved.append(self.spent)

    def draw(self, seeds: range) -> torch.Tensor:
        self.drawn += len(seeds)
        self.clock[0] += 2.0
        return torch.tensor(list(seeds)).view(-1, 1, 1, 1)


def test_contenders_take_turns_until_each_has_had_its_seconds(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(contenders, "now", lambda: clock[0])
    slow, fast = Counter(clock, 4.0), Counter(clock, 1.0)
    train_in_turn({"slow": slow, "fast": fast}, seconds=20, turn=10)
    assert (slow.step, fast.step) == (5, 20)
    assert slow.saved == [12, 20]  # an update is never cut short; the next turn is shorter for it
    assert fast.saved == [10, 20]
    assert slow.shares == [0, 0.2, 0.4, 0.6, 0.8]
    assert fast.shares == [i / 20 for i in range(20)]


def test_samples_that_are_there_are_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(contenders, "now", lambda: clock[0])
    monkeypatch.setattr(contenders, "BATCH", 3)
    model = Counter(clock, 1.0)
    for n, made in ((6, 6), (6, 6), (7, 7)):
        images, seconds = drawn(model, tmp_path, n)
        assert images.flatten().tolist() == list(range(n))
        assert model.drawn == made
        assert seconds == 2.0 * -(-n // 3)
    model.step = 1  # trained further: another model
    drawn(model, tmp_path, 6)
    assert model.drawn == 13


def test_expected_steps_are_those_of_steady_work():
    assert expected_steps(0, 0.0) == 1
    assert expected_steps(30, 0.25) == 120
    assert expected_steps(99, 0.999) == 100


def test_padding_is_around_the_picture_and_cut_off_again():
    images = torch.rand(2, 3, 5, 6) + 1
    padded = pad(images, (8, 9))
    assert padded.shape == (2, 3, 8, 9)
    assert torch.equal(crop(padded, (5, 6)), images)
    assert float(padded.sum()) == pytest.approx(float(images.sum()))


def test_the_nearest_network_is_within_tolerance_or_refused():
    widths = [partial(torch.nn.Linear, 1, n, bias=False) for n in (10, 90, 104, 101)]
    assert parameters(nearest(widths, 100)) == 104  # the first that is near enough
    with pytest.raises(ConfigError, match="nearest to that has 10,"):
        nearest(widths, 30)


def test_learning_rates_of_the_diffusers_example_rise_and_fall(digits: Pictures, tmp_path: Path):
    rate = diffusers_example(tmp_path, digits, 1_000_000, lr=1e-4).rate
    assert rate(0, 2500) == 0
    assert rate(250, 2500) == pytest.approx(5e-5)
    assert rate(500, 2500) == pytest.approx(1e-4)
    assert rate(1500, 2500) == pytest.approx(5e-5)  # the middle of a cosine
    assert rate(2500, 2500) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param("denoising-diffusion-pytorch", marks=MISSING), "diffusers"]
)
def test_a_peer_that_was_killed_goes_on_as_if_it_had_not_been(
    name: str, digits: Pictures, tmp_path: Path
):
    def begun(folder: str) -> Peer:
        return PEERS[name](tmp_path / folder, digits, 1_000_000, 1e-3)

    whole, first = begun("whole"), begun("parts")
    for model, updates in ((whole, 4), (first, 2)):
        for i in range(updates):
            model.update(i / 4)
    first.save()
    torch.rand(7)  # somebody else's noise
    second = begun("parts")
    assert second.step == 2
    for i in (2, 3):
        second.update(i / 4)
    for one, other in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole.draw(range(3, 5)), second.draw(range(3, 5)))


def test_a_peer_learns(digits: Pictures, tmp_path: Path):
    peer = diffusers_example(tmp_path, digits, 1_000_000, lr=1e-3)
    peer.rate = lambda step, steps: 1e-3
    images = pad(digits.images.float() / (digits.levels - 1), peer.size)

    def loss() -> float:
        torch.manual_seed(5)
        return float(peer.loss(images).detach())

    before = loss()
    assert before == pytest.approx(1, abs=0.3)  # of a network that says nothing about unit noise
    for _ in range(12):
        peer.update(0.5)
    assert loss() < 0.6 * before


@pytest.mark.parametrize(
    "methods", [(OURS, "diffusers"), pytest.param((OURS, *PEERS), marks=MISSING)]
)
def test_rows_are_measured_at_equal_time_and_runs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...]
):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unconditional_peers, "SAMPLING_STEPS", 2)
    file, page = tmp_path / "rows.json", tmp_path / "page.md"
    common = {"data": "digits", "n": 8, "steps": 2, "overrides": TINY, "methods": methods}
    written: list[list[dict[str, float]]] = []
    for seconds in (0.4, 0.4, 0.8):
        run(tmp_path / "runs", seconds=seconds, json_file=file, markdown=page, **common)
        rows = json.loads(file.read_text())["rows"]
        assert [row["method"] for row in rows] == list(methods)
        for row in rows:
            assert row["train_seconds"] >= seconds
            assert abs(row["parameters"] / rows[0]["parameters"] - 1) <= TOLERANCE
            assert row["frechet_distance"] > 0
            assert row["frechet"]["features"] == rows[0]["frechet"]["features"]
            assert f"| {row['method']} |" in page.read_text()
        written.append(rows)
    assert written[0] == written[1]
    assert all(b["train_steps"] > a["train_steps"] for a, b in zip(*written[1:], strict=True))
    assert page.with_suffix(".png").is_file()


def test_a_peer_that_is_not_installed_and_an_unknown_one_end_the_command_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(unconditional_peers, "denoising_diffusion", lambda: None)
    given = [str(tmp_path / "runs"), "--data", "digits", "--overrides", *TINY]
    assert command(run, [*given, "--methods", "denoising-diffusion-pytorch"]) == 2
    assert unconditional_peers.INSTALL in capsys.readouterr().err
    assert command(run, [*given, "--methods", "difusers"]) == 2
    assert re.search("methods = 'difusers'.*did you mean|diffusers", capsys.readouterr().err)
