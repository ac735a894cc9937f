"""The time of a live source: its own stamps where they can be believed, this machine's clock where they cannot."""

from __future__ import annotations

from fractions import Fraction

_AHEAD_S = 5  # stamps that leap ahead of this machine's clock by more are not believed
_BACK_S = Fraction(1, 2)  # nor are those that go back by more
_DRIFT = 1e-3  # most that the clocks of camera and machine differ, seconds a second
_LEAST_S = Fraction(1, 1000)  # by which time goes on in any case where stamps are not believed


class Timeline:
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
