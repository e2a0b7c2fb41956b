"""Answers the env process's jobs in the program's own thread, in place of the workers.

No process stands behind the places it answers for. The env process books them tick by tick as it books workers, and
never waits: a thread that is slow finds that ticks have gone on, and how many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy.typing as npt

from rtcore.clock import MonotonicClock
from rtcore.memory.layout import FrameHeader
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.dispatch import TickKind
from rtcore.scheduling.jobs import Answer

#: From one check for a frame to the next, once it should be there [ns].
_POLL_NS = 50_000
#: The longest such pause, for a frame that is long overdue [ns].
_LONGEST_POLL_NS = 1_000_000


class Seen(NamedTuple):
    """The result of a step: the newest frame, and everything since the one before. Times in ns.

    `frame`: a private copy. `stamps`: when its parts were measured (`FrameRing.read_stamps`). `applied`: bytes of the
    action applied at its tick (`ActionSpec.nbytes`). `reward`: sum over `num_ticks`. Of these, `acted_ticks`: with an
    action of the program; `missed_ticks`: without one that could have had one; `lost_ticks`: overwritten before they
    were read, so that it is not known which (their rewards are in the sum all the same). The rest was skipped by the
    env process, or held.
    """

    header: FrameHeader
    frame: npt.NDArray[Any]
    applied: bytes
    reward: float
    num_ticks: int
    acted_ticks: int
    missed_ticks: int
    lost_ticks: int
    seen_ns: int
    stamps: bytes

    @property
    def is_last(self) -> bool:
        """Of its episode."""
        return bool(self.header.terminated or self.header.truncated)


class Player:
    """Sees frames, answers jobs, asks for episodes. For one thread. Owns: every action slot of the run.

    `request_reset(seed, options)` sends the request on and returns its number; `check` raises if the run is over.
    """

    def __init__(
        self,
        shared: SharedRun,
        period_ns: int,
        request_reset: Callable[[int | None, dict[str, Any] | None], int],
        check: Callable[[], None],
    ) -> None:
        self._ring = shared.ring
        self._jobs = shared.jobs
        self._slots = shared.slots
        self._status = shared.env_status
        self._places = range(shared.layout.max_workers)
        self._place_status = shared.worker_status
        self._period_ns = period_ns
        self._request_reset = request_reset
        self._check = check
        self._clock = MonotonicClock()
        self._answered = [shared.jobs.newest(place) for place in self._places]
        self._no_action = bytes(shared.layout.chunk * shared.layout.action_bytes)
        self._frame = shared.ring.empty_frames(1)[0, ...]
        self._usual_publish_ns = 0
        self.seen: Seen | None = None
        self.answered_ns = 0
        for place in shared.worker_status:
            # For rtcore-top: this process is the worker of every place.
            place["pid"] = os.getpid()
            place["generation"] = place["ready"] = 1

    # -- what the program does -----------------------------------------------------------------------------

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Seen:
        """A fresh episode, at the next tick; returns its first frame. Real time goes on from there.

        If the episode is over before a job of it could be booked (a place comes back a tick late, and the episode is
        as short as that), it is its first frame all the same: the next step says at once that it was the last.
        """
        self._discard_before(None)
        order_seq = self._request_reset(seed, options)
        while True:
            outstanding = self._outstanding()
            if self._status["reset_seen"] == order_seq:
                break
            # All of them were booked before the episode began: the word was read after they were.
            self._discard(outstanding)
            self._pause()
        first_seq = self._status["reset_frame_seq"]
        newest = self._ring.sequence.newest
        while not self._has_job_since(first_seq):
            # In this order: a job is booked before the frame it is for, so that none follows an episode's last frame.
            newest_seq = newest()
            if newest_seq >= first_seq and self._is_last(newest_seq) and not self._has_job_since(first_seq):
                return self._read_frame(first_seq, fresh=True)
            self._discard_before(first_seq)
            self._pause()
        booked_seq = min(frame_seq for _, _, frame_seq in self._outstanding() if frame_seq >= first_seq)
        while newest() < booked_seq:
            self._pause()
        return self._read_frame(booked_seq, fresh=True)

    def step(self, action: bytes, clipped: int = 0) -> Seen:
        """Answer every job whose frame was seen, and return with the next frame that has a job to answer.

        With the last frame of an episode in any case. ValueError before the first `reset`.
        """
        seen = self.seen
        if seen is None:
            raise ValueError("no episode has begun: call reset() first")
        now_ns = self._clock.now_ns()
        for place, job_seq, frame_seq in self._outstanding():
            if frame_seq <= seen.header.frame_seq:
                self._answer(place, job_seq, action, seen=seen, start_ns=now_ns, clipped=clipped)
        self.answered_ns = self._clock.now_ns()
        return self._see_next()

    def count(self, name: str) -> None:
        """One more of a worker's counts (`WORKER_STATUS`), for the program itself."""
        self._place_status[0].add(name)

    # -- jobs ----------------------------------------------------------------------------------------------

    def _outstanding(self) -> list[tuple[int, int, int]]:
        """(place, job_seq, frame_seq) of every job that is not answered."""
        found = []
        for place in self._places:
            job_seq = self._jobs.newest(place)
            if job_seq != self._answered[place]:
                found.append((place, job_seq, self._jobs.read(place).frame_seq))
        return found

    def _has_job_since(self, first_seq: int) -> bool:
        return any(frame_seq >= first_seq for _, _, frame_seq in self._outstanding())

    def _answer(self, place: int, job_seq: int, action: bytes, seen: Seen, start_ns: int, clipped: int) -> None:
        header, job = seen.header, self._jobs.read(place)
        self._write(
            place,
            Answer(
                entry_seq=self._slots.newest(place) + 1,
                job_seq=job_seq,
                obs_tick=header.tick,
                due_tick=job.due_tick,
                episode=header.episode,
                frame_seq=header.frame_seq,
                generation=job.generation,
                frame_publish_ns=header.publish_ns,
                start_ns=seen.seen_ns,
                read_ns=seen.seen_ns,
                infer_end_ns=start_ns,
                write_ns=self._clock.now_ns(),
                clipped=clipped,
                actions=action,
            ),
        )
        self._place_status[place].add("inferences")

    def _discard_before(self, frame_seq: int | None) -> None:
        self._discard([job for job in self._outstanding() if frame_seq is None or job[2] < frame_seq])

    def _discard(self, jobs: list[tuple[int, int, int]]) -> None:
        """Give places back whose jobs are for an episode that is over: they end as `STALE_EPISODE`."""
        for place, job_seq, frame_seq in jobs:
            job = self._jobs.read(place)
            answer = Answer(
                entry_seq=self._slots.newest(place) + 1,
                job_seq=job_seq,
                obs_tick=job.obs_tick,
                due_tick=job.due_tick,
                frame_seq=frame_seq,
                generation=job.generation,
                write_ns=self._clock.now_ns(),
                actions=self._no_action,
            )
            self._write(place, answer)

    def _write(self, place: int, answer: Answer) -> None:
        self._slots.write(place, answer)
        self._answered[place] = answer.job_seq

    # -- frames --------------------------------------------------------------------------------------------

    def _see_next(self) -> Seen:
        # A frame that is there already was made without the answer that was just written.
        newest_seq = self._ring.sequence.newest()
        while not self._is_last(newest_seq):
            newest_seq = self._wait_for_frame_after(newest_seq)
            if any(frame_seq <= newest_seq for _, _, frame_seq in self._outstanding()):
                break
            # No place was free for this frame, because the last answer came just after its tick: an action chosen
            # from this frame would have no job. Wait for the next one.
        return self._read_frame(newest_seq)

    def _is_last(self, newest_seq: int) -> bool:
        """The newest frame is its episode's last: none follows it until a reset."""
        _, header = self._ring.read_header(newest_seq)
        return header is not None and bool(header.terminated or header.truncated)

    def _read_frame(self, frame_seq: int, *, fresh: bool = False) -> Seen:
        """Copy a frame and add up what happened since the last one that was looked at."""
        while True:
            _, header = self._ring.read_with_header(frame_seq, self._frame)
            applied, stamps = self._ring.read_action(frame_seq), self._ring.read_stamps(frame_seq)
            if header is not None and applied is not None and stamps is not None:
                break
            # This process did not run until the whole ring was overwritten: go on with the newest frame.
            frame_seq = self._ring.sequence.newest()
        last = None if fresh else self.seen
        sums = (header.reward, 0, 0, 0, 0) if last is None else self._add_up(last.header, header)
        now_ns = self._clock.now_ns()
        late_ns = header.publish_ns - header.deadline_ns
        self._usual_publish_ns += (min(late_ns, self._period_ns) - self._usual_publish_ns) >> 3
        self.seen = Seen(header, self._frame.copy(), applied, *sums, now_ns, stamps=stamps)
        return self.seen

    def _add_up(self, last: FrameHeader, header: FrameHeader) -> tuple[float, int, int, int, int]:
        """Of the frames after `last` up to `header`: `reward` to `lost_ticks` of a `Seen`."""
        reward, acted_ticks, missed_ticks, lost_ticks = 0.0, 0, 0, 0
        for seq in range(last.frame_seq + 1, header.frame_seq + 1):
            _, passed = self._ring.read_header(seq)
            if passed is None:
                lost_ticks += 1
                continue
            reward += passed.reward
            acted_ticks += passed.kind == TickKind.ACTED
            missed_ticks += passed.kind in (TickKind.MISSED, TickKind.IDLE)
        if lost_ticks:
            # Each header also has the sum so far: no reward goes with the frames that were overwritten.
            reward = header.episode_return - last.episode_return
        return reward, header.tick - last.tick, acted_ticks, missed_ticks, lost_ticks

    def _wait_for_frame_after(self, frame_seq: int) -> int:
        """Number of the newest frame, as soon as it is newer than that: sleep to the next tick, then check often.

        No frame comes sooner than a period after the deadline of this one; one that is overdue may come at any moment.
        """
        newest = self._ring.sequence.newest
        _, header = self._ring.read_header(frame_seq)
        if header is not None and newest() <= frame_seq:
            due_ns = header.deadline_ns + self._period_ns + self._usual_publish_ns
            self._clock.sleep_until_ns(due_ns - _POLL_NS)
        poll_ns = _POLL_NS
        while newest() <= frame_seq:
            self._pause(poll_ns)
            poll_ns = min(poll_ns + (poll_ns >> 3), _LONGEST_POLL_NS)
        return newest()

    def _pause(self, poll_ns: int = _POLL_NS) -> None:
        self._check()
        self._clock.sleep_until_ns(self._clock.now_ns() + poll_ns)
