"""The command from outside: exit codes, messages, JSON, and both panels end to end."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from shared.cli import main

ROOT = Path(__file__).resolve().parents[1]
TINY_IMAGE = ["train.steps=3", "train.batch=8", "net.dim=16", "net.depth=1", "net.heads=2"]
TINY_TEXT = [*TINY_IMAGE, "data.limit=300"]


class Result(NamedTuple):
    """What the command printed, and how it ended."""

    code: int
    out: str
    err: str


def diptych(*words: str | Path) -> Result:
    """The command in this process, as the shell would see it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stopped:  # tyro's own errors
            code = stopped.code
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


def told(result: Result) -> dict[str, Any]:
    """What a verb printed with --json."""
    assert result.code == 0, result.err
    return json.loads(result.out)


def assert_refused(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    for word in words:
        assert word in result.err


@pytest.fixture(scope="module")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "run"
    words = ["train", "image/digits", f"run={folder}", *TINY_IMAGE, "--json"]
    assert told(diptych(*words))["step"] == 3
    return folder


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "run"
    words = ["train", "text/scene", f"run={folder}", *TINY_TEXT, "--json"]
    assert told(diptych(*words))["step"] == 3
    return folder


def test_image_run_samples_every_class_and_tells_its_status(image_run: Path, tmp_path: Path):
    words = ["-n", "10", "--steps", "2", "--class", "all", "--trajectory", "--out", tmp_path]
    told(diptych("sample", image_run, *words, "--json"))
    for name in ("grid.png", "trajectory.png", "samples.json"):
        assert (tmp_path / name).stat().st_size > 0
    status = told(diptych("status", image_run, "--json"))
    assert status["checkpoint"] == status["steps"] == 3


def test_text_run_samples_sentences_and_keeps_the_given_words(text_run: Path, tmp_path: Path):
    words = ["-n", "3", "--steps", "2", "--given", "a red [MASK] [MASK]", "--out", tmp_path]
    told(diptych("sample", text_run, *words, "--json"))
    sentences = (tmp_path / "samples.txt").read_text().splitlines()
    assert len(sentences) == 3
    assert all(sentence.startswith("a red ") for sentence in sentences)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["image/digit"], "did you mean image/digits?"),
        (["image/digits", "train.step=5"], "did you mean train.steps?"),
        (["image/digits", "train.steps=0"], "train.steps"),
        (["image/digits", "train.lr=-1"], "train.lr"),
        (["image/digits", "train.lr=fast"], "train.lr"),
        (["image/digits", "diffusion.prediction=w"], "diffusion.prediction"),
        (["text/scene", "data.length=1"], "data.length"),
        (["image/digits", "train.steps"], "expected key=value"),
        (["image/digits", "network=unet", "unet.channels=[12]"], "unet.channels"),
        (["image/digits", "unet.layers=3"], "add network=unet"),
    ],
)
def test_impossible_configuration_is_refused_with_code_2(
    words: list[str], expected: str, tmp_path: Path
):
    result = diptych("train", *words, f"run={tmp_path / 'run'}")
    assert_refused(result, 2, expected)
    assert list(tmp_path.iterdir()) == []


def test_unet_over_bits_trains_from_the_command(tmp_path: Path):
    run = tmp_path / "run"
    unet = ["network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.head_dim=8"]
    unet += ["unet.attention=[1]", "train.batch=8", "train.steps=2"]
    told(diptych("train", "image/digits_bits", f"run={run}", *unet, "--json"))
    told(diptych("sample", run, "-n", "3", "--steps", "2", "--class", "7", "--json"))
    assert told(diptych("status", run, "--json"))["checkpoint"] == 2


def test_unet_of_more_levels_than_the_picture_halves_is_refused_with_code_2(tmp_path: Path):
    unet = ["network=unet", "unet.channels=[8, 8, 8, 8, 8]", "unet.attention=[]"]
    result = diptych("train", "image/digits", f"run={tmp_path / 'run'}", *unet)
    assert_refused(result, 2, "5 levels halve", "at most 4 levels")


def test_missing_data_is_refused_with_code_3_and_leaves_nothing(tmp_path: Path):
    words = ["image/fashion_mnist", f"data.name={tmp_path / 'nowhere'}", f"run={tmp_path / 'run'}"]
    assert_refused(diptych("train", *words), 3, "nowhere")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_run_that_was_refused_can_be_begun_again_put_right(tmp_path: Path):
    words = ["image/digits", f"run={tmp_path / 'run'}", *TINY_IMAGE]
    assert_refused(diptych("train", *words, "patch=3"), 2, "patch = 3")
    assert told(diptych("train", *words, "patch=2", "--json"))["step"] == 3
    before = sorted(tmp_path.rglob("*"))
    assert_refused(diptych("train", *words, "patch=4"), 2, "another configuration")
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_that_is_not_a_run_is_refused_with_code_3(tmp_path: Path):
    for verb in ("sample", "evaluate", "status"):
        assert_refused(diptych(verb, tmp_path), 3, "not a run folder")


