/* The shared-memory protocols in C11 atomics: frame ring, jobs, action slots; waking and waiting.
 *
 * What rtcore/memory/ring.py, slots.py and waiting.py say in Python, letter by letter. Needs nothing of Python, so that
 * C programs, the thread sanitizer and an emulated ARM run exactly this. Numbers and times are 8-byte words; a record is
 * as many of them as its struct in rtcore/memory/layout/ has, doubles by their bits. Little endian.
 *
 * Every access to a word that another process writes names its order. A copy that may race with its writer is not used
 * before the check after it; with RT_ATOMIC_COPY it is made word by word, relaxed, as the thread sanitizer wants it. A letter
 * stands on the line of its order: a test takes one away after the other.
 */
#ifndef RTCORE_TICK_PROTOCOL_H
#define RTCORE_TICK_PROTOCOL_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RT_VERSION = 6 }; /* changes with what the functions do: rtcore/_tick/__init__.py has it too */

typedef _Atomic int64_t rt_word;

enum { RT_OK = 0, RT_NOT_YET = 1, RT_LAPPED = 2 }; /* memory.ring.ReadStatus */

static inline void rt_copy(void *to, const void *from, size_t num_bytes)
{
#ifdef RT_ATOMIC_COPY
    size_t at = 0;
    for (; at + 8 <= num_bytes; at += 8) {
        int64_t word = atomic_load_explicit((rt_word *)((const char *)from + at), memory_order_relaxed);
        atomic_store_explicit((rt_word *)((char *)to + at), word, memory_order_relaxed);
    }
    for (; at < num_bytes; at++) {
        char byte = atomic_load_explicit((_Atomic char *)((const char *)from + at), memory_order_relaxed);
        atomic_store_explicit((_Atomic char *)((char *)to + at), byte, memory_order_relaxed);
    }
#else
    memcpy(to, from, num_bytes);
#endif
}

/* -- ordered words ---------------------------------------------------------------------------------------------------
 * For what Python itself reads and writes between two such words: as x86-64 orders all loads and all stores. */

/* What was read before is read before the word; what is read after it is read after it. */
static inline int64_t rt_load_ordered(rt_word *word)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(word, memory_order_acquire);
}

/* What was written before is visible before the word; what is written after it, after it. */
static inline void rt_store_ordered(rt_word *word, int64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
    atomic_thread_fence(memory_order_release);
}

/* -- a store: numbered records of one writer, in slots that are used again ------------------------------------------------
 *
 *                  slots   begun   a reader's copy is whole if
 *     frame ring   many    yes     the writer had not begun the record that overwrites it         W1 W2, R1 R2
 *     job log      many    yes     the same
 *     action slot  2       no      the writer has not finished a newer one: it may be at the next W5 W4, R4 R5
 *     job          1       no      always: the writer writes only while the reader is idle        W3, R3
 */

enum { RT_MAX_PARTS = 3 };

typedef struct {
    char *place; /* of slot 0 */
    size_t stride, num_bytes; /* from one slot to the next; of one */
} rt_part;

typedef struct {
    rt_word *begun, *done; /* numbers of records, on cache lines of their own; begun: NULL where it is not said */
    int64_t num_slots;
    rt_part words, parts[RT_MAX_PARTS]; /* words: a record's numbers; parts: what lies beside them */
    int num_parts;
} rt_store;

static inline char *rt_place(const rt_part *part, int64_t slot)
{
    return part->place + (size_t)slot * part->stride;
}

static inline int64_t rt_newest(const rt_store *store)
{
    return atomic_load_explicit(store->done, memory_order_acquire); /* (R1) (R3) (R4): the record is read after its number */
}

/* Reader, after the copy: may the writer have begun to overwrite record `seq`? */
static inline int rt_was_lapped(const rt_store *store, int64_t seq)
{
    atomic_thread_fence(memory_order_acquire); /* (R2) (R5): the copy is over before the check */
    if (store->begun != NULL)
        return atomic_load_explicit(store->begun, memory_order_relaxed) - seq >= store->num_slots;
    return store->num_slots > 1 && atomic_load_explicit(store->done, memory_order_relaxed) + 1 - seq >= store->num_slots;
}

