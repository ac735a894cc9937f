"""ELAN's annotation files (.eaf).

    <ANNOTATION_DOCUMENT>
      <HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="file:///a.mp4" MIME_TYPE="video/mp4"
        RELATIVE_MEDIA_URL="./a.mp4" TIME_ORIGIN="500"/></HEADER>
      <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/> ...</TIME_ORDER>
      <TIER TIER_ID="action" ...><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1"
        TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
      <TIER TIER_ID="remark" PARENT_REF="action" ...><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a2"
        ANNOTATION_REF="a1"><ANNOTATION_VALUE>slowly</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>

Source: "ELAN Annotation Format", EAF 3.0, www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from vidgru.datasets.formats.xml_reader import Element, children
from vidgru.datasets.rows import InvalidEntryError, Options, ParseResult, did_you_mean, home_of
from vidgru.errors import AnnotationError
from vidgru.numbers import number
from vidgru.sources import VIDEO_SUFFIXES

ROOT = "ANNOTATION_DOCUMENT"


@dataclass(frozen=True, kw_only=True)
class _ElanAnnotation:
    """A time-aligned annotation (milliseconds), or one that refers to another."""

    tier: str
    where: str
    value: str
    span: tuple[float, float] | None = None
    parent: str = ""


def read_elan(path: Path, options: Options) -> ParseResult:
    """Parse an ELAN file: time-aligned annotations are events, labelled by their value, else by the name of their tier.

    Annotations that refer to another are its description, or events with its times if its tier is not selected. Time
    slots without a time are spaced evenly between their neighbours, as in ELAN. Times refer to the first video
    (`TIME_ORIGIN` is the part of it before ELAN's zero).
    """
    result = ParseResult(home=home_of(path))
    video, origin_ms = path.stem, 0.0
    slots: dict[str, float | None] = {}
    bad_slots: dict[str, InvalidEntryError] = {}
    notes: dict[str, _ElanAnnotation] = {}
    tiers: dict[str, None] = {}
    for element in children(path, ROOT):
        with result.entry():
            if element.tag == "HEADER":
                video, origin_ms = _media(path, element, result)
            elif element.tag == "TIME_ORDER":
                slots, bad_slots = _time_slots(element)
            elif element.tag == "TIER":
                name = element.require("TIER_ID")
                tiers[name] = None
                # errors in a tier that is not read do not matter
                is_read = not options.tiers or name in options.tiers
                _tier(element, slots, bad_slots, notes, result if is_read else ParseResult(home=result.home))
    _check_tiers(path, tiers, options.tiers)
    _add(result, video, origin_ms, notes, set(options.tiers or tiers))
    if not notes and not result.problems:
        with result.entry():
            result.add("the file", video)
    if len(tiers) > 1 and not options.tiers:
        result.notes.append(f"labels come from the tiers {', '.join(tiers)}; select some with `tiers`")
    return result


def _media(path: Path, header: Element, result: ParseResult) -> tuple[str, float]:
    """Return the path of the video, and its milliseconds before ELAN's zero."""
    units = header.attributes.get("TIME_UNITS", "milliseconds")
    if units != "milliseconds":
        raise InvalidEntryError(
            header.where, f"TIME_UNITS are {units}", "they must be milliseconds; save the file in a newer ELAN"
        )
    media = [
        (medium, address)
        for medium in header.all("MEDIA_DESCRIPTOR")
        for address in [_path(medium.attributes.get("RELATIVE_MEDIA_URL") or medium.attributes.get("MEDIA_URL", ""))]
        if medium.attributes.get("MIME_TYPE", "").startswith("video/")
        or PurePosixPath(address).suffix.lower() in VIDEO_SUFFIXES
    ]
    if not media:
        return path.stem, 0.0
    medium, address = media[0]
    if len(media) > 1:
        result.notes.append(f"{path.name} has {len(media)} videos; using {address}")
    full = _path(medium.attributes.get("MEDIA_URL", ""))
    result.spellings[address] = (full, f"/{full}", PurePosixPath(address).name)
    origin = medium.attributes.get("TIME_ORIGIN", "0")
    origin_ms = number(origin.strip())
    if math.isnan(origin_ms):
        message = f"TIME_ORIGIN {origin!r} is not a number of milliseconds"
        raise InvalidEntryError(medium.where, message, "set the offset of the video in ELAN and save the file")
    return address, origin_ms


def _path(address: str) -> str:
    """Return the path in an ELAN URL, without leading `./` and slashes; `#` and `?` are part of it."""
    return unquote(address.replace("\\", "/").removeprefix("file:")).removeprefix("./").lstrip("/")


def _time_slots(order: Element) -> tuple[dict[str, float | None], dict[str, InvalidEntryError]]:
    """Return the milliseconds of each time slot, None without a time and NaN for a bad one; and errors of the bad."""
    slots: dict[str, float | None] = {}
    bad_slots: dict[str, InvalidEntryError] = {}
    for slot in order.all("TIME_SLOT"):
        name = slot.attributes.get("TIME_SLOT_ID", "")
        try:
            slots[name] = float(slot.whole("TIME_VALUE")) if "TIME_VALUE" in slot.attributes else None
        except InvalidEntryError as error:
            slots[name], bad_slots[name] = math.nan, error
    return slots, bad_slots


def _tier(
    tier: Element,
    slots: dict[str, float | None],
    bad_slots: dict[str, InvalidEntryError],
    notes: dict[str, _ElanAnnotation],
    result: ParseResult,
) -> None:
    """Add the annotations of a tier to `notes`."""
    name = tier.attributes["TIER_ID"]
    timed = list(tier.all("ALIGNABLE_ANNOTATION"))
    times = _interpolated_times(timed, slots)
    for element, span in zip(timed, times, strict=True):
        with result.entry():
            if span is None:
                raise InvalidEntryError(element.where, "its time slots have no times", "align it in ELAN or delete it")
            if math.isnan(sum(span)):
                refs = (element.attributes.get(f"TIME_SLOT_REF{end}", "") for end in (1, 2))
                result.problems += [bad_slots[ref].problem for ref in refs if ref in bad_slots]
                continue
            value = element.first_text("ANNOTATION_VALUE")
            key = element.require("ANNOTATION_ID")
            notes[key] = _ElanAnnotation(tier=name, where=element.where, value=value, span=span)
    for element in tier.all("REF_ANNOTATION"):
        with result.entry():
            value = element.first_text("ANNOTATION_VALUE")
            key, parent = element.require("ANNOTATION_ID"), element.require("ANNOTATION_REF")
            notes[key] = _ElanAnnotation(tier=name, where=element.where, value=value, parent=parent)


def _interpolated_times(timed: list[Element], slots: dict[str, float | None]) -> list[tuple[float, float] | None]:
    """Return start and end of each annotation, interpolating slots without time; None if that is impossible.

    Interpolated times are added to `slots`, because a dependent tier may divide them further.
    """
    ends = [tuple(element.attributes.get(f"TIME_SLOT_REF{end}", "") for end in (1, 2)) for element in timed]
    known = {slot: slots.get(slot) for pair in ends for slot in pair}
    chain: list[str] = []  # consecutive slots, of which the first has a time
    for first, second in ends:
        if not chain or chain[-1] != first:
            chain = [first]
        chain.append(second)
        last = known[second]
        if last is not None:
            start = known[chain[0]]
            if start is not None:
                for step, slot in enumerate(chain[1:-1], start=1):
                    known[slot] = start + (last - start) * step / (len(chain) - 1)
            chain = [second]
    slots.update(known)
    spans: list[tuple[float, float] | None] = []
    for first, second in ends:
        start, end = known[first], known[second]
        spans.append(None if start is None or end is None else (start, end))
    return spans


def _check_tiers(path: Path, tiers: dict[str, None], wanted: tuple[str, ...]) -> None:
    for name in wanted:
        if name not in tiers:
            raise AnnotationError(
                f"{path}: no tier {name!r}{did_you_mean(name, tiers)}", f"its tiers are {', '.join(tiers) or 'none'}"
            )


def _add(
    result: ParseResult, video: str, origin_ms: float, notes: dict[str, _ElanAnnotation], wanted: set[str]
) -> None:
    """Make rows of the annotations on the selected tiers."""
    texts: dict[str, list[str]] = {}  # texts that refer to a time-aligned annotation
    labels: list[tuple[str, str]] = []  # annotations that are events, and those that give their times
    for key, note in notes.items():
        if note.tier in wanted:
            with result.entry():
                root = _root(key, notes)
                if root == key or notes[root].tier not in wanted:
                    labels.append((key, root))
                elif note.value:
                    texts.setdefault(root, []).append(note.value)
    for key, root in labels:
        note, span = notes[key], notes[root].span
        if span is not None:
            with result.entry():
                start_s, end_s = ((time_ms + origin_ms) / 1000 for time_ms in span)
                text = " ".join(texts.get(key, ()))
                label = note.value or note.tier
                result.add(note.where, video, start_s=start_s, end_s=end_s, label=label, description=text)


def _root(key: str, notes: dict[str, _ElanAnnotation]) -> str:
    """Return the time-aligned annotation that `key` refers to, directly or through others."""
    root, visited = key, set[str]()
    while notes[root].span is None:
        visited.add(root)
        root = notes[root].parent
        if root in visited or root not in notes:
            message = f"refers to annotation {notes[key].parent!r}, which is missing or has no times"
            raise InvalidEntryError(notes[key].where, message, "open the file in ELAN and save it")
    return root
