"""Whether descriptions of the demo's events are right: who, what and which way, held against the truth."""

from __future__ import annotations

from collections.abc import Sequence

from vidgru.demo.sentences import Language, Told, parse

ATTRIBUTES = ("who", "what", "ways")


def right(description: str | None, truth: Told, language: Language) -> dict[str, bool]:
    """Which attributes a description tells rightly, by name, and under "all" whether it does so of each.

    Of what is none of the demo's sentences nothing is right: it cannot be held against the scene.
    """
    told = parse(description or "", language)
    if told is None:
        return dict.fromkeys(("all", *ATTRIBUTES), False)
    each = {"who": told.who == truth.who, "what": told.kind == truth.kind, "ways": told.ways == truth.ways}
    return {"all": all(each.values()), **each}


def attribute_accuracy(
    descriptions: Sequence[str | None], truths: Sequence[Told], language: Language
) -> dict[str, float]:
    """Share of descriptions that tell each attribute rightly, and all of them ("all"); 0 to 1.

    Raises:
        ValueError: there are none, or not as many descriptions as truths.
    """
    if not truths:
        raise ValueError("attribute_accuracy needs at least one description")
    found = [right(text, truth, language) for text, truth in zip(descriptions, truths, strict=True)]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def value_accuracy(
    descriptions: Sequence[str | None], truths: Sequence[Told], language: Language
) -> dict[str, tuple[float, int]]:
    """Each attribute of `Told.attributes` for itself: in which share of the descriptions it is right, and of how many.

    Raises:
        ValueError: not as many descriptions as truths.
    """
    found: dict[str, list[bool]] = {}
    for text, truth in zip(descriptions, truths, strict=True):
        told = parse(text or "", language)
        for name, value in truth.attributes.items():
            found.setdefault(name, []).append(told is not None and told.attributes.get(name) == value)
    return {name: (sum(some) / len(some), len(some)) for name, some in sorted(found.items())}
