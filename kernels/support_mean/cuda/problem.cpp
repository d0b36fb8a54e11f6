// Checks a call, and the C interface to what needs no device; every refusal says what was given, what is accepted and
// the cure.
#include "problem.h"

#include <vector>

#include "conv_kernels.cuh"

namespace universeg {
namespace support_mean {

namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 56;  // no device's address space is larger, and sums cannot overflow

// Bytes of an array of these sizes; refuses what does not fit in kMaxBytes.
size_t array_bytes(const char* name, std::initializer_list<int64_t> sizes, size_t element) {
    int64_t total = static_cast<int64_t>(element);
    for (int64_t size : sizes)
        if (size != 0 && (__builtin_mul_overflow(total, size, &total) || total > kMaxBytes))
            refuse(std::string(name) + " would have more than 2^56 bytes; use smaller sizes", SUPPORT_MEAN_UNSUPPORTED);
    for (int64_t size : sizes)
        if (size == 0) return 0;
    return static_cast<size_t>(total);
}

struct Named {
    const char* name;
    const support_mean_buffer* buffer;
    bool output;
};

std::vector<Named> named(const support_mean_buffers& b) {
    return {{"support", &b.support, false},         {"query", &b.query, false},
            {"weights", &b.weights, false},         {"convolution", &b.convolution, false},
            {"border", &b.border, false},           {"mean", &b.mean, true},
            {"pooled_mean", &b.pooled_mean, true},  {"pooled", &b.pooled, true},
            {"activated", &b.activated, true}};
}

}  // namespace

void check_problem(const support_mean_problem& p) {
    if (p.struct_size != sizeof(support_mean_problem))
        refuse("struct_size is " + text(p.struct_size) + "; this library's support_mean_problem has " +
               text(sizeof(support_mean_problem)) + " bytes: build caller and library from the same support_mean.h");
    if (p.form < SUPPORT_MEAN || p.form > SUPPORT_MEAN_CONV_POOL)
        refuse("form is " + text(p.form) + "; accepted: 0 (mean), 1 (mean and pool), 2 (convolution, mean and pool)");
    if (p.dtype < SUPPORT_MEAN_FLOAT32 || p.dtype > SUPPORT_MEAN_BFLOAT16)
        refuse("dtype is " + text(p.dtype) + "; accepted: 0 (float32), 1 (float16), 2 (bfloat16)",
               SUPPORT_MEAN_UNSUPPORTED);
    if (p.activated != 0 && p.activated != 1)
        refuse("activated is " + text(p.activated) + "; accepted: 0 (not written), 1 (written)");
    if (p.activated != 0 && p.form == SUPPORT_MEAN_CONV_POOL)
        refuse("activated is 1; the form with the convolution does not write it: pass 0, or use form 1",
               SUPPORT_MEAN_UNSUPPORTED);
    if (p.layout != SUPPORT_MEAN_CHANNELS_FIRST && p.layout != SUPPORT_MEAN_CHANNELS_LAST)
        refuse("layout is " + text(p.layout) + "; accepted: 0 (channels first), 1 (channels last)");
    if (p.layout == SUPPORT_MEAN_CHANNELS_LAST && p.form == SUPPORT_MEAN_CONV_POOL)
        refuse("layout is 1; the form with the convolution writes maps with channels first: pass 0, or use form 1",
               SUPPORT_MEAN_UNSUPPORTED);
    if (!(p.negative_slope > 0.0f && p.negative_slope <= 1.0f))
        refuse("negative_slope is " + std::to_string(p.negative_slope) + "; it must lie in (0, 1]");
    const struct {
        const char* name;
        int64_t value;
    } sizes[] = {{"queries (B)", p.queries},   {"support_queries (Bs)", p.support_queries},
                 {"sets (K)", p.sets},         {"query_sets (Kq)", p.query_sets},
                 {"entries (S)", p.entries},   {"channels (C)", p.channels},
                 {"height (H)", p.height},     {"width (W)", p.width}};
    for (const auto& size : sizes)
        if (size.value < 1 || size.value > kMaxSize)
            refuse(std::string(size.name) + " is " + text(size.value) + "; it must lie in [1, 2147483647]");
    if (p.support_queries != 1 && p.support_queries != p.queries)
        refuse("support_term has " + text(p.support_queries) + " queries; give 1 (shared) or one for each of the " +
               text(p.queries) + " queries");
    if (p.query_sets != 1 && p.query_sets != p.sets)
        refuse("query_term has " + text(p.query_sets) + " sets; give 1 (shared) or one for each of the " +
               text(p.sets) + " sets");
    if (p.form != SUPPORT_MEAN && (p.height < 2 || p.width < 2))
        refuse("a " + text(p.height) + "x" + text(p.width) + " map has no 2x2 square to pool; give at least 2x2");
    if (p.form == SUPPORT_MEAN_CONV_POOL && p.support_queries != 1)
        refuse("the raw support has " + text(p.support_queries) + " queries; it reads no query, so give 1");
    needed_bytes(p);
}

support_mean_buffers needed_bytes(const support_mean_problem& p) {
    const size_t e = element_size(p.dtype);
    const int64_t h2 = p.height / 2, w2 = p.width / 2;
    const bool raw = p.form == SUPPORT_MEAN_CONV_POOL, pool = p.form != SUPPORT_MEAN;
    support_mean_buffers out{};
    out.support.bytes = array_bytes("support_term", {p.support_queries, p.sets, p.entries, raw ? kInputs : p.channels,
                                                     p.height, p.width}, e);
    out.query.bytes = array_bytes("query_term", {p.queries, p.query_sets, p.channels, p.height, p.width}, e);
    out.weights.bytes = array_bytes("weights", {p.sets, p.entries}, 4);
    out.convolution.bytes = raw ? array_bytes("convolution", {p.channels, kInputs, kTaps, kTaps}, 4) : 0;
    out.border.bytes = raw ? array_bytes("border", {p.channels, kInputs, kBorder}, 4) : 0;
    out.mean.bytes = array_bytes("mean", {p.queries, p.sets, p.channels, p.height, p.width}, e);
    out.pooled_mean.bytes = pool ? array_bytes("pooled_mean", {p.queries, p.sets, p.channels, h2, w2}, e) : 0;
    out.pooled.bytes = pool ? array_bytes("pooled", {p.queries, p.sets, p.entries, p.channels, h2, w2}, e) : 0;
    out.activated.bytes =
        p.activated == 0 ? 0 : array_bytes("activated", {p.queries, p.sets, p.entries, p.channels, p.height, p.width}, e);
    return out;
}

void check_buffers(const support_mean_problem& p, const support_mean_buffers& buffers) {
    const support_mean_buffers needed = needed_bytes(p);
    const std::vector<Named> given = named(buffers), needs = named(needed);
    for (size_t i = 0; i < given.size(); ++i) {
        const std::string name = given[i].name;
        const size_t bytes = needs[i].buffer->bytes;
        const support_mean_buffer& b = *given[i].buffer;
        if (bytes == 0) {
            if (b.data != nullptr) refuse(name + " is given; this problem has no such buffer: pass NULL");
            continue;
        }
        if (b.data == nullptr) refuse(name + " is NULL; it needs " + text(bytes) + " bytes of device memory");
        if (b.bytes < bytes)
            refuse(name + " has " + text(b.bytes) + " bytes; the shapes need " + text(bytes));
        if (reinterpret_cast<uintptr_t>(b.data) % 16 != 0)
            refuse(name + " is misaligned: its address is " + text(reinterpret_cast<uintptr_t>(b.data) % 16) +
                   " bytes past a multiple of 16; give a pointer as cudaMalloc returns it");
    }
    for (size_t i = 0; i < given.size(); ++i) {
        if (!given[i].output || given[i].buffer->data == nullptr) continue;
        const uintptr_t begin = reinterpret_cast<uintptr_t>(given[i].buffer->data);
        for (size_t j = 0; j < given.size(); ++j) {
            if (i == j || given[j].buffer->data == nullptr) continue;
            const uintptr_t other = reinterpret_cast<uintptr_t>(given[j].buffer->data);
            if (begin < other + needs[j].buffer->bytes && other < begin + needs[i].buffer->bytes)
                refuse(std::string("output ") + given[i].name + " overlaps " + given[j].name +
                       "; the operation cannot run in place: give each output memory of its own");
        }
    }
}

Args make_args(const support_mean_problem& p, const support_mean_buffers& b, const support_mean_launch& launch) {
    return {p.queries, p.support_queries, p.sets, p.query_sets, p.entries, p.channels, p.height, p.width,
            p.negative_slope, launch.tiles, launch.groups,
            b.support.data, b.query.data, static_cast<const float*>(b.weights.data),
            static_cast<const float*>(b.convolution.data), static_cast<const float*>(b.border.data),
            b.mean.data, b.pooled_mean.data, b.pooled.data, b.activated.data};
}

}  // namespace support_mean
}  // namespace universeg

