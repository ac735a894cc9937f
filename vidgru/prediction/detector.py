"""The detector that a model was trained on, found on this machine and known by its hash."""

from __future__ import annotations

from vidgru.config import DetectorSettings, of_detections
from vidgru.errors import SettingsMismatch, WeightsError
from vidgru.extraction.pipeline import weights_what
from vidgru.model.checkpoint import EventModel, detector_settings


def model_detector(model: EventModel, weights: str = "") -> DetectorSettings:
    """The settings that a model's features were made with, and the detector for them.

    Args:
        model: as loaded.
        weights: where its detector lies; under the name it was trained with where this is empty.

    Raises:
        WeightsError: there is no such detector.
        SettingsMismatch: it is another one, or this vidgru makes other features with it; or the model reads what a
            detector saw that was run elsewhere.
    """
    if of_detections(model.what):
        raise SettingsMismatch(
            "the model reads what a detector saw that was run elsewhere, and finds nothing in recordings themselves",
            "run vidgru extract --detections on what it saw in them, and give the cache as the source",
        )
    what, settings = model.what, detector_settings(model, weights)
    remedy = f"pass --weights with the detector that the model was trained on (SHA-256 {what['weights_sha256']})"
    try:
        here = weights_what(settings)
    except WeightsError as error:
        raise WeightsError(error.message, remedy) from None
    if here["weights_sha256"] != what["weights_sha256"]:
        raise SettingsMismatch(
            f"{settings.weights} is not the detector that the model was trained on: "
            f"its SHA-256 is {here['weights_sha256']}",
            remedy,
        )
    if differ := sorted(name for name in here.keys() | what.keys() if here.get(name) != what.get(name)):
        raise SettingsMismatch(
            f"this vidgru cannot make the model's features: {', '.join(differ)} differs",
            "use the vidgru that made the model, or train it again",
        )
    return settings
