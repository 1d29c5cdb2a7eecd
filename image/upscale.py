"""The section of a configuration that makes a model one of a cascade (`image.cascade`)."""

from shared.schema import positive, schema


@schema
class UpscaleConfig:
    """A model of a cascade: it draws pictures given themselves `factor` times smaller, which
    `diptych sample --low` gives it; 1: it draws them from nothing."""

    factor: int = 1
    # the time in [0, augment] up to which small pictures are noised in training; sec. 4.2 of Ho et
    # al. 2021 goes to 1 and chooses at sampling: beyond a half little is left to be guided by
    augment: float = 0.5

    def __post_init__(self) -> None:
        positive("upscale.factor", self.factor)
        if not 0 <= self.augment < 1:
            raise ValueError(f"upscale.augment = {self.augment}: expected a number in [0, 1)")

    def check(self, model: str, codec: str) -> None:
        """ValueError unless such a model, with such a codec, can enlarge."""
        if self.factor > 1 and (model != "diffusion" or codec == "autoencoder"):
            raise ValueError(
                f"upscale.factor = {self.factor}: of model = 'diffusion' with pixels or bits, got "
                f"{model!r} with codec.kind = {codec!r}; leave it out"
            )
