"""What an operator of the scene world tells, exactly: by the grammar, not by a model."""

from shared.errors import ConfigError
from shared.scene_facts import Facts
from shared.schema import one_of

ATTRIBUTES = ("tone", "audience", "count", "colour")
UNSAID = "unsaid"


def attribute(name: str, facts: Facts) -> str:
    """The value that a sentence which says these facts has: `colour` is that of the thing told
    first, or UNSAID. ConfigError for another name."""
    try:
        one_of("data.label_column", name, list(ATTRIBUTES))
    except ValueError as error:
        raise ConfigError(f"{error}; those are the scene world's") from None
    if name == "count":
        return str(len(facts.things))
    if name == "colour":
        return facts.things[0].colour or UNSAID
    return facts.tone if name == "tone" else facts.audience
