/* The parameter store (rtcore/memory/weights.py): three buffers, one publisher, one worker that claims, one onlooker.
 *
 * The publisher publishes versions 2, 3 and 4; version 1 is in buffer 0. Weights are two words, both the version. The
 * worker computes twice, with whatever is newest. The onlooker copies without a claim and asks afterwards.
 */
#include "machine.pml"

ORDERING(W6);   /* the weights are complete before they are newest */
ORDERING(R7);   /* full fence between the store of `newest` and the look at the claims */
ORDERING(W7);   /* full fence between the store of the claim and the second load of `newest` */
ORDERING(R6);   /* `newest` is an acquire load: the weights are read after it */
ORDERING(FREE); /* the claim is taken back by a release store: after the last load of the weights */
ORDERING(W9);   /* fence between "being written" and the weights: an onlooker learns of the overwrite */
ORDERING(R9);   /* fence between the copy and the second look at the version */

#define BUFFERS 3
#define WORD(version, buffer) ((version) * 8 + (buffer))
#define VERSION_OF(word) ((word) / 8)
#define BUFFER_OF(word) ((word) % 8)

short newest = WORD(1, 0), claim = 0; /* a claim is buffer + 1 */
short version_in[BUFFERS], first[BUFFERS], second[BUFFERS];

/* The steps of version n (from 2): six bits each; those of version 1 have happened. */
#define BIT(n, place) (1 << (6 * ((n) - 1) + place))
#define CLAIMS(n)  BIT(n, 0)
#define BEGUN(n)   BIT(n, 1)
#define FIRST(n)   BIT(n, 2)
#define SECOND(n)  BIT(n, 3)
#define VERSION(n) BIT(n, 4)
#define NEWEST(n)  BIT(n, 5)

/* The first buffer that is neither newest (its own last one) nor claimed. */
inline choose(claimed) {
    last = target;
    target = ((last != 0 && claimed != 1) -> 0 : ((last != 1 && claimed != 2) -> 1 : 2))
}

/* It stores only once it has chosen. Two versions may be in one buffer: so a store waits for those of the version before. */
#define PUBLISH(n) \
    LOAD(CLAIMS(n), w_R7 * BEFORE(CLAIMS(n)) | CLAIMS(n - 1), choose(claim); to[n] = target) \
    STORE(BEGUN(n), CLAIMS(n) | VERSION(n - 1), version_in[to[n]] = -1) \
    STORE(FIRST(n), CLAIMS(n) | w_W9 * UP_TO(BEGUN(n)) | FIRST(n - 1), first[to[n]] = n) \
    STORE(SECOND(n), CLAIMS(n) | w_W9 * UP_TO(BEGUN(n)) | SECOND(n - 1), second[to[n]] = n) \
    STORE(VERSION(n), BEGUN(n), version_in[to[n]] = n) \
    STORE(NEWEST(n), CLAIMS(n) | w_W6 * BEFORE(NEWEST(n)) | NEWEST(n - 1), newest = WORD(n, to[n]))

proctype publisher() {
    int done = UP_TO(NEWEST(1)), loads = CLAIMS(2) | CLAIMS(3) | CLAIMS(4);
    short last, target = 0, to[5];
    do
    PUBLISH(2)
    PUBLISH(3)
    PUBLISH(4)
    :: done == UP_TO(NEWEST(4)) -> break
    od
}

/* The steps of inference n (from 1): six bits each; those of "inference 0" have happened. */
#define AT(n, place) (1 << (6 * (n) + place))
#define R6(n)     AT(n, 0)
#define CLAIM(n)  AT(n, 1)
#define R8(n)     AT(n, 2)
#define READ_1(n) AT(n, 3)
#define READ_2(n) AT(n, 4)
#define LET_GO(n) AT(n, 5)

/* A claim that was too late stays until the next one. */
#define INFER(n) \
    LOAD(R6(n), R8(n - 1), word[n] = newest) \
    STORE(CLAIM(n), R6(n) | R8(n - 1) | LET_GO(n - 1), claim = BUFFER_OF(word[n]) + 1) \
    LOAD(R8(n), R6(n) | w_W7 * BEFORE(R8(n)), word_later[n] = newest) \
    LOAD(READ_1(n), w_R6 * R6(n), weight_1[n] = first[buffer[n]]) \
    LOAD(READ_2(n), w_R6 * R6(n), weight_2[n] = second[buffer[n]]) \
    STORE(LET_GO(n), CLAIM(n) | R8(n) | w_FREE * BEFORE(LET_GO(n)), claim = (word[n] == word_later[n] -> 0 : claim))

#define USES_ONE_VERSION(n) \
    if \
    :: word[n] == word_later[n] && BUFFER_OF(word[n]) == buffer[n] -> OUTCOME(CLAIMED); \
       assert(weight_1[n] == VERSION_OF(word[n]) && weight_2[n] == VERSION_OF(word[n])) \
    :: else -> OUTCOME(ANOTHER) \
    fi

/* `buffer`: where it will find the weights. Known beforehand so that they may be read before the word that says so. */
proctype worker() {
    int done = UP_TO(LET_GO(0)), loads = R6(1) | R8(1) | READ_1(1) | READ_2(1) | R6(2) | R8(2) | READ_1(2) | READ_2(2);
    short which, buffer[3], word[3], word_later[3], weight_1[3], weight_2[3];
    atomic { select(which : 0 .. BUFFERS - 1); buffer[1] = which; select(which : 0 .. BUFFERS - 1); buffer[2] = which };
    do
    INFER(1)
    INFER(2)
    :: done == UP_TO(LET_GO(2)) -> break
    od;
    USES_ONE_VERSION(1);
    USES_ONE_VERSION(2)
}

#define L_NEWEST 1
#define L_FIRST 2
#define L_SECOND 4
#define R9 8

proctype onlooker() {
    int done = 0, loads = UP_TO(R9);
    short buffer, word, weight_1, weight_2, version;
    select(buffer : 0 .. BUFFERS - 1);
    do
    LOAD(L_NEWEST, 0, word = newest)
    LOAD(L_FIRST, w_R6 * L_NEWEST, weight_1 = first[buffer])
    LOAD(L_SECOND, w_R6 * L_NEWEST, weight_2 = second[buffer])
    LOAD(R9, L_NEWEST | w_R9 * BEFORE(R9), version = version_in[buffer])
    :: done == UP_TO(R9) -> break
    od;
    if
    :: BUFFER_OF(word) != buffer -> OUTCOME(ANOTHER)
    :: else -> if
        :: version == VERSION_OF(word) -> OUTCOME(COPIED); assert(weight_1 == version && weight_2 == version)
        :: else -> OUTCOME(OVERWRITTEN)
        fi
    fi
}

init {
    atomic {
        SETTINGS;
        MAY_LACK(W6); MAY_LACK(R7); MAY_LACK(W7); MAY_LACK(R6); MAY_LACK(FREE); MAY_LACK(W9); MAY_LACK(R9);
        version_in[0] = 1; first[0] = 1; second[0] = 1;
        run publisher();
        if
        :: run worker()
        :: run onlooker()
        fi
    }
}
