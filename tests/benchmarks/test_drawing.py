"""The benchmark of drawing: every run draws as many pictures; what draws none is refused."""

import json
from pathlib import Path

import pytest

from benchmarks.drawing import run
from image.panel import PANEL
from image.pipeline import Pipeline
from shared.errors import ConfigError
from shared.train.loop import train
from tests.image.conftest import image_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("runs") / name for name in ("pixels", "bits", "judge")}
    train(image_config("train.steps=2"), made["pixels"], PANEL, quiet=True)
    train(image_config("codec.kind=bits", "train.steps=2"), made["bits"], PANEL, quiet=True)
    train(image_config("model=classifier", "train.steps=2"), made["judge"], PANEL, quiet=True)
    return made


def test_runs_draw_as_many_pictures_in_turn(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    drawn: list[tuple[int, int, int]] = []
    draw = Pipeline.__call__

    def spied(self: Pipeline, *args, **kwargs):
        output = draw(self, *args, **kwargs)
        drawn.append((id(self), len(output.images), kwargs["num_inference_steps"]))
        return output

    monkeypatch.setattr(Pipeline, "__call__", spied)
    file = tmp_path / "drawing.json"
    run((runs["pixels"], runs["bits"]), n=3, steps=2, seconds=0, json_file=file)
    assert {told[1:] for told in drawn} == {(3, 2)}
    one, other = dict.fromkeys(told[0] for told in drawn)
    assert [told[0] for told in drawn] == [one, other] * (len(drawn) // 2)
    rows = json.loads(file.read_text())["rows"]
    assert [row["codec"] for row in rows] == ["pixels", "bits"]
    assert [row["latents"] for row in rows] == ["1 x 8 x 8", "1 x 8 x 8 x 5"]  # 17 levels
    assert rows[0]["over_first"] == rows[0]["over_first_median"] == 1
    assert rows[1]["over_first"] == rows[1]["seconds"] / rows[0]["seconds"]
    assert all(0 < row["decoder_seconds"] < row["seconds"] for row in rows)
    assert "3 pictures in 2 steps" in capsys.readouterr().out


def test_what_does_not_draw_is_refused(runs: dict[str, Path]):
    with pytest.raises(ConfigError, match="it draws nothing"):
        run((runs["judge"],))
    with pytest.raises(ConfigError, match="runs = 0"):
        run(())
