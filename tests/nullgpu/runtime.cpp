// A CUDA runtime and cuBLAS without a device, to be preloaded under PyTorch's.
//
// Device memory is the host's, kernels and matrix products do nothing, copies copy. Launches,
// synchronisations and copies are counted. During a stream capture it refuses what a real runtime
// refuses: to wait, to copy from or to pageable memory, to use the legacy stream, and to allocate
// unless the thread has relaxed its capture mode, as PyTorch's allocator does for its pools.
// NULLGPU_DEVICES is the number of devices, 1 by default.
#include <driver_types.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <vector>

typedef cudaError_t E;
typedef void *Stream, *Event;

// --- memory and counters -------------------------------------------------------------------------

struct Counts {
    std::atomic<long> launches, syncs, to_device, pageable, to_host, on_device, graphs, nodes,
        escaped, allocations;
};
static Counts counts;
static std::recursive_mutex lock;
static std::map<char *, size_t> device_memory, pinned_memory;
static thread_local int device = 0;

typedef std::lock_guard<std::recursive_mutex> Locked;

static bool inside(const std::map<char *, size_t> &blocks, const void *p) {
    Locked locked(lock);
    auto next = blocks.upper_bound((char *)p);
    if (next == blocks.begin()) return false;
    auto block = std::prev(next);
    return (char *)p < block->first + block->second;
}

static E allocate(std::map<char *, size_t> &blocks, void **p, size_t n) {
    if (posix_memalign(p, 512, n ? n : 512)) return cudaErrorMemoryAllocation;
    memset(*p, 0, n);
    Locked locked(lock);
    blocks[(char *)*p] = n;
    return cudaSuccess;
}

static E release(std::map<char *, size_t> &blocks, void *p) {
    Locked locked(lock);
    blocks.erase((char *)p);
    free(p);
    return cudaSuccess;
}

static int devices() {
    const char *count = getenv("NULLGPU_DEVICES");
    return count ? atoi(count) : 1;
}

// --- stream capture ------------------------------------------------------------------------------

struct Graph {
    std::vector<std::function<void()>> copies;  // the work of its nodes that does something
};
struct Capture {
    int mode;
    bool valid = true;
    Stream origin;
    std::set<void *> streams, events;  // that have joined
    Graph *graph = new Graph;
};
static Capture *capture = nullptr;  // one at a time
static thread_local int thread_mode = cudaStreamCaptureModeGlobal;

static bool legacy(Stream s) { return s == nullptr || s == (Stream)1; }
static bool captured(Stream s) { return capture && capture->streams.count(s); }

// Refuse a call while a stream is captured, and spoil the capture as a real runtime does.
static E refuse(E why, const char *call) {
    fprintf(stderr, "null GPU: %s refused during a capture\n", call);
    capture->valid = false;
    return why;
}
static bool unsafe() { return capture && thread_mode != cudaStreamCaptureModeRelaxed; }
#define REFUSE_IF(condition) \
    Locked locked(lock);     \
    if (condition) return refuse(cudaErrorStreamCaptureUnsupported, __func__)

// Put work on a stream: run it, or record it if the stream is captured.
static E enqueue(Stream s, std::atomic<long> &count, std::function<void()> work = nullptr) {
    Locked locked(lock);
    if (capture && legacy(s)) return refuse(cudaErrorStreamCaptureImplicit, "the legacy stream");
    if (captured(s)) {
        counts.nodes++;
        if (work) capture->graph->copies.push_back(work);
        return cudaSuccess;
    }
    if (capture) counts.escaped++;
    count++;
    if (work) work();
    return cudaSuccess;
}
static E launch(Stream s) { return enqueue(s, counts.launches); }

