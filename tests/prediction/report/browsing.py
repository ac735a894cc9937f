"""What a person does in the page of a recording, and sees there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidgru.datasets.annotations import load_dataset

# Time of the frame on the screen, noted when the page has been notified of it.
NOTE_FRAMES = """
window.presentedTime = NaN;
const request = HTMLVideoElement.prototype.requestVideoFrameCallback;
HTMLVideoElement.prototype.requestVideoFrameCallback = function (notify) {
  return request.call(this, (now, frame) => {
    notify(now, frame);
    window.presentedTime = frame.mediaTime;
  });
};
"""


@contextmanager
def browser_pages(chromium: Any, ignore: str | None = None) -> Iterator[Callable[..., Any]]:
    """Opens addresses as pages; in the end, their consoles must hold only what a test expects or all tests ignore."""
    complaints: list[str] = []
    contexts = []

    def open_page(address: str, *, expect: str | None = None, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.add_init_script(NOTE_FRAMES)

        def complain(text: str) -> None:
            if not any(part is not None and part in text for part in (expect, ignore)):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.goto(address)
        return page

    try:
        yield open_page
    finally:
        for context in contexts:
            context.close()
    assert complaints == [], complaints


def ready(page: Any) -> Any:
    page.wait_for_function("() => video.readyState >= 2 && !video.seeking")
    return page


def time_of(page: Any) -> float:
    return float(page.evaluate("() => video.currentTime"))


def settle(page: Any, time_s: float) -> None:
    """Wait until the frame at a time is on the screen, and what belongs to it is drawn."""
    page.wait_for_function(
        """(time) => {
          const { currentTime, seeking } = video; // elements are globals by their ids
          const lag = currentTime - presentedTime; // a frame lasts 0.1 s
          return Math.abs(currentTime - time) < 0.1 && !seeking && lag > -0.01 && lag < 0.11;
        }""",
        arg=time_s,
    )
    redrawn(page)


def redrawn(page: Any) -> None:
    """Wait until the page has drawn what has changed, which it does with the next screen frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def click_time(page: Any, time_s: float, duration_s: float = 20.0, target: str = "#ruler") -> None:
    box = page.locator(target).bounding_box()
    page.mouse.click(box["x"] + time_s / duration_s * box["width"], box["y"] + box["height"] / 2)


def selected(page: Any) -> str:
    return str(page.locator("#panel_label").inner_text()) if page.locator("#panel").is_visible() else ""


def listed(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in texts(page, ".row.event")]


def texts(page: Any, selector: str) -> list[str]:
    """Texts of elements, read in one go: `all_inner_texts` reads later, when a redraw may have replaced them."""
    script = "(selector) => [...document.querySelectorAll(selector)].map((element) => element.innerText)"
    return list(page.evaluate(script, selector))


def saved(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator("#save").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def annotations(path: Path) -> list[tuple[float | None, float | None, str | None, str | None]]:
    return [(a.start_s, a.end_s, a.label, a.description) for a in load_dataset(path).annotations]
