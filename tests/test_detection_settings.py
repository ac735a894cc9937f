import pytest

from vidgru.config import EvalConfig, ExtractConfig, TrainConfig, from_flags
from vidgru.errors import SettingsError


def test_source_size_in_numbers() -> None:
    assert from_flags(ExtractConfig, detections="labels", source_size="1920x1080").imported.size_px == (1920, 1080)
    assert from_flags(EvalConfig, detections="labels").imported.size_px is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source_fps": 25.0}, "source_fps is 25.0; it must be left out without detections"),
        ({"source_size": "9x9"}, "source_size is '9x9'; it must be left out without detections"),
        ({"classes": "data.yaml"}, "classes is 'data.yaml'; it must be left out without detections"),
        ({"detections": "labels", "source_fps": -1.0}, "source_fps is -1.0; it must be from 0 to 1000"),
        ({"detections": "labels", "source_size": "big"}, "source_size is 'big'; it must be width and height in pixels"),
        (
            {"detections": "labels", "mask": "[[[0, 0], [1, 0], [1, 1]]]"},
            "mask is .* it must be left out with detections",
        ),
    ],
)
def test_what_does_not_go_together(settings: dict[str, object], message: str) -> None:
    for config in (ExtractConfig, TrainConfig):
        with pytest.raises(SettingsError, match=message):
            from_flags(config, **settings)


@pytest.mark.parametrize("settings", [{"shard": "1/2"}, {"ray": "auto"}, {"dry_run": True}])
def test_nothing_is_shared_out(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="it must be left out with detections"):
        from_flags(ExtractConfig, detections="labels", **settings)
