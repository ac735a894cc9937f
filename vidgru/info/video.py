"""What a video's container says."""

from __future__ import annotations

from pathlib import Path

from vidgru.errors import RecordingError, SourceError
from vidgru.info.formatting import EXPECTED, bytes_text, duration_text
from vidgru.video.reader import probe


def about_video(path: Path) -> list[str]:
    """Length, size and codec of a video.

    Raises:
        SourceError: it is not one.
    """
    try:
        video = probe(path)
    except RecordingError as error:
        raise SourceError(f"{path} {error.message}", f"vidgru info takes {EXPECTED}") from None
    width, height = video.size_px
    known = {
        "length": None if video.duration_s is None else duration_text(video.duration_s),
        "frames": None if video.fps is None else f"{video.fps:.3f} a second",
        "frames announced": video.frames,
        "codec": f"{video.codec} in {video.container}",
        "rotation": f"{video.rotation} degrees" if video.rotation else None,
        "recorded at": video.recorded_at,
    }
    return [
        f"video {path}: {width}x{height} px, {bytes_text(path.stat().st_size)}",
        *(
            f"{name}: {'not known' if value is None else value}"
            for name, value in known.items()
            if name != "rotation" or value
        ),
    ]
