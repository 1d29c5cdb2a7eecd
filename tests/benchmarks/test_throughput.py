"""What the benchmark counts, and that both sides of its comparisons compute the same."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import measure, sampling_speed, training_speed, unet_speed
from benchmarks.bare import Bare
from benchmarks.recipe import Recipe, prepare
from benchmarks.tables import Column, Table
from benchmarks.throughput import run
from shared.train.engine import set_up
from tests.toy import ToyExamples, ToyPanel, toy_config


@pytest.fixture
def toy(tmp_path: Path) -> Recipe:
    set_up()
    config = toy_config("net.dropout=0")
    return Recipe("toy", ToyPanel(), config, tmp_path, ToyExamples())


def test_flops_are_those_of_products_and_attention_both_ways():
    B, H, L, D, out = 2, 3, 5, 8, 7
    x = torch.randn(B, H, L, D, requires_grad=True)
    weight = torch.randn(out, D)  # without gradient: its product is not made

    def task() -> None:
        F.linear(F.scaled_dot_product_attention(x, x, x), weight).sum().backward()

    product = 2 * B * H * L * D * out
    scores = 2 * B * H * L * L * D
    # attention: two products forward; backward, the scores again and two for each of them
    assert measure.flops(task) == 2 * product + 2 * scores + 5 * scores


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_bare_loop_trains_as_the_suite_does(toy: Recipe, zero_stage: int):
    trainer = toy.trainer(zero_stage=zero_stage)
    bare = Bare(toy.config.train, toy.learner(toy.config), toy.examples)
    try:
        pairs = [(trainer.update()[0], bare.update()) for _ in range(8)]
        average = trainer.engine.state()["ema"]
    finally:
        trainer.engine.close()
    assert pairs[-1][0] < pairs[0][0]
    for ours, plain in pairs:
        assert ours == pytest.approx(plain, abs=1e-6)
    for name, mean in zip(trainer.engine.names, bare.average, strict=True):
        torch.testing.assert_close(average[name], mean)


def test_ratio_is_of_minima_and_of_neighbouring_runs():
    least, middle = measure.ratio([2.0, 6.0, 9.0], [4.0, 2.0, 6.0])
    assert (least, middle) == (1.0, 1.5)


def test_training_runs_below_the_speed_of_matrix_products(
    toy: Recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "GEMM_SIZES", (256, 512))  # bf16 is slow on some processors
    rows = training_speed.training([toy], seconds=0).rows
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert 0 < row["share"] < 1
        assert row["tokens_per_s"] == pytest.approx(5 * row["samples_per_s"])


def test_u_net_is_measured_beside_one_of_as_many_parameters(
    toy: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unet_speed.shutil, "which", lambda _: None)  # no compiler, no minute of it
    settings = (
        "network=unet", "unet.channels=[8, 16]", "unet.layers=1", "unet.attention=[1]",
        "unet.head_dim=8", "diffusion.self_condition=false", "train.batch=4",
    )  # fmt: skip
    recipe = prepare("image/digits", tmp_path / "unet", settings)
    rows = unet_speed.unet([toy, recipe], seconds=0).rows  # the toy has none
    steps = ["diffusers", "ours", "diffusers, channels last", "ours, channels last"]
    assert [row["step"] for row in rows] == steps
    assert len({row["parameters"] for row in rows}) == 1
    assert rows[0]["ratio"] == rows[0]["ratio_median"] == 1


def test_markdown_formats_numbers_and_leaves_gaps_for_what_is_not_there():
    columns = (Column("name", "who"), Column("share", "share", ".1%"))
    table = Table("T", "note", columns, [{"name": "a", "share": 0.123}, {"name": "b"}])
    assert table.markdown().splitlines()[4:] == [
        "| who | share |",
        "| --- | ---: |",
        "| a | 12.3% |",
        "| b | - |",
    ]


def test_command_writes_numbers_and_page_and_names_what_it_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampling_speed, "BATCH", 2)
    monkeypatch.setattr(sampling_speed, "STEPS", 2)
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    run(
        recipes=("image/no_such", "image/digits"),
        parts=("sampling",),
        seconds=0,
        json_file=numbers,
        markdown=page,
    )
    written = json.loads(numbers.read_text())
    assert written["about"]["threads"] == 1
    assert "image/no_such" in written["about"]["skipped"]
    (row,) = written["sampling"]
    assert row["recipe"] == "image/digits"
    assert row["loop_ms"] > 0
    assert "| image/digits |" in page.read_text()
    assert "image/no_such" in page.read_text()
