"""denoising-diffusion-pytorch and diffusers' example of unconditional training, as contenders.

Networks, losses, optimizers, averages and samplers are theirs, with the defaults of their trainers
(denoising-diffusion-pytorch 2.3: Trainer, GaussianDiffusion, Unet; diffusers 0.42:
examples/unconditional_image_generation/train_unconditional.py) but for three things: networks are
narrower, to have the parameters that are asked for; pictures are in memory, never flipped, and
where a network halves them more often than their sides allow, on a black ground (cut off again);
and a learning rate that falls does so over the time that there is.
"""

import contextlib
import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contenders import expected_steps
from benchmarks.fidelity import denoising_diffusion
from benchmarks.recipe import parameters
from image.data import Pictures
from shared.errors import ConfigError
from shared.files import write_atomic
from shared.train.order import Order

LR, BATCH, CLIP = 1e-4, 16, 1.0  # of both trainers
WARMUP = 500  # steps, of diffusers' example
SAMPLING_STEPS = 50
CHANNELS = (128, 128, 256, 256, 512, 512)  # of diffusers' example
MULTIPLES = (4, 4, 4, 4, 8, 8)  # of narrower ones, for groups of the norms and heads
TOLERANCE = 0.05  # of the number of parameters
FILE = "state.pt"
INSTALL = (
    "pip install --no-deps denoising-diffusion-pytorch ema-pytorch pytorch-fid accelerate einops"
)


