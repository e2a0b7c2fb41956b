/* The protocols of rtcore/_tick/protocol.h between threads: `protocols TEST ROUNDS`. Every value says whose it is.
 *
 * The same source is compiled as it is, with ThreadSanitizer, and for ARM. Exit code 0: every record that counted as good
 * was whole, none was another's, no wake-up was lost. ThreadSanitizer ends it with 66 on a data race.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol.h"

enum { NUM_WORDS = 6, ACTION_BYTES = 12, FRAME_BYTES = 1000, READERS = 2 };

typedef struct {
    int64_t words[NUM_WORDS];
    char action[ACTION_BYTES], frame[FRAME_BYTES];
} record;

static int64_t num_rounds;
static int num_readers;
static atomic_int num_reading;
static rt_store ring, jobs, slots;

static void fail(const char *what, int64_t seq)
{
    fprintf(stderr, "%s, record %lld\n", what, (long long)seq);
    exit(1);
}

/* -- records ---------------------------------------------------------------------------------------------------------- */

static void fill(record *made, int64_t seq)
{
    for (int64_t i = 0; i < NUM_WORDS; i++)
        made->words[i] = seq + i;
    memset(made->action, (int)(seq % 251), ACTION_BYTES);
    memset(made->frame, (int)(seq % 241), FRAME_BYTES);
}

static void require_whole(const record *copy, int64_t seq)
{
    record expected;
    fill(&expected, seq);
    if (memcmp(copy->words, expected.words, sizeof copy->words) != 0 ||
        memcmp(copy->action, expected.action, ACTION_BYTES) != 0 || memcmp(copy->frame, expected.frame, FRAME_BYTES) != 0)
        fail("a copy that counts as whole is not", seq);
}

static void *zeroed(size_t num_bytes)
{
    void *memory = aligned_alloc(64, (num_bytes + 63) / 64 * 64);
    if (memory == NULL)
        fail("no memory", -1);
    return memset(memory, 0, num_bytes);
}

static rt_part part_of(int64_t num_slots, size_t num_bytes)
{
    size_t stride = (num_bytes + 63) / 64 * 64;
    return (rt_part){zeroed((size_t)num_slots * stride), stride, num_bytes};
}

static rt_store store_of(int64_t num_slots, bool says_what_it_began, int64_t newest)
{
    rt_store store = {
        .begun = says_what_it_began ? zeroed(64) : NULL,
        .done = zeroed(64),
        .num_slots = num_slots,
        .words = part_of(num_slots, sizeof(int64_t) * NUM_WORDS),
        .parts = {part_of(num_slots, ACTION_BYTES), part_of(num_slots, FRAME_BYTES)},
        .num_parts = 2,
    };
    *store.done = newest;
    if (says_what_it_began)
        *store.begun = newest;
    return store;
}

static void put(const rt_store *store, int64_t seq)
{
    record made;
    fill(&made, seq);
    rt_write(store, seq, made.words, (const void *const[]){made.action, made.frame});
}

static int get(const rt_store *store, int64_t seq)
{
    record copy;
    int status = rt_read(store, seq, copy.words, (void *const[]){copy.action, copy.frame});
    if (status == RT_OK)
        require_whole(&copy, seq);
    return status;
}

/* By rt_newest itself, whose order a test may take away. */
static void wait_for(const rt_store *store, int64_t seq)
{
    while (rt_newest(store) < seq)
        sched_yield();
}

/* -- overwriting: nobody waits for anybody ------------------------------------------------------------------------------ */

static void *write_all(void *store)
{
    while (atomic_load_explicit(&num_reading, memory_order_relaxed) < num_readers) /* else it is done before they begin */
        sched_yield();
    for (int64_t seq = rt_newest(store) + 1; seq <= num_rounds; seq++)
        put(store, seq);
    return NULL;
}

/* The newest record and the oldest that may still be there: the one that is overwritten next. */
static void *read_any(void *of)
{
    const rt_store *store = of;
    int64_t whole = 0, lapped = 0, newest;
    atomic_fetch_add_explicit(&num_reading, 1, memory_order_relaxed);
    do {
        newest = rt_newest(store);
        for (int64_t seq = newest; seq > 0 && seq > newest - store->num_slots; seq -= store->num_slots - 1) {
            int status = get(store, seq);
            whole += status == RT_OK, lapped += status == RT_LAPPED;
            if (status == RT_NOT_YET)
                fail("the newest record is not there", seq);
        }
    } while (newest < num_rounds);
    if (get(store, num_rounds) != RT_OK)
        fail("the last record cannot be read", num_rounds);
    printf("%lld whole, %lld lapped\n", (long long)whole, (long long)lapped);
    return NULL;
}

/* -- waiting: what is written again was read before --------------------------------------------------------------------- */

