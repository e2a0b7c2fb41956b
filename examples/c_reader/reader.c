/* Watches a running rtcore from outside: prints the header of every frame as it comes.
 *
 *     make && ./reader              the only run on this machine
 *     ./reader -n 100 RUN_ID        100 frames of that run
 *
 * Attaches read-only, so that it cannot disturb the run. Offsets and structs come from
 * rtcore_layout.h, which is made from rtcore/memory/layout/; docs/layout.md explains the order of the reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "rtcore_layout.h"

#define SHM_PREFIX "/dev/shm/rtcore-"
#define CONTROL_SUFFIX "-control"
enum { EXIT_FAILED = 1, EXIT_USAGE = 2, PATH_BYTES = 512 };
/* How long to sleep when there is nothing new: well below a tick of 60 Hz, and next to no CPU time. */
static const struct timespec POLL = {0, 1000000};

struct segment {
    const char *base;
    const struct rtcore_segment_header *header;
};

struct run {
    struct segment control, ring;
    const struct rtcore_run_control *order;
    const struct rtcore_env_status *env;
    const struct rtcore_ring_control *sequence;
};

struct options {
    const char *run_id;
    int64_t count; /* frames to print; -1: until the run ends */
    bool from_oldest;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

static _Noreturn void fail(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("reader: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(code);
}

static int64_t load(const int64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

/* -- attaching ---------------------------------------------------------------------------------------------- */

static void usage(FILE *to) {
    fputs("usage: reader [-a] [-n COUNT] [RUN_ID]\n"
          "\n"
          "Prints the header of every frame of a running rtcore, as it comes; ends with the run.\n"
          "\n"
          "  RUN_ID    as in /dev/shm/rtcore-RUN_ID-control; may be left out if there is one run\n"
          "  -a        begin with the oldest frame that is still there, not with the next one\n"
          "  -n COUNT  stop after COUNT frames\n"
          "  -h        this text\n"
          "\n"
          "columns: tick, kind, source, reward, lateness of the tick [us], worker whose action was applied and its\n"
          "delay [ticks] (- if none was). Frames that were overwritten before they were read are counted as lapped.\n"
          "exit codes: 0 the run ended, or COUNT frames were printed; 1 no run, or another layout; 2 wrong usage\n"
          "\n"
          "examples:\n"
          "  reader                     the only run, until it ends\n"
          "  reader -a -n 10            its ten oldest frames that are still there\n"
          "  reader 4711-0a1b2c | grep missed\n",
          to);
}

static struct options parse(int argc, char **argv) {
    struct options options = {NULL, -1, false};
    int letter;
    while ((letter = getopt(argc, argv, "ahn:")) != -1) {
        char *end;
        switch (letter) {
        case 'a': options.from_oldest = true; break;
        case 'h': usage(stdout); exit(0);
        case 'n':
            errno = 0;
            options.count = strtoll(optarg, &end, 10);
            if (errno != 0 || end == optarg || *end != '\0' || options.count < 1)
                fail(EXIT_USAGE, "-n %s: expected a whole number of at least 1", optarg);
            break;
        default: usage(stderr); exit(EXIT_USAGE);
        }
    }
    if (argc - optind > 1) fail(EXIT_USAGE, "expected one run id, got %d", argc - optind);
    if (optind < argc) {
        options.run_id = argv[optind];
        if (options.run_id[0] == '\0' || strchr(options.run_id, '/') != NULL)
            fail(EXIT_USAGE, "run id '%s': expected one as in " SHM_PREFIX "RUN_ID" CONTROL_SUFFIX, options.run_id);
    }
    return options;
}

/* The only run on this machine; the caller owns the text. */
static char *only_run(void) {
    glob_t found;
    int result = glob(SHM_PREFIX "*" CONTROL_SUFFIX, 0, NULL, &found);
    if (result == GLOB_NOMATCH) fail(EXIT_FAILED, "no run of rtcore on this machine; start one with rtcore-run");
    if (result != 0) fail(EXIT_FAILED, "cannot list /dev/shm");
    if (found.gl_pathc > 1) {
        fprintf(stderr, "reader: several runs, choose one (killed ones are removed by rtcore-doctor --clean):\n");
        for (size_t i = 0; i < found.gl_pathc; i++) {
            const char *id = found.gl_pathv[i] + strlen(SHM_PREFIX);
            fprintf(stderr, "  reader %.*s\n", (int)(strlen(id) - strlen(CONTROL_SUFFIX)), id);
        }
        exit(EXIT_FAILED);
    }
    const char *id = found.gl_pathv[0] + strlen(SHM_PREFIX);
    char *copy = strndup(id, strlen(id) - strlen(CONTROL_SUFFIX));
    globfree(&found);
    if (copy == NULL) fail(EXIT_FAILED, "out of memory");
    return copy;
}

static struct segment attach(const char *run_id, const char *part) {
    char path[PATH_BYTES];
    int length = snprintf(path, sizeof path, SHM_PREFIX "%s-%s", run_id, part);
    if (length < 0 || (size_t)length >= sizeof path) fail(EXIT_USAGE, "run id is too long");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) fail(EXIT_FAILED, "no run %s (no %s): it is over or never was", run_id, path);
    if (fd < 0) fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    struct stat status;
    if (fstat(fd, &status) != 0) fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    if (status.st_size < (off_t)sizeof(struct rtcore_segment_header))
        fail(EXIT_FAILED, "%s has %" PRId64 " bytes, less than a header; it is being made, or not rtcore's", path,
             (int64_t)status.st_size);
    void *base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) fail(EXIT_FAILED, "%s: %s", path, strerror(errno));
    close(fd);
    const struct rtcore_segment_header *header = base;
    if (load(&header->magic) != RTCORE_MAGIC)
        fail(EXIT_FAILED, "%s: magic is %#" PRIx64 ", expected %#" PRIx64 "; it is being made, or not rtcore's", path,
             (uint64_t)header->magic, (uint64_t)RTCORE_MAGIC);
    if (header->layout_version != RTCORE_LAYOUT_VERSION)
        fail(EXIT_FAILED, "%s has layout version %" PRId64 ", this reader knows %d; build the one of that rtcore", path,
             header->layout_version, RTCORE_LAYOUT_VERSION);
    if (header->size_bytes != status.st_size)
        fail(EXIT_FAILED, "%s has %" PRId64 " bytes, its header says %" PRId64, path, (int64_t)status.st_size,
             header->size_bytes);
    return (struct segment){base, header};
}

static struct run attach_run(const char *run_id) {
    struct run run = {.control = attach(run_id, "control"), .ring = attach(run_id, "ring")};
    const struct rtcore_segment_header *control = run.control.header, *ring = run.ring.header;
    if (control->size_bytes != rtcore_control_bytes(control) || ring->size_bytes != rtcore_ring_bytes(ring))
        fail(EXIT_FAILED, "run %s: the segments' sizes do not fit their headers", run_id);
    run.order = (const void *)(run.control.base + rtcore_run_control_at(control));
    run.env = (const void *)(run.control.base + rtcore_env_status_at(control));
    run.sequence = (const void *)(run.ring.base + rtcore_ring_control_at(ring));
    return run;
}

/* -- is it still on? ---------------------------------------------------------------------------------------- */

/* Field 22 of /proc/PID/stat; -1 if there is no such process, or only its exit code is left (a zombie). */
static int64_t start_ticks(int64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    char *field = strrchr(text, ')'); /* the name before it may hold blanks and brackets */
    if (field != NULL && field[1] == ' ' && field[2] == 'Z') return -1;
    for (int i = 0; field != NULL && i < 20; i++) field = strchr(field + 1, ' ');
    return field == NULL ? -1 : strtoll(field, NULL, 10);
}

/* Asked only where the owner's pid means something: in its own pid namespace. */
static bool owner_is_gone(const struct rtcore_segment_header *header) {
    struct stat own;
    if (stat("/proc/self/ns/pid", &own) != 0 || (int64_t)own.st_ino != header->owner_pid_namespace) return false;
    return start_ticks(header->owner_pid) != header->owner_start_ticks;
}

/* The `phase_seq` of the run, after waiting for its start; -1 if it ended before, or a signal came. */
static int64_t wait_for_start(const struct run *run) {
    int64_t idle_polls = 0;
    while (!interrupted) {
        int64_t phase_seq = load(&run->order->phase_seq);
        if (load(&run->env->finished)) return -1;
        if (load(&run->order->phase) == RTCORE_PHASE_STOP) return -1;
        /* The phase is written just before its number: it belongs to this one if that has not been carried out. */
        if (load(&run->order->phase) == RTCORE_PHASE_RUN && load(&run->env->phase_seen) != phase_seq) return phase_seq;
        if (++idle_polls % 256 == 0 && owner_is_gone(run->control.header)) return -1;
        nanosleep(&POLL, NULL);
    }
    return -1;
}

static bool is_over(const struct run *run, int64_t phase_seq) {
    return load(&run->env->finished) || load(&run->env->phase_seen) >= phase_seq ||
           load(&run->order->phase) == RTCORE_PHASE_STOP;
}

/* -- frames ------------------------------------------------------------------------------------------------- */

/* Copies the header of frame `seq`, which exists; false if the writer has come round meanwhile. */
static bool read_header(const struct run *run, int64_t seq, struct rtcore_frame_header *copy) {
    const struct rtcore_segment_header *h = run->ring.header;
    const char *at = run->ring.base + rtcore_headers_at(h) + seq % h->ring_slots * rtcore_header_stride_bytes(h);
    memcpy(copy, at, sizeof *copy);
    /* (R2) after the copy: the fence keeps the load below from being done before it. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return load(&run->sequence->begun) - seq < h->ring_slots;
}

static void print_header(const struct rtcore_frame_header *frame) {
    bool acted = frame->kind == RTCORE_TICK_KIND_ACTED;
    printf("%10" PRId64 " %-8s %-8s %10.6g %12.1f", frame->tick, rtcore_tick_kind_name(frame->kind),
           rtcore_source_name(frame->source), frame->reward, (double)(frame->start_ns - frame->deadline_ns) / 1e3);
    if (acted)
        printf(" %6" PRId64 " %6" PRId64 "\n", frame->worker, frame->tick - frame->obs_tick);
    else
        printf(" %6s %6s\n", "-", "-");
}

struct tally {
    int64_t printed, lapped;
};

/* Prints from frame `seq` on until the run ends, `count` frames are out, or a signal comes. */
static struct tally follow(const struct run *run, int64_t seq, int64_t phase_seq, int64_t count) {
    struct tally tally = {0, 0};
    struct rtcore_frame_header frame;
    int64_t idle_polls = 0, slots = run->ring.header->ring_slots;
    bool over = false;
    while (!interrupted && tally.printed != count) {
        bool was_over = over;                        /* asked before the newest frame: nothing comes after that */
        int64_t newest = load(&run->sequence->done); /* (R1) */
        if (seq > newest) {
            if (was_over) break;
            over = is_over(run, phase_seq) || (++idle_polls % 256 == 0 && owner_is_gone(run->control.header));
            fflush(stdout);
            if (!over) nanosleep(&POLL, NULL);
        } else if (!read_header(run, seq, &frame)) {
            /* Go on half a ring behind the writer: the very oldest would be overwritten again at once. */
            int64_t resume = newest - slots / 2 > seq ? newest - slots / 2 : seq + 1;
            tally.lapped += resume - seq;
            seq = resume;
        } else {
            if (frame.phase_seq == phase_seq) {
                print_header(&frame);
                tally.printed++;
            }
            seq++;
        }
    }
    return tally;
}

int main(int argc, char **argv) {
    struct options options = parse(argc, argv);
    char *found = options.run_id == NULL ? only_run() : NULL;
    const char *run_id = found != NULL ? found : options.run_id;
    struct run run = attach_run(run_id);
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART: the sleep ends at once */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    fprintf(stderr, "reader: run %s, pid %" PRId64 ", %" PRId64 " frames of %" PRId64 " bytes in its ring\n", run_id,
            run.control.header->owner_pid, run.ring.header->ring_slots, run.ring.header->frame_bytes);
    int64_t phase_seq = wait_for_start(&run);
    if (phase_seq < 0 && !interrupted) fail(EXIT_FAILED, "run %s ended before it began, or is over already", run_id);

    /* Not the very oldest: the writer is about to overwrite it. */
    int64_t next = load(&run.sequence->done) + 1, oldest = next - run.ring.header->ring_slots * 7 / 8;
    if (options.from_oldest) next = oldest > 0 ? oldest : 0;
    printf("%10s %-8s %-8s %10s %12s %6s %6s\n", "tick", "kind", "source", "reward", "lateness_us", "worker", "delay");
    struct tally tally = {0, 0};
    if (phase_seq >= 0) tally = follow(&run, next, phase_seq, options.count);
    if (fflush(stdout) != 0) fail(EXIT_FAILED, "cannot write: %s", strerror(errno));
    fprintf(stderr, "reader: %" PRId64 " frames, %" PRId64 " lapped%s\n", tally.printed, tally.lapped,
            interrupted ? ", interrupted" : "");
    free(found);
    return 0;
}