@dataclass(kw_only=True)
class Peer:
    """A model of others in training; see `benchmarks.contenders`.

    `loss` takes pictures (B, C, H, W) in [0, 1], `sample` a number and a seed, and gives as many in
    [0, 1]; `follow` moves `average` towards the weights; `rate` is the learning rate at a step of
    as many as are expected.
    """

    folder: Path
    pictures: Pictures
    network: nn.Module
    size: tuple[int, int]
    loss: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    average: Any
    follow: Callable[[], None]
    rate: Callable[[int, int], float]
    sample: Callable[[int, int], Tensor]
    how: str = f"DDIM, {SAMPLING_STEPS} steps"
    evaluations: int = SAMPLING_STEPS
    batch: int = BATCH
    step: int = 0
    spent: float = 0.0
    noise: Tensor = field(default_factory=lambda: torch.Generator().manual_seed(0).get_state())

    def __post_init__(self) -> None:
        self.order = Order(len(self.pictures), 0)
        if (self.folder / FILE).is_file():
            kept = torch.load(self.folder / FILE, weights_only=True)
            self.network.load_state_dict(kept["network"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.average.load_state_dict(kept["average"])
            self.step, self.spent, self.noise = kept["step"], kept["spent"], kept["noise"]

    @property
    def parameters(self) -> int:
        return parameters(self.network)

    def update(self, share: float) -> None:
        rows = self.order.rows(self.step * self.batch + torch.arange(self.batch))
        images = self.pictures.take(rows)[0].float() / (self.pictures.levels - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step, expected_steps(self.step, share))
        self.network.train()
        with self._own_noise():
            loss = self.loss(pad(images, self.size))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.follow()
        self.step += 1

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "noise": self.noise,
        }
        write_atomic(self.folder / FILE, lambda path: torch.save(state, path))

    @torch.no_grad()
    def draw(self, seeds: range) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            images = self.sample(len(seeds), seeds.start)
        H, W = self.pictures.images.shape[2:]
        levels = self.pictures.levels - 1
        return (crop(images, (H, W)).clamp(0, 1) * levels).round().long()

    @contextlib.contextmanager
    def _own_noise(self) -> Generator[None]:
        """Their noise is drawn from torch's global generator, which others use in between."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.noise)
            yield
            self.noise = torch.get_rng_state()


def denoising_diffusion_pytorch(
    folder: Path, pictures: Pictures, target: int, lr: float = LR
) -> Peer:
    """Unet under GaussianDiffusion (v, sigmoid betas), Adam, an average with decay 0.995 every ten
    steps. ConfigError where it is not installed, or cannot have about `target` parameters."""
    theirs = denoising_diffusion()
    if theirs is None:
        raise ConfigError(f"denoising-diffusion-pytorch is not installed: {INSTALL}")
    C, size = pictures.images.shape[1], sides(pictures, 8)
    wanted = ((1, 2, third, last) for third in (4, 3, 5) for last in (8, 7, 9, 6, 10))
    networks = (
        partial(theirs.Unet, dim, dim_mults=mults, channels=C)
        for mults in wanted  # the default's first
        for dim in range(8, 130, 2)
    )
    network = nearest(networks, target)
    diffusion = theirs.GaussianDiffusion(
        network, image_size=size, sampling_timesteps=SAMPLING_STEPS
    )
    average = theirs.EMA(diffusion, beta=0.995, update_every=10)

    def sample(n: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return average.ema_model.eval().sample(batch_size=n)

    return Peer(
        folder=folder,
        pictures=pictures,
        network=network,
        size=size,
        loss=diffusion,
        optimizer=torch.optim.Adam(diffusion.parameters(), lr=lr, betas=(0.9, 0.99)),
        average=average,
        follow=average.update,
        rate=lambda step, steps: lr,
        sample=sample,
    )


def diffusers_example(folder: Path, pictures: Pictures, target: int, lr: float = LR) -> Peer:
    """UNet2DModel of six levels with DDPMScheduler's 1,000 linear betas, AdamW under a cosine with
    500 steps of warm-up, EMAModel. ConfigError when it cannot have about `target` parameters."""
    from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.training_utils import EMAModel

    C, size = pictures.images.shape[1], sides(pictures, 32)
    network: Any = nearest((partial(_unet, w, C, size) for w in range(4, 129)), target)
    scheduler: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, power=3 / 4)

    def loss(images: Tensor) -> Tensor:
        x0 = 2 * images - 1
        eps = torch.randn_like(x0)
        t = torch.randint(0, scheduler.config.num_train_timesteps, (len(x0),))
        return F.mse_loss(network(scheduler.add_noise(x0, eps, t), t).sample, eps)

    def sample(n: int, seed: int) -> Tensor:
        average.store(network.parameters())
        average.copy_to(network.parameters())
        ddim: Any = DDIMScheduler.from_config(scheduler.config)
        pipeline = DDIMPipeline(network.eval(), ddim)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        found: Any = pipeline(n, generator, num_inference_steps=SAMPLING_STEPS, output_type="np")
        average.restore(network.parameters())
        return torch.from_numpy(found.images).movedim(-1, 1)

    def rate(step: int, steps: int) -> float:
        if step < WARMUP:
            return lr * step / WARMUP
        return lr * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP))) / 2

    return Peer(
        folder=folder,
        pictures=pictures,
        network=network,
        size=size,
        loss=loss,
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        ),
        average=average,
        follow=lambda: average.step(network.parameters()),
        rate=rate,
        sample=sample,
    )


def _unet(width: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """The example's network with `width` in place of 128 channels, as near as MULTIPLES allow, and
    with 4 groups in place of 32."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    down = ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"]
    up = ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4
    rounded = [
        max(multiple, multiple * round(width * full / 128 / multiple))
        for full, multiple in zip(CHANNELS, MULTIPLES, strict=True)
    ]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=tuple(rounded),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        norm_num_groups=4,
    )


def nearest(networks: Iterable[Callable[[], nn.Module]], target: int) -> nn.Module:
    """The first of the networks within TOLERANCE of `target` parameters, with the weights of seed
    0. ConfigError when there is none."""
    counts: list[int] = []
    for build in networks:
        with torch.device("meta"):
            counts.append(parameters(build()))
        if abs(counts[-1] / target - 1) <= TOLERANCE:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return build()
    near = min(counts, key=lambda count: abs(count - target))
    raise ConfigError(
        f"{target:,} parameters: the peer nearest to that has {near:,}, which is more than "
        f"{TOLERANCE:.0%} away; change net.dim"
    )


def sides(pictures: Pictures, multiple: int) -> tuple[int, int]:
    """Height and width rounded up to a multiple."""
    H, W = pictures.images.shape[2:]
    return -(-H // multiple) * multiple, -(-W // multiple) * multiple


def pad(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) in the middle of zeros (B, C, *size)."""
    H, W = images.shape[2:]
    top, left = (size[0] - H) // 2, (size[1] - W) // 2
    return F.pad(images, (left, size[1] - W - left, top, size[0] - H - top))


def crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle (B, C, *size) of (B, C, H, W)."""
    H, W = images.shape[2:]
    top, left = (H - size[0]) // 2, (W - size[1]) // 2
    return images[:, :, top : top + size[0], left : left + size[1]]
