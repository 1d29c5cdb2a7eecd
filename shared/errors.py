"""The errors a user can cause or meet, each with the exit code of the command."""

from safetensors import SafetensorError

# what transformers and diffusers raise for a folder of theirs that does not read
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError,
    SafetensorError,
)  # fmt: skip


class DiptychError(Exception):
    """Ends the command with one message and this exit code, without a traceback."""

    code = 1


class ConfigError(DiptychError):
    """Usage or configuration: an unknown key, an impossible value."""

    code = 2


class DataError(DiptychError):
    """Data that is missing or malformed."""

    code = 3


class CheckpointError(DiptychError):
    """A run folder or checkpoint that is missing, damaged, or of another architecture."""

    code = 3


class NonFinite(DiptychError):
    """The loss, a weight, or what a model makes is not a number; checkpoints stay as they are."""

    code = 4


class Preempted(DiptychError):
    """A signal asked to stop: the run is saved and goes on with the same command."""

    code = 75