static E copy(void *to, const void *from, size_t n, Stream s) {
    bool to_device = inside(device_memory, to), from_device = inside(device_memory, from);
    const void *host = to_device ? from : to;
    bool pageable = to_device != from_device && !inside(pinned_memory, host);
    REFUSE_IF(pageable && captured(s));
    if (pageable) counts.pageable++;
    auto &count = to_device && from_device ? counts.on_device
                  : to_device              ? counts.to_device
                                           : counts.to_host;
    return enqueue(s, count, [=] { memcpy(to, from, n); });
}

extern "C" {
void nullgpu_counts(long *out) {
    std::atomic<long> *all[] = {&counts.launches, &counts.syncs,   &counts.to_device,
                                &counts.pageable, &counts.to_host, &counts.on_device,
                                &counts.graphs,   &counts.nodes,   &counts.escaped,
                                &counts.allocations};
    for (auto *count : all) *out++ = *count;
}

E cudaStreamBeginCapture(Stream s, int mode) {
    Locked locked(lock);
    if (capture || legacy(s)) return cudaErrorStreamCaptureUnsupported;
    capture = new Capture;
    capture->mode = mode, capture->origin = s;
    capture->streams.insert(s);
    return cudaSuccess;
}
E cudaStreamBeginCaptureToGraph(Stream s, void *, void *, void *, size_t, int mode) {
    return cudaStreamBeginCapture(s, mode);
}
E cudaStreamEndCapture(Stream s, void **graph) {
    Locked locked(lock);
    if (!captured(s)) return cudaErrorIllegalState;
    bool valid = capture->valid;
    *graph = valid ? capture->graph : nullptr;
    delete capture;
    capture = nullptr;
    return valid ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}
E cudaStreamIsCapturing(Stream s, int *status) {
    Locked locked(lock);
    *status = !captured(s)      ? cudaStreamCaptureStatusNone
              : capture->valid ? cudaStreamCaptureStatusActive
                               : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}
E cudaStreamGetCaptureInfo(Stream s, int *status, unsigned long long *id, void **graph, void *,
                           void *, void *) {
    Locked locked(lock);
    *status = captured(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    if (id) *id = captured(s) ? 7 : 0;
    if (graph) *graph = captured(s) ? capture->graph : nullptr;
    return cudaSuccess;
}
E cudaThreadExchangeStreamCaptureMode(int *mode) {
    std::swap(*mode, thread_mode);
    return cudaSuccess;
}
E cudaGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long) {
    *exec = graph;
    return cudaSuccess;
}
E cudaGraphLaunch(void *exec, Stream s) {
    Graph *graph = (Graph *)exec;
    counts.graphs++;
    return enqueue(s, counts.launches, [=] {
        for (auto &work : graph->copies) work();
    });
}
E cudaGraphGetNodes(void *, void *, size_t *n) { return *n = 1, cudaSuccess; }
E cudaGraphDestroy(void *) { return cudaSuccess; }
E cudaGraphExecDestroy(void *) { return cudaSuccess; }

// --- devices -------------------------------------------------------------------------------------

E cudaGetDeviceCount(int *n) { return *n = devices(), cudaSuccess; }
E cudaGetDevice(int *d) { return *d = device, cudaSuccess; }
E cudaSetDevice(int d) { return device = d, cudaSuccess; }
E cudaDriverGetVersion(int *v) { return *v = 13000, cudaSuccess; }
E cudaRuntimeGetVersion(int *v) { return *v = 13000, cudaSuccess; }
E cudaGetLastError() { return cudaSuccess; }
E cudaPeekAtLastError() { return cudaSuccess; }
const char *cudaGetErrorString(E e) {
    switch (e) {
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted during capture";
        case cudaErrorStreamCaptureImplicit: return "the legacy stream was used during capture";
        case cudaErrorStreamCaptureInvalidated: return "the capture has been invalidated";
        default: return "error of the null GPU";
    }
}
const char *cudaGetErrorName(E) { return "nullgpu"; }
E cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Null H100");
    p->major = 9, p->minor = 0, p->multiProcessorCount = 132, p->warpSize = 32;
    p->totalGlobalMem = 80ull << 30, p->l2CacheSize = 50 << 20;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448;
    p->sharedMemPerMultiprocessor = 233472, p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->textureAlignment = 512, p->maxBlocksPerMultiProcessor = 32;
    return cudaSuccess;
}
E cudaDeviceGetAttribute(int *v, int, int) { return *v = 1, cudaSuccess; }
E cudaDeviceGetPCIBusId(char *s, int n, int) { return strncpy(s, "0000:00:00.0", n), cudaSuccess; }
E cudaDeviceGetStreamPriorityRange(int *a, int *b) { return *a = 0, *b = -5, cudaSuccess; }
E cudaDeviceCanAccessPeer(int *can, int, int) { return *can = 0, cudaSuccess; }
E cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
E cudaDeviceSynchronize() {
    counts.syncs++;
    REFUSE_IF(unsafe());
    return cudaSuccess;
}

