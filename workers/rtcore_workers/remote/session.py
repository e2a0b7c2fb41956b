"""Who says what when, on both sides of a link. Pure: packets go in and come out, the time is told.

    near (a run's worker place)                      far (rtcore-worker)
    -- connected ------------------------------------------------------------
    HELLO (who I am, a number that I drew)     ->
                                               <-    WELCOME (who I am, your number, a new session)
    SETUP (the policy, in that session)        ->
                                               <-    READY (what it needs)
    JOB n                                      ->
                                               <-    ANSWER n
    -- the connection ends: all of this is void -----------------------------

The session's number is drawn by far for each HELLO and stands in every packet after it, so that nothing that was sent
in another session does anything. Far serves one run's place at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from rtcore.clock import NS_PER_S
from rtcore.errors import LinkError, LinkLost, RtcoreError, shortened, text_of, words_of
from rtcore_workers.remote.wire import WIRE_VERSION, Kind, Packet, in_words

#: A connected worker that says nothing for so long is taken for one that is busy, or that hangs.
GREETING_NS = 5 * NS_PER_S
#: A refusal that time may cure.
BUSY = "busy"
_TEXT_CHARS = 4000


class State(Enum):
    """Of near."""

    CONNECTING = "is not connected"
    GREETING = "waits to be welcomed"
    BUILDING = "waits for the policy to be built"
    READY = "is ready"
    LOST = "is lost"


class Near:
    """The side of the run: from a connection to a worker that is ready, once."""

    def __init__(self, hello: Mapping[str, Any], setup: Mapping[str, Any], number: int) -> None:
        """`hello`, `setup`: what is said; `number`: drawn for this connection."""
        self.state = State.CONNECTING
        self.session = 0
        #: What far says of itself, and of the policy, once it has.
        self.far: dict[str, Any] = {}
        self.ready: dict[str, Any] = {}
        self._hello, self._setup, self._number = hello, setup, number
        self._since_ns = 0

    def connected(self, now_ns: int) -> list[Packet]:
        """The transport is up: the packets to send."""
        if self.state is not State.CONNECTING:
            raise LinkLost("the connection was lost and made again")
        self.state, self._since_ns = State.GREETING, now_ns
        return [in_words(Kind.HELLO, self._hello, number=self._number)]

    def take(self, packet: Packet, now_ns: int) -> list[Packet]:
        """What far has sent; the packets to send.

        Raises:
            LinkLost: It is busy: later it may not be.
            LinkError: It refuses, or says what does not belong here.
        """
        if packet.kind is Kind.REFUSED and packet.session in (0, self.session):
            said = packet.said()
            error = LinkLost if said.get("why") == BUSY else LinkError
            raise error(str(said.get("text", "refused, and does not say why")))
        if self.state is State.GREETING and packet.kind is Kind.WELCOME:
            if packet.number != self._number or not packet.session:
                return []  # the answer to somebody else's HELLO
            self.far, self.session = packet.said(), packet.session
            self.state = State.BUILDING
            return [in_words(Kind.SETUP, self._setup, session=self.session)]
        if packet.session != self.session:
            return []  # of a session before this one
        if self.state is State.BUILDING and packet.kind is Kind.READY:
            self.ready, self.state = packet.said(), State.READY
        return []

    def check(self, now_ns: int) -> None:
        """Now and then before it is ready. LinkLost if far is connected and says nothing.

        How long a policy may take to be built is not said here.
        """
        if self.state is State.GREETING and now_ns - self._since_ns > GREETING_NS:
            raise LinkLost(
                f"connected, and no answer for {GREETING_NS / NS_PER_S:.0f} s: it computes for another run, or hangs"
            )


class Served(Protocol):
    """A policy that far has built for a session."""

    def ready(self) -> Mapping[str, Any]:
        """What near has to know of it."""
        ...

    def serve(self, packet: Packet) -> Packet | None:
        """Answer a JOB, WEIGHTS or WEIGHTS_WANTED. Raises what the policy raises."""
        ...


@dataclass(frozen=True)
class _Session:
    """`whose`: run and place, as the HELLO said. `peer`: the transport's name of that connection."""

    number: int
    peer: bytes
    whose: tuple[str, int]


#: HELLOs that may wait for their SETUP.
_MOST_WELCOMED = 16