static void *read_each(void *store)
{
    atomic_fetch_add_explicit(&num_reading, 1, memory_order_relaxed);
    for (int64_t seq = 0; seq <= num_rounds; seq++) {
        wait_for(store, seq);
        if (get(store, seq) != RT_OK)
            fail("a record that nobody overwrites cannot be read", seq);
    }
    return NULL;
}

static void *book(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        put(&jobs, seq);
        wait_for(&slots, seq);
        if (get(&slots, seq) != RT_OK)
            fail("the answer of a worker that waits cannot be read", seq);
    }
    return unused;
}

static void *serve(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        wait_for(&jobs, seq);
        if (get(&jobs, seq) != RT_OK)
            fail("a job cannot be read", seq);
        put(&slots, seq);
    }
    return unused;
}

/* -- sleeping --------------------------------------------------------------------------------------------------------- */

static rt_word *futex, *asleep;
enum { BIT = 4 };

static void *wake(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        put(&jobs, seq);
        atomic_store_explicit(futex, seq, memory_order_release); /* (W11) */
        rt_before_asleep();
        if (rt_is_asleep(asleep))
            rt_futex_wake(futex, BIT);
        wait_for(&slots, seq);
    }
    return unused;
}

static void *sleep_and_serve(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        for (;;) {
            int64_t seen = atomic_load_explicit(futex, memory_order_acquire); /* (R11) before the look */
            if (rt_newest(&jobs) >= seq)
                break;
            int why = rt_sleep_on(futex, seen, BIT, asleep, rt_now_ns() + INT64_C(300000000000));
            if (why == ETIMEDOUT)
                fail("nobody woke the sleeper for five minutes", seq);
        }
        if (get(&jobs, seq) != RT_OK)
            fail("a job cannot be read", seq);
        put(&slots, seq);
    }
    return unused;
}

/* -- litmus: ordered words, the full fence ------------------------------------------------------------------------------ */

static rt_word *left, *right;
static int64_t *data, saw_left, saw_right;

static void *pass_messages(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        *data = seq;
        rt_store_ordered(left, seq);
        while (rt_load_ordered(right) < seq)
            sched_yield();
    }
    return unused;
}

static void *receive_messages(void *unused)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        while (rt_load_ordered(left) < seq)
            sched_yield();
        if (*data != seq)
            fail("a message came before what it announces", seq);
        rt_store_ordered(right, seq);
    }
    return unused;
}

static pthread_barrier_t both;

static void buffer_stores(rt_word *mine, rt_word *others, int64_t *saw)
{
    for (int64_t seq = 1; seq <= num_rounds; seq++) {
        pthread_barrier_wait(&both);
        atomic_store_explicit(mine, seq, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        *saw = atomic_load_explicit(others, memory_order_relaxed);
        pthread_barrier_wait(&both);
        if (saw_left < seq && saw_right < seq)
            fail("neither saw the other's store", seq);
    }
}

static void *buffer_left(void *unused)
{
    buffer_stores(left, right, &saw_left);
    return unused;
}

static void *buffer_right(void *unused)
{
    buffer_stores(right, left, &saw_right);
    return unused;
}

/* -- which ------------------------------------------------------------------------------------------------------------ */

static void together(void *(*first)(void *), void *(*others)(void *), int num_others, void *argument)
{
    pthread_t threads[1 + READERS];
    num_readers = num_others;
    for (int i = 0; i <= num_others; i++)
        if (pthread_create(&threads[i], NULL, i == 0 ? first : others, argument) != 0)
            fail("no thread", i);
    for (int i = 0; i <= num_others; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    const char *test = argc == 3 ? argv[1] : "";
    num_rounds = argc == 3 ? atoll(argv[2]) : 0;
    jobs = store_of(1, false, 0), slots = store_of(2, false, 0);
    futex = zeroed(64), asleep = zeroed(64), left = zeroed(64), right = zeroed(64), data = zeroed(64);
    pthread_barrier_init(&both, NULL, 2);
    if (strcmp(test, "ring") == 0) {
        ring = store_of(4, true, -1);
        together(write_all, read_any, READERS, &ring);
    } else if (strcmp(test, "slots") == 0)
        together(write_all, read_any, 1, &slots);
    else if (strcmp(test, "ring_without_laps") == 0) {
        ring = store_of(num_rounds + 1, true, -1);
        together(write_all, read_each, READERS, &ring);
    } else if (strcmp(test, "jobs") == 0)
        together(book, serve, 1, NULL);
    else if (strcmp(test, "sleep") == 0)
        together(wake, sleep_and_serve, 1, NULL);
    else if (strcmp(test, "message_passing") == 0)
        together(pass_messages, receive_messages, 1, NULL);
    else if (strcmp(test, "store_buffering") == 0)
        together(buffer_left, buffer_right, 1, NULL);
    else {
        fputs("usage: protocols ring|slots|ring_without_laps|jobs|sleep|message_passing|store_buffering ROUNDS\n", stderr);
        return 2;
    }
    return 0;
}
