"""A palette of colours as analog bits: exact where it can be, else the nearest it can show."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from image.palette import FILE, ExactPalette, Palette, install_palette, load_palette
from shared.errors import CheckpointError, ConfigError
from shared.schedule import variance_preserving
from tests.test_command import assert_refused, diptych, told

COLOURS = torch.tensor([[0, 0, 0], [200, 10, 10], [10, 200, 10], [10, 10, 250], [255, 255, 255]])


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    """Pictures (n, 3, 4, 6) of these colours."""
    places = torch.randint(5, (n, 4, 6), generator=torch.Generator().manual_seed(seed))
    return COLOURS[places].movedim(-1, 1).to(torch.uint8)


def loaded(run: Path, **more) -> Palette:
    return load_palette(256, (3, 4, 6), run, **{"scale": 1.0, "gray": False} | more)


@pytest.mark.parametrize("gray", [False, True])
def test_pictures_of_few_colours_come_back_exactly(gray: bool, tmp_path: Path):
    install_palette(drawn(9), 8, tmp_path)
    codec = loaded(tmp_path, gray=gray, scale=0.5)
    assert isinstance(codec, ExactPalette)
    x0 = codec.encode(drawn(7, seed=1))
    assert x0.shape[1:] == codec.latent_shape == (1, 4, 6, 3)
    assert set(x0.unique().tolist()) == {-0.5, 0.5}
    assert torch.equal(codec.decode(x0), drawn(7, seed=1).long())
    # sorted by brightness, so that Gray code has one bit between neighbours
    luma = codec.colours.float() @ torch.tensor([0.299, 0.587, 0.114])
    assert bool((luma.diff() > 0).all())


def test_the_probability_of_a_picture_is_bayes_rule_over_its_colours(tmp_path: Path):
    install_palette(drawn(9), 8, tmp_path)
    codec, data = loaded(tmp_path), drawn(3, seed=2)
    assert isinstance(codec, ExactPalette)
    level = variance_preserving(torch.tensor(0.3, dtype=torch.float64))
    z_0 = torch.randn(3, 1, 4, 6, 3, dtype=torch.float64)
    words = torch.stack([codec.bits.table[k] for k in range(5)]).double() * level.alpha
    law = torch.distributions.Normal(words, level.sigma)
    fit = law.log_prob(z_0.unsqueeze(-2)).sum(-1).log_softmax(-1)  # (3, 1, 4, 6, 5)
    own = fit.gather(-1, codec.index(data).unsqueeze(-1)).flatten(1).sum(1)
    assert_close(codec.log_prob(data, z_0, level), own)


def test_many_colours_become_the_nearest_of_a_median_cut(tmp_path: Path):
    images = torch.randint(256, (64, 3, 4, 6), generator=torch.Generator().manual_seed(3))
    images = images.to(torch.uint8)
    errors: list[float] = []
    for count in (2, 16, 128):
        install_palette(images, count, tmp_path)
        codec = loaded(tmp_path)
        assert not hasattr(codec, "log_prob")  # of other pictures
        assert 2 <= len(codec.colours) <= count
        again = codec.decode(codec.encode(images))
        assert torch.equal(codec.decode(codec.encode(again.to(torch.uint8))), again)
        apart = (images.long() - again).double()
        each = (images.long().movedim(1, -1).unsqueeze(-2) - codec.colours).double()
        assert_close(apart.square().sum(1), each.square().sum(-1).amin(-1))  # the nearest
        errors.append(float(apart.square().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_palette_needs_two_colours_and_its_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="one colour"):
        install_palette(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 8, tmp_path)
    with pytest.raises(CheckpointError, match=FILE):
        loaded(tmp_path)
    install_palette(drawn(2), 8, tmp_path)
    with pytest.raises(CheckpointError, match="1 channels"):
        load_palette(256, (1, 4, 6), tmp_path, 1.0, False)


def test_a_model_of_a_palette_is_trained_and_sampled_from_the_command(tmp_path: Path):
    small = ("net.dim=32", "net.depth=1", "net.heads=2", "train.steps=3", "train.batch=4")
    kind = ("codec.kind=palette", "codec.colours=4", "codec.gray=true", "patch=4")
    words = ("diffusion.prediction=categorical", "diffusion.evidence=true")
    run = tmp_path / "run"
    result = diptych("train", "image/digits", f"run={run}", *small, *kind, *words, "--json")
    assert told(result)["step"] == 3
    kept = (run / FILE).read_text()
    assert '"exact": false' in kept  # of 17 levels four are kept
    result = diptych("sample", run, "-n", "2", "--steps", "2", "--json")
    assert told(result)["n"] == 2
    result = diptych("train", "image/digits", "codec.kind=palette", "codec.colours=1")
    assert_refused(result, 2, "codec.colours = 1", "2 to 256")
