"""Tar shards of pictures and what is said of them, as webdataset lays them out.

    FOLDER/train-00000.tar, ...    members KEY.png (or .jpg, ...), KEY.txt, KEY.cls, KEY.json

They are read one after another, without unpacking, by the builder of `datasets`, which keeps what
they hold as a table: `image`, `text` (of KEY.txt), `label` (of KEY.cls, an integer), and the fields
of KEY.json by their names, as the first shard has them. A member that is missing or cannot be read
is None there, and a picture is called SHARD/KEY.png: what is wrong with a row names both.
"""

import tarfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets.builder import Key
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from shared.errors import DataError
from shared.tables import unreadable

MEMBERS = {"txt": ("text", "string"), "cls": ("label", "int64")}
KINDS: dict[type, str] = {str: "string", int: "int64", float: "float64"}  # of fields of KEY.json


def load_shards(name: str, split: str, shards: Sequence[Path]) -> Any:
    """The table of the shards of a split; DataError names data.name."""
    datasets.disable_progress_bars()
    try:
        files = {split: [str(shard.resolve()) for shard in shards]}
        builder = TarShards(data_files=files, features=_features(shards[0]))
        builder.download_and_prepare()
        return builder.as_dataset(split)
    except Exception as error:  # as in shared.tables
        raise unreadable(name, split, error) from None


def _or_none(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decoded(content: Any) -> Any:
        try:
            return decode(content)
        except ValueError:  # of int, UTF-8 and JSON
            return None

    return decoded


class TarShards(WebDataset):
    """The builder of `datasets`, for members that may be missing or broken."""

    def _generate_examples(
        self, tar_paths: Sequence[str], tar_iterators: Sequence[Any]
    ) -> Generator[tuple[Key, dict[str, Any]], Any, None]:
        for i, (path, members) in enumerate(zip(tar_paths, tar_iterators, strict=True)):
            with _whole(path):
                for j, sample in enumerate(self._get_pipeline_from_tar(path, members)):
                    yield Key(i, j), _row(Path(path).name, sample, self.info.features or {})


TarShards.DECODERS = {name: _or_none(decode) for name, decode in WebDataset.DECODERS.items()}


@contextmanager
def _whole(path: str | Path) -> Generator[None]:
    """DataError, which names it, for a tar file that ends too soon or is none."""
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: a damaged tar file: {error}") from None


def _row(shard: str, sample: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """A sample of members as a row of these features."""
    said = sample.get("json")
    values: dict[str, Any] = said if isinstance(said, dict) else {}
    values = values | {MEMBERS[name][0]: sample[name] for name in MEMBERS if name in sample}
    picture = next((name for name in sample if _is_picture(name)), None)
    path = f"{shard}/{sample['__key__']}" + (f".{picture}" if picture else "")
    content = sample[picture] if picture else None
    row: dict[str, Any] = {"image": {"bytes": content, "path": path}}
    for name in features.keys() - {"image"}:
        value = values.get(name)
        fits = KINDS.get(type(value)) == features[name].dtype
        row[name] = value if fits else None
    return row


def _features(shard: Path) -> datasets.Features:
    """The columns of a shard."""
    kinds: dict[str, str] = {}
    with _whole(shard), tarfile.open(shard) as tar:
        for member in tar:
            _, kind = base_plus_ext(member.name)
            if kind in MEMBERS:
                kinds |= [MEMBERS[kind]]
            elif kind == "json":
                file = tar.extractfile(member)
                said = TarShards.DECODERS["json"](file.read()) if file else None
                fields = said.items() if isinstance(said, dict) else ()
                found = {k: KINDS[type(v)] for k, v in fields if type(v) in KINDS}
                kinds = found | kinds
    values = {name: datasets.Value(kind) for name, kind in kinds.items()}
    return datasets.Features({**values, "image": datasets.Image()})


def _is_picture(member: str) -> bool:
    return member.rsplit(".", 1)[-1].lower() in WebDataset.IMAGE_EXTENSIONS
