"""Control of sentences by what the denoiser's own token laws say of a condition.

`Control` and its patterns say what a sentence must satisfy; `compile_controls` makes one automaton
of several; `controlled` guides any solver towards acceptance, and `nearest_accepted` is the row
that it ends at, accepted in any case.
"""

from text.control.automaton import Automaton
from text.control.controls import PATTERNS, Control, compile_controls, parse_controls
from text.control.denoise import controlled, nearest_accepted
from text.control.lexicon import scene_tags
from text.control.paths import Automata
from text.control.pattern import Vocabulary

__all__ = [
    "PATTERNS",
    "Automata",
    "Automaton",
    "Control",
    "Vocabulary",
    "compile_controls",
    "controlled",
    "nearest_accepted",
    "parse_controls",
    "scene_tags",
]