def test_class_and_word_that_do_not_exist_are_refused(image_run: Path, text_run: Path):
    result = diptych("sample", image_run, "--seed", str(2**63))
    assert_refused(result, 2, "seed = 9223372036854775808")
    result = diptych("sample", image_run, "--class", "eleven")
    assert_refused(result, 2, "eleven")
    result = diptych("sample", text_run, "--given", "a xylophone [MASK]")
    assert_refused(result, 2, "xylophone")


def test_unknown_flag_is_refused_with_code_2():
    assert diptych("train", "image/digits", "--stepz", "3").code == 2


def test_run_in_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    words = ["image/digits", f"run={tmp_path / 'file' / 'run'}", *TINY_IMAGE]
    assert_refused(diptych("train", *words), 3, "file")


def test_data_lists_both_panels_with_their_configurations():
    listed = told(diptych("data", "--json"))
    assert {"image/digits", "image/fashion_mnist"} <= set(listed["image"]["configs"])
    assert {"text/scene", "text/e2e"} <= set(listed["text"]["configs"])
    assert "digits" in listed["image"]["datasets"]
    assert "scene" in listed["text"]["datasets"]


def test_pairs_of_scenes_are_written_once_and_trained_on_from_their_captions(tmp_path: Path):
    folder, run = tmp_path / "pairs", tmp_path / "run"
    written = told(diptych("data", "scene", folder, "-n", "60", "--seed", "5", "--json"))
    assert (written["n"], written["columns"]) == (60, ["scene", "file_name", "text"])
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len({row["file_name"] for row in rows}) == 60
    assert all((folder / row["file_name"]).is_file() for row in rows)
    again = diptych("data", "scene", folder, "-n", "60")
    assert_refused(again, 2, str(folder), "something already")
    words = ["image/captioned", f"data.name={folder}", f"run={run}", *TINY_IMAGE]
    assert told(diptych("train", *words, "--json"))["step"] == 3
    drawn = ["-n", "2", "--steps", "2", "--prompt", "a square", "--guidance", "2"]
    told(diptych("sample", run, *drawn, "--json"))
    assert_refused(diptych("sample", run, "--prompt", "a quare"), 2, "quare", "square")


