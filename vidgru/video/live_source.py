"""A live source as a stream of samples: reconnected when it is lost, sampled like recordings, never far behind.

A thread of its own reads, so that the source never waits. Samples wait in a short queue: a short delay costs nothing,
and a consumer that cannot keep up gets the newest sample while older ones are dropped, with a notice.
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
from vidgru.video.damage import Damage
from vidgru.video.live_connection import Connection, DecodedFrame, LiveAddress, SourceLostError, connect
from vidgru.video.scaling import FrameScaler, scaled_size
from vidgru.video.timestamps import SamplingGrid

_MAX_BACKLOG_S = 2.0  # samples that may wait, in seconds
_MAX_BACKLOG = 64  # and in number
_CLOSE_TIMEOUT_S = 2.0  # a thread that waits for a silent source ends later, by itself

_MAX_LEAP_S = 5  # stamps that run ahead of the local clock by more are not used
_MAX_BACKSTEP_S = Fraction(1, 2)  # nor are those that go back by more
_MAX_DRIFT = 1e-3  # between the clocks of source and machine, seconds per second
_MIN_STEP_S = Fraction(1, 1000)  # minimum step of time if stamps are not used


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """When to retry a source that cannot be opened or is lost.

    Attributes:
        initial_delay_s: Seconds before the first retry; each further delay is twice the one before.
        max_delay_s: Maximum seconds before a retry.
        max_attempts: Attempts after which a source that has never been open is given up. A source that has been open
            is retried forever.
        max_gap_s: Seconds without a frame after which open events are closed.
        once: End with the source instead of reconnecting when it has been open and ends or is lost.
    """

    initial_delay_s: float = 1.0
    max_delay_s: float = 30.0
    max_attempts: int = 6
    max_gap_s: float = 10.0
    once: bool = False


class LiveClock:
    """Time of the frames of a live source in seconds from its start: by its own stamps, or by the local clock.

    Within a connection, frames are as far apart as their stamps, unless stamps are missing, go back or leap. Then, and
    from one connection to the next, time follows the local clock.

    Attributes:
        zero_s: Monotonic clock time of source time 0, estimated from the present connection as the earliest that fits
            its frames. So a single late frame does not change it, but clocks of different speed do.
    """

    def __init__(self) -> None:
        self.zero_s = 0.0
        self._first_zero_s: float | None = None  # `zero_s` at the end of the first connection
        self._time: Fraction | None = None  # of the latest frame
        self._stamp: Fraction | None = None  # of the latest frame
        self._offset: Fraction | None = None  # from stamps to times; None before the connection's first frame
        self._arrival_s = 0.0  # of the latest frame

    @property
    def first_zero_s(self) -> float:
        """Monotonic clock time of source time 0, estimated from the first connection.

        The first frames of a connection have waited until FFmpeg identified the stream, perhaps for seconds, and time
        runs ahead by as much. Starting the next connection from this value keeps those delays from adding up.
        """
        return self.zero_s if self._first_zero_s is None else self._first_zero_s

    def reconnect(self) -> None:
        """Start a new connection, whose stamps start anew."""
        if self._time is not None and self._first_zero_s is None:
            self._first_zero_s = self.zero_s
        self._offset = self._stamp = None

    def time(self, stamp: Fraction | None, arrival_s: float, *, is_finite: bool) -> Fraction:
        """Return the time of the next frame.

        Args:
            stamp: Seconds on the source's clock from the start of its container; None without a timestamp.
            arrival_s: Monotonic clock time at which the frame arrived.
            is_finite: Whether the source is a served recording, whose stamps are always used, as those of files are.
        """
        if self._time is None:
            is_usable = stamp is not None and (is_finite or 0 <= stamp <= _MAX_LEAP_S)
            time = stamp if is_usable and stamp is not None else Fraction(0)
            self.zero_s = arrival_s - float(time)
        elif stamp is not None and self._offset is not None and (is_finite or self._is_steady(stamp, arrival_s)):
            time = stamp + self._offset
        else:
            zero_s = self.first_zero_s if self._offset is None else self.zero_s
            time = max(Fraction(arrival_s - zero_s).limit_denominator(10**6), self._time + _MIN_STEP_S)
            self.zero_s = arrival_s - float(time)
        self.zero_s = min(arrival_s - float(time), self.zero_s + _MAX_DRIFT * max(arrival_s - self._arrival_s, 0.0))
        self._offset = time - (stamp or 0)  # without a stamp it only marks that the connection has started
        self._time, self._stamp, self._arrival_s = time, stamp, arrival_s
        return time

    def _is_steady(self, stamp: Fraction, arrival_s: float) -> bool:
        if self._stamp is None:
            return False
        step = stamp - self._stamp
        return step >= -_MAX_BACKSTEP_S and step - Fraction(arrival_s - self._arrival_s) <= _MAX_LEAP_S


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveFrame:
    """A sampled frame of a live source.

    Attributes:
        time_s: Seconds from the start of the source.
        index: Index of the frame among the decoded frames of the source.
        image: uint8 [height, width, 3], RGB, upright, its longer side scaled to `imgsz`.
        size_px: Width and height of the upright frame before scaling.
        decoded_s: Monotonic clock time at which the frame had been decoded.
    """

    time_s: float
    index: int
    image: Array
    size_px: tuple[int, int]
    decoded_s: float


class LiveSource:
    """Samples of a live source. Reading starts with `start`.

    Args:
        address: Address of the source.
        fps: Samples per second, taken by the rule of `SamplingGrid`.
        imgsz: Longer side of the detector's input, to which frames are scaled.
        reconnect: When to retry a source that cannot be opened or is lost.
        notify: Shows the user a line; called by the reading thread.

    Attributes:
        condition: Notified when there is a sample and when reading ends; others may use it too.
        is_finished: Whether reading has ended, because the source ended, was closed or failed.
        error: Error that ended the reading; None if there was none.
        truncation: Reason why a served recording ended early; empty if it did not.
        dropped_frames: Samples dropped in favour of newer ones.
        end_s: End of the last decoded frame; the container's duration once a served recording has been read whole.
        damage: Damage found so far, gaps between connections included.
    """

    def __init__(
        self,
        address: LiveAddress,
        fps: float,
        imgsz: int,
        reconnect: ReconnectPolicy,
        notify: Callable[[str], None],
    ) -> None:
        self._address, self._imgsz, self._reconnect, self._notify = address, imgsz, reconnect, notify
        self.condition = threading.Condition()
        self.is_finished = False
        self.error: BaseException | None = None
        self.truncation = ""
        self.dropped_frames = 0
        self.end_s = 0.0
        self.damage = Damage()
        self._queue: deque[LiveFrame] = deque()
        self._queue_size = min(max(math.ceil(_MAX_BACKLOG_S * fps), 1), _MAX_BACKLOG)
        self._dropped_before: int | None = None  # `dropped_frames` when the consumer fell behind; None if it keeps up
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vidgru-live", daemon=True)
        self._clock = LiveClock()
        self._grid = SamplingGrid(fps)
        self._epoch_s = time.time() - time.monotonic()
        self._index = 0
        self._recorded_at: str | None = None
        self._latest_s: float | None = None  # monotonic clock time of the latest frame; None before the first
        self._scaler: tuple[tuple[int, int, int], FrameScaler, tuple[int, int]] | None = None

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def take(self, *, is_idle: bool) -> LiveFrame | None:
        """Return the next sample, None if none is waiting.

        Args:
            is_idle: Whether the consumer has nothing else to do. If it is idle and no sample waits, it has caught up.
        """
        dropped = None
        with self.condition:
            if self._queue:
                frame = self._queue.popleft()
                self.condition.notify_all()
                return frame
            if is_idle and self._dropped_before is not None:
                dropped, self._dropped_before = self.dropped_frames - self._dropped_before, None
        if dropped is not None:
            self._notify(f"{self._address.name}: caught up, {dropped} frames dropped")
        return None

    def has_frames(self) -> bool:
        """Return whether samples are waiting."""
        return bool(self._queue)

    @property
    def recorded_at(self) -> str:
        """ISO 8601 time of the start of the source, UTC. Of a live stream it settles in the first seconds.

        A served recording starts at its creation time or, if its container declares none, when it was opened.
        """
        return self._recorded_at or self._iso_time(self._clock.first_zero_s)

    def wall_clock(self, time_s: float) -> str:
        """Return the ISO 8601 time, UTC, of a time of the source."""
        if self._recorded_at is not None:
            start = datetime.fromisoformat(self._recorded_at)
            return (start + timedelta(seconds=time_s)).isoformat(timespec="milliseconds")
        return self._iso_time(self._clock.zero_s + time_s)

    def age_s(self, time_s: float) -> float:
        """Return how many seconds ago a time of the source was; of a served recording, how long ago it arrived."""
        return time.monotonic() - self._clock.zero_s - time_s

    def silence_s(self) -> float:
        """Return for how many seconds no frame has arrived; 0 before the first one."""
        latest_s = self._latest_s
        return 0.0 if latest_s is None else time.monotonic() - latest_s

    def close(self) -> None:
        """Stop reading. If the source is silent, the thread ends later, when the source times out."""
        self._stop.set()
        with self.condition:
            self.condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _iso_time(self, monotonic_s: float) -> str:
        return datetime.fromtimestamp(self._epoch_s + monotonic_s, UTC).isoformat(timespec="milliseconds")

    # --- reading thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read_source()
        except BaseException as error:  # a bug must not leave consumers waiting for a dead thread
            self.error = error
        with self.condition:
            self.is_finished = True
            self.condition.notify_all()

    def _read_source(self) -> None:
        """Read the source to its end, reconnecting when it is lost."""
        attempts, delay_s = 0, self._reconnect.initial_delay_s
        while not self._stop.is_set():
            latest_before = self._latest_s
            try:
                with closing(connect(self._address)) as connection:
                    has_ended = self._read_connection(connection)
                if has_ended:
                    return
                reason, remedy, is_final = "it ended", "", False
            except SourceLostError as lost:
                reason, remedy, is_final = str(lost), lost.remedy, lost.is_final
            if self._stop.is_set():
                return
            was_open = self._latest_s != latest_before
            if was_open and self._reconnect.once:
                self._notify(f"{self._address.name} is left ({reason})")
                return
            if was_open:
                attempts, delay_s = 0, self._reconnect.initial_delay_s
            attempts += 1
            if self._latest_s is None and (is_final or attempts >= self._reconnect.max_attempts):
                tries = "once" if attempts == 1 else f"{attempts} times"
                if not remedy and self._address.device is not None:
                    remedy = "check that another program can show the camera, then close that program"
                elif not remedy:
                    remedy = "check the address, and that a player such as ffplay can open it from this machine"
                raise SourceError(f"{self._address.name} cannot be opened, tried {tries}: {reason}", remedy)
            problem = "was lost" if was_open else "cannot be opened"
            self._notify(f"{self._address.name} {problem} ({reason}); retrying in {delay_s:g} s")
            self._stop.wait(delay_s)
            delay_s = min(2 * delay_s, self._reconnect.max_delay_s)

    def _read_connection(self, connection: Connection) -> bool:
        """Read a connection to its end; return whether the source has ended too. Raises SourceLostError."""
        self._clock.reconnect()
        is_first = True
        try:
            for decoded in connection.frames():
                if self._stop.is_set():
                    return True
                arrival_s = time.monotonic()
                if is_first:
                    is_first = False
                    self._report_open(connection, decoded, arrival_s)
                self._latest_s = arrival_s
                self._sample(connection, decoded, arrival_s)
        except SourceLostError as lost:
            if is_first or not connection.is_finite:
                raise
            self.truncation = str(lost)
            return True
        finally:
            self.damage.corrupt_frames += connection.damage.corrupt_frames
            self.damage.decode_errors += connection.damage.decode_errors
        if is_first:
            raise SourceLostError("it ended before a frame could be decoded")
        if connection.duration_s is not None:
            self.end_s = connection.duration_s
        return connection.is_finite

    def _report_open(self, connection: Connection, first: DecodedFrame, arrival_s: float) -> None:
        """Notify the user that a connection gives frames, and count the gap before it."""
        if self._latest_s is None:
            if connection.is_finite:
                self._recorded_at = connection.recorded_at or self._iso_time(arrival_s)
            self._notify(f"{self._address.name} is open: {first.frame.width}x{first.frame.height}")
            return
        gap_s = arrival_s - self._latest_s
        self.damage.gaps += 1
        self.damage.gap_s += gap_s
        self._notify(f"{self._address.name} is back after {gap_s:.1f} s")

    def _sample(self, connection: Connection, decoded: DecodedFrame, arrival_s: float) -> None:
        """Queue a frame if it is a sample."""
        time = self._clock.time(decoded.stamp, arrival_s, is_finite=connection.is_finite)
        self.end_s = max(self.end_s, float(time + decoded.duration))
        index, self._index = self._index, self._index + 1
        if not self._grid.is_sample(time, connection.tick):
            return
        # A source may change its frame size at any time.
        stored_format = (decoded.frame.width, decoded.frame.height, connection.rotation)
        if self._scaler is None or self._scaler[0] != stored_format:
            width, height, rotation = stored_format
            size_px = (height, width) if rotation in (90, 270) else (width, height)
            self._scaler = (stored_format, FrameScaler(scaled_size(size_px, self._imgsz), rotation), size_px)
        _, scaler, size_px = self._scaler
        image = scaler.upright(scaler.scale(decoded.frame))
        frame = LiveFrame(time_s=float(time), index=index, image=image, size_px=size_px, decoded_s=arrival_s)
        self._put(frame, can_wait=connection.is_finite)

    def _put(self, frame: LiveFrame, *, can_wait: bool) -> None:
        """Queue a sample. If the queue is full, wait if the source can, else drop the waiting samples."""
        falls_behind = False
        with self.condition:
            while can_wait and len(self._queue) >= self._queue_size and not self._stop.is_set():
                self.condition.wait()
            if self._stop.is_set():
                return
            # Once behind, the consumer gets the newest sample only, until it has caught up: evenly spaced samples are
            # better than full seconds with gaps between them.
            if len(self._queue) >= (self._queue_size if self._dropped_before is None else 1):
                falls_behind = self._dropped_before is None
                if falls_behind:
                    self._dropped_before = self.dropped_frames
                self.dropped_frames += len(self._queue)
                self._queue.clear()
            self._queue.append(frame)
            self.condition.notify_all()
        if falls_behind:
            self._notify(f"{self._address.name}: the detector is behind; dropping frames to keep up")
