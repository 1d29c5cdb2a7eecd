"""The report: one page that fetches nothing, escapes everything, and shows what a run holds."""

import base64
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared import runs
from shared.cli import main
from shared.curve import loss_curve, smoothed
from shared.errors import CheckpointError, ConfigError
from shared.exhibits import Lines, Picture, Steps, galleries, number
from shared.report import Check, measures, training_seconds, write_report
from shared.schema import write_yaml
from shared.train import checkpoint
from tests.toy import ToyPanel, toy_config

ROOT = Path(__file__).resolve().parents[2]
EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).split())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(autouse=True)
def toy_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "find_panel", lambda name: ToyPanel())


def make_run(folder: Path, line: str = "a red star", done: bool = True) -> Path:
    """A run folder as training, sampling and evaluation leave one, or as it is before all three."""
    folder.mkdir(parents=True)
    config = toy_config("train.steps=23")
    write_yaml(config, folder / "config.yaml")
    if not done:
        return folder
    rows = [log_row(step, 2.0 / step) for step in range(1, 24)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = ToyPanel().learner(config, folder).state_dict()
    checkpoint.save(folder, 23, dict.fromkeys(checkpoint.PARTS, weights), keep=2)
    samples = folder / "samples"
    samples.mkdir()
    Image.new("L", (31, 17), 200).save(samples / "grid.png")
    (samples / "samples.txt").write_text("".join(f"{line} {i}\n" for i in range(19)))
    request = {"settings": {"solver": "ddim", "class": None}, "seeds": [7, 8, 9]}
    (samples / "samples.json").write_text(json.dumps(request))
    measured = {"samples": 1234, "recall": 0.625, "recall_held_out": 0.75, "settings": {"seed": 5}}
    (folder / "evaluation.json").write_text(json.dumps(measured))
    return folder


def log_row(step: int, loss: float, seconds: float | None = None) -> dict[str, Any]:
    seconds = step / 2 if seconds is None else seconds
    return {"step": step, "loss": loss, "seconds": seconds, "samples_per_s": 11.0}


def test_page_shows_every_run_with_its_numbers_samples_and_configuration(tmp_path: Path):
    folders = [make_run(tmp_path / "first"), make_run(tmp_path / "second", line="a blue moon")]
    write_report(folders, tmp_path / "report.html", "Two runs", ["Read me."])
    page = Page(tmp_path / "report.html")
    for told in (
        *("Two runs", "Read me.", "first", "second", "23 of 23 steps", "a red star 0"),
        *("a blue moon 18", "3 more", "3 samples, seeds 7 to 9", "solver: ddim", "1,234"),
        *("recall 0.625 0.75", "weight_decay: 0.01", "12 s at 11 samples/s"),
    ):
        assert told in page.text, told
    assert "class: none" not in page.text
    assert page.tags.count("svg") == 2
    learner = ToyPanel().learner(toy_config(), tmp_path)
    assert f"parameters {sum(p.numel() for p in learner.parameters()):,}" in page.text


def test_page_refers_to_nothing_outside_itself(tmp_path: Path):
    folders = [make_run(tmp_path / "first"), make_run(tmp_path / "second")]
    write_report(folders, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    used = [v for n, v in page.attributes if n in ("src", "srcset", "href", "xlink:href", "data")]
    used += re.findall(r"url\(([^)]*)\)", page.html)
    assert len([v for v in used if v.startswith("data:image/png;base64,")]) == 2
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in used)
    assert "@import" not in page.html
    # namespaces are names, not addresses
    left = re.sub(r' xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", page.html)
    assert not re.findall(r"https?:", left)
    # what is referred to inside the page is there, once
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {v[1:] for v in used if v[0] == "#"} <= set(ids)


def test_everything_from_a_run_is_escaped(tmp_path: Path):
    run = make_run(tmp_path / "a<q>&c", line=EVIL)
    (run / "evaluation.json").write_text(json.dumps({EVIL: EVIL, "settings": {EVIL: EVIL}}))
    (run / "samples" / f"{EVIL.replace('/', '')}.txt").write_text(EVIL)
    request = {"settings": {EVIL: EVIL}, "seeds": [1]}
    (run / "samples" / "samples.json").write_text(json.dumps(request))
    steps = [{EVIL: EVIL}, {EVIL: "end"}]
    (run / "samples" / "trajectory.json").write_text(json.dumps(steps))
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"# {EVIL}\n")
    checks = [Check(EVIL, EVIL, EVIL, EVIL, True)]
    write_report([run], tmp_path / "report.html", EVIL, [EVIL], checks)
    page = Page(tmp_path / "report.html")
    assert "script" not in page.tags
    assert "q" not in page.tags
    assert "a<q>&c" in page.text
    # title twice, intro, check, caption, line names, lines, steps, measures, groups, configuration
    assert page.text.count(EVIL) >= 16 + 19


def test_picture_is_embedded_as_it_is(tmp_path: Path):
    run = make_run(tmp_path / "run")
    picture = next(
        e for g in galleries(run / "samples") for e in g.exhibits if isinstance(e, Picture)
    )
    data = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    assert data == (run / "samples" / "grid.png").read_bytes()
    assert (picture.width, picture.height) == (31, 17)


def test_run_without_samples_or_measures_says_how_to_make_them(tmp_path: Path):
    run = make_run(tmp_path / "new", done=False)
    write_report([run], tmp_path / "report.html")
    text = Page(tmp_path / "report.html").text
    assert f"diptych sample {run}" in text
    assert f"diptych evaluate {run}" in text
    assert "not yet saved, of 23 steps" in text
    assert "Nothing is logged yet." in text


def test_checks_say_met_not_met_or_nothing_under_their_subject(tmp_path: Path):
    checks = [
        Check("digits", "right", "97%", "at least 95%", True),
        Check("digits", "wrong", "3%", "at least 95%", False),
        Check("words", "distance", "1.2", "", None),
    ]
    run = make_run(tmp_path / "run")
    write_report([run], tmp_path / "report.html", checks=checks)
    text = Page(tmp_path / "report.html").text
    assert "digits right 97% at least 95% met wrong 3% at least 95% not met words distance" in text
    assert "goals: 1 of 2 met" in text


def test_samples_of_other_requests_are_shown_under_their_folder(tmp_path: Path):
    run = make_run(tmp_path / "run")
    other = run / "samples" / "filled-in"
    other.mkdir()
    (other / "samples.txt").write_text("one\n")
    (run / "samples" / "empty").mkdir()
    found = galleries(run / "samples")
    assert [gallery.name for gallery in found] == ["", "filled in"]
    assert found[1].exhibits == [Lines("Samples", ["one"], [])]
    write_report([run], tmp_path / "report.html")
    assert "Filled in one" in Page(tmp_path / "report.html").text


def test_trajectory_ends_at_the_last_row_and_marks_what_is_as_in_the_end(tmp_path: Path):
    texts = ["x", "x", *(f"a {i} c" for i in range(20)), "a b c", "a b c"]
    rows = [{"step": i, "logsnr": i / 3, "text": text} for i, text in enumerate(texts)]
    (tmp_path / "trajectory.json").write_text(json.dumps(rows))
    (tmp_path / "trajectory.txt").write_text("the same for people")
    (steps,) = galleries(tmp_path)[0].exhibits
    assert isinstance(steps, Steps)
    assert steps.head == ["step", "logsnr", "text"]
    assert len(steps.rows) == 10
    assert steps.rows[0][2] == [("x", False)]
    assert steps.rows[5][2][::2] == [("a", True), ("c", True)]
    assert not steps.rows[5][2][1][1]
    assert steps.rows[-1] == [[("22", True)], [("7.33", True)], [(w, True) for w in "abc"]]


def test_measure_stands_beside_the_same_of_real_data():
    found = measures(
        {
            "frechet_distance": 1.25,
            "frechet_floor": 0.5,
            "frechet_ratio": 2.5,
            "perplexity": 9.0,
            "perplexity_floor": 7.0,
            "perplexity_held_out": 8.0,
            "unigram_entropy": 4.0,
            "unigram_entropy_data": 4.125,
            "samples": 2048,
            "judge": {"accuracy": 0.96875},
        }
    )
    assert found.rows == [
        ("frechet distance", "1.25", "0.5"),
        ("frechet ratio", "2.5", ""),
        ("perplexity", "9", "8"),
        ("perplexity floor", "7", ""),
        ("unigram entropy", "4", "4.125"),
        ("samples", "2,048", ""),
    ]
    assert found.groups == {"judge": [("accuracy", "0.9688")]}


def test_numbers_are_written_for_people():
    told = [number(v) for v in (0.123456, 1234567, True, None, "word")]
    assert told == ["0.1235", "1,234,567", "yes", "none", "word"]
    assert number(1234567, "seed") == "1234567"


def test_training_time_counts_all_sessions_of_a_resumed_run():
    rows = [log_row(i, 1.0, seconds) for i, seconds in enumerate((3.0, 7.0, 2.0, 5.0, 1.5))]
    assert training_seconds(rows) == 7.0 + 5.0 + 1.5
    assert training_seconds([]) == 0


def test_trend_neither_lags_nor_bends_a_straight_fall():
    losses = [300.0 - 2 * i for i in range(97)]
    assert smoothed(losses) == pytest.approx(losses)
    assert smoothed([1.0, 5.0]) == [1.0, 5.0]
    zigzag = [float(i % 2) for i in range(97)]
    assert all(abs(x - 0.5) < 0.1 for x in smoothed(zigzag)[10:-10])


def test_rising_loss_of_a_fitted_density_is_explained_and_only_that(tmp_path: Path):
    for name, words in (("fitted", []), ("plain", ["diffusion.fit_density=false"])):
        run = make_run(tmp_path / name)
        write_yaml(toy_config("train.steps=23", *words), run / "config.yaml")
        write_report([run], tmp_path / f"{name}.html")
    assert "the mean may rise" in Page(tmp_path / "fitted.html").text
    assert "the mean may rise" not in Page(tmp_path / "plain.html").text


def test_curve_takes_the_colours_of_the_page():
    svg = loss_curve([log_row(i, 1.0 / i) for i in range(1, 40)], "run")
    assert "currentColor" in svg
    assert "var(--accent)" in svg
    assert not re.findall(r"(?:fill|stroke): #\w", svg)


def test_folder_that_is_not_a_run_is_named_and_nothing_is_written(tmp_path: Path):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    with pytest.raises(CheckpointError, match="not a run folder"):
        write_report([run, tmp_path], out)
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        write_report([tmp_path / "nowhere"], out)
    with pytest.raises(ConfigError, match="one run folder or more"):
        write_report([], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluation.json", "{"),
        ("evaluation.json", "[1]"),
        ("samples/samples.json", "3"),
        ("samples/trajectory.json", "{]"),
        ("samples/grid.png", "no picture"),
        ("log.jsonl", '{"step": 3}'),
    ],
)
def test_damaged_file_is_named_and_the_page_before_stays(tmp_path: Path, name: str, content: str):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    out.write_text("before")
    (run / name).write_text(content)
    with pytest.raises(CheckpointError, match=re.escape(str(run / name))):
        write_report([run], out)
    assert out.read_text() == "before"


def test_template_of_the_page_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "report.html.jinja" in project["tool"]["setuptools"]["package-data"]["shared"]


def test_command_writes_the_page_and_has_the_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run, out = make_run(tmp_path / "run"), tmp_path / "new" / "report.html"
    assert main(["report", str(run), "--out", str(out), "--title", "Mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "runs": [str(run)]}
    assert "Mine" in Page(out).text
    assert main(["report", str(tmp_path), "--out", str(out)]) == 3
    assert "not a run folder" in capsys.readouterr().err
    assert main(["report", "--out", str(out)]) == 2
    assert "one run folder or more" in capsys.readouterr().err