def test_pairs_of_a_part_of_the_world_are_those_of_the_whole_that_fit(tmp_path: Path):
    """And the first of them in the stream."""
    only = ["--only", "count=1", "--only", "tone=formal"]
    part, whole = tmp_path / "part", tmp_path / "whole"
    told(diptych("data", "scene", part, "-n", "6", "--seed", "5", *only, "--json"))
    told(diptych("data", "scene", whole, "-n", "150", "--seed", "5", "--json"))
    scenes = [
        [json.loads(line)["scene"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
        for folder in (part, whole)
    ]
    fitting = [one for one in scenes[1] if one.startswith("formal ") and one.count(",") == 1]
    assert scenes[0] == fitting[:6]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["scenes", "x"], "diptych data scene DIR"),
        (["scene"], "diptych data scene DIR"),
        (["scene", "x", "-n", "0"], "n = 0"),
        (["scene", "x", "--size", "40"], "multiple of 32"),
        (["scene", "x", "--split", "valid"], "train, validation, test"),
        (["scene", "x", "--seed", "-1"], "seed = -1"),
        (["scene", "x", "--only", "count=7"], "'7': expected 1, 2, 3"),
        (["scene", "x", "--only", "colour=red"], "count, tone, audience"),
        (
            ["scene", "x", "--only", "count=1", "--only", "count=2"],
            "count=2: expected each name once",
        ),
    ],
)
def test_pairs_that_cannot_be_written_are_refused(words, expected: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(diptych("data", *words), 2, expected)
    assert list(tmp_path.iterdir()) == []


def test_groups_are_guided_from_the_command(tmp_path: Path):
    run = tmp_path / "run"
    words = ["image/scene_layout_texture", f"run={run}", "data.limit=30", *TINY_IMAGE]
    told(diptych("train", *words, "--json"))
    ask = ["-n", "2", "--steps", "2", "--class", "all", "--guidance"]
    told(diptych("sample", run, *ask, "layout=2,texture=3", "--json"))
    settings = json.loads((run / "samples" / "samples.json").read_text())["settings"]
    assert settings["guidance"] == {"layout": 2.0, "texture": 3.0}
    assert_refused(diptych("sample", run, *ask, "layuot=2"), 2, "did you mean layout?")
    assert diptych("sample", run, *ask, "layout=two").code == 2


def test_figures_are_drawn_and_measured_from_the_command(tmp_path: Path):
    run = tmp_path / "run"
    words = ["image/figures", f"run={run}", "data.limit=30", "patch=8", *TINY_IMAGE]
    told(diptych("train", *words, "judge.train.steps=2", "judge.width=8", "--json"))
    ask = ["-n", "2", "--steps", "2", "--guidance", "layout=2,texture=3", "--class"]
    told(diptych("sample", run, *ask, "stripe upper, denim lower", "--json"))
    written = json.loads((run / "samples" / "samples.json").read_text())
    assert written["condition"] == ["stripe upper, denim lower"] * 2
    assert_refused(diptych("sample", run, *ask, "stripe uper"), 2, "did you mean upper?")
    measured = told(diptych("evaluate", run, "-n", "10", "--steps", "2", "--json"))
    assert {"layout_iou", "texture_agreement", "compositional"} <= set(measured)


def test_deepspeed_launcher_trains_on_two_processes(tmp_path: Path):
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
    words = ["--module", "diptych", "train", "image/digits", f"run={run}", *TINY_IMAGE]
    result = subprocess.run(
        [*launcher, "--master_port", "29731", *words],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert told(diptych("status", run, "--json"))["checkpoint"] == 3


# -- folders of diffusers ----------------------------------------------------------------------

PLAIN_UNET = [
    "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.head_dim=8",
    "unet.attention=[]", "diffusion.self_condition=false", "diffusion.scale_input=false",
    "train.batch=8", "train.steps=2",
]  # fmt: skip


def test_a_run_is_exported_and_its_folder_samples_as_it_does(tmp_path: Path):
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    run, folder = tmp_path / "run", tmp_path / "folder"
    told(diptych("train", "image/digits", f"run={run}", *PLAIN_UNET, "--json"))
    result = told(diptych("export", run, folder, "--json"))
    assert result == {"folder": str(folder), "pipeline": "ConsistencyModelPipeline"}
    assert type(DiffusionPipeline.from_pretrained(folder)).__name__ == result["pipeline"]
    words = ["-n", "4", "--steps", "5", "--solver", "ddim", "--class", "all", "--json"]
    drawn = []
    for source in (run, folder):
        written = told(diptych("sample", source, *words))
        drawn.append(np.load(written["images"]))
    assert np.array_equal(drawn[0]["condition"], drawn[1]["condition"])
    assert int(np.abs(drawn[0]["images"].astype(int) - drawn[1]["images"]).max()) <= 15  # a level
    assert_refused(diptych("export", run, folder), 2, "folder exists")


def test_what_cannot_be_exported_is_refused_with_code_2(
    image_run: Path, text_run: Path, tmp_path: Path
):
    out = tmp_path / "out"
    result = diptych("export", image_run, out)
    assert_refused(result, 2, "not representable in diffusers", "network=unet")
    assert_refused(diptych("export", text_run, out), 2, "for runs of the image panel")
    assert_refused(diptych("export", image_run, out, "--timesteps", "1"), 2, "timesteps = 1")
    assert_refused(diptych("export", tmp_path, out), 3, "not a run folder")
    assert not out.exists()


def test_a_stable_diffusion_folder_samples_from_a_prompt_and_goes_on(tmp_path: Path):
    from tests.folders import stable_diffusion

    stable_diffusion(tmp_path / "sd")
    words = ["-n", "3", "--steps", "2", "--prompt", "a hat", "--guidance", "4", "--json"]
    written = told(diptych("sample", tmp_path / "sd", *words, "--negative-prompt", "dim"))
    assert np.load(written["images"])["images"].shape == (3, 3, 16, 16)
    settings = json.loads((tmp_path / "sd" / "samples" / "samples.json").read_text())["settings"]
    assert (settings["prompt"], settings["negative_prompt"]) == ("a hat", "dim")
    out = tmp_path / "copy"
    assert told(diptych("export", tmp_path / "sd", out, "--json"))["pipeline"].startswith("Stable")
    told(diptych("sample", out, *words))
    assert_refused(diptych("sample", out, "--class", "3"), 2, "this model draws from captions")


def test_a_prompt_for_a_model_of_classes_and_a_negative_one_for_sentences_are_refused(
    image_run: Path, text_run: Path
):
    result = diptych("sample", image_run, "--negative-prompt", "a hat")
    assert_refused(result, 2, "negative_prompt: this model was trained without captions")
    result = diptych("sample", text_run, "--negative-prompt", "a hat")
    assert_refused(result, 2, "negative_prompt: for pictures")


def test_a_classifier_that_is_not_there_or_of_no_use_is_refused(image_run: Path, text_run: Path):
    result = diptych("sample", image_run, "--class", "3", "--classifier-scale", "2")
    assert_refused(result, 2, "classifier_scale = 2.0", "none is named")
    result = diptych("sample", image_run, "--class", "3", "--classifier", image_run)
    assert_refused(result, 2, "a classifier of noisy pictures", "image/digits_classifier")
    result = diptych("sample", text_run, "--classifier", image_run)
    assert_refused(result, 2, "classifiers of noisy pictures only")
