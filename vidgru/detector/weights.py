"""Find or download the detector's weights file. A run that finds all features cached needs no PyTorch for it."""

from __future__ import annotations

from pathlib import Path

from vidgru.errors import WeightsError
from vidgru.storage import user_path

_REMEDY = "pass --weights with the path of an Ultralytics detector (.pt)"


def find_weights(weights: str) -> Path:
    """Return the path of the weights file. A stock name such as `yolo26n.pt` is downloaded by Ultralytics if missing.

    Raises:
        WeightsError: There is no such file, and it cannot be downloaded.
    """
    path = user_path(weights)
    if path.is_file():
        return path
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if weights not in GITHUB_ASSETS_NAMES:
        raise WeightsError(f"no such weights file: {weights}", _REMEDY)
    try:
        downloaded = Path(attempt_download_asset(weights, retry=1))
    except Exception as error:  # the network, a proxy or the disk may raise anything
        raise WeightsError(f"{weights} cannot be downloaded: {first_line(error)}", _REMEDY) from None
    if not downloaded.is_file():
        raise WeightsError(f"{weights} cannot be downloaded", _REMEDY)
    return downloaded


def first_line(error: BaseException) -> str:
    """Return the first line of another package's exception, for an error message."""
    lines = str(error).strip().splitlines()
    return lines[0].lstrip("❌ ") if lines else type(error).__name__  # Ultralytics puts a cross before its errors
