"""Frozen text encoders of transformers: their states, what networks make of them, whole runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from image.caption_unet import CaptionUnet
from image.config import UnetConfig
from image.data import read_facts
from image.evaluation import evaluate
from image.net import PatchNet
from image.panel import PANEL
from image.pipeline import Pipeline
from image.text_encoder import TextEncoder, digest, load_text_encoder
from shared.cli import main
from shared.config import NetConfig
from shared.errors import CheckpointError, ConfigError
from shared.objective.streams import drop_condition
from shared.requests import EvaluateRequest
from shared.runs import open_run
from shared.train.loop import train
from tests.folders import LENGTH, save_text_encoder, tiny_clip, tiny_tokenizer
from tests.image.conftest import image_config

KINDS = {"clip": CLIPTextModel, "t5": T5EncoderModel}
TEXTS = ["red", "sky b", ""]
UNET = (
    "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]",
    "unet.head_dim=8", "unet.source_dim=16",
)  # fmt: skip
PATCHES = ("net.cross_attention=true", "patch=4")


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return lambda kind: (
        folder / kind if (folder / kind).is_dir() else save_text_encoder(kind, folder / kind)
    )


def said(i: int) -> str:
    """Of picture i."""
    return f"{('dim', 'red', 'sky')[i // 40]} {chr(ord('a') + i % 26)}"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of one level each, of three words and a letter; every 20th says too much."""
    folder, lines = tmp_path_factory.mktemp("pictures"), ""
    for i in range(120):
        text = f"{said(i)} and much more" if i % 20 == 0 else said(i)
        Image.fromarray(np.full((8, 8), 2 * i, np.uint8)).save(folder / f"{i:03d}.png")
        lines += json.dumps({"file_name": f"{i:03d}.png", "text": text}) + "\n"
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


def settings(pictures: Path, encoder: Path, *more: str) -> tuple[str, ...]:
    return (
        f"data.name={pictures}", "data.caption_column=text", "data.label_column=null",
        f"data.text_encoder={encoder}", f"data.caption_length={LENGTH}",
        "diffusion.self_condition=false", "train.lr=0.03", "train.steps=8", *more,
    )  # fmt: skip


def of_transformers(kind: str, folder: Path, text: str) -> Tensor:
    """The states (t, D) of one text alone."""
    tokens: Any = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return KINDS[kind].from_pretrained(folder)(**tokens).last_hidden_state[0]


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_transformers_with_zeros_behind(kind: str, encoder_of):
    folder = encoder_of(kind)
    states = TextEncoder(folder, LENGTH, "here")(TEXTS)
    assert states.shape[:2] == (3, LENGTH)
    for row, text in zip(states, TEXTS, strict=True):
        expected = of_transformers(kind, folder, text)
        assert len(expected) < LENGTH
        assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-5)
        assert not row[len(expected) :].any()


def test_the_text_half_of_a_whole_clip_and_parts_of_a_pipeline_are_read(tmp_path: Path):
    whole = tmp_path / "whole"
    tiny_clip().save_pretrained(whole)
    tiny_tokenizer(tmp_path / "words").save_pretrained(whole)
    expected = of_transformers("clip", whole, "red")
    assert_close(TextEncoder(whole, 7, "here").states(["red"])[0], expected, atol=1e-5, rtol=1e-5)
    CLIPTextModel.from_pretrained(whole).save_pretrained(tmp_path / "pipeline" / "text_encoder")
    tiny_tokenizer(tmp_path / "words").save_pretrained(tmp_path / "pipeline" / "tokenizer")
    parts = TextEncoder(tmp_path / "pipeline", 7, "here")
    assert_close(parts.states(["red"])[0], expected, atol=1e-5, rtol=1e-5)


