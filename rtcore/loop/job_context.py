"""What jobs carry and answers hand back, as the loop moves it: context, carried state, features, extras.

The loop is the only mover. What an answer hands on (its new state, its features) is copied from its payload into the
contexts of the jobs that are booked after it, so that whatever a worker reads is whole, however many compute at once.
Pure: no process, no shared memory. Allocates a few short strings of bytes for each job and each answer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from rtcore.scheduling.dispatch import Committed, Decision, Dispatcher, Known, Offer, TickKind
from rtcore.scheduling.jobs import Answer, Job
from rtcore.scheduling.on_missing import OnMissing, foreseen
from rtcore.spaces import ActionSpec, PolicyNeeds
from rtcore.spaces.parts import aligned
from rtcore.spaces.payload import CONTEXT_WORDS, WORD_AT

_WORDS = struct.Struct(f"<{len(CONTEXT_WORDS)}q")
_EPISODE, _STATE_TICK = WORD_AT["episode"], WORD_AT["state_tick"]

#: How long what was applied is kept for a head, in ticks.
_PAST_TICKS = 1024


class _Source(NamedTuple):
    """What features were made from: whose they are, and the state that their decision began from."""

    worker: int
    state: bytes
    state_tick: int


class JobContexts:
    """The contexts of one phase: what is carried begins anew with each, so that a rehearsal leaves nothing behind.

    Args:
        needs: What the policy takes and gives.
        action: The world's.
        seed: Of the run.
        idle_action: What is applied where nothing acts, (action_bytes,).
        on_missing: What stands in for an action that is not there.
        holds: Whether the world stands still until an episode's first action; else something stands in meanwhile.
        head: Index of the worker that is the head; -1: there is none.
    """

    def __init__(
        self,
        needs: PolicyNeeds,
        action: ActionSpec,
        *,
        seed: int,
        idle_action: bytes,
        on_missing: OnMissing,
        holds: bool,
        head: int = -1,
    ) -> None:
        self._head = head
        self._seed, self._idle, self._on_missing, self._holds = seed, idle_action, on_missing, holds
        self._action_bytes, self._num_committed = action.nbytes, needs.committed_ticks
        #: Whether jobs carry a context.
        self.tells = bool(needs.context(action))
        #: Bytes of the actions in a context, and of the mask behind them.
        self._mask_at, mask_bytes = aligned(needs.committed_ticks * action.nbytes), aligned(needs.committed_ticks)
        extras, state, features = needs.extras.nbytes, needs.state.nbytes, needs.features.nbytes
        self._state_in_payload = slice(extras, extras + state)
        self._features_in_payload = slice(extras + state, extras + state + features)
        in_context = _WORDS.size + self._mask_at + mask_bytes
        self._state_in_context = slice(in_context, in_context + state)
        self._has_state, self._has_features, self._extras_bytes = bool(state), bool(features), extras
        self._nothing_kept = bytes(extras + state)
        self._nothing_known = bytes(self._mask_at + mask_bytes)
        self._first_state, self._no_features = needs.first_state or bytes(state), bytes(features)
        #: Whether an answer hands something on to the jobs after it.
        self.hands_on = self._has_state or self._has_features
        #: What the newest features were made from.
        self._source = self._no_source = _Source(-1, self._first_state, -1)
        #: Of the head's last two jobs, by frame: its next one may be booked before its action is applied.
        self._head_uses: dict[int, _Source] = {}
        # Since the episode's first frame, at most so many ticks, one after the other: for a head.
        self._past, self._past_mask, self._past_from = bytearray(), bytearray(), 0
        self._past_ticks = max(_PAST_TICKS, 2 * needs.committed_ticks) if head >= 0 else 0
        self.begin_episode()

    def begin_episode(self) -> None:
        """Nothing of the last one is carried on."""
        # What was applied last, and what a tick without an action repeats where `on_missing` is "repeat".
        self._applied = self._idle
        self._present, self._present_mask = self._idle, Known.UNKNOWN
        self._state, self._state_tick = self._first_state, -1
        self._features, self.features_tick = self._no_features, -1
        self._is_first = 1

    def take(self, job: Job, answer: Answer, episode: int) -> None:
        """An answer came in: carry on what it hands on, if it has seen the newest frame of the episode so far.

        Args:
            job: What was asked. A head hands nothing on.
            answer: One that abstained hands nothing on, either.
            episode: That goes on.
        """
        if job.worker == self._head or answer.abstained or answer.episode != episode:
            return
        payload, obs_tick = answer.payload, answer.obs_tick
        if self._has_state and obs_tick > self._state_tick:
            self._state, self._state_tick = payload[self._state_in_payload], obs_tick
        if self._has_features and obs_tick > self.features_tick:
            self._features, self.features_tick = payload[self._features_in_payload], obs_tick
            self._source = _Source(job.worker, *self._began_from(job, answer))

    def tell(self, jobs: Sequence[Job], decision: Decision, dispatcher: Dispatcher) -> list[Job]:
        """The jobs booked at a tick, each with its context: a block of `PolicyNeeds.context`.

        Args:
            jobs: Of which the dispatcher knows.
            decision: What acts at this tick; it is not applied yet.
            dispatcher: Says what is known of the coming ticks.
        """
        if self._num_committed:
            self._note_present(decision)
        return [Job._make((*job[:-1], self._context(job, dispatcher))) for job in jobs]

    def _note_present(self, decision: Decision) -> None:
        if decision.offer is not None:
            begin = decision.chunk_index * self._action_bytes
            self._present = decision.offer.answer.actions[begin : begin + self._action_bytes]
            self._present_mask = Known.FACT
        elif decision.kind is TickKind.RESET or (decision.kind is TickKind.LEAD_IN and self._holds):
            self._present, self._present_mask = self._idle, Known.HELD
        else:
            self._present, self._present_mask = foreseen(self._on_missing, self._idle, self._applied, Known.FACT)

    def _context(self, job: Job, dispatcher: Dispatcher) -> bytes:
        worker, tick, due_tick = job.worker, job.obs_tick, job.due_tick
        words = _WORDS.pack(
            worker,
            self._seed,
            tick,
            dispatcher.episode,
            self._is_first,
            due_tick - tick,
            self._state_tick,
            self.features_tick,
        )
        known: bytes | bytearray = self._nothing_known
        if worker == self._head:
            self._head_uses[job.obs_tick] = self._source
            if len(self._head_uses) > 2:
                del self._head_uses[next(iter(self._head_uses))]
            known = self._since_features(tick)
        else:
            self._is_first = 0
            if self._num_committed and due_tick > tick + 1:
                known = self._committed_to(dispatcher.committed(job, tick), tick + 1)
        if not self.hands_on:
            return words + known
        # Features are a head's; whose context has room for them all the same, as all contexts are of one size.
        return b"".join((words, known, self._state, self._features if worker == self._head else self._no_features))

    def note_applied(self, tick: int, action: bytes, kind: TickKind, *, stands: bool) -> None:
        """What was applied at a tick. `stands`: the world stood still."""
        self._applied = self._idle if stands else action
        if not self._past_ticks:
            return
        if kind is TickKind.RESET:
            self._past.clear()
            self._past_mask.clear()
            self._past_from = tick + 1
            return
        self._pass_skipped(tick)
        self._past += action
        self._past_mask.append(Known.HELD if stands else Known.FACT)
        if (surplus := len(self._past_mask) - 2 * self._past_ticks) > 0:
            surplus += self._past_ticks
            del self._past[: surplus * self._action_bytes], self._past_mask[:surplus]
            self._past_from += surplus

    def kept(self, offer: Offer | None) -> bytes:
        """What stays with the tick at which an answer's action is applied, a block of `PolicyNeeds.kept`; None: no
        answer's is."""
        if offer is None:
            return self._nothing_kept
        extras = offer.answer.payload[: self._extras_bytes]
        if not self._has_state:
            return extras
        job = offer.job
        state, _ = self._source_of(job)[1:] if job.worker == self._head else self._began_from(job, offer.answer)
        return extras + state

    def origin(self, offer: Offer | None) -> tuple[int, int, int] | None:
        """The last words of the frame header: `state_tick`, `features_tick`, `features_worker`; None: as they are by
        default."""
        if offer is None or not self.hands_on:
            return None
        if offer.job.worker == self._head:
            source = self._source_of(offer.job)
            return source.state_tick, offer.features_tick, source.worker
        return self._began_from(offer.job, offer.answer)[1], -1, -1

    def _source_of(self, job: Job) -> _Source:
        """What the features that this job of the head was given were made from."""
        return self._head_uses.get(job.obs_tick, self._no_source)

    def _began_from(self, job: Job, answer: Answer) -> tuple[bytes, int]:
        """The state that a decision began from, and its `state_tick`; b"" and -1: the policy carries none."""
        words = _WORDS.unpack_from(job.context)
        # It may have seen a newer frame than the booked one: the first of another episode, which it began.
        if not self._has_state or words[_EPISODE] != answer.episode or words[_STATE_TICK] < 0:
            return self._first_state, -1
        return job.context[self._state_in_context], words[_STATE_TICK]

    def _pass_skipped(self, tick: int) -> None:
        """Ticks before this one that were not run: the world stood still."""
        skipped = tick - self._past_from - len(self._past_mask)
        self._past += bytes(skipped * self._action_bytes)
        self._past_mask += bytes((Known.HELD,)) * skipped

    def _since_features(self, tick: int) -> bytes:
        """`committed` of a head, and its mask: what was applied from the features' frame up to this tick."""
        size, end = self._action_bytes, self._num_committed
        self._pass_skipped(tick)
        since = self.features_tick + 1 - self._past_from
        if since < 0 or not end:  # longer ago than is kept
            return self._nothing_known
        past = (self._past[since * size :] + self._present)[: end * size]
        past_mask = (self._past_mask[since:] + bytes((self._present_mask,)))[:end]
        return bytes(
            past.ljust(self._mask_at, b"\0") + past_mask.ljust(len(self._nothing_known) - self._mask_at, b"\0")
        )

    def _committed_to(self, pieces: Sequence[Committed], first_tick: int) -> bytearray:
        """`committed` and its mask; what is not known is 0 in both."""
        found, size, end, mask_at = (
            bytearray(self._nothing_known),
            self._action_bytes,
            self._num_committed,
            self._mask_at,
        )
        repeated, repeated_mask = self._present, self._present_mask
        if repeated_mask is Known.HELD:
            repeated_mask = Known.FACT
        for piece_tick, num_ticks, known, answer, chunk_index in pieces:
            at = piece_tick - first_tick
            until = min(at + num_ticks, end)
            if at >= end:
                break
            if answer is not None:
                begin = chunk_index * size
                value = answer.actions[begin : begin + (until - at) * size]
                repeated, repeated_mask, mask = value[-size:], known, known
            elif known is Known.UNKNOWN:
                repeated_mask = known
                continue
            elif known is Known.HELD and self._holds:
                value, mask = self._idle * (until - at), known
            else:
                one, mask = foreseen(self._on_missing, self._idle, repeated, repeated_mask)
                if mask is Known.UNKNOWN:
                    continue
                value = one * (until - at)
            found[mask_at + at : mask_at + until] = bytes((mask,)) * (until - at)
            found[at * size : until * size] = value
        return found
