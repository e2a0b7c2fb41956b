/* Sleeping and waking by a futex word (rtcore/memory/waiting.py): no wake-up is lost.
 *
 * The waker announces numbers 1 and 2 (jobs, frames), changes the futex word with each, and makes the system call only if
 * it sees the sleeper asleep. The sleeper wants number 2 and sleeps until it is there. A lost wake-up is a process that
 * cannot go on: spin calls it an "invalid end state".
 */
#include "machine.pml"

ORDERING(W11); /* the futex word is stored after what it announces */
ORDERING(R11); /* the futex word is loaded before the look at what it announces */
ORDERING(W12); /* full fence between "I sleep" and the kernel's comparison of the futex word */
ORDERING(R12); /* full fence between the store of the futex word and the look at who sleeps */

short number = 0, futex = 0;
bool asleep = false;  /* what the sleeper says of itself */
bool is_queued = false; /* what the kernel knows: both its steps are done under one lock */

/* The steps of number n, three bits each; those of "number 0" have happened. */
#define ANNOUNCED(n) (1 << (3 * (n)))
#define CHANGED(n)   (ANNOUNCED(n) << 1)
#define WOKEN(n)     (ANNOUNCED(n) << 2)

/* The look and the system call are one step: what lies between them is for the kernel to say, and it looks again. */
#define ANNOUNCE(n) \
    STORE(ANNOUNCED(n), ANNOUNCED(n - 1), number = n) \
    STORE(CHANGED(n), w_W11 * BEFORE(CHANGED(n)) | CHANGED(n - 1), futex = n) \
    LOAD(WOKEN(n), w_R12 * BEFORE(WOKEN(n)) | WOKEN(n - 1), is_queued = (asleep -> false : is_queued))

proctype waker() {
    int done = UP_TO(WOKEN(0)), loads = WOKEN(1) | WOKEN(2);
    do
    ANNOUNCE(1)
    ANNOUNCE(2)
    :: done == UP_TO(WOKEN(2)) -> break
    od
}

/* The steps of one attempt, six bits each; those of "attempt 0" have happened. */
#define SEEN(k)   (1 << (6 * (k)))
#define LOOK(k)   (SEEN(k) << 1)
#define SAY(k)    (SEEN(k) << 2)
#define QUEUE(k)  (SEEN(k) << 3)
#define RETURN(k) (SEEN(k) << 4)
#define AWAKE(k)  (SEEN(k) << 5)

/* A system call is not overtaken by what follows it. After number 2 was found, the rest of the steps do nothing. */
#define TRY(k) \
    LOAD(SEEN(k), RETURN(k - 1), seen = futex) \
    LOAD(LOOK(k), RETURN(k - 1) | w_R11 * SEEN(k), found = (number > found -> number : found)) \
    STORE(SAY(k), SEEN(k) | LOOK(k) | AWAKE(k - 1), asleep = (found < 2)) \
    LOAD(QUEUE(k), SEEN(k) | LOOK(k) | w_W12 * SAY(k), is_queued = (found < 2 && futex == seen)) \
    WAIT(RETURN(k), QUEUE(k), !is_queued) \
    STORE(AWAKE(k), RETURN(k) | SAY(k), asleep = false)

proctype sleeper() {
    int done = UP_TO(AWAKE(0)), loads = SEEN(1) | LOOK(1) | QUEUE(1) | RETURN(1) | SEEN(2) | LOOK(2) | QUEUE(2) | RETURN(2) |
        SEEN(3) | LOOK(3) | QUEUE(3) | RETURN(3);
    short seen, found = 0;
    do
    TRY(1)
    TRY(2)
    TRY(3)
    :: done == UP_TO(AWAKE(3)) -> break
    od;
    if
    :: found == 2 -> OUTCOME(FOUND)
    :: else -> OUTCOME(WOKEN_EACH_TIME) /* by number 1, or for nothing: it would look again */
    fi
}

init {
    atomic {
        SETTINGS;
        MAY_LACK(W11); MAY_LACK(R11); MAY_LACK(W12); MAY_LACK(R12);
        run waker();
        run sleeper()
    }
}
