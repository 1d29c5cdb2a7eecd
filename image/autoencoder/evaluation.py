"""What `diptych evaluate` and `sample` do with an autoencoder: held-out pictures, there and back.

Latents are the encoder's mean. The Frechet distance is between reconstructions and their originals,
beside what the held-out split scores against the training split with as many pictures.
"""

import math
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from image.autoencoder.learner import AutoencoderLearner
from image.autoencoder.network import encoded, nearest, posterior, table
from image.data import Pictures
from image.judge import Judge
from image.metrics import frechet
from image.metrics.reconstruction import WINDOW, psnr, ssim

ROWS = 64


@torch.no_grad()
def reconstruct(learner: AutoencoderLearner, images: Tensor) -> Tensor:
    """Levels (N, C, H, W) -> levels, int64, on the CPU, in float32."""
    device = next(learner.parameters()).device
    made: list[Tensor] = []
    for part in images.split(ROWS):
        x = learner.pixels.encode(part.to(device))
        made.append(learner.pixels.decode(learner.decode(learner.encode(x)[0])).cpu())
    return torch.cat(made)


def measure_reconstructions(learner: AutoencoderLearner, images: Tensor) -> dict[str, Any]:
    """PSNR, SSIM and mean absolute error (of pictures in [-1, 1]) of pictures (N, C, H, W), and
    what the latents hold."""
    made, levels = reconstruct(learner, images), learner.pixels.levels
    found = psnr(made, images, levels)
    alike = ssim(made, images, levels).mean() if min(images.shape[2:]) >= WINDOW else None
    error = 2 / (levels - 1) * (made - images.long()).abs().double().mean()
    return {
        "psnr_db": float(found.mean()) if bool(found.isfinite().all()) else None,
        "ssim": None if alike is None else float(alike),
        "l1": float(error),
        **_latents(learner, images),
    }


def reconstruction_distance(
    learner: AutoencoderLearner, judge: Judge, images: Tensor, training: Pictures
) -> dict[str, Any]:
    """Frechet distance between reconstructions and originals (N, C, H, W), under a judge."""
    real = judge.features(images)
    made = judge.features(reconstruct(learner, images))
    data = judge.features(training.images)
    return {
        "reconstruction_frechet_distance": frechet.compute(made, real)["frechet_distance"],
        "frechet_floor": frechet.compute(real, data)["frechet_distance"],
        "frechet": {
            "features": judge.name,
            "reference": "the same held-out pictures",
            "floor": "held-out pictures against the training split",
            "images": len(images),
        },
    }


@torch.no_grad()
def _latents(learner: AutoencoderLearner, images: Tensor) -> dict[str, Any]:
    """KL(q(z | x) | N(0, 1)) in nats a number of the latent; or how many codes are in use, and the
    perplexity of their frequencies."""
    network, device = learner.network, next(learner.parameters()).device
    parts = [learner.pixels.encode(part.to(device)) for part in images.split(ROWS)]
    if isinstance(network, AutoencoderKL):
        found = [posterior(network, part) for part in parts]
        shape = tuple(found[0].mean.shape[1:])
        nats = torch.cat([each.kl().double() for each in found])
        return {
            "latent_shape": list(shape),
            "kl_nats_per_dim": float(nats.mean()) / math.prod(shape),
        }
    codes = table(network)
    picked = [nearest(encoded(network, part), codes) for part in parts]
    counts = torch.cat([each.flatten() for each in picked]).bincount(minlength=len(codes))
    return {
        "latent_shape": [codes.shape[1], *picked[0].shape[1:]],
        "codes": len(codes),
        "codes_used": int((counts > 0).sum()),
        "code_perplexity": perplexity(counts),
    }


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of counts (K,): how many equally frequent codes are as varied."""
    shares = counts.double() / counts.sum()
    return float(torch.special.entr(shares).sum().exp())
