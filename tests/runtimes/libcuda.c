/* A stand-in for NVIDIA's driver: main memory in place of a GPU's. A captured graph calls what `stand_in_launch` was given.
 * $STAND_IN_CUDA says what goes wrong: "no gpu", "memory". Source of the signatures: CUDA Driver API reference. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int CUresult;
static void (*launch)(void);
static int trouble(const char *what) {
    const char *said = getenv("STAND_IN_CUDA");
    return said && !strcmp(said, what);
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

void stand_in_launch(void (*callback)(void)) { launch = callback; }
CUresult cuInit(unsigned flags) { return flags ? 1 : trouble("no gpu") ? 100 : 0; }
CUresult cuGetErrorName(CUresult code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
    return 0;
}
CUresult cuDeviceGetCount(int *count) { return *count = 1, 0; }
CUresult cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
CUresult cuDeviceGetName(char *name, int size, int device) { return strncpy(name, "Test GPU", size), device; }
CUresult cuDeviceGetPCIBusId(char *bus, int size, int device) { return strncpy(bus, "0000:01:00.0", size), device; }
CUresult cuDeviceGetAttribute(int *value, int which, int device) { return *value = which == 75 ? 8 : 6, device; }
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &launch, device; }
CUresult cuCtxSetCurrent(void *context) { return context ? 0 : 1; }
CUresult cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = 64ul << 20, *total = 8ul << 30, 0; }
CUresult cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (trouble("memory")) return 2;
    *address = (uint64_t)(uintptr_t)malloc(size);
    return 0;
}
CUresult cuMemAllocHost_v2(void **address, size_t size) { return *address = malloc(size), 0; }
CUresult cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
CUresult cuMemFreeHost(void *address) { return free(address), 0; }
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    return memcpy((void *)(uintptr_t)to, from, size), stream ? 0 : 1;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    return memcpy(to, (void *)(uintptr_t)from, size), stream ? 0 : 1;
}
CUresult cuStreamCreate(void **stream, unsigned flags) { return *stream = &launch, flags == 1 ? 0 : 1; }
CUresult cuStreamSynchronize(void *stream) { return stream ? 0 : 1; }
CUresult cuStreamBeginCapture_v2(void *stream, int mode) { return stream && mode == 1 ? 0 : 1; }
CUresult cuStreamEndCapture(void *stream, void **graph) { return *graph = stream, 0; }
CUresult cuGraphInstantiateWithFlags(void **ready, void *graph, uint64_t flags) { return *ready = graph, (int)flags; }
CUresult cuGraphLaunch(void *ready, void *stream) { return launch(), ready == stream ? 0 : 1; }
CUresult cuEventCreate(void **event, unsigned flags) { return *event = calloc(1, sizeof(double)), (int)flags; }
CUresult cuEventRecord(void *event, void *stream) { return *(double *)event = now(), stream ? 0 : 1; }
CUresult cuEventElapsedTime(float *span, void *before, void *after) {
    return *span = (float)(*(double *)after - *(double *)before), 0;
}
