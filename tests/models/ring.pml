/* The sequence ring (rtcore/memory/ring.py; frames, job log, trace, description): two slots, four records, one reader.
 *
 * A record is two words; record n has n in both. It is whole if they are equal to the number that was asked for.
 */
#include "machine.pml"

#define SLOTS 2
#define RECORDS 4

ORDERING(W1);  /* fence between `begun` and the record: a reader of the old record learns of the overwrite */
ORDERING(W2);  /* `done` is a release store: the record is complete before it is visible */
ORDERING(R1);  /* `done` is an acquire load: nothing is copied before the record is known to be there */
ORDERING(R2);  /* fence between the copy and `begun`: asked after the copy, never before */

short begun = -1, newest = -1;
short head[SLOTS], body[SLOTS];

/* The steps of record n: four bits each. Those of records -2 and -1 have happened: so any n has a record before it. */
#define BEGUN(n) (1 << (4 * ((n) + SLOTS)))
#define HEAD(n)  (BEGUN(n) << 1)
#define BODY(n)  (BEGUN(n) << 2)
#define DONE(n)  (BEGUN(n) << 3)

#define PUBLISH(n) \
    STORE(BEGUN(n), BEGUN(n - 1), begun = n) \
    STORE(HEAD(n), w_W1 * UP_TO(BEGUN(n)) | HEAD(n - SLOTS), head[n % SLOTS] = n) \
    STORE(BODY(n), w_W1 * UP_TO(BEGUN(n)) | BODY(n - SLOTS), body[n % SLOTS] = n) \
    STORE(DONE(n), w_W2 * BEFORE(DONE(n)) | DONE(n - 1), newest = n)

proctype writer() {
    int done = UP_TO(DONE(-1)), loads = 0;
    do
    PUBLISH(0)
    PUBLISH(1)
    PUBLISH(2)
    PUBLISH(3)
    :: done == UP_TO(DONE(3)) -> break
    od
}

#define R1 1
#define R_HEAD 2
#define R_BODY 4
#define R2 8

/* It knows the number that it wants beforehand, from its job: so a copy may begin before the record is there. */
proctype reader(short wanted) {
    int done = 0, loads = UP_TO(R2);
    short there, its_head, its_body, begun_later;
    do
    LOAD(R1, 0, there = newest)
    LOAD(R_HEAD, w_R1 * R1, its_head = head[wanted % SLOTS])
    LOAD(R_BODY, w_R1 * R1, its_body = body[wanted % SLOTS])
    LOAD(R2, w_R2 * BEFORE(R2), begun_later = begun)
    :: done == UP_TO(R2) -> break
    od;
    if
    :: there < wanted -> OUTCOME(NOT_YET)
    :: else -> if
        :: begun_later - wanted >= SLOTS -> OUTCOME(LAPPED)
        :: else -> OUTCOME(WHOLE); assert(its_head == wanted && its_body == wanted)
        fi
    fi
}

init {
    short wanted;
    atomic {
        SETTINGS;
        MAY_LACK(W1); MAY_LACK(W2); MAY_LACK(R1); MAY_LACK(R2);
        select(wanted : 0 .. RECORDS - 1);
        run writer();
        run reader(wanted)
    }
}
