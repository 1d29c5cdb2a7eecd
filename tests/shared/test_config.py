"""Configurations: one mechanism, unknown keys named, impossible values refused, round trips."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import TrainConfig
from shared.errors import ConfigError
from shared.learner import build_schedule
from shared.schedule import (
    Cosine,
    Edm,
    Flow,
    Learned,
    Linear,
    ScaledLinear,
    Schedule,
    Shifted,
    Sigmoid,
    Sqrt,
    SubVp,
    Ve,
)
from shared.schema import override, read_yaml, validate, write_yaml
from tests.toy import ToyConfig, toy_config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.step=5", "unknown key train.step; did you mean train.steps?"),
        ("trian.steps=5", "unknown key trian; did you mean train"),
        ("net.dim=wide", "net.dim"),
        ("net.dim=10", "multiple of 2 x net.heads"),
        ("net.dropout=1", r"net.dropout = 1.0: expected a number in \[0, 1\)"),
        ("diffusion.schedule=cosin", "expected one of cosine, linear"),
        ("diffusion.logsnr_min=50", "must be below"),
        ("diffusion.drop_condition=1.5", "diffusion.drop_condition"),
        ("train.steps=0", "train.steps = 0: expected a finite number above 0"),
        ("train.lr=-1e-3", "train.lr = -0.001"),
        ("train.lr=nan", "train.lr"),
        ("train.batch=2.5", "train.batch"),
        ("train.accumulation=3", "must be a multiple of"),
        ("train.zero_stage=4", "expected 0, 1, 2 or 3"),
        ("train.precision=fp8", "expected one of fp32, bf16"),
        ("train.keep=1", "keep two checkpoints or more"),
        ("train.ema=1.0", "train.ema"),
        ("train.seed=-1", "train.seed"),
        ("train.warmup=-1", "train.warmup = -1: expected 0 or more"),
        ("train.weight_decay=-0.1", "train.weight_decay = -0.1: expected 0 or more"),
        ("train.betas=[0.9, 1.0]", r"train.betas = \(0.9, 1.0\): expected two numbers in \[0, 1\)"),
        ("train.lr=.inf", "train.lr = inf: expected a finite number above 0"),
        ("train.clip=.inf", "train.clip = inf"),
        ("diffusion.logsnr_max=.inf", "diffusion.logsnr_max = inf: expected a finite number"),
        ("diffusion.logsnr_min=-.inf", "diffusion.logsnr_min = -inf: expected a finite number"),
        ("diffusion.prediction=velocty", "did you mean velocity?"),
        (
            "diffusion.weighting=xyz",
            "expected one of x0, eps, v, velocity, edm, min_snr, p2, sigmoid, elbo$",
        ),
        ("train=fast", "train"),
    ],
)
def test_bad_assignment_is_refused_and_named(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        toy_config(assignment)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("0.001", 1e-3), ("1.0e-3", 1e-3), (".5", 0.5), ("2e+0", 2.0)],
)
def test_numbers_are_read_as_people_write_them_in_files_and_assignments(
    tmp_path: Path, text: str, number: float
):
    """YAML 1.1 reads 1e-3, without a point, as a string."""
    path = tmp_path / "config.yaml"
    path.write_text(f"train:\n  lr: {text}\n  betas: [{text}, {text}]\n")
    for values in (
        read_yaml(path),
        override({}, [f"train.lr={text}", f"train.betas=[{text}, .1]"]),
    ):
        assert values["train"]["lr"] == number
        assert values["train"]["betas"][0] == number


def test_whole_numbers_may_be_written_with_an_exponent(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("train:\n  steps: 2e3\n")
    assert validate(ToyConfig, read_yaml(path), "file").train.steps == 2000
    assert toy_config("train.steps=2e3").train.steps == 2000


@pytest.mark.parametrize("text", ["infinity", "nan", "e3", "1e", "v1e3", "1_0e"])
def test_words_stay_words(text: str):
    assert override({}, [f"name={text}"]) == {"name": text}


def test_assignment_changes_its_key_alone_and_keeps_the_panels_defaults():
    config = toy_config("train.steps=7")
    assert config.train.steps == 7
    assert config.train.batch == ToyConfig().train.batch == 8
    assert config.net == ToyConfig().net


@pytest.mark.parametrize(
    "assignment",
    ["train.steps", "=3", "panel.name=x", "a=[1,", "a=2026-13-45", "a=!!int x", ".a=1", "a..b=1"],
)
def test_what_is_no_assignment_is_refused(assignment: str):
    with pytest.raises(ConfigError):
        override({"panel": "toy"}, [assignment])


@pytest.mark.parametrize(
    "content",
    [
        "- a\n- b\n",
        "just words",
        "a: [1,",
        "!!python/name:os.system x",
        "a: 2026-13-45\n",
        "a: !!int x\n",
        "a: " + 500 * "[",
        "a: 1\nb: 2\na: 3\n",
    ],
    ids=lambda text: text[:20],
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_yaml(path)


def test_file_is_read_as_utf_8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "config.yaml"
    path.write_bytes("name: Malerei ÄÖ\n".encode())
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    assert read_yaml(path) == {"name": "Malerei ÄÖ"}
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="not a YAML file"):
        read_yaml(path)


def test_assignments_leave_the_mapping_they_are_laid_over_alone():
    below = {"a": {"b": {"c": 1}}}
    assert override(below, ["a.b.c=2"]) == {"a": {"b": {"c": 2}}}
    assert below == {"a": {"b": {"c": 1}}}


def test_every_bad_key_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        toy_config("train.step=5", "net.dims=8", "train.lr=fast")
    for expected in ("did you mean train.steps", "did you mean net.dim", "train.lr"):
        assert expected in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_yaml(tmp_path / "none.yaml")


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        dict,
        steps=st.integers(1, 10**6),
        lr=st.floats(1e-8, 1.0),
        clip=st.floats(1e-3, 1e3),
        ema=st.floats(0, 0.9999),
        seed=st.integers(0, 2**31 - 1),
        decay=st.sampled_from(["linear", "cosine", "none"]),
        zero_stage=st.integers(0, 3),
    )
)
def test_configuration_survives_its_yaml(
    tmp_path_factory: pytest.TempPathFactory, train: dict[str, Any]
):
    config = validate(ToyConfig, {"panel": "toy", "train": train}, "generated")
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    write_yaml(config, path)
    assert validate(ToyConfig, read_yaml(path), "again") == config


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["panel", "net", "train", "diffusion", "extra", "train.steps"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(list(TrainConfig.__annotations__)), inner, max_size=3
                )
            ),
            max_leaves=6,
        ),
    )
)
def test_any_mapping_is_a_configuration_or_a_clear_error(values: dict[str, Any]):
    try:
        config = validate(ToyConfig, values, "fuzz")
    except ConfigError:
        return
    assert config.train.steps >= 1


@settings(max_examples=120, deadline=None)
@given(st.lists(st.text(max_size=12) | st.from_regex(r"[a-z.]{1,9}=[-:0-9eE.\[\]{}!&*<>? a]{0,9}")))
def test_any_assignments_are_a_mapping_or_a_clear_error(assignments: list[str]):
    try:
        validate(ToyConfig, override({"panel": "toy"}, assignments), "fuzz")
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["schedule_options.rho=7"], "cosine has no option rho: expected one of logsnr_min"),
        (["schedule=edm", "schedule_options.roh=7"], r"no option roh: .*did you mean rho\?"),
        (["schedule=edm", "schedule_options.rho=-1"], r"schedule: rho = -1.0"),
        (["schedule=edm", "schedule_options.rho=fast"], "diffusion.schedule_options.rho"),
        (["schedule=edm", "logsnr_max=9"], "edm has no option logsnr_max"),
        (["schedule=linear", "logsnr_min=-9"], "linear has no option logsnr_min"),
        (["schedule_options.logsnr_max=9"], r"logsnr_max: this number is diffusion\.logsnr_max"),
        (["schedule=sigmoid", "schedule_options.start=4"], "start = 4.0 must be below end"),
        (["schedule=learned", "integral=true", "schedule_options.learn_ends=1"], "no option learn"),
        (["schedule=learned"], "diffusion.integral = false"),
        (["weighting=elbo"], "diffusion.integral = false"),
        (["schedule=learned", "integral=true", "shift=1"], "take the place of diffusion.shift"),
        (["schedule=learned", "integral=true", "uncertainty=true"], "without diffusion.uncert"),
        (["shift=.inf"], "diffusion.shift = inf"),
        (["times=lognormal"], r"diffusion.times = .*did you mean log_normal\?"),
        (["times_options.std=2"], "uniform has no option std: it has none"),
        (["times=log_normal", "times_options.sd=2"], r"no option sd: .*did you mean std\?"),
        (["times=log_normal", "times_options.std=0"], "std = 0.0 of training times"),
        (["fit_density=true", "integral=true"], "fits the times to the plain loss"),
        (["fit_density=true", "times=log_normal"], "fits the times to the plain loss"),
        (["fit_density=true", "uncertainty=true"], "fits the times to the plain loss"),
        (["fit_density=true", "schedule=learned", "integral=true"], "fits the times"),
        (["density_options.power=0.5"], "density_options: of what"),
        (["fit_density=true", "density_options.powr=1"], r"no option powr: .*did you mean power"),
        (["fit_density=true", "density_options.bins=1"], "bins = 1, .*expected 2 bins"),
        (["fit_density=true", "density_options.power=0"], "power = 0.0: expected"),
        (
            ["prediction=v", "evidence=false", "weigh_cross_entropy=true"],
            "whose loss is weighted anyway",
        ),
    ],
)
def test_numbers_that_a_schedule_or_a_loss_cannot_have_are_refused(
    assignments: list[str], message: str
):
    with pytest.raises(ConfigError, match=message):
        toy_config("diffusion.fit_density=false", *(f"diffusion.{a}" for a in assignments))


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([], Cosine(-12.0, 12.0)),
        (["logsnr_min=-7", "schedule_options.s=0.008"], Cosine(-7.0, 12.0, s=0.008)),
        (["schedule=linear"], Linear(logsnr_max=12.0)),
        (["schedule=linear", "schedule_options.beta_max=12"], Linear(0.1, 12.0, 12.0)),
        (["schedule=scaled_linear"], ScaledLinear(logsnr_max=12.0)),
        (["schedule=sqrt"], Sqrt(-12.0, 12.0)),
        (["schedule=sigmoid", "schedule_options.tau=0.9"], Sigmoid(-12.0, 12.0, tau=0.9)),
        (["schedule=ve", "schedule_options.sigma_max=90"], Ve(0.01, 90.0)),
        (["schedule=sub_vp"], SubVp(logsnr_max=12.0)),
        (["schedule=edm"], Edm()),
        (["schedule=flow", "shift=-2.2"], Shifted(Flow(-12.0, 12.0), -2.2)),
    ],
)
def test_a_configuration_names_any_schedule_with_its_numbers(
    assignments: list[str], expected: Schedule
):
    assert (
        build_schedule(toy_config(*(f"diffusion.{a}" for a in assignments)).diffusion) == expected
    )


def test_a_configuration_names_a_learned_schedule():
    words = ("schedule=learned", "integral=true", "fit_density=false", "schedule_options.hidden=5")
    schedule = build_schedule(toy_config(*(f"diffusion.{word}" for word in words)).diffusion)
    assert isinstance(schedule, Learned)
    assert schedule.ends.tolist() == [12, -12]
    assert not schedule.ends.requires_grad
    assert len(schedule.height) == 5
