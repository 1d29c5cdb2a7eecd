"""Targets of each kind, taken from sentences that satisfy them, and the whole measurement."""

import itertools
import json
from pathlib import Path

import pytest

from benchmarks.controls import KINDS, run, targets
from shared.configs import load_config
from shared.train.loop import train
from text import teller
from text.control.evaluation import measure
from text.control.world import SceneWorld
from text.panel import PANEL
from text.pipeline import Pipeline

TINY = (
    "data.limit=300", "net.dim=16", "net.depth=1", "net.heads=2", "train.batch=8", "train.steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def scene_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "scene"
    train(load_config("text/scene", TINY)[2], folder, PANEL, quiet=True)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_satisfies_the_targets_made_of_it(kind: str, scene_run: Path):
    world = SceneWorld(Pipeline.from_pretrained(scene_run).tokenizer)
    sentences = list(itertools.islice(teller.stream(3, "validation"), 5))
    asked = targets(kind, sentences)
    own = measure(asked, [[sentence] for sentence in sentences], world)
    assert own["all"] == own["all_and_grammatical"] == 1
    other = measure(asked, [["there is nothing ."]] * len(asked), world)
    assert other["all"] < 0.5


def test_every_kind_is_measured_at_each_number_of_steps(scene_run: Path, tmp_path: Path):
    file, page = tmp_path / "found.json", tmp_path / "found.md"
    run(scene_run, count=2, n=2, steps=(4, 2), free=8, json_file=file, markdown=page)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["control"], row["steps"]) for row in rows] == [
        (kind, steps) for kind in KINDS for steps in (4, 2)
    ]
    assert all(row["forward"] == row["steps"] for row in rows)
    assert all(row["all"] == 1 for row in rows if row["control"] in ("length", "beginning"))
    assert all(len(target["texts"]) == 2 for row in rows for target in row["targets"])
    assert page.read_text().count("| asked | sentence |") == len(KINDS)
