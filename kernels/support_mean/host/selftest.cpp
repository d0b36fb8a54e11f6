// Runs every kernel on the GPU on small and awkward problems and compares each with the same code run on the CPU.
// A program without Python, so that compute-sanitizer watches the kernels and nothing else.
//
//   support_mean_selftest [--quick] [--dry-run]
//
// Device buffers have exactly the size that is needed and outputs are poisoned, so that a memory checker sees an access
// past the end and an unwritten element shows as NaN. --quick leaves out the larger problems (for the race checker);
// --dry-run needs no GPU: the CPU takes the device's part, with its threads in reverse order. Each kernel is named before
// it starts, so that the last line says which one hangs or ends the program.
// Exit status: 0 all equal, 1 a difference or an error, 3 no usable GPU.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "host_run.h"

using namespace universeg::support_mean;

namespace {

struct Case {
    int64_t b, bs, k, kq, s, c, h, w;
    bool large;
};

// Vectors and none, odd sizes, one row, one column, shared and own support and query, S below and above the slices.
const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 2, 2, false},   {1, 1, 1, 1, 1, 4, 8, 8, false},    {2, 2, 1, 1, 3, 3, 5, 7, false},
    {3, 1, 2, 1, 5, 4, 6, 8, false},   {3, 3, 2, 2, 9, 8, 9, 16, false},   {5, 1, 1, 1, 17, 2, 3, 24, false},
    {1, 1, 3, 3, 4, 5, 17, 33, false}, {2, 1, 1, 1, 2, 9, 33, 2, false},   {2, 1, 2, 2, 35, 2, 4, 8, false},
    {1, 1, 1, 1, 6, 64, 34, 70, true}, {4, 1, 1, 1, 16, 16, 64, 64, true}, {1, 1, 2, 1, 33, 64, 16, 16, true},
    {2, 1, 2, 2, 257, 2, 4, 8, true},
};
const char* const kFormNames[] = {"mean", "pool", "conv_pool"};
const char* const kTypeNames[] = {"float32", "float16", "bfloat16"};

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void require(cudaError_t error, const char* call) {
    if (error != cudaSuccess)
        throw Failure(std::string(call) + " failed: " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")");
}

// 16-byte aligned host memory of exactly `bytes`.
struct HostBuffer {
    std::vector<char> raw;
    char* data = nullptr;
    size_t bytes = 0;
    void allocate(size_t size) {
        bytes = size;
        raw.assign(size + 16, static_cast<char>(0xff));
        data = raw.data() + (16 - reinterpret_cast<uintptr_t>(raw.data()) % 16) % 16;
    }
};

struct Fields {
    support_mean_buffer support_mean_buffers::*field;
    const char* name;
    bool output, always_float;
};
const Fields kFields[] = {{&support_mean_buffers::support, "support", false, false},
                          {&support_mean_buffers::query, "query", false, false},
                          {&support_mean_buffers::weights, "weights", false, true},
                          {&support_mean_buffers::convolution, "convolution", false, true},
                          {&support_mean_buffers::border, "border", false, true},
                          {&support_mean_buffers::mean, "mean", true, false},
                          {&support_mean_buffers::pooled_mean, "pooled_mean", true, false},
                          {&support_mean_buffers::pooled, "pooled", true, false},
                          {&support_mean_buffers::activated, "activated", true, false}};
constexpr int kFieldCount = 9;

void fill(HostBuffer& buffer, int32_t dtype, float scale, std::mt19937& random) {
    std::normal_distribution<float> normal;
    const size_t element = dtype == SUPPORT_MEAN_FLOAT32 ? 4 : 2;
    for (size_t i = 0; i < buffer.bytes / element; ++i) {
        const float x = normal(random) * scale;
        const Half half = from_float<Half>(x);
        const Bfloat bfloat = from_float<Bfloat>(x);
        if (dtype == SUPPORT_MEAN_FLOAT32) std::memcpy(buffer.data + i * 4, &x, 4);
        if (dtype == SUPPORT_MEAN_FLOAT16) std::memcpy(buffer.data + i * 2, &half, 2);
        if (dtype == SUPPORT_MEAN_BFLOAT16) std::memcpy(buffer.data + i * 2, &bfloat, 2);
    }
}

