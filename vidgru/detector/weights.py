"""Find the weights file, without importing what reads it: a run that finds all features cached needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from vidgru.errors import WeightsError


def find_weights(weights: str) -> Path:
    """Return the weights file. A stock name such as `yolo26n.pt` that does not exist is downloaded by Ultralytics.

    Raises:
        WeightsError: There is no such file, and it cannot be downloaded.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    remedy = "pass --weights with the path of an Ultralytics detector (.pt)"
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if weights not in GITHUB_ASSETS_NAMES:
        raise WeightsError(f"no such weights file: {weights}", remedy)
    try:
        found = Path(attempt_download_asset(weights, retry=1))
    except Exception as error:  # whatever the network, a proxy or the disk has to say
        raise WeightsError(f"{weights} is not here and cannot be downloaded: {first_line(error)}", remedy) from None
    if not found.is_file():
        raise WeightsError(f"{weights} is not here and cannot be downloaded", remedy)
    return found


def first_line(error: BaseException) -> str:
    """The first line of what an exception of other packages says, for an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0].lstrip("❌ ") if lines else type(error).__name__  # Ultralytics puts a cross before its errors
