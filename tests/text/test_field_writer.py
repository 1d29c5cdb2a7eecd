"""The writer of restaurant descriptions: fields, what a sentence says of them, and refusals."""

import csv
import itertools
import json
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.requests import WriteRequest
from tests.test_command import assert_refused, diptych, told
from text.pipeline import Pipeline
from text.writer import FILE, write
from text.writers.fields import Form, field_writer, read_fields, read_form
from text.writers.wanted import Wanted

NAMES, FOODS = ("Blue Spice", "Zizzi", "The Mill"), ("Chinese", "Fast food")
PRICES = {"cheap": "is cheap", "less than £20": "costs under £ 20"}
FAMILIES = {"yes": "is for families", "no": "is not for kids"}


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = tmp_path_factory.mktemp("fields") / "venues.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["mr", "tokens"])
        for name, food, price, family in itertools.product(NAMES, FOODS, PRICES, FAMILIES):
            rest = f"{name} has {food} food"
            short = f"name[{name}], food[{food}]"
            rows.writerow([short, f"{rest} ."])
            more = f"{short}, priceRange[{price}], familyFriendly[{family}]"
            rows.writerow([more, f"{rest} , {PRICES[price]} and {FAMILIES[family]} ."])
    return make_run(
        f"data.name={table}", "data.column=tokens", "data.source=mr", "data.source_signs=true",
        "data.source_length=32", "net.cross_attention=true", "net.source_depth=1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pipe(run: Path) -> Pipeline:
    return Pipeline.from_pretrained(run)


@pytest.fixture(scope="module")
def form(pipe: Pipeline) -> Form:
    return read_form(pipe.config.data)


def test_the_training_sources_say_what_there_is(form: Form):
    assert list(form.values) == ["name", "food", "priceRange", "familyFriendly"]
    assert set(form.values["priceRange"]) == {"cheap", "less than £ 20"}
    assert form.always == ("name", "food")
    assert form.fewest == 2
    assert form.venues == set(NAMES)


def test_a_message_is_fields_whatever_their_capitals_and_blanks(form: Form):
    found = read_fields("food: fast FOOD, price range: less than £20,name[blue spice ]", form)
    assert found == {"food": "Fast food", "priceRange": "less than £ 20", "name": "Blue Spice"}
    spelt = "name[Blue Spice], food[Fast food], priceRange[less than £ 20]"
    assert form.spell(found) == spelt


def test_the_model_is_given_the_source_that_is_asked_for(pipe: Pipeline):
    asked = WriteRequest(
        n=1, seed=3, steps=4, message="food: Chinese, name: Zizzi", tone="cheap", audience="adults"
    )
    found = write(pipe, asked)
    source = "name[Zizzi], food[Chinese], priceRange[cheap], familyFriendly[no]"
    assert found["source"] == source
    assert found["texts"] == pipe(1, 4, prompt=source, seeds=[3]).texts


def test_every_field_that_is_asked_for_is_looked_for(pipe: Pipeline):
    wanted = Wanted("name: Zizzi, food: Chinese", "cheap", "family")
    told_of = field_writer(pipe, WriteRequest(), wanted).told
    fields = ("name", "food", "priceRange", "familyFriendly")
    right = "Zizzi has Chinese food , is cheap and is for families ."
    assert told_of(right) == dict.fromkeys((*fields, "fields", "nothing_else", "all"), 1.0)
    other = told_of("Zizzi has Chinese food , is cheap and is not for kids .")
    assert other == told_of(right) | {"familyFriendly": 0.0, "fields": 0.0, "all": 0.0}
    more = told_of("Zizzi by the river has Chinese food , is cheap and is for families .")
    assert more == told_of(right) | {"nothing_else": 0.0, "all": 0.0}


def test_each_sentence_of_a_paragraph_says_what_no_source_is_without(pipe: Pipeline):
    def parts(message: str, tone: str | None, least: int) -> list[list[str]]:
        writer = field_writer(pipe, WriteRequest(), Wanted(message, tone, "family"))
        form = Form(writer.form.values, ("name",), least)
        own = type(writer)(pipe, WriteRequest(), form, writer.fields)
        return [list(part.fields) for part in own.parts()]

    message = "name: Zizzi, food: Chinese"
    assert parts(message, "cheap", 2) == [
        ["name", "food"], ["name", "priceRange"], ["name", "familyFriendly"],
    ]  # fmt: skip
    whole = ["name", "food", "priceRange", "familyFriendly"]
    assert parts(message, "cheap", 3) == [whole] * 3


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted("food: Thai, name: Zizzi", None, None), "food = 'Thai': expected one of .*Fast"),
        (Wanted("colour: red", None, None), "field = 'colour': expected one of name, food"),
        (Wanted("somewhere nice", None, None), "expected fields, FIELD: VALUE"),
        (Wanted("name: Zizzi", None, None), "no source of the training data is without food"),
        (Wanted("name: Zizzi, name: The Mill", None, None), "name is Zizzi and The Mill"),
        (Wanted("name: Zizzi, food: Chinese", "rude", None), "tone = 'rude': expected one of .*£"),
        (Wanted("name: Zizzi", None, "dogs"), "audience = 'dogs': expected one of family, adults"),
        (Wanted("priceRange: cheap", "less than £20", None), "tone, message: priceRange is asked"),
        (Wanted("", None, None), "say a message, a tone or an audience"),
    ],
)
def test_what_the_data_do_not_have_is_refused(wanted: Wanted, message: str, pipe: Pipeline):
    with pytest.raises(ConfigError, match=message):
        field_writer(pipe, WriteRequest(), wanted)


def test_what_does_not_apply_is_refused(pipe: Pipeline, make_run):
    wanted = Wanted("name: Zizzi, food: Chinese", None, None)
    with pytest.raises(ConfigError, match="control_scale: of words that sentences must hold"):
        field_writer(pipe, WriteRequest(control_scale=2), wanted)
    with pytest.raises(ConfigError, match="strength: of variations"):
        field_writer(pipe, WriteRequest(strength=0.5), wanted)


def test_sources_that_are_no_fields_are_refused(make_run, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("mr,tokens\n" + "a red star,there is a star .\n" * 40, encoding="utf-8")
    run = make_run(
        f"data.name={table}", "data.column=tokens", "data.source=mr", "net.cross_attention=true",
        "net.source_depth=1", "train.steps=2",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="this run's are others: 'a red star'"):
        write(Pipeline.from_pretrained(run), WriteRequest(tone="cheap"))


def test_the_command_writes_and_varies_descriptions(run: Path, tmp_path: Path):
    words = ["--message", "name: Zizzi, food: Chinese", "--audience", "family", "-n", "2"]
    how = ["--steps", "4", "--guidance", "2", "--out", tmp_path, "--json"]
    found = told(diptych("write", run, *words, "--surest", "2", *how))
    assert {"name", "food", "familyFriendly", "fields", "nothing_else", "all"} == set(
        found["success"]
    )
    assert found["drawn"] >= 4
    before = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    told(diptych("write", run, "--more-like", "1", "-n", "1", *how))
    after = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert (after["more_like"], after["source"]) == (before["texts"][1], before["source"])
    told(diptych("write", run, *words, "--use-case", "paragraph", *how))
    assert_refused(diptych("write", run, *words, "--tone", "dear", *how), 2, "tone = 'dear'", "£")
