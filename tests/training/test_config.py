import pytest

from vidgru.config import EvalConfig, TrainConfig, from_flags
from vidgru.errors import SettingsError
from vidgru.model.event_gru import Architecture


@pytest.mark.parametrize(("name", "value", "allowed"), [
    ("folds", 1, "0, or at least 2"), ("epochs", 0, "at least 1"), ("batch", 0, "at least 1"), ("patience", -1, "0 or"),
    ("seed", -1, "0 or more"), ("lr", 0.0, "above 0 and at most 1"), ("weight_decay", -0.1, "0 or more"),
    ("dropout", 1.0, "at least 0 and below 1"), ("group_dropout", -0.1, "at least 0 and below 1"),
    ("fps", 0.0, "above"), ("threads", -1, "0 or more"), ("hidden", 0, "at least 1"),
])  # fmt: skip
def test_settings_that_cannot_be(name: str, value: float, allowed: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value}; it must be {allowed}"):
        from_flags(TrainConfig, **{name: value})


def test_eval_refuses_what_the_detector_cannot_do() -> None:
    with pytest.raises(SettingsError, match="threads is -1"):
        from_flags(EvalConfig, threads=-1)


def test_the_network_asked_for_by_default_is_the_default_network() -> None:
    assert vars(TrainConfig().network) == vars(Architecture())
