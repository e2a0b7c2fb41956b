/* The physical limit: a writer and a reader of rtcore's frame ring, in C.
 *
 *     limit write|read spin|futex RING_FILE control headers header_stride frames frame_stride frame_bytes slots publish
 *
 * The numbers are byte offsets and sizes of rtcore/memory/layout/ (`limit.py` passes them), `publish` the index of
 * publish_ns in a frame header. The protocol is that of rtcore/memory/ring.py, letters included. "futex" sleeps on the low
 * half of the word `done`, so that both modes use the same ring, which rtcore itself can read.
 *
 * Commands come as lines on stdin. Writer: "count gap_ns prepare_ns step_ns": publish `count` frames in the rhythm of
 * the benchmark; answers one line of publish costs [ns]. Reader: "count": answers "ready", reads the next `count`
 * frames, then one line of latencies [ns], publish start to private copy. A frame that does not come within five
 * seconds, was lapped, or does not carry its number where the writer put it is left out of the line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CACHE_LINE_BYTES = 64, MAX_COUNT = 1 << 20 };
static const int64_t PATIENCE_NS = 5000000000LL;

struct ring {
    char *base;
    int64_t *begun, *done;
    size_t headers, header_stride, frames, frame_stride, frame_bytes, publish;
    int64_t slots;
    int futex;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sleep_ns(int64_t span_ns)
{
    struct timespec left = {span_ns / 1000000000LL, span_ns % 1000000000LL};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void spin_until_ns(int64_t deadline_ns)
{
    while (now_ns() < deadline_ns) {
    }
}

static int64_t *header_of(const struct ring *ring, int64_t seq)
{
    return (int64_t *)(ring->base + ring->headers + (size_t)(seq % ring->slots) * ring->header_stride);
}

static char *frame_of(const struct ring *ring, int64_t seq)
{
    return ring->base + ring->frames + (size_t)(seq % ring->slots) * ring->frame_stride;
}

/* The number of a frame, in its first and last bytes: a copy that is not whole does not pass. */
static void sign(char *frame, size_t num_bytes, int64_t seq)
{
    frame[0] = (char)seq;
    frame[num_bytes - 1] = (char)(seq + 1);
}

static int is_signed(const char *frame, size_t num_bytes, int64_t seq)
{
    return frame[0] == (char)seq && frame[num_bytes - 1] == (char)(seq + 1);
}

/* -- writer ---------------------------------------------------------------------------------------------------- */

