// A libcuda of host memory, as far as runners use it, by ctypes or through cuda-bindings: a context that must be
// current, a megabyte of memory, streams that copy at once, and graphs of copies. counts() says what is left over.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

namespace {
struct Copy {
    void* to;
    const void* from;
    size_t size;
};
using Work = std::vector<Copy>;
struct Stream {
    Work* captured = nullptr;
};

constexpr int OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500;
constexpr size_t TOTAL = 1 << 20;
thread_local int current = 0;
int retained = 0, refuse = 0, capturing = 0, graphs = 0, executables = 0, launches = 0;
size_t used = 0;
std::set<void*> pinned, streams;
std::vector<std::pair<void*, size_t>> blocks;

int copy(void* to, const void* from, size_t size, Stream* stream) {
    if (!current || !streams.count(stream)) return INVALID;
    if (stream->captured)
        stream->captured->push_back({to, from, size});
    else
        std::memcpy(to, from, size);
    return OK;
}
}  // namespace

extern "C" {
void refuse_next(int status) { refuse = status; }
int counts(int what) {
    const int all[] = {capturing, graphs, executables, launches, int(blocks.size()), int(pinned.size()),
                       int(streams.size()), current};
    return all[what];
}

int cuInit(unsigned flags) { return flags ? INVALID : OK; }
int cuDriverGetVersion(int* version) { return *version = 13000, OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal ? INVALID : OK; }
int cuDeviceGetName(char* name, int size, int) { return std::strncpy(name, "Host GPU", size), OK; }
int cuDeviceTotalMem_v2(size_t* size, int) { return *size = TOTAL, OK; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    return *value = attribute == 75 ? 9 : 0, attribute == 75 || attribute == 76 ? OK : INVALID;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &retained, OK; }
int cuCtxPushCurrent_v2(void* context) { return context == &retained ? ++current, OK : INVALID; }
int cuCtxPopCurrent_v2(void** context) { return *context = &retained, current ? --current, OK : INVALID; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = TOTAL - used, *total = TOTAL, current ? OK : INVALID; }
int cuMemAlloc_v2(void** address, size_t size) {
    if (!current) return INVALID;
    if (used + size > TOTAL) return OUT_OF_MEMORY;
    used += size;
    blocks.push_back({*address = std::malloc(size), size});
    return OK;
}
int cuMemFree_v2(void* address) {
    for (auto at = blocks.begin(); current && at != blocks.end(); ++at)
        if (at->first == address) return used -= at->second, std::free(address), blocks.erase(at), OK;
    return INVALID;
}
int cuMemAllocHost_v2(void** address, size_t size) { return current ? pinned.insert(*address = std::malloc(size)), OK : INVALID; }
int cuMemFreeHost(void* address) { return current && pinned.erase(address) ? std::free(address), OK : INVALID; }
int cuStreamCreate(Stream** stream, unsigned flags) {
    return current && flags == 1 ? streams.insert(*stream = new Stream), OK : INVALID;
}
int cuStreamDestroy_v2(Stream* stream) { return current && streams.erase(stream) ? delete stream, OK : INVALID; }
int cuStreamSynchronize(Stream* stream) { return current && !stream->captured ? OK : INVALID; }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t size, Stream* stream) { return copy(to, from, size, stream); }
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t size, Stream* stream) { return copy(to, from, size, stream); }

int cuStreamBeginCapture_v2(Stream* stream, int mode) {
    if (mode != 1) return INVALID;
    ++capturing;
    stream->captured = new Work;
    return OK;
}
int cuStreamEndCapture(Stream* stream, void** graph) {
    --capturing;
    *graph = refuse ? nullptr : stream->captured;
    graphs += !refuse;
    stream->captured = nullptr;
    return std::exchange(refuse, 0);
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    return flags ? INVALID : (++executables, *executable = new Work(*static_cast<Work*>(graph)), OK);
}
int cuGraphDestroy(void* graph) { return --graphs, delete static_cast<Work*>(graph), OK; }
int cuGraphExecDestroy(void* executable) { return --executables, delete static_cast<Work*>(executable), OK; }
int cuGraphLaunch(void* executable, Stream*) {
    for (const Copy& each : *static_cast<Work*>(executable)) std::memcpy(each.to, each.from, each.size);
    return ++launches, OK;
}
int cuGetErrorName(int status, const char** text) {
    return *text = status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : "OTHER", OK;
}
// By the plain name a newer form of a function may be meant.
int cuGetProcAddress_v2(const char* symbol, void** function, int, unsigned long long, int*) {
    static void* self = [] {
        Dl_info info;
        dladdr(reinterpret_cast<void*>(&cuInit), &info);
        return dlopen(info.dli_fname, RTLD_NOW);
    }();
    char newer[128];
    std::strcat(std::strcpy(newer, symbol), "_v2");
    *function = dlsym(self, newer);
    if (!*function) *function = dlsym(self, symbol);
    return *function ? OK : NOT_FOUND;
}
}
