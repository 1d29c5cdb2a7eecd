"""Recipes that no test can train as they are: the sizes of the large ones, and steps of narrow ones
on data of their shape; those of real data, a few steps of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from image.net import build_net
from shared.configs import load_config
from shared.scene import ID_COUNT, split_of
from shared.train.checkpoint import load
from shared.train.progress import read_log
from tests.folders import tiny_text_encoder, tiny_tokenizer
from tests.test_command import ROOT, diptych, told

CAPTIONS = ("a", "b", "c", "d", "e", "f")
STABLE_DIFFUSION = 859_520_964  # parameters of release 1's U-Net


def built(name: str, shape: tuple[int, ...], conditions: int, empty: Tensor | None = None) -> Any:
    """The network of a recipe, without memory."""
    config = load_config(name, [])[2]
    with torch.device("meta"):
        return build_net(config, shape, conditions, empty=empty)


def size_of(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "conditions", "millions"),
    [
        ("cifar10_edm_gpu", (3, 32, 32), 11, 59.0),
        ("cifar10_bits_gpu", (3, 32, 32, 8), 11, 53.1),
        ("digits_gpu", (1, 8, 8), 11, 5.4),
        ("fashion_mnist_ldm_gpu", (4, 7, 7), 11, 27.9),
        ("scene_layout_texture_gpu", (3, 32, 32), ID_COUNT, 36.4),
    ],
)
def test_large_recipes_have_the_size_they_state(
    name: str, shape: tuple[int, ...], conditions: int, millions: float
):
    network = built(f"image/{name}", shape, conditions)
    assert size_of(network) / 1e6 == pytest.approx(millions, rel=0.01)


def test_sd_like_has_the_unet_of_stable_diffusion_and_a_linear_map_of_states():
    """That of release 1 to the parameter."""
    empty = torch.zeros(1, 77, 768, device="meta")
    network = built("image/sd_like", (4, 64, 64), 0, empty)
    assert size_of(network.trunk) == STABLE_DIFFUSION
    assert size_of(network) == STABLE_DIFFUSION + 768 * (768 + 1)
    with torch.device("meta"):
        out = network(torch.zeros(2, 4, 64, 64), torch.zeros(2), torch.ones(2, 77, 768), None)
    assert out.shape == (2, 4, 64, 64)


# -- steps at full shapes with an eighth of the width --------------------------------------------

STEPS = (
    "train.steps=2", "train.batch=2", "train.accumulation=1", "train.warmup=0", "train.log_every=1",
    "train.save_every=1", "train.precision=fp32", "unet.dropout=0",
)  # fmt: skip


def adm(folder: Path) -> list[str]:
    """Two classes of 64 x 64 pixels, in a folder each."""
    generator = np.random.default_rng(0)
    for split, label, i in [(s, c, i) for s in ("train", "validation") for c in "ab" for i in "01"]:
        place = folder / "pictures" / split / label
        place.mkdir(parents=True, exist_ok=True)
        levels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(levels).save(place / f"{i}.png")
    narrow = ("unet.channels=[24, 48, 72, 96]", "unet.head_dim=8")
    return ["image/imagenet64_adm", f"data.name={folder / 'pictures'}", *narrow]


def sd(folder: Path) -> list[str]:
    """Captioned pictures of 512 x 512 pixels, an autoencoder of factor 8, a text encoder whose
    states are 77 x 768: all random, and nothing of them but their shapes as in the recipe."""
    pictures, generator, lines = folder / "pictures", np.random.default_rng(0), ""
    pictures.mkdir(parents=True)
    for caption in CAPTIONS:
        blocks = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((512, 512)).save(pictures / f"{caption}.png")
        lines += json.dumps({"file_name": f"{caption}.png", "text": caption}) + "\n"
    (pictures / "metadata.jsonl").write_text(lines, encoding="utf-8")
    torch.manual_seed(0)
    eighth: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4, 4, 4, 8),
        "norm_num_groups": 4,
    }
    AutoencoderKL(latent_channels=4, **eighth).save_pretrained(folder / "autoencoder")
    tiny_tokenizer(folder / "words").save_pretrained(folder / "text_encoder")
    tiny_text_encoder(768, 77).save_pretrained(folder / "text_encoder")
    narrow = ("unet.channels=[40, 80, 160, 160]", "unet.head_dim=8", "unet.source_dim=96")
    own = (f"codec.pretrained={folder / 'autoencoder'}", "codec.run=null")
    words = (f"data.name={pictures}", f"data.text_encoder={folder / 'text_encoder'}")
    return ["image/sd_like", *words, *own, *narrow]


MADE: dict[str, Callable[[Path], list[str]]] = {"imagenet64_adm": adm, "sd_like": sd}


@pytest.fixture(scope="module", params=MADE)
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """What to train, and the run of two steps that one process has made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    words = [*MADE[request.param](folder), *STEPS]
    run = folder / "alone"
    assert told(diptych("train", *words, f"run={run}", "--json"))["step"] == 2
    return request.param, words, run


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return load(run / "checkpoints" / f"step-{step:08d}", "model")


