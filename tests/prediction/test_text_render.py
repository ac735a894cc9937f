"""Text on frames: legible in any script, cut to fit, cached."""

import numpy as np
import pytest

from vidgru.prediction.text_render import PALETTE, Rgb, colour, paste, render_label, render_sentence, text_colour


def contrast(first: Rgb, second: Rgb) -> float:
    """Contrast ratio as in WCAG 2.2."""

    def luminance(shade: Rgb) -> float:
        c = np.array(shade) / 255
        return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", [*PALETTE, (0, 0, 0), (255, 255, 255), (24, 24, 24), (119, 119, 119)])
def test_text_colour_has_enough_contrast(background: Rgb) -> None:
    assert contrast(text_colour(background), background) >= 4.5, "WCAG 2.2, 1.4.3"
    piece = render_label("fall", 24, background)
    assert piece.dtype == np.uint8
    assert piece.shape[0] == 24
    assert tuple(piece[0, 0]) == background
    assert (piece == text_colour(background)).all(-1).sum() > 20


def test_render_label_draws_other_scripts() -> None:
    texts = ["Sturz größer", "Sturz gr??er", "Падение", "πτώση", "سقوط", "Sturz gr\ufffd\ufffder"]
    pieces = [render_label(text, 32, PALETTE[0]) for text in texts]
    assert len({piece.tobytes() for piece in pieces}) == len(texts)
    unknown = render_label("\U0010fffd" * 7, 32, PALETTE[0])  # what a letter that no font has looks like
    assert pieces[2].shape != unknown.shape or not np.array_equal(pieces[2], unknown)


def test_render_label_keeps_text_inside() -> None:
    for height in (12, 18, 30, 60):
        piece = render_label("ÅÉgjpqy|", height, (255, 255, 255))
        assert (piece[0] == 255).all()
        assert (piece[-1] == 255).all()
        assert (piece[:, 0] == 255).all()
        assert (piece[:, -1] == 255).all()


@pytest.mark.parametrize("text", ["", "\n", "a\nb\tc", "x" * 5000, "\udcff lone"])
def test_render_label_makes_one_short_line(text: str) -> None:
    piece = render_label(text, 20, PALETTE[1])
    assert piece.shape[0] == 20
    assert piece.shape[1] < 20 * 60


def test_render_label_is_cached() -> None:
    assert render_label("car 3", 20, PALETTE[2]) is render_label("car 3", 20, PALETTE[2])
    assert not render_label("car 3", 20, PALETTE[2]).flags.writeable


@pytest.mark.parametrize("width", [100, 200, 640])
def test_render_sentence_fits_the_width(width: int) -> None:
    text = "A person in red comes from the left and puts a bag down beside the door of the house"
    whole = render_sentence(text, 24, PALETTE[0], 5000)
    assert whole.shape[1] > 640
    piece = render_sentence(text, 24, PALETTE[0], width)
    assert max(0, width - 40) < piece.shape[1] <= width
    alike = piece.shape[1] // 2  # it begins as the whole does, and ends with its cut
    assert np.array_equal(piece[:, :alike], whole[:, :alike])
    assert np.array_equal(render_sentence("short", 24, PALETTE[0], 640), render_label("short", 24, PALETTE[0]))
    assert render_sentence("", 24, PALETTE[0], 640).shape[0] == 24


@pytest.mark.parametrize(("x", "y"), [(0, 0), (-3, -2), (8, 9), (50, 50), (-50, 0), (9, -1)])
def test_paste_clips_to_the_image(x: int, y: int) -> None:
    image, piece = np.zeros((12, 10, 3), np.uint8), np.full((4, 6, 3), 9, np.uint8)
    truth = np.zeros((12, 10), np.uint8)
    for row in range(4):
        for column in range(6):
            if 0 <= y + row < 12 and 0 <= x + column < 10:
                truth[y + row, x + column] = 9
    paste(image, piece, x, y)
    assert np.array_equal(image[..., 0], truth)


def test_colours_are_stable_and_repeat() -> None:
    assert colour(3) == PALETTE[3] == colour(3 + len(PALETTE))
    assert len(set(PALETTE)) == len(PALETTE)