// --- memory --------------------------------------------------------------------------------------

E cudaMalloc(void **p, size_t n) {
    counts.allocations++;
    REFUSE_IF(unsafe());
    return allocate(device_memory, p, n);
}
E cudaFree(void *p) {
    REFUSE_IF(unsafe());
    return release(device_memory, p);
}
E cudaHostAlloc(void **p, size_t n, unsigned) {
    REFUSE_IF(unsafe());
    return allocate(pinned_memory, p, n);
}
E cudaFreeHost(void *p) { return release(pinned_memory, p); }
E cudaHostRegister(void *, size_t, unsigned) { return cudaSuccess; }
E cudaHostUnregister(void *) { return cudaSuccess; }
E cudaMemGetInfo(size_t *f, size_t *t) { return *f = 79ull << 30, *t = 80ull << 30, cudaSuccess; }
E cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = inside(device_memory, p)   ? cudaMemoryTypeDevice
              : inside(pinned_memory, p) ? cudaMemoryTypeHost
                                         : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
E cudaMemcpy(void *to, const void *from, size_t n, int) {
    counts.syncs++;
    REFUSE_IF(unsafe());
    return copy(to, from, n, nullptr);
}
E cudaMemcpyAsync(void *to, const void *from, size_t n, int, Stream s) {
    return copy(to, from, n, s);
}
E cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t n, Stream s) {
    return copy(to, from, n, s);
}
E cudaMemset(void *p, int value, size_t n) {
    return enqueue(nullptr, counts.launches, [=] { memset(p, value, n); });
}
E cudaMemsetAsync(void *p, int value, size_t n, Stream s) {
    return enqueue(s, counts.launches, [=] { memset(p, value, n); });
}
E cudaMemcpyToSymbol(const void *, const void *, size_t, size_t, int) { return cudaSuccess; }
E cudaGetSymbolAddress(void **p, const void *) { return *p = calloc(1, 4096), cudaSuccess; }

// --- streams and events --------------------------------------------------------------------------

E cudaStreamCreate(Stream *s) { return *s = malloc(8), cudaSuccess; }
E cudaStreamCreateWithFlags(Stream *s, unsigned) { return *s = malloc(8), cudaSuccess; }
E cudaStreamCreateWithPriority(Stream *s, unsigned, int) { return *s = malloc(8), cudaSuccess; }
E cudaStreamDestroy(Stream) { return cudaSuccess; }
E cudaStreamGetPriority(Stream, int *p) { return *p = 0, cudaSuccess; }
E cudaStreamSynchronize(Stream) {
    counts.syncs++;
    REFUSE_IF(unsafe());
    return cudaSuccess;
}
E cudaStreamQuery(Stream) {
    REFUSE_IF(unsafe());
    return cudaSuccess;
}
E cudaStreamWaitEvent(Stream s, Event e, unsigned) {
    Locked locked(lock);
    if (capture && capture->events.count(e)) capture->streams.insert(s);
    return cudaSuccess;
}
E cudaEventCreate(Event *e) { return *e = malloc(8), cudaSuccess; }
E cudaEventCreateWithFlags(Event *e, unsigned) { return *e = malloc(8), cudaSuccess; }
E cudaEventDestroy(Event) { return cudaSuccess; }
E cudaEventRecord(Event e, Stream s) {
    Locked locked(lock);
    if (captured(s)) capture->events.insert(e);
    return cudaSuccess;
}
E cudaEventRecordWithFlags(Event e, Stream s, unsigned) { return cudaEventRecord(e, s); }
E cudaEventQuery(Event) { return cudaSuccess; }
E cudaEventSynchronize(Event e) {  // of work long done: not counted as a wait for the device
    REFUSE_IF(capture && capture->events.count(e));
    return cudaSuccess;
}
E cudaEventElapsedTime(float *milliseconds, Event, Event) {
    return *milliseconds = 1, cudaSuccess;
}

