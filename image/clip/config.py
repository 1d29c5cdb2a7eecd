"""The configuration of a dual encoder of pictures and captions."""

from shared.schema import positive, schema


@schema
class ClipConfig:
    """Two towers of one width into one space. A picture goes through residual convolutions to 4 x 4
    places and then, as a caption does at once, through the blocks of a transformer."""

    width: int = 32  # channels of the first convolution
    dim: int = 128  # of the tokens of both towers
    depth: int = 2  # blocks of each tower
    heads: int = 4
    space: int = 128  # numbers that a picture or a caption ends as
    dropout: float = 0.1
    drop_words: float = 0.0  # share of the tokens of captions left out in training

    def __post_init__(self) -> None:
        for name in ("width", "dim", "depth", "heads", "space"):
            positive(f"clip.{name}", getattr(self, name))
        if self.width % 8:
            raise ValueError(f"clip.width = {self.width}: expected a multiple of 8")
        if self.dim % (2 * self.heads):
            raise ValueError(f"clip.dim = {self.dim}: expected a multiple of 2 x clip.heads")
        for name in ("dropout", "drop_words"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"clip.{name} = {getattr(self, name)}: expected a number in [0, 1)"
                )