float element_at(const char* data, size_t i, int32_t dtype) {
    if (dtype == SUPPORT_MEAN_FLOAT32) {
        float x;
        std::memcpy(&x, data + i * 4, 4);
        return x;
    }
    uint16_t bits;
    std::memcpy(&bits, data + i * 2, 2);
    return dtype == SUPPORT_MEAN_FLOAT16 ? to_float(Half{bits}) : to_float(Bfloat{bits});
}

// Device memory that is freed whatever happens.
struct DeviceBuffer {
    void* data = nullptr;
    ~DeviceBuffer() { cudaFree(data); }
};

void run_on_device(const support_mean_problem& problem, const HostBuffer (&inputs)[kFieldCount],
                   HostBuffer (&outputs)[kFieldCount]) {
    DeviceBuffer memory[kFieldCount];
    support_mean_buffers buffers{};
    for (int f = 0; f < kFieldCount; ++f) {
        const HostBuffer& host = kFields[f].output ? outputs[f] : inputs[f];
        if (host.bytes == 0) continue;
        require(cudaMalloc(&memory[f].data, host.bytes), "cudaMalloc");
        require(cudaMemcpy(memory[f].data, host.data, host.bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
        buffers.*kFields[f].field = {memory[f].data, host.bytes};
    }
    char message[512];
    const int status = support_mean_run(&problem, &buffers, nullptr, message, sizeof message);
    if (status != SUPPORT_MEAN_OK) throw Failure(message);
    require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (int f = 0; f < kFieldCount; ++f)
        if (kFields[f].output && outputs[f].bytes != 0)
            require(cudaMemcpy(outputs[f].data, memory[f].data, outputs[f].bytes, cudaMemcpyDeviceToHost),
                    "cudaMemcpy from the device");
}

struct Totals {
    long runs = 0, elements = 0, same_bits = 0, failed = 0;
};

// Which kernel on which problem, as printed.
std::string describe(const support_mean_problem& p) {
    char text[256];
    std::snprintf(text, sizeof text, "%s %s kernel %d activated %d layout %d B=%lld Bs=%lld K=%lld Kq=%lld S=%lld C=%lld %lldx%lld",
                  kFormNames[p.form], kTypeNames[p.dtype], p.kernel, p.activated, p.layout, (long long)p.queries,
                  (long long)p.support_queries, (long long)p.sets, (long long)p.query_sets, (long long)p.entries,
                  (long long)p.channels, (long long)p.height, (long long)p.width);
    return text;
}

void run_case(const Case& c, int32_t form, int32_t dtype, int32_t kernel, int32_t activated, int32_t layout, bool dry,
              int multiprocessors, Totals& totals) {
    support_mean_problem p{};
    p.struct_size = sizeof p;
    p.form = form;
    p.dtype = dtype;
    p.kernel = kernel;
    p.activated = activated;
    p.layout = layout;
    p.negative_slope = 0.01f;
    p.queries = c.b;
    p.support_queries = form == SUPPORT_MEAN_CONV_POOL ? 1 : c.bs;
    p.sets = c.k;
    p.query_sets = c.kq;
    p.entries = c.s;
    p.channels = c.c;
    p.height = c.h;
    p.width = c.w;
    char message[512];
    support_mean_launch launch{};
    if (support_mean_plan(&p, multiprocessors, &launch, message, sizeof message) != SUPPORT_MEAN_OK) return;
    std::printf("%s\n", describe(p).c_str());
    std::fflush(stdout);

    support_mean_buffers bytes{};
    support_mean_sizes(&p, &bytes, message, sizeof message);
    std::mt19937 random(static_cast<unsigned>(c.s * 131 + c.w * 17 + form));
    HostBuffer inputs[kFieldCount], expected[kFieldCount], found[kFieldCount];
    support_mean_buffers host{};
    for (int f = 0; f < kFieldCount; ++f) {
        const size_t size = (bytes.*kFields[f].field).bytes;
        if (size == 0) continue;
        HostBuffer& buffer = kFields[f].output ? expected[f] : inputs[f];
        buffer.allocate(size);
        if (kFields[f].output) found[f].allocate(size);
        if (!kFields[f].output) fill(buffer, kFields[f].always_float ? 0 : dtype, f == 3 || f == 4 ? 0.2f : 1.0f, random);
        host.*kFields[f].field = {buffer.data, size};
    }
    float* weights = reinterpret_cast<float*>(inputs[2].data);
    for (int64_t k = 0; k < c.k; ++k) {
        float total = 0.0f;
        for (int64_t s = 0; s < c.s; ++s) total += weights[k * c.s + s] = std::fabs(weights[k * c.s + s]) + 0.1f;
        for (int64_t s = 0; s < c.s; ++s) weights[k * c.s + s] /= total;
    }
    run_on_host(p, host, multiprocessors, Order::Forward, 0, 0, dry);
    if (dry) {
        support_mean_buffers again = host;
        for (int f = 0; f < kFieldCount; ++f)
            if (kFields[f].output && found[f].bytes != 0) (again.*kFields[f].field).data = found[f].data;
        run_on_host(p, again, multiprocessors, Order::Reverse);
    } else {
        run_on_device(p, inputs, found);
    }

    // Same code, same order of operations: equal bits are expected. A contraction that one compiler makes and the other
    // does not may cost a last bit, so a failure is more than that.
    const float unit = dtype == SUPPORT_MEAN_FLOAT32 ? 4e-6f : dtype == SUPPORT_MEAN_FLOAT16 ? 1e-3f : 8e-3f;
    ++totals.runs;
    for (int f = 0; f < kFieldCount; ++f) {
        if (!kFields[f].output || found[f].bytes == 0) continue;
        const size_t count = found[f].bytes / (dtype == SUPPORT_MEAN_FLOAT32 ? 4 : 2);
        long wrong = 0;
        float worst = 0.0f;
        for (size_t i = 0; i < count; ++i) {
            const float a = element_at(expected[f].data, i, dtype), d = element_at(found[f].data, i, dtype);
            const size_t element = found[f].bytes / count;
            totals.same_bits += std::memcmp(expected[f].data + i * element, found[f].data + i * element, element) == 0;
            const float error = std::fabs(a - d);
            if (!(error <= unit * std::fmax(1.0f, std::fabs(a)))) ++wrong;  // catches NaN too
            if (error > worst) worst = error;
        }
        totals.elements += static_cast<long>(count);
        if (wrong != 0) {
            ++totals.failed;
            std::printf("FAILED %s: %s differs at %ld of %zu elements, worst %g\n", describe(p).c_str(), kFields[f].name, wrong,
                        count, worst);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    bool quick = false, dry = false;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (std::strcmp(argv[i], "--dry-run") == 0) {
            dry = true;
        } else {
            std::fprintf(stderr, "usage: support_mean_selftest [--quick] [--dry-run]; %s is unknown\n", argv[i]);
            return 2;
        }
    }
    int multiprocessors = 132, device = 0;
    try {
        if (!dry) {
            int count = 0;
            const cudaError_t error = cudaGetDeviceCount(&count);
            if (error != cudaSuccess || count == 0) {
                std::printf("no usable GPU: cudaGetDeviceCount says %s (%s)\n", cudaGetErrorName(error),
                            cudaGetErrorString(error));
                return 3;
            }
            require(cudaGetDevice(&device), "cudaGetDevice");
            require(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
                    "cudaDeviceGetAttribute");
        }
        Totals totals;
        for (const Case& c : kCases) {
            if (quick && c.large) continue;
            for (int32_t form = 0; form < 3; ++form)
                for (int32_t dtype = 0; dtype < 3; ++dtype)
                    for (int32_t kernel = 1; kernel <= 5; ++kernel)
                        for (int32_t activated = 0; activated < 2; ++activated)
                            for (int32_t layout = 0; layout < 2; ++layout)
                                run_case(c, form, dtype, kernel, activated, layout, dry, multiprocessors, totals);
        }
        std::printf("%ld runs, %ld elements, %ld with equal bits, %ld outputs wrong\n", totals.runs, totals.elements,
                    totals.same_bits, totals.failed);
        return totals.failed == 0 && totals.runs > 0 ? 0 : 1;
    } catch (const std::exception& error) {
        std::printf("FAILED: %s\n", error.what());
        return 1;
    }
}
