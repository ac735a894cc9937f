"""What a path is, and whether it is sound: a video, a cache or an entry of one, a data set, a model or its run.

What PyTorch or a decoder is needed for is imported when it is asked for: caches are looked at often, and at once.
"""

from __future__ import annotations

from pathlib import Path

from vidgru.cache.entry import KEY
from vidgru.errors import SettingsError, SourceError
from vidgru.info.cache import about_cache, holds_cache, prune_cache
from vidgru.info.formatting import EXPECTED, Info

__all__ = ["Info", "info"]


def info(path: str | Path, *, verify: bool = False, prune: bool = False) -> Info:
    """Say what `path` is.

    Args:
        path: a video, a cache or the folder of one of its entries, a data set (YAML, annotation file or folder), a
            model file or a training run's folder.
        verify: read every byte of a cache or an entry and hold it against what was written. Unsound entries are marked,
            so that extracting their recordings makes them again.
        prune: delete from a cache what no recording needs: entries of recordings that are gone or have changed, unsound
            entries, and what killed runs left. What another process works on stays.

    Raises:
        SourceError: it is none of these.
        SettingsError: `verify` of something that is neither a cache nor an entry, or `prune` of what is no cache.
        CacheError: `prune` of a cache without an index, which could not tell what is needed.
        VidgruError: it is one of these and cannot be read; the error of its kind.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f"no such file or folder: {path}", f"vidgru info takes {EXPECTED}")
    is_entry = path.is_dir() and (KEY.fullmatch(path.resolve().name) or (path / "entry.json").is_file())
    is_cache = path.is_dir() and not is_entry and holds_cache(path)
    if prune and not is_cache:
        raise SettingsError(f"prune is for a cache, and {path} is not one")
    if is_entry:
        return about_cache(path.resolve().parent, path.resolve().name, verify)
    if is_cache:
        found = about_cache(path, None, verify) if verify or not prune else Info(lines=())
        return Info(lines=(*found.lines, *prune_cache(path)), sound=found.sound) if prune else found
    if verify:
        raise SettingsError(f"verify is for a cache or an entry of one, and {path} is neither")
    return Info(lines=tuple(_folder(path) if path.is_dir() else _file(path)))


def _folder(path: Path) -> list[str]:
    from vidgru.datasets.spec import holds_annotations
    from vidgru.info.dataset import about_dataset
    from vidgru.info.model import about_model
    from vidgru.model.checkpoint import BEST

    if (path / BEST).is_file():
        return about_model(path / BEST)
    if holds_annotations(path):
        return about_dataset(path)
    raise SourceError(f"{path} holds no cache entry, no annotations and no {BEST}", f"vidgru info takes {EXPECTED}")


def _file(path: Path) -> list[str]:
    from vidgru.datasets.formats import SUFFIXES
    from vidgru.info.dataset import about_dataset
    from vidgru.info.model import about_model
    from vidgru.info.video import about_video

    suffix = path.suffix.lower()
    if suffix == ".safetensors" and path.with_name("entry.json").is_file():
        raise SourceError(f"{path} is a part of a cache entry", f"give its folder: {path.parent}")
    if suffix in (".safetensors", ".onnx"):
        return about_model(path)
    if suffix in (".yaml", ".yml", *SUFFIXES):
        return about_dataset(path)
    return about_video(path)