using namespace universeg::support_mean;

namespace {

const support_mean_problem& checked(const support_mean_problem* problem) {
    if (problem == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "support_mean: problem is NULL");
    check_problem(*problem);
    return *problem;
}

}  // namespace

extern "C" int support_mean_check(const support_mean_problem* problem, const support_mean_buffers* buffers,
                                  char* message, size_t message_size) {
    return guarded(message, message_size, [&] {
        plan(checked(problem), 1);
        if (buffers != nullptr) check_buffers(*problem, *buffers);
    });
}

extern "C" int support_mean_sizes(const support_mean_problem* problem, support_mean_buffers* buffers, char* message,
                                  size_t message_size) {
    return guarded(message, message_size, [&] {
        const support_mean_buffers needed = needed_bytes(checked(problem));
        if (buffers == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "support_mean: buffers is NULL");
        const std::vector<Named> to = named(*buffers), from = named(needed);
        for (size_t i = 0; i < to.size(); ++i) const_cast<support_mean_buffer*>(to[i].buffer)->bytes = from[i].buffer->bytes;
    });
}

extern "C" int support_mean_plan(const support_mean_problem* problem, int32_t multiprocessors,
                                 support_mean_launch* launch, char* message, size_t message_size) {
    return guarded(message, message_size, [&] {
        const support_mean_launch out = plan(checked(problem), multiprocessors);
        if (launch == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "support_mean: launch is NULL");
        *launch = out;
    });
}

extern "C" const char* support_mean_status_name(int status) {
    switch (status) {
        case SUPPORT_MEAN_OK: return "ok";
        case SUPPORT_MEAN_INVALID: return "invalid";
        case SUPPORT_MEAN_UNSUPPORTED: return "unsupported";
        case SUPPORT_MEAN_CUDA: return "cuda error";
        default: return "unknown status";
    }
}

extern "C" const char* support_mean_version(void) { return "1"; }
