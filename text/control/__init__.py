"""Control of sentences by what the denoiser's own token laws say of a condition.

`Control` and its patterns say what a sentence must satisfy; `compile_controls` makes one automaton
of several; `controlled` guides any solver towards acceptance, and `nearest_accepted` is the row
that it ends at, accepted in any case.
"""

from text.control.automaton import Automaton
from text.control.controls import Control, compile_controls, parse_controls
from text.control.denoise import controlled, nearest_accepted
from text.control.paths import Automata, possible_lengths
from text.control.targets import Target, read_targets
from text.control.vocabulary import Vocabulary
from text.control.world import find_world

__all__ = [
    "Automata",
    "Automaton",
    "Control",
    "Target",
    "Vocabulary",
    "compile_controls",
    "controlled",
    "find_world",
    "nearest_accepted",
    "parse_controls",
    "possible_lengths",
    "read_targets",
]
