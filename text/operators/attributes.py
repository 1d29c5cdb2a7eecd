"""What an operator of the scene world tells, exactly: by the grammar, not by a model."""

from shared.scene_facts import Facts

ATTRIBUTES = ("tone", "audience", "count", "colour")
UNSAID = "unsaid"


def attribute(name: str, facts: Facts) -> str:
    """The value that a sentence which says these facts has: `colour` is that of the thing told
    first, or UNSAID. KeyError for a name that is not in ATTRIBUTES."""
    if name == "count":
        return str(len(facts.things))
    if name == "colour":
        return facts.things[0].colour or UNSAID
    return {"tone": facts.tone, "audience": facts.audience}[name]
