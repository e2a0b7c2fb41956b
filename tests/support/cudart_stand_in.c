/* Stands in for NVIDIA's libcudart where there is no GPU: the signatures, struct sizes and refusals of the calls that
 * rtcore_workers/weights/cudart.py makes, over plain memory. It is not a GPU: it says nothing about one's behaviour or speed.
 *
 * Stricter than the real one where that finds mistakes: new memory is full of rubbish, a copy is not made before
 * cudaDeviceSynchronize, and an error stays in cudaGetLastError until that was called. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int cudaError_t;
typedef struct { char reserved[64]; } cudaIpcMemHandle_t;
typedef struct { int pid, fd; size_t size; } Export;

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, ALREADY_REGISTERED = 712 };
enum { NUM = 16 };

static struct { char *base; size_t size; int fd; } blocks[NUM]; /* fd -1: opened, not owned */
static struct { char *to; const char *from; size_t size; } copies[NUM];
static const void *registered[NUM];
static int num_copies, num_registered;
static cudaError_t last = SUCCESS;

static cudaError_t note(cudaError_t error)
{
    if (error != SUCCESS) last = error;
    return error;
}

static int find(const void *base)
{
    for (int i = 0; i < NUM; i++)
        if (blocks[i].base == (const char *)base) return i;
    return -1;
}

static cudaError_t keep(int fd, size_t size, void **address, int owned)
{
    int i = find(NULL);
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (i < 0 || base == MAP_FAILED) return note(OUT_OF_MEMORY);
    blocks[i].base = base, blocks[i].size = size, blocks[i].fd = owned ? fd : -1;
    *address = base;
    return SUCCESS;
}

static cudaError_t drop(void *base, int owned)
{
    int i = base ? find(base) : -1;
    if (i < 0 || (blocks[i].fd >= 0) != owned) return note(INVALID_VALUE);
    munmap(blocks[i].base, blocks[i].size);
    if (owned) close(blocks[i].fd);
    blocks[i].base = NULL;
    return SUCCESS;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last;
    last = SUCCESS;
    return error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case SUCCESS: return "cudaSuccess";
    case INVALID_VALUE: return "cudaErrorInvalidValue";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case INVALID_DEVICE: return "cudaErrorInvalidDevice";
    case INVALID_CONTEXT: return "cudaErrorDeviceUninitialized";
    case INVALID_HANDLE: return "cudaErrorInvalidResourceHandle";
    case ALREADY_REGISTERED: return "cudaErrorHostMemoryAlreadyRegistered";
    default: return "unrecognized error code";
    }
}

cudaError_t cudaSetDevice(int device) { return note(device == 0 ? SUCCESS : INVALID_DEVICE); }

cudaError_t cudaSetDeviceFlags(unsigned int flags) { return note(flags == 4 ? SUCCESS : INVALID_VALUE); }

cudaError_t cudaMalloc(void **address, size_t size)
{
    int fd = memfd_create("cudart-stand-in", 0);
    if (size > ((size_t)1 << 32) || fd < 0 || ftruncate(fd, size) != 0) {
        if (fd >= 0) close(fd);
        return note(OUT_OF_MEMORY);
    }
    cudaError_t error = keep(fd, size, address, 1);
    if (error == SUCCESS) memset(*address, 0xA5, size);
    return error;
}

cudaError_t cudaFree(void *address) { return drop(address, 1); }

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *address)
{
    int i = find(address);
    if (i < 0 || blocks[i].fd < 0) return note(INVALID_VALUE);
    Export export = {getpid(), blocks[i].fd, blocks[i].size};
    memset(handle, 0x5A, sizeof *handle);
    memcpy(handle->reserved + sizeof *handle - sizeof export, &export, sizeof export); /* its end: all of it must come */
    return SUCCESS;
}

cudaError_t cudaIpcOpenMemHandle(void **address, cudaIpcMemHandle_t handle, unsigned int flags)
{
    Export export;
    char path[64];
    memcpy(&export, handle.reserved + sizeof handle - sizeof export, sizeof export);
    if (flags != 1) return note(INVALID_VALUE);
    if (export.pid == getpid()) return note(INVALID_CONTEXT);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", export.pid, export.fd);
    int fd = handle.reserved[0] == 0x5A && export.pid > 1 ? open(path, O_RDWR) : -1;
    if (fd < 0) return note(INVALID_HANDLE);
    cudaError_t error = keep(fd, export.size, address, 0);
    close(fd);
    return error;
}

cudaError_t cudaIpcCloseMemHandle(void *address) { return drop(address, 0); }

cudaError_t cudaHostRegister(void *address, size_t size, unsigned int flags)
{
    if (address == NULL || size == 0 || flags != 0) return note(INVALID_VALUE);
    for (int i = 0; i < num_registered; i++)
        if (registered[i] == address) return note(ALREADY_REGISTERED);
    if (num_registered == NUM) return note(OUT_OF_MEMORY);
    registered[num_registered++] = address;
    return SUCCESS;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, int kind)
{
    if (kind != 1 || num_copies == NUM) return note(INVALID_VALUE); /* cudaMemcpyHostToDevice */
    for (int i = 0; i < NUM; i++)
        if (blocks[i].base && blocks[i].base <= (char *)to && (char *)to + size <= blocks[i].base + blocks[i].size) {
            copies[num_copies].to = to, copies[num_copies].from = from, copies[num_copies++].size = size;
            return SUCCESS;
        }
    return note(INVALID_VALUE);
}

cudaError_t cudaDeviceSynchronize(void)
{
    for (int i = 0; i < num_copies; i++) memcpy(copies[i].to, copies[i].from, copies[i].size);
    num_copies = 0;
    return SUCCESS;
}