// --- kernels -------------------------------------------------------------------------------------

struct Dim {
    unsigned x, y, z;
};
E cudaLaunchKernel(const void *, Dim, Dim, void **, size_t, Stream s) { return launch(s); }
E __cudaLaunchKernel(void *, Dim, Dim, void **, size_t, Stream s) { return launch(s); }
E cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *, void **) {
    return launch((Stream)c->stream);
}
E cudaFuncGetAttributes(cudaFuncAttributes *a, const void *) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024, a->binaryVersion = a->ptxVersion = 90, a->numRegs = 32;
    return cudaSuccess;
}
E cudaFuncSetAttribute(const void *, int, int) { return cudaSuccess; }
E cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *, int, size_t,
                                                         unsigned) {
    return *n = 2, cudaSuccess;
}
static int nothing() { return 0; }
static int context_state(int, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}
E cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned, unsigned long long,
                                   int *found) {
    bool state = !strcmp(name, "cuDevicePrimaryCtxGetState");
    *f = state ? (void *)context_state : (void *)nothing;
    if (found) *found = 0;
    return cudaSuccess;
}

// --- cuBLAS --------------------------------------------------------------------------------------

struct Handle {
    Stream stream;
};
int cublasCreate_v2(Handle **h) { return *h = new Handle{nullptr}, 0; }
int cublasDestroy_v2(Handle *) { return 0; }
int cublasSetStream_v2(Handle *h, Stream s) { return h->stream = s, 0; }
int cublasSetWorkspace_v2(Handle *, void *, size_t) { return 0; }
int cublasSetMathMode(Handle *, int) { return 0; }
int cublasGetMathMode(Handle *, int *m) { return *m = 0, 0; }
int cublasSetPointerMode_v2(Handle *, int) { return 0; }
int cublasGetPointerMode_v2(Handle *, int *m) { return *m = 0, 0; }
#define PRODUCT(name) \
    int name(Handle *h, ...) { return launch(h->stream); }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmEx)
PRODUCT(cublasSgemv_v2)
PRODUCT(cublasSdot_v2)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)
int cublasLtMatmul(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                   void *, void *, void *, void *, size_t, Stream s) {
    return launch(s);
}
int cublasLtMatmulDescCreate(void **d, int, int) { return *d = calloc(1, 256), 0; }
int cublasLtMatmulDescDestroy(void *d) { return free(d), 0; }
int cublasLtMatmulDescSetAttribute(...) { return 0; }
int cublasLtMatrixLayoutCreate(void **d, int, long, long, long) { return *d = calloc(1, 256), 0; }
int cublasLtMatrixLayoutDestroy(void *d) { return free(d), 0; }
int cublasLtMatrixLayoutSetAttribute(...) { return 0; }
int cublasLtMatmulPreferenceCreate(void **d) { return *d = calloc(1, 256), 0; }
int cublasLtMatmulPreferenceDestroy(void *d) { return free(d), 0; }
int cublasLtMatmulPreferenceSetAttribute(...) { return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int,
                                   void *, int *found) {
    return *found = 1, 0;
}
}