def test_a_narrow_network_makes_two_steps_at_full_shapes(narrow):
    """At first eps is estimated as 0: the loss is the mean square of noise of that many numbers,
    1 within five of its standard errors (false alarm: one in a million)."""
    name, _, run = narrow
    facts = json.loads((run / "data.json").read_text())
    size = {"imagenet64_adm": 3 * 64 * 64, "sd_like": 4 * 64 * 64}[name]
    assert facts["shape"] == ([3, 512, 512] if name == "sd_like" else [3, 64, 64])
    first, second = read_log(run / "log.jsonl")
    assert first["loss"] == pytest.approx(1, abs=5 * (2 / (2 * size)) ** 0.5)
    assert second["loss"] != first["loss"]
    closed = [value for key, value in weights(run, 2).items() if key.endswith("conv2.weight")]
    assert closed
    assert all(bool(value.any()) for value in closed)  # open since the output is, by the first step
    if name != "sd_like":
        return
    said = [caption for caption in CAPTIONS if split_of(caption) == "train"]
    latents = load_file(run / "latents" / "00000.safetensors")["moments"]
    assert latents.shape == (len(said), 8, 64, 64)
    states = load_file(run / "captions" / "00000.safetensors")
    assert states["states"].shape == (77 * len(said), 768)  # padded


def test_two_processes_under_zero_3_make_the_step_of_one(narrow, tmp_path: Path):
    """Adam moves a weight by the learning rate, 3e-4 or less, whatever its gradient's size: where
    that is nearly 0, either way."""
    _, words, alone = narrow
    run = tmp_path / "two"
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "diptych"]
    own = [f"run={run}", "train.zero_stage=3", "train.steps=1"]
    result = subprocess.run(
        [sys.executable, *two, "train", *words, *own],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    theirs, ours = (read_log(each / "log.jsonl")[0] for each in (run, alone))
    for key in ("loss", "gradient_norm"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-4), key
    whole, pieces = weights(alone, 1), weights(run, 1)
    assert pieces.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=0, atol=1e-3)


# -- real data ----------------------------------------------------------------------------------

SHORT = (
    "train.steps=2", "train.batch=4", "data.limit=300", "judge.train.steps=2", "judge.width=8",
)  # fmt: skip


def test_emoji_are_drawn_from_names_in_latents(real_data: Path, tmp_path: Path):
    few = (*SHORT, "data.tokenizer=word")
    source, run = tmp_path / "autoencoder", tmp_path / "latent"
    tiny = ("autoencoder.channels=[4, 8, 8]",)
    told(diptych("train", "image/emoji_autoencoder", f"run={source}", *few, *tiny, "--json"))
    small = ("net.dim=24", "net.depth=1", "net.heads=2", "net.source_depth=1")
    words = ("image/emoji_text_latent", f"run={run}", f"codec.run={source}", *few, *small)
    told(diptych("train", *words, "--json"))
    kept, ours = (json.loads((each / "data.json").read_text()) for each in (source, run))
    assert kept["images"] == ours["images"]  # the same names are held out
    latents = load_file(run / "latents" / "00000.safetensors")["moments"]
    assert latents.shape == (ours["images"], 4, 16, 16)
    ask = ("-n", "2", "--steps", "2", "--prompt", "red heart", "--guidance", "3", "--json")
    drawn = np.load(told(diptych("sample", run, *ask))["images"])["images"]
    assert drawn.shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("cifar10_edm", ["--solver", "heun", "--steps", "2"]),
        ("cifar10_bits", ["--td", "0.5", "--steps", "2"]),
    ],
)
def test_cifar10_is_drawn_by_class(name: str, how: list[str], real_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    narrow = ("unet.channels=[8, 16, 16]", "unet.head_dim=8")
    told(diptych("train", f"image/{name}", f"run={run}", *SHORT, *narrow, "--json"))
    drawn = np.load(
        told(diptych("sample", run, "-n", "3", "--class", "all", *how, "--json"))["images"]
    )
    assert drawn["images"].shape == (3, 3, 32, 32)
    assert drawn["condition"].flatten().tolist() == [1, 2, 3]
