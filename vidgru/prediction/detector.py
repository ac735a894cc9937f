"""The detector that a model was trained on, found on this machine and known by its hash."""

from __future__ import annotations

from vidgru.config import DetectorSettings, uses_imported_detections
from vidgru.errors import SettingsMismatchError, WeightsError
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.model.checkpoint import EventModel, detector_settings


def model_detector(model: EventModel, weights: str = "") -> DetectorSettings:
    """The settings that a model's features were made with, and the detector for them.

    Args:
        model: as loaded.
        weights: where its detector lies; under the name it was trained with where this is empty.

    Raises:
        WeightsError: there is no such detector.
        SettingsMismatchError: it is another one, or this vidgru makes other features with it; or the model reads what a
            detector saw that was run elsewhere.
    """
    if uses_imported_detections(model.feature_settings):
        raise SettingsMismatchError(
            "the model reads what a detector saw that was run elsewhere, and finds nothing in recordings themselves",
            "run vidgru extract --detections on what it saw in them, and give the cache as the source",
        )
    feature_settings, settings = model.feature_settings, detector_settings(model, weights)
    remedy = (
        f"pass --weights with the detector that the model was trained on (SHA-256 {feature_settings['weights_sha256']})"
    )
    try:
        here = feature_settings_for(settings)
    except WeightsError as error:
        raise WeightsError(error.message, remedy) from None
    if here["weights_sha256"] != feature_settings["weights_sha256"]:
        raise SettingsMismatchError(
            f"{settings.weights} is not the detector that the model was trained on: "
            f"its SHA-256 is {here['weights_sha256']}",
            remedy,
        )
    if differ := sorted(
        name for name in here.keys() | feature_settings.keys() if here.get(name) != feature_settings.get(name)
    ):
        raise SettingsMismatchError(
            f"this vidgru cannot make the model's features: {', '.join(differ)} differs",
            "use the vidgru that made the model, or train it again",
        )
    return settings
