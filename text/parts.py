"""Sources as a model reads them, whole or in part.

A source is groups of parts: of a scene its manner and each of its things, all they have said one by
one; of a table's source what stands between commas, each a group by itself. A model that is trained
on sources with parts left out also writes from less than all: from a manner, or a single fact.

Row i of `data.partial_sources` has one keep rate for its groups and one for their parts, both
uniform (the second is 1 for half of the rows); where nothing would stay all stays, for samples
without a source are `diffusion.drop_condition`'s affair. It is a function of the row's number.
"""

import re
from collections.abc import Sequence

from shared import noise
from shared.scene import Scene, parts
from shared.tokenizer import one_blank

STREAM = 31  # of `noise`, keyed by the row
RATES = 3  # uniforms before those of groups and parts: whether it is partial, and both rates
Groups = Sequence[Sequence[str]]


def of_scene(seen: Scene, row: int, partial: float) -> str:
    """`shared.scene.spell` with parts left out. Where whole things alone are missing nothing is:
    what is left would be spelt as a whole scene of fewer things."""
    groups = parts(seen)
    kept = leave_out(groups, row, partial)
    if len(kept) > 1 and groups[0] in kept and all(group in groups for group in kept):
        kept = groups
    return " , ".join(" ".join(group) for group in kept)


def of_table(source: str, row: int, partial: float) -> str:
    """A table's source with some of what stands between commas left out."""
    return ", ".join(part for (part,) in leave_out([[p] for p in source.split(", ")], row, partial))


def leave_out(groups: Groups, row: int, partial: float) -> Groups:
    """The groups of a row's source that stay, with what stays of them; all of them unless the row
    is among the share `partial`. No group is empty."""
    if not partial:
        return groups
    count = RATES + len(groups) + sum(map(len, groups))
    chance, of_groups, of_parts, *draws = noise.uniform([row], STREAM, (count,))[0].tolist()
    if chance >= partial:
        return groups
    draw = iter(draws)
    stay = [group for group in groups if next(draw) < of_groups]
    kept = [[part for part in group if next(draw) < 2 * of_parts] for group in stay]
    return [group for group in kept if group] or groups


def signs_apart(source: str) -> str:
    """Every sign a word of its own: `name[Zizzi], price[£20]` -> `name [ Zizzi ] , price [ £ 20 ]`,
    for a tokenizer that knows words only."""
    return one_blank(re.sub(r"([^\w\s])", r" \1 ", source))
