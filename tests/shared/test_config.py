"""Configurations: one mechanism, unknown keys named, impossible values refused, round trips."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import TrainConfig, override, read_yaml, validate, write_yaml
from shared.errors import ConfigError
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
        ("train.steps=0", "train.steps = 0: expected a number above 0"),
        ("train.lr=-1e-3", "train.lr = -0.001"),
        ("train.lr=nan", "train.lr"),
        ("train.batch=2.5", "train.batch"),
        ("train.accumulation=3", "must be a multiple of"),
        ("train.zero_stage=4", "expected 0, 1, 2 or 3"),
        ("train.precision=fp8", "expected one of fp32, bf16"),
        ("train.keep=1", "keep two checkpoints or more"),
        ("train.ema=1.0", "train.ema"),
        ("train.seed=-1", "train.seed"),
        ("train=fast", "train"),
    ],
)
def test_bad_assignment_is_refused_and_named(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        toy_config(assignment)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_numbers_are_read_as_people_write_them(text: str):
    assert toy_config(f"train.lr={text}").train.lr == 0.001


def test_assignment_changes_its_key_alone_and_keeps_the_panels_defaults():
    config = toy_config("train.steps=7")
    assert config.train.steps == 7
    assert config.train.batch == ToyConfig().train.batch == 8
    assert config.net == ToyConfig().net


@pytest.mark.parametrize("assignment", ["train.steps", "=3", "panel.name=x"])
def test_what_is_no_assignment_is_refused(assignment: str):
    with pytest.raises(ConfigError):
        override({"panel": "toy"}, [assignment])


@pytest.mark.parametrize(
    "content", ["- a\n- b\n", "just words", "a: [1,", "!!python/name:os.system x"]
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_yaml(path)


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


@settings(max_examples=300, deadline=None)
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
