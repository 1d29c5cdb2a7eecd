"""A `CLIPModel` of transformers, by its folder, as an `image.clip.encoder.Encoder`.

Scores see pictures as the folder's own processor prepares them, which rounds to bytes after the
resize; guidance needs gradients and takes the same steps without rounding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from image.data_config import DataConfig
from image.grid import to_bytes, to_pil
from shared.errors import UNREADABLE, CheckpointError, ConfigError
from shared.frozen import weights_digest

try:  # transformers from 5 on has two; this one needs no torchvision
    from transformers import CLIPImageProcessorPil as Processor
except ImportError:
    from transformers import CLIPImageProcessor as Processor

ROWS = 64


class FolderEncoder:
    """The model, its tokenizer and its processor. CheckpointError for a folder that does not load;
    pickled weights are not opened."""

    data: DataConfig | None = None  # a folder does not say

    def __init__(self, folder: Path) -> None:
        try:
            local: dict[str, Any] = {"local_files_only": True}
            loaded: Any = CLIPModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **local
            )
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            self.processor: Any = Processor.from_pretrained(folder, **local)
        except UNREADABLE as error:
            raise CheckpointError(
                f"clip = {folder}: not readable as a CLIPModel of transformers: {error}"
            ) from None
        model, report = loaded
        if report["missing_keys"]:
            raise CheckpointError(
                f"clip = {folder}: weights are not there, such as {min(report['missing_keys'])}; "
                "give the folder of a whole CLIPModel"
            )
        self.model: Any = model.eval().float().requires_grad_(False)
        if torch.cuda.is_available():
            self.model.cuda()
        self.name = f"{folder.name}-{weights_digest(self.model)}"
        self.facts: dict[str, Any] = {
            "kind": "CLIPModel of transformers",
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "trained_on": "not known here",
        }

    @property
    def scale(self) -> float:
        return float(self.model.logit_scale.exp())

    def check(self, shape: tuple[int, int, int]) -> None:
        if shape[0] not in (1, 3):
            raise ConfigError(f"clip: it sees grey or RGB pictures, got {shape[0]} channels")

    def check_prompt(self, prompt: str) -> None:
        """Its tokens spell any word."""

    @torch.no_grad()
    def pictures(self, images: Tensor, levels: int) -> Tensor:
        found: list[Tensor] = []
        for part in to_bytes(images, levels).split(ROWS):
            seen = [to_pil(image).convert("RGB") for image in part]
            values = self.processor(seen, return_tensors="pt")["pixel_values"]
            found.append(self._picture_points(values.to(self.model.device)).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def captions(self, texts: Sequence[str]) -> Tensor:
        length = int(self.model.config.text_config.max_position_embeddings)
        found: list[Tensor] = []
        for first in range(0, len(texts), ROWS):
            some = list(texts[first : first + ROWS])
            tokens = self.tokenizer(
                some, padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(self.model.device)
            states = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            point = self.model.text_projection(states.pooler_output)
            found.append(F.normalize(point, dim=-1).cpu())
        return torch.cat(found)

    def see(self, x: Tensor) -> Tensor:
        return self._picture_points(self._prepared((x + 1) / 2))

    def _picture_points(self, values: Tensor) -> Tensor:
        states = self.model.vision_model(pixel_values=values)
        return F.normalize(self.model.visual_projection(states.pooler_output), dim=-1)

    def _prepared(self, unit: Tensor) -> Tensor:
        """unit (B, C, H, W), about [0, 1] -> what the network takes (B, 3, side, side): resized by
        its shorter side, cropped in the middle, normalised."""
        edge, crop = int(self.processor.size["shortest_edge"]), self.processor.crop_size
        height, width = unit.shape[2:]
        sides = [int(edge * side / min(height, width)) for side in (height, width)]
        rgb = unit.expand(-1, 3, -1, -1)
        resized = F.interpolate(rgb, sides, mode="bicubic", antialias=True)
        top, left = (sides[0] - crop["height"]) // 2, (sides[1] - crop["width"]) // 2
        cut = resized[:, :, top : top + crop["height"], left : left + crop["width"]]
        mean, std = (
            cut.new_tensor(value).view(1, 3, 1, 1)
            for value in (self.processor.image_mean, self.processor.image_std)
        )
        return (cut - mean) / std