def opened(net: nn.Module) -> nn.Module:
    """Nothing is zero, so that the output depends on everything."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


def networks(empty: Tensor) -> list[nn.Module]:
    torch.manual_seed(2)
    patches = NetConfig(dim=16, depth=1, heads=2, cross_attention=True)
    unet = UnetConfig(channels=(8, 16), layers=1, attention=(1,), head_dim=8, source_dim=16)
    return [
        PatchNet((1, 4, 8), 2, patches, False, conditions=0, empty=empty),
        CaptionUnet((1, 4, 8), unet, False, conditions=0, empty=empty),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_networks_attend_to_states_alone_and_read_none_as_the_empty_text(which: int):
    torch.manual_seed(1)
    states, empty = torch.randn(3, 5, 6), torch.zeros(1, 5, 6)
    states[0, 3:] = 0
    empty[0, :2] = torch.randn(2, 6)
    net, x, logsnr = opened(networks(empty)[which]), torch.randn(3, 1, 4, 8), torch.zeros(3)
    with torch.no_grad():
        out = net(x, logsnr, states, None)
        none = net(x, logsnr, None, None)
        short = networks(empty[:, :3])[which]
        short.load_state_dict(net.state_dict())
        row = short.eval()(x[:1], logsnr[:1], states[:1, :3], None)
        assert_close(row, out[:1], atol=1e-5, rtol=1e-5)
        mixed = states.clone()
        mixed[1] = 0  # as the condition that training drops
        assert_close(net(x, logsnr, mixed, None)[1], none[1], atol=1e-5, rtol=1e-5)
        assert_close(net(x, logsnr, mixed, None)[2], out[2], atol=1e-5, rtol=1e-5)
        said = net(x, logsnr, empty.expand(3, -1, -1), None)
        assert_close(said, none, atol=1e-5, rtol=1e-5)
        for changed in (states * 1.1, none.new_zeros(3, 5, 6), states.roll(1, 0)):
            apart = (net(x, logsnr, changed, None) - out).flatten(1).abs().amax(1)
            assert float(apart.min()) > 1e-4


def test_states_enter_by_one_linear_map():
    for net in networks(torch.ones(1, 5, 6)):
        read = [n for n, p in net.named_parameters() if 6 in p.shape and "condition" in n]
        assert len(read) == 1, read
        assert not [n for n, _ in net.named_buffers() if n in net.state_dict()]


def test_rates_of_groups_drop_whole_rows_of_states():
    states, keys = torch.ones(400, 3, 2), torch.arange(400)
    dropped = drop_condition(states, keys, {"all": 0.3}).flatten(1)
    assert bool((dropped.all(1) | ~dropped.any(1)).all())
    # 400 draws at 0.3: within five standard errors
    assert float((~dropped.any(1)).double().mean()) == pytest.approx(0.3, abs=0.115)


@pytest.mark.parametrize(("kind", "network"), [("clip", UNET), ("t5", PATCHES)])
def test_a_run_from_the_command_line_draws_what_is_asked_for(
    kind: str, network: tuple[str, ...], encoder_of, pictures: Path, tmp_path: Path, capsys
):
    base, run = tmp_path / "base.yaml", tmp_path / "run"
    base.write_text("panel: image\nnet: {dim: 16, depth: 1, heads: 2}\ntrain: {batch: 8}\n")
    words = settings(pictures, encoder_of(kind), *network)
    assert main(["train", str(base), f"run={run}", *words]) == 0
    facts = read_facts(run)
    assert facts.skipped > 0  # those that say too much
    assert facts.text_encoder == digest(run / "text_encoder")
    asked = ["sample", str(run), "-n", "2", "--steps", "2", "--prompt", "sky b", "--guidance", "2"]
    assert main([*asked, "--negative-prompt", "dim"]) == 0
    assert main(["sample", str(run), "-n", "2", "--steps", "2", "--prompt", "far too many"]) == 2
    assert f"expected 1 to {LENGTH}, this model's data.caption_length" in capsys.readouterr().err
    pipe = Pipeline.from_pretrained(run)
    how: dict[str, Any] = {"seeds": [4, 5], "num_inference_steps": 3, "output_type": "latent"}
    drawn = {text: pipe(prompt=text, **how).images for text in ("sky b", "red a", "")}
    assert float((drawn["sky b"] - drawn["red a"]).abs().amax(dim=(1, 2, 3)).min()) > 1e-4
    plain = pipe(**how).images  # unconditional is the empty caption
    assert_close(drawn[""], plain, atol=1e-5, rtol=1e-5)
    assert float((drawn["sky b"] - plain).abs().max()) > 1e-4
    zero = pipe(prompt="sky b", guidance_scale=0, **how).images
    assert_close(zero, plain, atol=1e-5, rtol=1e-5)
    away = pipe(negative_prompt="dim", guidance_scale=2, **how).images
    same = pipe(prompt="", negative_prompt="dim", guidance_scale=2, **how).images
    assert_close(away, same, atol=1e-5, rtol=1e-5)
    assert float((away - plain).abs().max()) > 1e-5


@pytest.fixture
def run(make_run, pictures: Path, encoder_of) -> Path:
    return make_run(*settings(pictures, encoder_of("t5"), *PATCHES))


def test_training_reads_the_states_of_each_pictures_own_caption(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    config = open_run(run).config
    monkeypatch.setattr(TextEncoder, "states", None)  # encoded once, when the run began
    examples: Any = PANEL.examples(config, run)
    monkeypatch.undo()
    rows = torch.tensor([7, 0, 80, 7])
    images, states = examples.take(rows)
    encoder = load_text_encoder(config.data, run)
    texts = [said(level // 2) for level in images[:, 0, 0, 0].tolist()]
    assert len(set(texts)) == 3
    assert_close(states, encoder(texts), atol=1e-5, rtol=1e-5)


def test_samples_are_judged_by_the_words_of_their_captions(run: Path):
    asked = EvaluateRequest(n=4, steps=1, likelihood=True)
    result = evaluate(open_run(run), asked, PANEL)
    assert 0 <= result["caption_retrieval"] <= 1
    assert result["likelihood"]["bits_per_dim"] > 0


def test_a_run_needs_its_copy_of_the_encoder_alone(
    pictures: Path, tmp_path: Path, encoder_of, capsys: pytest.CaptureFixture[str]
):
    source, kept = tmp_path / "source", tmp_path / "run"
    shutil.copytree(encoder_of("t5"), source)
    words = settings(pictures, source, *PATCHES)
    train(image_config(*words), kept, PANEL, quiet=True)
    shutil.rmtree(source)
    train(image_config(*words, "train.steps=9"), kept, PANEL, quiet=True)
    asked = ["sample", str(kept), "-n", "1", "--steps", "1", "--prompt", "red"]
    assert main(asked) == 0
    weights = kept / "text_encoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert main(asked) == 3
    assert "has changed since the run began" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        train(image_config(*words, "train.steps=10"), kept, PANEL, quiet=True)
    shutil.rmtree(kept / "text_encoder")
    assert main(asked) == 3
    assert "text_encoder: missing" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no such folder"):
        train(image_config(*words, "train.steps=10"), kept, PANEL, quiet=True)


def test_a_weaker_model_reads_by_the_same_encoder(make_run, run: Path, pictures: Path, encoder_of):
    other = make_run(*settings(pictures, encoder_of("clip"), *PATCHES))
    with pytest.raises(ConfigError, match="another text encoder"):
        Pipeline.from_pretrained(run)(guide=str(other), guidance_scale=2.0)


def damaged(folder: Path, source: Path, name: str) -> Path:
    shutil.copytree(source, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-50])
    return folder


def test_folders_that_hold_no_such_encoder_are_refused(pictures: Path, tmp_path: Path, encoder_of):
    clip = encoder_of("clip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    AutoTokenizer.from_pretrained(clip).save_pretrained(tmp_path / "other")
    lacks = tmp_path / "lacks"
    shutil.copytree(clip, lacks)
    half = CLIPTextModel.from_pretrained(clip).state_dict()
    save_file({k: v for k, v in half.items() if "layers.1" not in k}, lacks / "model.safetensors")
    cases: list[tuple[str, type[Exception], str]] = [
        (str(tmp_path / "none"), CheckpointError, "none: no such folder"),
        ("$DIPTYCH_UNSET/t5", ConfigError, "environment variable"),
        (str(tmp_path / "other"), CheckpointError, "a bert; expected one of clip_text_model"),
        (
            str(damaged(tmp_path / "cut", clip, "model.safetensors")),
            CheckpointError,
            "not readable",
        ),
        (str(damaged(tmp_path / "said", clip, "config.json")), CheckpointError, "not readable"),
        (str(lacks), CheckpointError, "weights that are not there, such as .*layers.1"),
    ]
    for name, kind, message in cases:
        words = settings(pictures, Path(name), *PATCHES)
        with pytest.raises(kind, match=message):
            train(image_config(*words), tmp_path / "run", PANEL, quiet=True)
        assert not (tmp_path / "run" / "text_encoder").exists()
        shutil.rmtree(tmp_path / "run")
    words = settings(pictures, clip, *PATCHES, "data.caption_length=12")
    with pytest.raises(ConfigError, match=f"reads at most {LENGTH} tokens"):
        train(image_config(*words), tmp_path / "run", PANEL, quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.text_encoder=t5",), "data.caption_column = null"),
        (("model=clip",), "of model = 'diffusion'"),
        (("upscale.factor=2",), "of model = 'diffusion' without sketch, with upscale.factor = 1"),
        (("net.source_depth=1",), "set net.source_depth = 0"),
        (("net.cross_attention=false",), "set net.cross_attention = true"),
        (("network=unet", "unet.source_depth=1"), "set unet.source_depth = 0"),
        (("network=unet", "unet.attention=[]"), "set unet.attention"),
    ],
)
def test_encoders_that_nothing_reads_are_refused(words: tuple[str, ...], message: str):
    read = () if "data.text_encoder=t5" in words else settings(Path("x"), Path("t5"), *PATCHES)
    with pytest.raises(ConfigError, match=message):
        image_config(*read, *words)
