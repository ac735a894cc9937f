"""A live source as a stream of samples: connected again when it is lost, sampled as recordings are, never far behind.

A thread of its own reads, so that the source is not kept waiting. Samples wait in a short queue: a moment's delay costs
nothing, and who cannot keep up gets the newest sample and is told how many were passed over.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from vidgru.errors import SourceError
from vidgru.types import Array
from vidgru.video.integrity import Damage
from vidgru.video.live_connection import Connection, Decoded, LiveAddress, SourceLostError, connect
from vidgru.video.scaling import FrameScaler, scaled_size

_AHEAD_S = 5  # stamps that leap ahead of this machine's clock by more are not believed
_BACK_S = Fraction(1, 2)  # nor are those that go back by more
_DRIFT = 1e-3  # most that the clocks of camera and machine differ, seconds a second
_LEAST_S = Fraction(1, 1000)  # by which time goes on in any case where stamps are not believed


class LiveClock:
    """Gives the frames of a live source their times: seconds from its beginning.

    While a connection lasts, and its stamps neither go back nor leap, frames are as far apart as their stamps are.
    Where they do, where there are none, and from one connection to the next, time goes on by this machine's clock.

    Attributes:
        zero_s: when time was 0, by the monotonic clock and judged by the present connection: as early as its frames
            have come. So frames that come late for once do not move it, while clocks that run at different speed do.
    """

    def __init__(self) -> None:
        self.zero_s = 0.0
        self._first_zero_s: float | None = None  # as the first connection left it
        self._time: Fraction | None = None  # of the latest frame
        self._stamp: Fraction | None = None  # its stamp
        self._offset: Fraction | None = None  # from stamps to times; None: not known for this connection
        self._came_s = 0.0

    def reconnected(self) -> None:
        """What follows comes by a new connection, whose stamps begin anew."""
        if self._time is not None and self._first_zero_s is None:
            self._first_zero_s = self.zero_s
        self._offset = self._stamp = None

    @property
    def began_s(self) -> float:
        """When time was 0, by the monotonic clock and judged by the first connection.

        The frames that come first have waited until it was known what the stream is, for seconds perhaps. By so much
        time runs ahead until the next connection, which is set right by this: it does not add up.
        """
        return self.zero_s if self._first_zero_s is None else self._first_zero_s

    def time(self, stamp: Fraction | None, now_s: float, *, finite: bool) -> Fraction:
        """The time of the next frame.

        Args:
            stamp: seconds by the source's clock, from where its container starts; None where there is none.
            now_s: when it came, by the monotonic clock.
            finite: it is of a recording that is served as it is: its stamps are believed, as those of files are.
        """
        if self._time is None:
            known = stamp is not None and (finite or 0 <= stamp <= _AHEAD_S)
            time = stamp if known and stamp is not None else Fraction(0)
            self.zero_s = now_s - float(time)
        elif stamp is not None and self._offset is not None and (finite or self._is_steady(stamp, now_s)):
            time = stamp + self._offset
        else:
            zero_s = self.began_s if self._offset is None else self.zero_s
            time = max(Fraction(now_s - zero_s).limit_denominator(10**6), self._time + _LEAST_S)
            self.zero_s = now_s - float(time)
        self.zero_s = min(now_s - float(time), self.zero_s + _DRIFT * max(now_s - self._came_s, 0.0))
        self._offset = time - (stamp or 0)  # without a stamp it only says that the connection has begun
        self._time, self._stamp, self._came_s = time, stamp, now_s
        return time

    def _is_steady(self, stamp: Fraction, now_s: float) -> bool:
        if self._stamp is None:
            return False
        step = stamp - self._stamp
        return step >= -_BACK_S and step - Fraction(now_s - self._came_s) <= _AHEAD_S


_MAX_BACKLOG_S = 2.0  # of samples that wait, at most
_BACKLOG = 64  # and this many
_CLOSING_S = 2.0  # that closing waits for a source that says nothing


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """How long a source that is not there is waited for.

    Attributes:
        first_s, longest_s: pause before the first new attempt, and before any; it doubles from one to the next.
        attempts: after which a source that has never been open is given up. One that has been is never.
        gap_s: without a frame, after which what went on before counts as over.
    """

    initial_delay_s: float = 1.0
    max_delay_s: float = 30.0
    max_attempts: int = 6
    max_gap_s: float = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveFrame:
    """One sampled frame.

    Attributes:
        time_s: seconds from the beginning of the source.
        index: number of the frame among the decoded frames of the source.
        image: uint8 [height, width, 3] RGB, upright, scaled to the letterbox of its size.
        size_px: width and height of the upright frame.
        decoded_s: when it had been decoded, by the monotonic clock.
    """

    time_s: float
    index: int
    image: Array
    size_px: tuple[int, int]
    decoded_s: float


class LiveSource:
    """The samples of a live source. Reading begins with `start`.

    Args:
        address: the source.
        fps: samples a second, taken by the rule of `VideoReader.sample`.
        imgsz, stride: longer side of the detector's input, and what its sides are multiples of.
        patience: with a source that is not there.
        say: tells the user something; called by the thread that reads.

    Attributes:
        news: notified when there is a sample, or reading has ended; others may use it too.
        over: reading has ended: the source had an end, or was closed.
        error: why, where it went wrong.
        cut_short: why a source of finite length ended before its end; empty where it did not.
        passed_over: samples that were dropped because newer ones had come.
        end_s: end of the last decoded frame; of a finite source that ended well, of its container.
        damage: what was wrong, gaps between connections included.
    """

    def __init__(
        self,
        address: LiveAddress,
        fps: float,
        imgsz: int,
        reconnect: ReconnectPolicy,
        notify: Callable[[str], None],
    ) -> None:
        self._address, self._reconnect, self._notify = address, reconnect, notify
        self._rate, self._imgsz = Fraction(repr(float(fps))), imgsz
        self._most = min(max(math.ceil(_MAX_BACKLOG_S * fps), 1), _BACKLOG)
        self.condition = threading.Condition()
        self.is_finished = False
        self.error: BaseException | None = None
        self.truncation = ""
        self.dropped_frames = 0
        self.end_s = 0.0
        self.damage = Damage()
        self._waiting: deque[LiveFrame] = deque()
        self._behind_since: int | None = None  # what had been passed over before; None while keeping up
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vidgru-feed", daemon=True)
        self._timeline = LiveClock()
        self._epoch_s = time.time() - time.monotonic()
        self._index, self._next_point = 0, 0
        self._recorded_at: str | None = None
        self._latest_s: float | None = None  # when the latest frame came, by the monotonic clock; None: none has
        self._scaler: tuple[tuple[int, int, int], FrameScaler, tuple[int, int]] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self, *, idle: bool) -> LiveFrame | None:
        """The next sample; None where none waits.

        Args:
            idle: whether there is nothing else to be done: who waits for samples then has caught up.
        """
        caught_up = None
        with self.condition:
            if self._waiting:
                frame = self._waiting.popleft()
                self.condition.notify_all()
                return frame
            if idle and self._behind_since is not None:
                caught_up, self._behind_since = self.dropped_frames - self._behind_since, None
        if caught_up is not None:
            self._notify(f"{self._address.name}: caught up; {caught_up} frames were passed over")
        return None

    def waiting(self) -> bool:
        """Whether samples wait."""
        return bool(self._waiting)

    @property
    def recorded_at(self) -> str:
        """ISO 8601 time of the source's beginning, UTC. It gets more exact in the first seconds of a live stream.

        A recording that is served as it is began when its container says, else when it was opened.
        """
        return self._recorded_at or self._iso(self._timeline.began_s)

    def wall_clock(self, time_s: float) -> str:
        """ISO 8601 time that a time of the source was, UTC."""
        if self._recorded_at is not None:
            began = datetime.fromisoformat(self._recorded_at)
            return (began + timedelta(seconds=time_s)).isoformat(timespec="milliseconds")
        return self._iso(self._timeline.zero_s + time_s)

    def age_s(self, time_s: float) -> float:
        """How long ago a time of the source was; of a finite one, how long ago it was received."""
        return time.monotonic() - self._timeline.zero_s - time_s

    def close(self) -> None:
        """Stop reading. Where the source is silent, the thread ends by itself when that has lasted too long."""
        self._closing.set()
        with self.condition:
            self.condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING_S)

    def _iso(self, clock_s: float) -> str:
        """ISO 8601 time of a moment by the monotonic clock."""
        return datetime.fromtimestamp(self._epoch_s + clock_s, UTC).isoformat(timespec="milliseconds")

    # --- the thread that reads --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # a bug must not leave anyone waiting for a dead thread
            self.error = error
        with self.condition:
            self.is_finished = True
            self.condition.notify_all()

    def _follow(self) -> None:
        """Read the source, over and over again where it is lost, until it ends."""
        attempts, pause_s = 0, self._reconnect.initial_delay_s
        while not self._closing.is_set():
            before = self._latest_s
            try:
                with closing(connect(self._address)) as connection:
                    finished = self._read(connection)
                if finished:
                    return
                why, hopeless = "it ended", False
            except SourceLostError as lost:
                why, hopeless = str(lost), lost.hopeless
            if self._closing.is_set():
                return
            if self._latest_s != before:
                attempts, pause_s = 0, self._reconnect.initial_delay_s
            attempts += 1
            if self._latest_s is None and (hopeless or attempts >= self._reconnect.max_attempts):
                raise SourceError(
                    f"{self._address.name} cannot be opened, tried {'once' if attempts == 1 else f'{attempts} times'}: "
                    f"{why}",
                    "see whether another camera of this machine is meant: they are counted from 0"
                    if self._address.device is not None
                    else "see whether the address is right, and whether a player such as ffplay can open it from here",
                )
            what = "cannot be opened" if self._latest_s == before else "was lost"
            self._notify(f"{self._address.name} {what} ({why}); trying again in {pause_s:g} s")
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, self._reconnect.max_delay_s)

    def _read(self, connection: Connection) -> bool:
        """Read to the end of a connection; return True if the source has ended. Raises SourceLostError."""
        self._timeline.reconnected()
        fresh = True
        try:
            for decoded in connection.frames():
                if self._closing.is_set():
                    return True
                came_s = time.monotonic()
                if fresh:
                    fresh = False
                    self._greet(connection, decoded, came_s)
                self._latest_s = came_s
                self._receive(connection, decoded, came_s)
        except SourceLostError as lost:
            if fresh or not connection.finite:
                raise
            self.truncation = str(lost)
            return True
        finally:
            self.damage.corrupt_frames += connection.damage.corrupt_frames
            self.damage.decode_errors += connection.damage.decode_errors
        if fresh:
            raise SourceLostError("it ended before a frame could be decoded")
        if connection.duration_s is not None:
            self.end_s = connection.duration_s
        return connection.finite

    def _greet(self, connection: Connection, first: Decoded, came_s: float) -> None:
        """Tell that a connection gives frames."""
        if self._latest_s is None:
            if connection.finite:
                self._recorded_at = connection.recorded_at or self._iso(came_s)
            self._notify(f"{self._address.name} is open: {first.frame.width}x{first.frame.height}")
            return
        gap_s = came_s - self._latest_s
        self.damage.gaps += 1
        self.damage.gap_s += gap_s
        self._notify(f"{self._address.name} is back after {gap_s:.1f} s")

    def _receive(self, connection: Connection, decoded: Decoded, came_s: float) -> None:
        """Take a frame if it is a sample."""
        time_s = self._timeline.time(decoded.stamp, came_s, finite=connection.finite)
        self.end_s = max(self.end_s, float(time_s + decoded.duration))
        index, self._index = self._index, self._index + 1
        point = (time_s + connection.tick / 2) * self._rate
        if point < self._next_point:
            return
        self._next_point = int(point) + 1
        scaler, size_px = self._fit(decoded, connection.rotation)
        image = scaler.upright(scaler.scale(decoded.frame))
        frame = LiveFrame(time_s=float(time_s), index=index, image=image, size_px=size_px, decoded_s=came_s)
        self._put(frame, patiently=connection.finite)

    def _fit(self, decoded: Decoded, rotation: int) -> tuple[FrameScaler, tuple[int, int]]:
        """The scaler for frames like this one, and their upright size. A source may change its size at any time."""
        width, height = decoded.frame.width, decoded.frame.height
        stored = (width, height, rotation)
        if self._scaler is None or self._scaler[0] != stored:
            size_px = (height, width) if rotation in (90, 270) else (width, height)
            content_wh = scaled_size(size_px, self._imgsz)
            self._scaler = (stored, FrameScaler(content_wh, rotation), size_px)
        return self._scaler[1:]

    def _put(self, frame: LiveFrame, *, patiently: bool) -> None:
        """Have a sample wait for its turn; where too many do, they are dropped for it, unless the source can wait."""
        falls_behind = False
        with self.condition:
            while patiently and len(self._waiting) >= self._most and not self._closing.is_set():
                self.condition.wait()
            if self._closing.is_set():
                return
            # Who has fallen behind gets evenly spaced samples until it has caught up, and not stretches with gaps.
            if len(self._waiting) >= (self._most if self._behind_since is None else 1):
                falls_behind = self._behind_since is None
                if falls_behind:
                    self._behind_since = self.dropped_frames
                self.dropped_frames += len(self._waiting)
                self._waiting.clear()
            self._waiting.append(frame)
            self.condition.notify_all()
        if falls_behind:
            self._notify(
                f"{self._address.name}: the detector is behind; the newest frame is next, others are passed over"
            )
