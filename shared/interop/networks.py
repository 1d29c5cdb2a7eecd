"""Networks across the border: a model of diffusers as a Denoise, and a Denoise as a model."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from shared.denoiser import Denoise
from shared.interop.convention import Convention, convention_of
from shared.prediction import from_x0, to_x0
from shared.schedule import Level, Schedule


class DiffusersDenoiser(nn.Module):
    """UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel and their like as a Denoise.

    x_t is what the model takes, (B, C, H, W) of `in_channels`, at levels of any family; the
    configuration of the scheduler it was trained with says how it is asked (`convention_of`).
    Whole-numbered conditions (B,) or (B, 1) go in as class_labels, others, (B, L, D), as
    encoder_hidden_states. Twice the channels out is a learned variance: the second half is the
    fraction of a RangeDenoise, (v + 1) / 2 (Nichol & Dhariwal 2021, eq. 15). Sample with
    `schedule=denoiser.schedule` to stay on the levels it knows. `previous` is ignored: their
    networks do not self-condition. ValueError for a network that is told sigma.
    """

    def __init__(self, net: nn.Module, scheduler: SchedulerMixin | Mapping[str, Any]) -> None:
        super().__init__()
        embedding = getattr(getattr(net, "config", None), "time_embedding_type", None)
        if embedding == "fourier":
            raise ValueError(
                "net: time_embedding_type = 'fourier' is refused: this network is told sigma, not "
                "a step of a chain; give its denoiser, model(x, sigma), to from_k_diffusion"
            )
        self.net = net
        self.convention = convention_of(scheduler)
        self.whole_steps = embedding == "learned"  # a table: it has no fractions

    @property
    def schedule(self) -> Schedule:
        """The levels that the network was trained on."""
        return self.convention.schedule

    def forward(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        return self._estimate(x_t, level, condition)[0]

    def with_range(
        self,
        x_t: Tensor,
        level: Level,
        condition: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x0_hat and fraction (B, C, H, W) of a RangeDenoise. ValueError without that half."""
        x0_hat, free = self._estimate(x_t, level, condition)
        if free is None:
            raise ValueError(
                "net: it gives as many channels as it takes, so it learned no variance; use a "
                "solver other than ancestral_learned"
            )
        return x0_hat, (free + 1) / 2

    def _estimate(
        self, x_t: Tensor, level: Level, condition: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        x, seen = self.convention.seen(x_t, level.widen(x_t.ndim).to(x_t))
        timestep = self.convention.timestep(level.logsnr).reshape(-1).expand(len(x))
        timestep = timestep.round().long() if self.whole_steps else timestep.float()
        dtype = next((p.dtype for p in self.net.parameters()), x.dtype)
        given = _keywords(condition, len(x))
        said = self.net(x.to(dtype), timestep, **given, return_dict=False)[0]
        output, free = halves(said.to(x_t.dtype), x.shape[1])
        x0_hat = to_x0(self.convention.prediction, output, x, seen)
        return clipped(x0_hat, self.convention), free


def halves(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """What a network says (B, C or 2 C, ...) -> the prediction (B, C, ...) and, if there is one,
    the half that stands for the variance. ValueError for another number of channels."""
    if output.shape[1] == channels:
        return output, None
    if output.shape[1] == 2 * channels:
        return output[:, :channels], output[:, channels:]
    raise ValueError(
        f"the network gave {output.shape[1]} channels for {channels}: expected as many, or twice "
        "as many with a learned variance"
    )


def clipped(x0_hat: Tensor, convention: Convention) -> Tensor:
    """x0_hat within the convention's clip_sample_range, if it clips."""
    return (
        x0_hat if math.isinf(convention.clip) else x0_hat.clamp(-convention.clip, convention.clip)
    )


def _keywords(condition: Tensor | None, rows: int) -> dict[str, Tensor]:
    if condition is None:
        return {}
    if condition.is_floating_point():
        return {"encoder_hidden_states": condition}
    if condition.numel() != rows:
        raise ValueError(
            f"condition {tuple(condition.shape)}: expected one class each for {rows} samples, (B,) "
            "or (B, 1), or encoder hidden states (B, L, D) in floating point"
        )
    return {"class_labels": condition.reshape(rows)}


class DiptychModel(nn.Module):
    """A Denoise in the place of a pipeline's `unet`, which is told timesteps and asked for the
    prediction of `scheduler`.

    shape (C, H, W) of a sample. class_labels or encoder_hidden_states become the condition.
    ValueError for a self-conditioned denoiser: pipelines do not hand back the last estimate.
    """

    def __init__(
        self,
        denoise: Denoise,
        scheduler: SchedulerMixin | Mapping[str, Any],
        shape: tuple[int, int, int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        refuse_self_conditioning(denoise, "a diffusers pipeline")
        self.denoise = denoise
        self.convention = convention_of(scheduler)
        self.config = SimpleNamespace(in_channels=shape[0], sample_size=shape[1:])
        self.dtype = dtype

    @property
    def device(self) -> torch.device:
        """Where a pipeline makes its noise."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        told = torch.as_tensor(timestep, dtype=torch.float64, device=sample.device)
        level = self.convention.level(told)
        # the sample they hand over is VP or flow already; the level of a VE schedule is not
        seen = self.convention.seen(sample, level.widen(sample.ndim))[1].to(sample)
        flat = Level(*(part.reshape(told.shape) for part in (seen.logsnr, seen.alpha, seen.sigma)))
        condition = class_labels if encoder_hidden_states is None else encoder_hidden_states
        x0_hat = self.denoise(sample, flat, condition)
        output = from_x0(self.convention.prediction, x0_hat, sample, seen)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def refuse_self_conditioning(denoise: Denoise, where: str) -> None:
    """ValueError when a denoiser wants its last estimate and the format has no place for it."""
    if getattr(denoise, "self_condition", False):
        raise ValueError(
            f"denoise: self-conditioning is refused: {where} does not hand back the last estimate, "
            "and the network would always see zeros; use shared.solver.sample or sample_with"
        )
