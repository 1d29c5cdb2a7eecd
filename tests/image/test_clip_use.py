"""What dual encoders are for: scores, the choice among candidates, guidance; runs and folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.testing import assert_close
from transformers import CLIPImageProcessor

from image.clip.choice import Choice
from image.clip.encoder import RunEncoder, open_encoder
from image.clip.evaluation import clip_scores, pairs, prompted
from image.clip.folder import FolderEncoder
from image.codec import Pixels
from image.data import Pictures
from image.grid import to_pil
from image.panel import PANEL
from image.pipeline import Pipeline
from shared.codec import Bits
from shared.errors import CheckpointError, ConfigError
from shared.requests import EvaluateRequest, SampleRequest
from shared.schedule import Cosine, Level
from shared.seeds import all_candidates
from tests.folders import SIDE, tiny_clip, tiny_tokenizer
from tests.image.test_captions import SCENES, STAR
from tests.image.test_clip import CLIP

SHAPE = (3, 32, 32)


def save_clip(folder: Path, **processor: Any) -> Any:
    """A tiny CLIPModel with random weights in a folder; returns the model."""
    model = tiny_clip()
    model.save_pretrained(folder)
    tiny_tokenizer(folder.with_name(f"{folder.name}-words")).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}
    }  # fmt: skip
    CLIPImageProcessor(**sizes, **processor).save_pretrained(folder)
    return model


@pytest.fixture(name="folder", scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("folders") / "clip"
    return folder, save_clip(folder)


def drawn(n: int, *sides: int, levels: int = 256) -> Tensor:
    g = torch.Generator().manual_seed(n)
    smooth = torch.rand(n, 3, 4, 4, generator=g)
    unit = torch.nn.functional.interpolate(smooth, sides, mode="bilinear")
    return (unit * (levels - 1)).round().long()


class Named:
    """Pictures are vectors, (n, 1, 1, D) of 1001 levels; captions are named points."""

    name, facts, data, scale = "named", {"kind": "named"}, None, 2.0

    def __init__(self, named: dict[str, list[float]]) -> None:
        self.named = {text: torch.tensor(point) for text, point in named.items()}

    def check(self, shape: tuple[int, int, int]) -> None: ...

    def check_prompt(self, prompt: str) -> None: ...

    def pictures(self, images: Tensor, levels: int) -> Tensor:
        return self.see(images.float() * 2 / (levels - 1) - 1)

    def captions(self, texts: Any) -> Tensor:
        return torch.stack([self.named[text] for text in texts])

    def see(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x.flatten(1), dim=1)


# -- folders of transformers -------------------------------------------------------------------


@torch.no_grad()
def test_a_folder_scores_as_the_pipeline_of_transformers_does(folder: tuple[Path, Any]):
    path, model = folder
    images, texts = drawn(3, 24, 20), ["ab c", "d", "a b c d e f g h i j k"]
    encoder = open_encoder(str(path), SHAPE)
    processor = CLIPImageProcessor.from_pretrained(path)
    seen = [to_pil(image.to(torch.uint8)) for image in images]
    tokens = encoder.tokenizer(  # type: ignore[attr-defined]
        texts, padding=True, truncation=True, return_tensors="pt"
    )
    said = model(**processor(seen, return_tensors="pt"), **tokens)
    theirs = (said.image_embeds @ said.text_embeds.T, 100 * said.logits_per_image.clamp(min=0))
    pictures, captions = encoder.pictures(images, 256), encoder.captions(texts)
    assert_close(pictures @ captions.T, theirs[0], atol=1e-5, rtol=0)
    scores = clip_scores(pictures[:, None], captions[None])
    assert_close(scores, theirs[1] / encoder.scale, atol=1e-3, rtol=0)
    assert encoder.scale == pytest.approx(model.logit_scale.exp().item())
    raw = model.get_text_features(**tokens)
    raw = raw if isinstance(raw, Tensor) else raw.pooler_output
    assert_close(captions, torch.nn.functional.normalize(raw, dim=-1), atol=1e-5, rtol=0)
    assert float((pictures[0] - pictures[1]).abs().max()) > 0.01


def test_a_folder_sees_the_same_with_gradients_up_to_rounding_to_bytes(folder: tuple[Path, Any]):
    encoder = FolderEncoder(folder[0])
    for sides in ((SIDE, SIDE), (24, 20), (11, 40)):
        images = drawn(2, *sides)
        x = (images.float() / 127.5 - 1).requires_grad_()
        near = 1e-5 if sides == (SIDE, SIDE) else 0.02
        assert_close(encoder.see(x), encoder.pictures(images, 256), atol=near, rtol=0)
        (slope,) = torch.autograd.grad(encoder.see(x)[:, 0].sum(), x)
        assert float(slope.abs().max()) > 0
    grey = drawn(2, SIDE, SIDE)[:, :1]
    rgb = encoder.pictures(grey.expand(-1, 3, -1, -1), 256)
    assert_close(encoder.pictures(grey, 256), rgb)
    assert_close(encoder.see(grey / 127.5 - 1), rgb, atol=1e-5, rtol=0)


def test_what_is_no_dual_encoder_is_refused(folder: tuple[Path, Any], make_run, tmp_path: Path):
    with pytest.raises(CheckpointError, match="neither a run of model: clip nor a folder"):
        open_encoder(str(tmp_path / "none"), SHAPE)
    with pytest.raises(ConfigError, match="a run of model: diffusion; expected one of model: clip"):
        open_encoder(str(make_run()), SHAPE)
    with pytest.raises(ConfigError, match=r"has learned pictures \(3, 32, 32\).*see \(3, 64, 64\)"):
        open_encoder(str(make_run(*CLIP)), (3, 64, 64))
    with pytest.raises(ConfigError, match="grey or RGB pictures, got 4 channels"):
        open_encoder(str(folder[0]), (4, 8, 8))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not readable as a CLIPModel"):
        open_encoder(str(tmp_path), SHAPE)
    weights = (folder[0] / "model.safetensors").read_bytes()
    part = {k: v for k, v in load(weights).items() if k != "logit_scale"}
    for name, damaged, message in (
        ("cut", weights[:-9], "not readable as a CLIPModel"),
        ("lacks", save(part, metadata={"format": "pt"}), "not there, such as logit_scale"),
    ):
        shutil.copytree(folder[0], tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=message):
            open_encoder(str(tmp_path / name), SHAPE)


# -- runs --------------------------------------------------------------------------------------


def test_a_run_scores_levels_and_cuts_captions_it_does_not_know(make_run):
    run = make_run(*CLIP)
    encoder = RunEncoder(run)
    images = drawn(2, 32, 32)
    x = images / 127.5 - 1
    assert_close(encoder.see(x), encoder.pictures(images, 256), atol=1e-6, rtol=1e-5)
    four = drawn(2, 32, 32, levels=4)
    assert_close(encoder.pictures(four, 4), encoder.pictures(85 * four, 256), atol=1e-6, rtol=1e-5)
    long, unknown, empty = encoder.captions(["star " * 99, "xyzzy", ""])
    assert_close(long, encoder.captions(["star " * encoder.length])[0])
    assert_close(unknown, empty)
    assert encoder.name == RunEncoder(run).name != RunEncoder(run, "model").name
    with pytest.raises(ConfigError, match=r"clip = .*, prompt = .* does not know 'xyzzy'"):
        Choice.of(SampleRequest(clip=str(run), prompt="xyzzy"), SHAPE)


# -- measures ----------------------------------------------------------------------------------


def test_score_is_100_times_the_cosine_and_never_negative():
    pictures = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    captions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert clip_scores(pictures, captions).tolist() == pytest.approx([100, 60, 0])


def vectors(*rows: list[float]) -> Tensor:
    """Pictures that `Named` sees at these points."""
    return ((torch.tensor(rows)[:, None, None] + 1) * 500).round().long()


def test_samples_are_scored_by_their_own_captions_beside_real_pictures():
    """Held out: a at (1, 0), b at (0, 1), a once more. The samples of rows 1 and 2 are one right,
    one drawn like the other caption."""
    encoder = Named({"a": [1.0, 0.0], "b": [0.0, 1.0]})
    real = vectors([1.0, 0.0], [0.0, 1.0], [0.8, 0.6])
    held_out = Pictures(real, None, 1001, (), 0, ("a", "b", "a"))
    images = vectors([0.6, 0.8], [0.6, 0.8])
    found = prompted(encoder, images, held_out, torch.tensor([1, 2]), ("b", "c"))
    assert found["clip_score"] == pytest.approx((80 + 60) / 2, abs=0.01)
    assert found["clip_score_held_out"] == pytest.approx((100 + 80) / 2, abs=0.01)
    assert (found["clip_retrieval_top1"], found["clip_retrieval_top1_held_out"]) == (0.5, 1.0)
    assert found["clip_retrieval_among"] == found["clip"]["captions"] == 2
    assert found["clip"]["captions_it_was_trained_on"] == 1
    unknown = prompted(encoder, images, held_out, torch.tensor([1, 2]), None)
    assert unknown["clip"]["captions_it_was_trained_on"] is None
    both = pairs(encoder, held_out, torch.tensor([0, 1, 2]))
    assert both["score"] == pytest.approx((100 + 100 + 80) / 3, abs=0.01)
    assert both["image_to_text_top1"] == both["text_to_image_top1"] == 1.0


def test_samples_of_a_run_are_judged_by_a_run_and_by_a_folder(make_run, folder):
    run, clip = make_run(*SCENES), make_run(*CLIP)
    result = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2, clip=str(clip)))
    assert result["clip"]["network"] == RunEncoder(clip).name
    assert result["clip"]["images"] == 6
    assert result["clip"]["captions_it_was_trained_on"] == 0
    assert result["clip_retrieval_among"] == 80
    assert 0 <= result["clip_score"] <= 100
    named = PANEL.evaluate(run, EvaluateRequest(n=6, steps=2, clip=str(folder[0])))["clip"]
    assert named["kind"] == "CLIPModel of transformers"
    assert named["captions_it_was_trained_on"] is None
    with pytest.raises(ConfigError, match="this model has none; train with"):
        PANEL.evaluate(make_run(), EvaluateRequest(n=6, steps=2, clip=str(clip)))


# -- the choice among candidates ---------------------------------------------------------------


def test_the_best_candidate_of_each_picture_is_kept():
    choice = Choice(Named({}), torch.tensor([1.0, 0.0]), candidates=3)
    rows = [[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    kept, scores = choice.best(vectors(*rows), 1001)
    assert kept.tolist() == [1, 3]
    expected = torch.tensor([[60.0, 80, 0], [100, 0, 100]])
    assert_close(scores, expected, atol=0.01, rtol=0)
    assert all_candidates([5, 7], choice.candidates) == [
        s + k * 2**41 for s in (5, 7) for k in range(3)
    ]


def test_the_best_of_candidates_that_all_point_away_is_the_nearest():
    choice = Choice(Named({}), torch.tensor([1.0, 0.0]), candidates=3)
    rows = [[-1.0, 0.0], [-0.6, 0.8], [-0.8, 0.6], [-0.6, 0.8], [-1.0, 0.0], [0.0, 1.0]]
    kept, scores = choice.best(vectors(*rows), 1001)
    assert kept.tolist() == [1, 5]
    assert_close(scores, torch.zeros(2, 3), atol=0.01, rtol=0)


def test_a_prompt_is_drawn_in_candidates_and_the_best_are_written(make_run, tmp_path: Path):
    run, clip = make_run(*SCENES, "train.lr=0.03", "train.steps=8"), make_run(*CLIP)
    request = SampleRequest(n=2, steps=2, seed=3, prompt=STAR, clip=str(clip), candidates=3)
    result = PANEL.sample(run, request, tmp_path)
    told = json.loads((tmp_path / "samples.json").read_text())
    scores = torch.tensor(told["clip"]["candidates"])
    assert scores.shape == (2, 3)
    assert told["clip"]["scores"] == scores.amax(1).tolist()
    assert result["clip_score"] == pytest.approx(float(scores.amax(1).mean()))
    assert told["clip"]["network"] == RunEncoder(clip).name
    assert (told["settings"]["clip"], told["settings"]["candidates"]) == (str(clip), 3)
    kept = np.load(tmp_path / "samples.npz")["images"]
    best = [3 + i + int(k) * 2**41 for i, k in enumerate(scores.argmax(1))]
    pipe = Pipeline.from_pretrained(run)
    alone = pipe(prompt=STAR, seeds=best, num_inference_steps=2, output_type="np").images
    assert_close(torch.from_numpy(kept) / 255, torch.from_numpy(alone).movedim(-1, 1))
    found = RunEncoder(clip)
    own = clip_scores(found.pictures(torch.from_numpy(kept), 256), found.captions([STAR]))
    assert_close(own, scores.amax(1), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"candidates": 0}, "candidates = 0: expected 1 or more"),
        ({"candidates": 2}, "by whose score?"),
        ({"clip_scale": 1.0}, "by whose score?"),
        ({"clip": "x", "clip_scale": float("nan")}, "expected a finite number"),
    ],
)
def test_impossible_choices_are_refused(asked: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        SampleRequest(**asked)


def test_a_choice_needs_words_and_is_known_at_the_end_only(make_run, tmp_path: Path):
    run, clip = make_run(*SCENES), str(make_run(*CLIP))
    with pytest.raises(ConfigError, match="give a prompt"):
        PANEL.sample(run, SampleRequest(n=1, clip=clip), tmp_path)
    watched = SampleRequest(n=1, clip=clip, prompt=STAR, candidates=2, trajectory=True)
    with pytest.raises(ConfigError, match="too late to watch it"):
        PANEL.sample(run, watched, tmp_path)


# -- guidance ----------------------------------------------------------------------------------


def test_guidance_adds_the_gradient_of_the_logit_of_the_picture_that_the_estimate_is():
    """By hand, for a denoiser that halves: x0_hat = x / 2, f = 2 cos(x0_hat, point)."""
    codec = Pixels(1001, (1, 1, 2), scale=3.0)
    choice = Choice(Named({}), torch.tensor([1.0, 0.0]))
    wrap = choice.guide(codec, 0.7)
    assert wrap is not None
    level = Cosine()(torch.tensor([0.4, 0.6]))
    x = torch.tensor([[0.5, -1.2], [0.3, 0.9]]).view(2, 1, 1, 2)

    def half(x_t: Tensor, level: Level, condition: Any = None, previous: Any = None) -> Tensor:
        return x_t / 2

    found = wrap(half, slice(0, 2))(x, level)
    a, b = x.view(2, 2).unbind(1)
    norm = (a**2 + b**2) ** 1.5
    slope = 2 * torch.stack([b**2 / norm, -a * b / norm], 1)  # of 2 a / |x|, blind to its length
    gain = 0.7 * (level.sigma**2 / level.alpha).view(2, 1)
    assert_close(found.view(2, 2), x.view(2, 2) / 2 + gain * slope)
    assert choice.guide(codec, 0.0) is None
    with pytest.raises(ConfigError, match="pictures of a Bits codec"):
        choice.guide(Bits(17, (1, 2, 2)), 1.0)


def test_pictures_led_by_an_encoder_score_higher_with_and_without_captions(make_run, tmp_path):
    clip = make_run(*CLIP, "train.steps=60", "train.batch=40", "train.lr=1e-2")
    plain = make_run("data.name=scene", "data.limit=80", "patch=8")
    for run in (make_run(*SCENES, "train.lr=0.03", "train.steps=8"), plain):
        scores = [
            PANEL.sample(
                run,
                SampleRequest(n=4, steps=16, prompt=STAR, clip=str(clip), clip_scale=scale),
                tmp_path / str(scale),
            )["clip_score"]
            for scale in (0.0, 0.3)
        ]
        assert scores[1] > scores[0] + 4
