"""What `diptych edit` asks of a panel: a given picture, and what is to become of it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from shared.requests import Request


@dataclass(frozen=True, kw_only=True)
class EditRequest(Request):
    """What to do with a given picture.

    Attributes:
        n: How many results.
        image: The picture.
        mask: A picture of the same size: white is drawn anew, black is kept (models of masked: true
            are shown both, others are guided).
        grey: Give the picture colours.
        downscale: Draw it this many times larger (super-resolution).
        strength: Variations: the time in (0, 1] it is noised to, the later the freer. Of --invert
            and --interpolate, how far back they go (default all the way, along the solver's path).
        invert: Find the noise that the picture is drawn from, and draw it again with this class or
            prompt.
        source_class: The class that it is inverted under.
        source_prompt: The prompt that it is inverted under.
        interpolate: Two pictures, or two seeds: n on the path between them.
        noise_std: Of what is known, where all pictures are in [-1, 1]; 0: it is met exactly.
        repaint: In place of guidance, write what is known into the state, and make every step this
            many times (RePaint; 10 in the paper).
        condition: What to draw: a class by name or number.
        prompt: What to draw, in words, or a .txt file of such lines, one for each in turn.
        negative_prompt: What guidance is to depart from, in words.
    """

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    steps: int = 50
    image: Path | None = None
    mask: Path | None = None
    grey: bool = False
    downscale: int | None = None
    strength: float | None = None
    invert: bool = False
    source_class: str | None = None
    source_prompt: str | None = None
    interpolate: tuple[str, str] | None = None
    noise_std: float = 0.0
    repaint: int | None = None
    condition: Annotated[str | None, tyro.conf.arg(name="class")] = None
    prompt: str | None = None
    negative_prompt: str | None = None

    def asked(self) -> dict[str, Any]:
        """All of it by name, to be written beside what was drawn."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
