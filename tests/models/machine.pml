/* A machine that reorders memory accesses as ARM does, for the models beside this file.
 *
 * Memory is one set of words: on ARMv8 a store that one other core sees is seen by all ("multi-copy atomic"). What makes
 * the machine weak is each process itself. It is a straight list of STEPs, one load or store each, and they happen in any
 * order that nothing forbids: early loads, late stores, stores that overtake each other, loads that a branch should have
 * prevented. What forbids it is written out: a step has a bit, and a mask of the bits of those that must happen before.
 *
 *     LOAD(R1, 0, seen = newest)              at any moment
 *     LOAD(COPY, w_R1 * R1, copy = frame)     after R1, by the ordering (R1): an acquire load
 *
 * What is decided from loaded values is decided at the end of the list, when all are there: so a branch holds no load
 * back. It does hold stores back (no core makes a store visible that may not happen): such a mask has no factor.
 * Accesses to one word keep their order (coherence), which is written out without a factor, too.
 *
 * The orderings are bools, named as in the text of the programs. `WITHOUT=W1,R2 ./pan` takes some away: the model must
 * then fail. `MACHINE=x86 ./pan` adds what x86-64 gives for nothing: all orders but that of a store before a later load.
 * `SHOW=WHOLE ./pan` fails where that outcome is reached: it shows that a model does not hold for want of cases.
 */
c_decl {
\#include <stdbool.h>
\#include <stdlib.h>
\#include <string.h>
/* Whether a name is in a list with commas, in the environment. */
static bool is_listed(const char *variable, const char *name) {
    const char *list = getenv(variable), *at = list;
    size_t length = strlen(name);
    while (at && (at = strstr(at, name)) != NULL) {
        if ((at == list || at[-1] == ',') && (at[length] == '\0' || at[length] == ',')) return true;
        at += length;
    }
    return false;
}
}

/* 1: x86-64. Set by SETTINGS, as the orderings are by ORDERING. */
bool is_x86 = false;

#define SETTINGS c_code { now.is_x86 = is_listed("MACHINE", "x86"); }
/* An ordering that can be taken away: (letter) in the text of the programs. */
#define ORDERING(letter) bool w_##letter = true
#define MAY_LACK(letter) c_code { now.w_##letter = !is_listed("WITHOUT", #letter); }
/* An outcome that must be reached. */
#define OUTCOME(name) c_code { if (is_listed("SHOW", #name)) Uerror("outcome " #name); }

/* All steps before one, and that one with them: their bits follow the order of the program. */
#define BEFORE(me) ((me) - 1)
#define UP_TO(me) (((me) << 1) - 1)

/* One step, within `do`. `done` (bits of what has happened) and `loads` (bits of all loads) are the process's. */
#define STEP(me, after, what) :: atomic { !(done & (me)) && !((after) & ~done) -> what; done = done | (me) }
#define LOAD(me, after, what) STEP(me, (after) | is_x86 * (BEFORE(me) & loads), what)
#define WAIT(me, after, until) \
    :: atomic { !(done & (me)) && !(((after) | is_x86 * (BEFORE(me) & loads)) & ~done) && (until) -> done = done | (me) }
#define STORE(me, after, what) STEP(me, (after) | is_x86 * BEFORE(me), what)