static void publish(const struct ring *ring, const char *frame, int64_t seq, int64_t publish_ns)
{
    __atomic_store_n(ring->begun, seq, __ATOMIC_RELAXED); /* (W1) */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    int64_t *header = header_of(ring, seq);
    memset(header, 0, ring->header_stride);
    header[0] = seq;
    header[ring->publish] = publish_ns;
    memcpy(frame_of(ring, seq), frame, ring->frame_bytes);
    __atomic_store_n(ring->done, seq, __ATOMIC_RELEASE); /* (W2) */
    if (ring->futex)
        syscall(SYS_futex, (uint32_t *)ring->done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void write_frames(const struct ring *ring, char *frame, char *scratch, int64_t *costs)
{
    long count, gap_ns, prepare_ns, step_ns;
    while (scanf("%ld %ld %ld %ld", &count, &gap_ns, &prepare_ns, &step_ns) == 4 && count <= MAX_COUNT) {
        for (long k = 0; k < count; k++) {
            int64_t seq = *ring->done + 1;
            sleep_ns(gap_ns);
            int64_t deadline_ns = now_ns() + prepare_ns;
            memcpy(scratch, frame_of(ring, seq), ring->frame_bytes); /* as FrameRing.warm */
            sign(frame, ring->frame_bytes, seq);
            spin_until_ns(deadline_ns);
            spin_until_ns(now_ns() + step_ns);
            int64_t start_ns = now_ns();
            publish(ring, frame, seq, start_ns);
            costs[k] = now_ns() - start_ns;
        }
        for (long k = 0; k < count; k++)
            printf("%lld ", (long long)costs[k]);
        printf("\n");
        fflush(stdout);
    }
}

/* -- reader ---------------------------------------------------------------------------------------------------- */

static int wait_for(const struct ring *ring, int64_t seq)
{
    int64_t give_up_ns = now_ns() + PATIENCE_NS;
    struct timespec patience = {PATIENCE_NS / 1000000000LL, 0};
    for (;;) {
        int64_t newest = __atomic_load_n(ring->done, __ATOMIC_ACQUIRE); /* (R1) */
        if (newest >= seq)
            return 1;
        if (now_ns() > give_up_ns)
            return 0;
        if (ring->futex)
            syscall(SYS_futex, (uint32_t *)ring->done, FUTEX_WAIT, (uint32_t)newest, &patience, NULL, 0);
    }
}

/* Latency [ns] of frame `seq`, or -1 if it was not to be had whole. */
static int64_t read_frame(const struct ring *ring, int64_t seq, char *out, int64_t *header)
{
    if (!wait_for(ring, seq))
        return -1;
    memcpy(out, frame_of(ring, seq), ring->frame_bytes);
    memcpy(header, header_of(ring, seq), ring->header_stride);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    int lapped = __atomic_load_n(ring->begun, __ATOMIC_RELAXED) - seq >= ring->slots; /* (R2) */
    int64_t latency_ns = now_ns() - header[ring->publish];
    return !lapped && header[0] == seq && is_signed(out, ring->frame_bytes, seq) ? latency_ns : -1;
}

static void read_frames(const struct ring *ring, char *out, int64_t *header, int64_t *latencies)
{
    long count;
    while (scanf("%ld", &count) == 1 && count <= MAX_COUNT) {
        int64_t first = __atomic_load_n(ring->done, __ATOMIC_ACQUIRE) + 1;
        printf("ready\n");
        fflush(stdout);
        for (long k = 0; k < count; k++)
            latencies[k] = read_frame(ring, first + k, out, header);
        for (long k = 0; k < count; k++)
            if (latencies[k] >= 0)
                printf("%lld ", (long long)latencies[k]);
        printf("\n");
        fflush(stdout);
    }
}

static int map_ring(struct ring *ring, char **words)
{
    size_t control = strtoul(words[4], NULL, 10);
    int file = open(words[3], O_RDWR);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0)
        return 0;
    ring->base = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (ring->base == MAP_FAILED)
        return 0;
    close(file);
    ring->begun = (int64_t *)(ring->base + control);
    ring->done = (int64_t *)(ring->base + control + CACHE_LINE_BYTES);
    ring->headers = strtoul(words[5], NULL, 10);
    ring->header_stride = strtoul(words[6], NULL, 10);
    ring->frames = strtoul(words[7], NULL, 10);
    ring->frame_stride = strtoul(words[8], NULL, 10);
    ring->frame_bytes = strtoul(words[9], NULL, 10);
    ring->slots = strtol(words[10], NULL, 10);
    ring->publish = strtoul(words[11], NULL, 10);
    ring->futex = strcmp(words[2], "futex") == 0;
    return 1;
}

int main(int num_words, char **words)
{
    struct ring ring;
    if (num_words != 12) {
        fprintf(stderr, "limit: got %d arguments, expected 11; started by rtcore/profile/limit.py only\n", num_words - 1);
        return 2;
    }
    if (!map_ring(&ring, words)) {
        perror(words[3]);
        return 1;
    }
    char *frame = malloc(ring.frame_bytes), *scratch = malloc(ring.frame_bytes);
    int64_t *header = malloc(ring.header_stride), *times = malloc(MAX_COUNT * sizeof *times);
    if (!frame || !scratch || !header || !times) {
        perror("limit: malloc");
        return 1;
    }
    for (size_t at = 0; at < ring.frame_bytes; at++)
        frame[at] = (char)(at * 7 % 251); /* touched before it counts */
    memcpy(scratch, frame, ring.frame_bytes);
    if (strcmp(words[1], "write") == 0)
        write_frames(&ring, frame, scratch, times);
    else
        read_frames(&ring, scratch, header, times);
    return 0;
}
