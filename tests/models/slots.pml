/* A worker's answers (ActionSlots in rtcore/memory/slots.py): two entries, four answers, and the env process, which reads.
 *
 * The worker waits for nobody, which is more than the booking lets it do. An entry is its own number and an action; answer
 * n has n in both.
 */
#include "machine.pml"

#define ENTRIES 2
#define ANSWERS 4

ORDERING(W4);  /* `entry_seq` is a release store: the entry is complete before it is visible */
ORDERING(W5);  /* fence before the entry: it is touched only once the answer before this one is seen to be published */
ORDERING(R4);  /* `entry_seq` is an acquire load: nothing is copied before */
ORDERING(R5);  /* fence between the copy and the second look at `entry_seq` */

short newest = 0;
short number[ENTRIES], action[ENTRIES];

/* The steps of answer n: three bits each. Those of "answers" -1 and 0 have happened: so any n has one before it. */
#define NUMBER(n) (1 << (3 * ((n) + 1)))
#define ACTION(n) (NUMBER(n) << 1)
#define DONE(n)   (NUMBER(n) << 2)

#define ANSWER(n) \
    STORE(NUMBER(n), w_W5 * BEFORE(NUMBER(n)) | NUMBER(n - ENTRIES), number[n % ENTRIES] = n) \
    STORE(ACTION(n), w_W5 * BEFORE(NUMBER(n)) | ACTION(n - ENTRIES), action[n % ENTRIES] = n) \
    STORE(DONE(n), w_W4 * BEFORE(DONE(n)) | DONE(n - 1), newest = n)

proctype worker() {
    int done = UP_TO(DONE(0)), loads = 0;
    do
    ANSWER(1)
    ANSWER(2)
    ANSWER(3)
    ANSWER(4)
    :: done == UP_TO(DONE(4)) -> break
    od
}

#define R4 1
#define R_NUMBER 2
#define R_ACTION 4
#define R5 8

/* `wanted`: what it will find at R4. It is known beforehand so that a copy may begin before the number was loaded. */
proctype env(short wanted) {
    int done = 0, loads = UP_TO(R5);
    short found, its_number, its_action, found_later;
    do
    LOAD(R4, 0, found = newest)
    LOAD(R_NUMBER, w_R4 * R4, its_number = number[wanted % ENTRIES])
    LOAD(R_ACTION, w_R4 * R4, its_action = action[wanted % ENTRIES])
    LOAD(R5, R4 | w_R5 * BEFORE(R5), found_later = newest)
    :: done == UP_TO(R5) -> break
    od;
    if
    :: found != wanted -> OUTCOME(ANOTHER)
    :: else -> if
        :: found_later > wanted || its_number != wanted -> OUTCOME(OVERWRITTEN)
        :: else -> OUTCOME(WHOLE); assert(its_action == wanted)
        fi
    fi
}

init {
    short wanted;
    atomic {
        SETTINGS;
        MAY_LACK(W4); MAY_LACK(W5); MAY_LACK(R4); MAY_LACK(R5);
        select(wanted : 1 .. ANSWERS);
        run worker();
        run env(wanted)
    }
}