/* Writer: record `seq`, the one after the newest. `parts`: num_parts of them.
 * That the reader of a job is idle was seen by (R4), an acquire: it comes before these stores. */
static inline void rt_write(const rt_store *store, int64_t seq, const int64_t *words, const void *const *parts)
{
    int64_t slot = seq % store->num_slots;
    if (store->begun != NULL)
        atomic_store_explicit(store->begun, seq, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* (W1) (W5): begun, or the last done, is seen before this record */
    rt_copy(rt_place(&store->words, slot), words, store->words.num_bytes);
    for (int part = 0; part < store->num_parts; part++)
        rt_copy(rt_place(&store->parts[part], slot), parts[part], store->parts[part].num_bytes);
    atomic_store_explicit(store->done, seq, memory_order_release); /* (W2) (W3) (W4): whole before it is seen */
}

/* Reader: what is not NULL is copied. RT_OK: all of it is of record `seq`; else none of it is to be used. */
static inline int rt_read(const rt_store *store, int64_t seq, int64_t *words, void *const *parts)
{
    if (seq < 0 || seq > rt_newest(store))
        return RT_NOT_YET;
    int64_t slot = seq % store->num_slots;
    if (words != NULL)
        rt_copy(words, rt_place(&store->words, slot), store->words.num_bytes);
    for (int part = 0; part < store->num_parts; part++)
        if (parts[part] != NULL)
            rt_copy(parts[part], rt_place(&store->parts[part], slot), store->parts[part].num_bytes);
    return rt_was_lapped(store, seq) ? RT_LAPPED : RT_OK;
}

/* -- time: CLOCK_MONOTONIC ------------------------------------------------------------------------------------------- */

static inline int64_t rt_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline struct timespec rt_timespec(int64_t at_ns)
{
    at_ns = at_ns < 0 ? 0 : at_ns;
    return (struct timespec){.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
}

/* Tells the CPU that this is a spin loop. */
static inline void rt_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Whether a number that only grows is `wanted` or more, at the latest at the deadline. */
static inline int rt_spin_for(rt_word *newest, int64_t wanted, int64_t deadline_ns)
{
    for (;;) {
        for (int times = 0; times < 16; times++) { /* asking for the time takes longer than asking for the word */
            if (atomic_load_explicit(newest, memory_order_acquire) >= wanted)
                return 1;
            rt_relax();
        }
        if (rt_now_ns() >= deadline_ns)
            return 0;
    }
}

/* -- waking and sleeping: futexes, each the low half of a word that the waker writes ---------------------------------- */

/* Wake whoever sleeps on the word with one of these bits: one system call, however many. */
static inline int rt_futex_wake(rt_word *word, uint32_t bits)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, bits);
}

/* 0: woken. EAGAIN: the word is no longer what was seen. ETIMEDOUT: the deadline has come. EINTR: a signal. */
static inline int rt_futex_wait(rt_word *word, int64_t seen, uint32_t bits, int64_t deadline_ns)
{
    struct timespec deadline = rt_timespec(deadline_ns);
    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET, (uint32_t)seen, &deadline, NULL, bits) == 0 ? 0 : errno;
}

/* Waker, once for all it has written and counted in `posted` (W11), or published (W2). Either it then sees who sleeps (R12),
 * or the kernel sees the new word (R13) when it compares, and does not let the worker sleep. */
static inline void rt_before_asleep(void)
{
    atomic_thread_fence(memory_order_seq_cst); /* (R12): what was written is visible before the look at `asleep` */
}

static inline int rt_is_asleep(rt_word *asleep)
{
    return atomic_load_explicit(asleep, memory_order_relaxed) != 0;
}

/* Sleeper: as rt_futex_wait; `seen` was read (R11), by an acquire, before it looked at what it waits for. */
static inline int rt_sleep_on(rt_word *word, int64_t seen, uint32_t bits, rt_word *asleep, int64_t deadline_ns)
{
    atomic_store_explicit(asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* (W12): visible before the kernel compares */
    int why = rt_futex_wait(word, seen, bits, deadline_ns);
    atomic_store_explicit(asleep, 0, memory_order_relaxed);
    return why;
}

#endif