class Far:
    """The side of `rtcore-worker`: whom it serves, and what it answers.

    Args:
        about: What it says of itself. `rtcore` in it has to be the run's as well.
        build: Makes what a SETUP says, for the run of that name. Raises RtcoreError to refuse.
        draw: A new session's number, which nobody can guess.
        is_there: Whether that peer is still connected, for a packet sent to it tells.
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        build: Callable[[str, Mapping[str, Any]], Served],
        draw: Callable[[], int],
        is_there: Callable[[bytes, Packet], bool],
    ) -> None:
        self._about, self._build, self._draw, self._is_there = about, build, draw, is_there
        self._welcomed: dict[int, _Session] = {}
        self._current: _Session | None = None
        self._served: Served | None = None
        #: Packets of a session that is over.
        self.stale = 0

    def take(self, peer: bytes, packet: Packet) -> list[Packet]:
        """A packet of that peer; the answers to it. Nothing that the peer sends makes this raise."""
        try:
            return self._take(peer, packet)
        except RtcoreError as error:
            why = BUSY if isinstance(error, _Busy) else ""
            return [_refusal(words_of(error), session=packet.session, why=why)]

    def _take(self, peer: bytes, packet: Packet) -> list[Packet]:
        if packet.kind is Kind.HELLO:
            return [self._greet(peer, packet)]
        if packet.kind is Kind.SETUP:
            return [self._begin(peer, packet)]
        current, served = self._current, self._served
        if current is None or served is None or packet.session != current.number:
            self.stale += 1
            text = "this session is over: the worker was restarted, or serves another run"
            return [_refusal(text, session=packet.session)]
        if packet.kind not in (Kind.JOB, Kind.WEIGHTS, Kind.WEIGHTS_WANTED):
            raise LinkError(f"a {packet.kind.name}, which only a worker says")
        try:
            answer = served.serve(packet)
        except LinkError:
            raise
        except Exception as error:
            said = {"kind": type(error).__name__, "text": shortened(text_of(error), _TEXT_CHARS)}
            return [in_words(Kind.FAILED, said, session=current.number, number=packet.number)]
        return [answer] if answer is not None else []

    def _greet(self, peer: bytes, packet: Packet) -> Packet:
        hello = packet.said()
        mine, theirs = self._about["rtcore"], hello.get("rtcore")
        if packet.version != WIRE_VERSION or theirs != mine:
            raise LinkError(
                f"the worker is rtcore {mine} (wire {WIRE_VERSION}), the run is rtcore {theirs} (wire "
                f"{packet.version}); expected the same. Install one version on both hosts"
            )
        whose = _whose(hello)
        self._refuse_if_busy(whose)
        session = _Session(self._draw(), peer, whose)
        self._welcomed[session.number] = session
        while len(self._welcomed) > _MOST_WELCOMED:
            del self._welcomed[next(iter(self._welcomed))]
        return in_words(Kind.WELCOME, self._about, session=session.number, number=packet.number)

    def _refuse_if_busy(self, whose: tuple[str, int]) -> None:
        current = self._current
        if current is not None and current.whose != whose and self._is_there(current.peer, Packet(Kind.PROBE)):
            run, place = current.whose
            raise _Busy(f"it serves another run ({run}, worker {place}); one worker serves one place at a time")

    def _begin(self, peer: bytes, packet: Packet) -> Packet:
        session = self._welcomed.pop(packet.session, None)
        if session is None or session.peer != peer:
            self.stale += 1
            raise LinkError("a SETUP without a WELCOME before it: it was sent in another session")
        self._refuse_if_busy(session.whose)
        setup = packet.said()
        self._current = self._served = None
        self._served = self._build(session.whose[0], setup)
        self._current = session
        return in_words(Kind.READY, self._served.ready(), session=session.number)


class _Busy(LinkError):
    """Later it may go."""


def _refusal(text: str, *, session: int = 0, why: str = "") -> Packet:
    return in_words(Kind.REFUSED, {"why": why, "text": shortened(text, _TEXT_CHARS)}, session=session)


def _whose(hello: Mapping[str, Any]) -> tuple[str, int]:
    run, place = hello.get("run_id"), hello.get("worker")
    if not isinstance(run, str) or not isinstance(place, int) or not 0 < len(run) < 200:
        raise LinkError("a HELLO that does not say whose it is; expected run_id and worker")
    return run, place
