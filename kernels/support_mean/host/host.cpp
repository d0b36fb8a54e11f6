// The pybind11 module universeg_rt.kernels._support_mean_host: the kernels' own code on the CPU, for tests.
//
// Arrays come as NumPy arrays in C order; float16 and bfloat16 travel as uint16 bit patterns (host.py converts).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "conv_kernels.cuh"
#include "host_run.h"

namespace py = pybind11;
using namespace universeg::support_mean;

namespace {

support_mean_problem problem_from(const py::dict& values) {
    support_mean_problem p{};
    p.struct_size = sizeof p;
    p.form = values["form"].cast<int32_t>();
    p.dtype = values["dtype"].cast<int32_t>();
    p.kernel = values["kernel"].cast<int32_t>();
    p.activated = values["activated"].cast<int32_t>();
    p.layout = values["layout"].cast<int32_t>();
    p.negative_slope = values["negative_slope"].cast<float>();
    int64_t* sizes[] = {&p.queries, &p.support_queries, &p.sets,   &p.query_sets,
                        &p.entries, &p.channels,        &p.height, &p.width};
    const char* names[] = {"queries", "support_queries", "sets", "query_sets", "entries", "channels", "height", "width"};
    for (int i = 0; i < 8; ++i) *sizes[i] = values[names[i]].cast<int64_t>();
    return p;
}

// Buffers by name: (address, bytes) pairs, so that tests can pass addresses that must be refused.
support_mean_buffers buffers_from(const py::dict& values) {
    support_mean_buffers b{};
    const std::pair<const char*, support_mean_buffer*> fields[] = {
        {"support", &b.support}, {"query", &b.query},   {"weights", &b.weights},         {"convolution", &b.convolution},
        {"border", &b.border},   {"mean", &b.mean},     {"pooled_mean", &b.pooled_mean}, {"pooled", &b.pooled},
        {"activated", &b.activated}};
    for (const auto& field : fields)
        if (values.contains(field.first)) {
            const auto pair = values[field.first].cast<std::pair<uintptr_t, size_t>>();
            *field.second = {reinterpret_cast<void*>(pair.first), pair.second};
        }
    return b;
}

py::dict launch_dict(const support_mean_launch& launch) {
    py::dict out;
    out["kernel"] = launch.kernel;
    out["vector"] = launch.vector;
    out["slices"] = launch.slices;
    out["group"] = launch.group;
    out["tiles"] = launch.tiles;
    out["groups"] = launch.groups;
    out["blocks"] = launch.blocks;
    out["threads_x"] = launch.threads_x;
    out["threads_y"] = launch.threads_y;
    out["shared_bytes"] = launch.shared_bytes;
    return out;
}

void throw_status(int status, const char* message) {
    if (status != SUPPORT_MEAN_OK) throw Refused(status, message);
}

// support_mean_check through the C interface itself.
void check(const py::dict& problem, const py::object& buffers) {
    char message[512];
    const support_mean_problem p = problem_from(problem);
    support_mean_buffers b{};
    if (!buffers.is_none()) b = buffers_from(buffers.cast<py::dict>());
    throw_status(support_mean_check(&p, buffers.is_none() ? nullptr : &b, message, sizeof message), message);
}

py::dict sizes(const py::dict& problem) {
    char message[512];
    const support_mean_problem p = problem_from(problem);
    support_mean_buffers b{};
    throw_status(support_mean_sizes(&p, &b, message, sizeof message), message);
    py::dict out;
    out["support"] = b.support.bytes;
    out["query"] = b.query.bytes;
    out["weights"] = b.weights.bytes;
    out["convolution"] = b.convolution.bytes;
    out["border"] = b.border.bytes;
    out["mean"] = b.mean.bytes;
    out["pooled_mean"] = b.pooled_mean.bytes;
    out["pooled"] = b.pooled.bytes;
    out["activated"] = b.activated.bytes;
    return out;
}

py::dict plan_of(const py::dict& problem, int multiprocessors) {
    char message[512];
    const support_mean_problem p = problem_from(problem);
    support_mean_launch launch{};
    throw_status(support_mean_plan(&p, multiprocessors, &launch, message, sizeof message), message);
    return launch_dict(launch);
}

py::dict run(const py::dict& problem, const py::dict& buffers, int multiprocessors, const std::string& order,
             uint32_t first_block, uint32_t last_block) {
    const Order chosen = order == "reverse" ? Order::Reverse : order == "shuffled" ? Order::Shuffled : Order::Forward;
    return launch_dict(run_on_host(problem_from(problem), buffers_from(buffers), multiprocessors, chosen, first_block,
                                   last_block));
}

// Every 16-bit pattern's float, and each float's pattern, for the comparison with NumPy's conversions.
template <typename T>
py::array_t<float> widen(const py::array_t<uint16_t>& bits) {
    py::array_t<float> out(bits.size());
    for (py::ssize_t i = 0; i < bits.size(); ++i) out.mutable_at(i) = to_float(T{bits.at(i)});
    return out;
}

template <typename T>
py::array_t<uint16_t> narrow(const py::array_t<float>& values) {
    py::array_t<uint16_t> out(values.size());
    for (py::ssize_t i = 0; i < values.size(); ++i) out.mutable_at(i) = from_float<T>(values.at(i)).bits;
    return out;
}

// The offsets that the kernels use, for sizes no machine holds.
py::dict offsets(const py::dict& problem, int64_t b, int64_t k, int64_t s) {
    const support_mean_problem p = problem_from(problem);
    const Args a = make_args(p, {}, {});
    py::dict out;
    out["support"] = support_offset(a, b, k, s);
    out["query"] = query_offset(a, b, k);
    out["activated"] = entry_offset(a, b, k, s, plane(a));
    out["pooled"] = entry_offset(a, b, k, s, pooled_plane(a));
    out["mean"] = mean_offset(a, b, k, plane(a));
    return out;
}

// What the audit says of each wrong access, made on purpose: the checker's own check.
py::dict audit_findings() {
    alignas(16) float room[40] = {};  // both arrays have free room on both sides
    float *const input = room + 8, *const output = room + 24;
    constexpr size_t bytes = 8 * sizeof(float);
    const auto said = [&](auto misdeed) -> std::string {
        try {
            audit::Session session;
            session.add("input", input, bytes, false);
            session.add("output", output, bytes, true);
            for (int i = 0; i < 4; ++i) store_one(output + i, 1.0f);
            misdeed();
            for (int i = 4; i < 8; ++i) store_one(output + i, 1.0f);
            session.finish();
            return "";
        } catch (const std::logic_error& error) {
            return error.what();
        }
    };
    py::dict out;
    out["nothing wrong"] = said([&] { load<4>(input + 4); });
    out["past the end"] = said([&] { load<1>(input + 8); });
    out["half outside"] = said([&] { load<4>(input + 6); });
    out["before the start"] = said([&] { load<1>(input - 1); });
    out["misaligned"] = said([&] { load<4>(input + 2); });
    out["written twice"] = said([&] { store_one(output + 3, 2.0f); });
    out["output read"] = said([&] { load<1>(output); });
    out["input written"] = said([&] { store_one(input, 2.0f); });
    try {
        audit::Session session;
        session.add("output", output, bytes, true);
        store_one(output, 1.0f);
        session.finish();
        out["left unwritten"] = "";
    } catch (const std::logic_error& error) {
        out["left unwritten"] = error.what();
    }
    return out;
}

}  // namespace

PYBIND11_MODULE(_support_mean_host, m) {
    m.doc() = "The support-mean kernels' code run on the CPU, every access checked";
    static py::exception<Refused> refused(m, "Refused");
    py::register_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const Refused& error) {
            py::set_error(refused, (std::string(support_mean_status_name(error.status())) + ": " + error.what()).c_str());
        }
    });
    m.def("check", &check, py::arg("problem"), py::arg("buffers") = py::none());
    m.def("sizes", &sizes);
    m.def("plan", &plan_of, py::arg("problem"), py::arg("multiprocessors") = 132);
    m.def("run", &run, py::arg("problem"), py::arg("buffers"), py::arg("multiprocessors") = 132,
          py::arg("order") = "forward", py::arg("first_block") = 0, py::arg("last_block") = 0);
    m.def("offsets", &offsets);
    m.def("audit_findings", &audit_findings);
    m.def("half_to_float", &widen<Half>);
    m.def("bfloat_to_float", &widen<Bfloat>);
    m.def("float_to_half", &narrow<Half>);
    m.def("float_to_bfloat", &narrow<Bfloat>);
}
