/* The three small programs by which memory orders are known, on the machine of machine.pml: that it is as weak as it says.
 *
 * Each is two processes with two steps on two words, 0 at first. `one` and `two` are what the loads found.
 */
#include "machine.pml"

ORDERING(MP_STORES);  /* message passing: the data is stored before the flag */
ORDERING(MP_LOADS);   /* ... and the flag is loaded before the data */
ORDERING(SB_LEFT);    /* store buffering: each stores one word, then loads the other; at least one sees the other's store */
ORDERING(SB_RIGHT);
ORDERING(LB_LEFT);    /* load buffering: each loads one word, then stores the other; not both see the other's store */
ORDERING(LB_RIGHT);

short x = 0, y = 0, one = -1, two = -1, num_over = 0;

#define FIRST 1
#define SECOND 2
#define PROCESS(name, loads_of_it, first, second) \
    proctype name() { \
        int done = 0, loads = loads_of_it; \
        do \
        first \
        second \
        :: done == UP_TO(SECOND) -> break \
        od; \
        num_over++ \
    }

PROCESS(mp_left, 0, STORE(FIRST, 0, x = 1), STORE(SECOND, w_MP_STORES * FIRST, y = 1))
PROCESS(mp_right, FIRST | SECOND, LOAD(FIRST, 0, one = y), LOAD(SECOND, w_MP_LOADS * FIRST, two = x))
PROCESS(sb_left, SECOND, STORE(FIRST, 0, x = 1), LOAD(SECOND, w_SB_LEFT * FIRST, one = y))
PROCESS(sb_right, SECOND, STORE(FIRST, 0, y = 1), LOAD(SECOND, w_SB_RIGHT * FIRST, two = x))
PROCESS(lb_left, FIRST, LOAD(FIRST, 0, one = x), STORE(SECOND, w_LB_LEFT * FIRST, y = 1))
PROCESS(lb_right, FIRST, LOAD(FIRST, 0, two = y), STORE(SECOND, w_LB_RIGHT * FIRST, x = 1))

init {
    SETTINGS;
    MAY_LACK(MP_STORES); MAY_LACK(MP_LOADS);
    MAY_LACK(SB_LEFT); MAY_LACK(SB_RIGHT);
    MAY_LACK(LB_LEFT); MAY_LACK(LB_RIGHT);
    if
    :: atomic { run mp_left(); run mp_right() }; num_over == 2; OUTCOME(MP); assert(!(one == 1 && two == 0))
    :: atomic { run sb_left(); run sb_right() }; num_over == 2; OUTCOME(SB); assert(!(one == 0 && two == 0))
    :: atomic { run lb_left(); run lb_right() }; num_over == 2; OUTCOME(LB); assert(!(one == 1 && two == 1))
    fi
}
