/* A job and its answer (rtcore/memory/slots.py): the env process posts, the worker takes and answers, twice.
 *
 * The job's words lie in one place, which the env process writes again only once the answer to the last job is there. A
 * job is two words; job n has n in both, and so has its answer.
 */
#include "machine.pml"

ORDERING(W3);        /* `job_seq` is a release store: the job is complete before it is visible */
ORDERING(R3);        /* `job_seq` is an acquire load: the job is read after it */
ORDERING(W4_STORES); /* `entry_seq` is a release store: after the stores of the answer ... */
ORDERING(W4_LOADS);  /* ... and after the loads of the job, which the env process may overwrite from then on */
ORDERING(R4);        /* `entry_seq` is an acquire load: the answer is read after it */

short job_seq = 0, frame_seq = 0, due_tick = 0;
short entry_seq = 0, action[2];

/* The steps of job n, on either side: the bits are its own; of "job 0" all have happened. */
#define BIT(n, place) (1 << (5 * (n) + place))

#define FRAME(n)  BIT(n, 0)
#define DUE(n)    BIT(n, 1)
#define POSTED(n) BIT(n, 2)
#define R4(n)     BIT(n, 3)
#define ACTION(n) BIT(n, 4)

/* Waits at R4: the stores for the next job cannot be seen before that wait is over, by their dependency on it. */
#define POST_AND_COLLECT(n) \
    STORE(FRAME(n), R4(n - 1), frame_seq = n) \
    STORE(DUE(n), R4(n - 1), due_tick = n) \
    STORE(POSTED(n), R4(n - 1) | w_W3 * BEFORE(POSTED(n)), job_seq = n) \
    WAIT(R4(n), R4(n - 1), entry_seq >= n) \
    LOAD(ACTION(n), w_R4 * R4(n), its_action[n] = action[n % 2])

proctype env() {
    int done = UP_TO(ACTION(0)), loads = R4(1) | ACTION(1) | R4(2) | ACTION(2);
    short its_action[3];
    do
    POST_AND_COLLECT(1)
    POST_AND_COLLECT(2)
    :: done == UP_TO(ACTION(2)) -> break
    od;
    assert(its_action[1] == 1 && its_action[2] == 2);
    OUTCOME(ANSWERED)
}

#define R3(n)         BIT(n, 0)
#define READ_FRAME(n) BIT(n, 1)
#define READ_DUE(n)   BIT(n, 2)
#define ANSWER(n)     BIT(n, 3)
#define W4(n)         BIT(n, 4)

/* Waits at R3. Its action follows from the frame; when it is due, it only notes. */
#define TAKE_AND_ANSWER(n) \
    WAIT(R3(n), R3(n - 1), job_seq >= n) \
    LOAD(READ_FRAME(n), w_R3 * R3(n) | READ_FRAME(n - 1), its_frame[n] = frame_seq) \
    LOAD(READ_DUE(n), w_R3 * R3(n) | READ_DUE(n - 1), its_due[n] = due_tick) \
    STORE(ANSWER(n), R3(n) | READ_FRAME(n), action[n % 2] = its_frame[n]) \
    STORE(W4(n), R3(n) | w_W4_STORES * (ANSWER(n) | W4(n - 1)) | w_W4_LOADS * (R3(n) | READ_FRAME(n) | READ_DUE(n)), \
          entry_seq = n)

proctype worker() {
    int done = UP_TO(W4(0)), loads = R3(1) | READ_FRAME(1) | READ_DUE(1) | R3(2) | READ_FRAME(2) | READ_DUE(2);
    short its_frame[3], its_due[3];
    do
    TAKE_AND_ANSWER(1)
    TAKE_AND_ANSWER(2)
    :: done == UP_TO(W4(2)) -> break
    od;
    assert(its_frame[1] == 1 && its_due[1] == 1 && its_frame[2] == 2 && its_due[2] == 2);
    OUTCOME(TAKEN)
}

init {
    atomic {
        SETTINGS;
        MAY_LACK(W3); MAY_LACK(R3); MAY_LACK(W4_STORES); MAY_LACK(W4_LOADS); MAY_LACK(R4);
        run env();
        run worker()
    }
}
