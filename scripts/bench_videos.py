"""Make videos for `bench_extract.py` from given ones: short clips, and long files of the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av

CLIP_S = 2.0


def make_clips(source: Path, folder: Path, count: int, size_px: tuple[int, int] | None) -> list[Path]:
    """Cut `count` clips of CLIP_S seconds from a video, repeating it if it is short, and encode them in H.264.

    Args:
        source: The video.
        folder: Output folder, which is created.
        count: Number of clips.
        size_px: Width and height to scale to, even numbers; None keeps the video's.
    """
    folder.mkdir(parents=True)
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        width, height = size_px or (stream.width // 2 * 2, stream.height // 2 * 2)  # H.264 wants even sides
    frames, paths = _endless(source), []
    for number in range(count):
        path = folder / f"clip_{number:04d}.mp4"
        with av.open(str(path), "w") as container:
            container.metadata["comment"] = f"clip {number}"  # equal clips would be extracted once
            stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index, frame in enumerate(islice(frames, round(CLIP_S * rate))):
                small = frame.reformat(width, height, "yuv420p")
                small.pts, small.time_base = index, 1 / rate
                container.mux(stream.encode(small))
            container.mux(stream.encode(None))
        paths.append(path)
    return paths


def _endless(source: Path) -> Iterator[av.VideoFrame]:
    while True:
        with av.open(str(source)) as container:
            yield from container.decode(video=0)


def join(paths: list[Path], target: Path) -> Path:
    """Concatenate the packets of videos into one file, without encoding them again."""
    with av.open(str(target), "w") as out:
        copy = None
        shift = 0
        for path in paths:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                frames = 0
                for packet in container.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                    out.mux(packet)
                    frames += 1
                shift += round(frames / (stream.average_rate * stream.time_base))
    return target
