// What both plugin generations share. No TensorRT function is called by symbol, only through objects it hands us, so
// that the library loads where TensorRT is not installed.
#include "common.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace universeg {
namespace plugin {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using support_mean::Refused;

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Refused(SUPPORT_MEAN_INVALID, message); }

thread_local char g_last_error[512];
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
nvinfer1::ILoggerFinder* g_finder = nullptr;
#endif

std::string shape_text(const nvinfer1::Dims& dims) {
    std::string out = "(";
    for (int32_t i = 0; i < dims.nbDims; ++i) out += (i ? ", " : "") + std::to_string(dims.d[i]);
    return out + ")";
}

int32_t dtype_of(DataType type) {
    if (type == DataType::kFLOAT) return SUPPORT_MEAN_FLOAT32;
    if (type == DataType::kHALF) return SUPPORT_MEAN_FLOAT16;
#if NV_TENSORRT_MAJOR >= 10
    if (type == DataType::kBF16) return SUPPORT_MEAN_BFLOAT16;
#endif
    return -1;
}

// kHWC8 has the third axis from the end, C, last and padded to 8: our channels-last layout where there is nothing to pad.
bool channels_last(const PluginTensorDesc& support) {
    return support.format == nvinfer1::TensorFormat::kHWC8 && support.type != DataType::kFLOAT &&
           support.dims.nbDims == 6 && support.dims.d[3] > 0 && support.dims.d[3] % 8 == 0;
}

void require_rank(const char* name, const nvinfer1::Dims& dims, int32_t rank, const char* axes) {
    if (dims.nbDims != rank) refuse(std::string(name) + " has shape " + shape_text(dims) + "; it must be " + axes);
}

void check_counts(const Operation& operation, const Attributes& attributes, int32_t inputs, int32_t outputs) {
    if (inputs != 3)
        refuse(std::string(operation.name) + " has " + std::to_string(inputs) +
               " inputs; it takes support_term, query_term and weights");
    if (outputs != attributes.outputs)
        refuse(std::string(operation.name) + " has " + std::to_string(outputs) + " outputs and its attribute outputs is " +
               std::to_string(attributes.outputs) + "; they must be equal");
}

void check_ranks(const PluginTensorDesc* inputs) {
    require_rank("support_term", inputs[0].dims, 6, "(Bs, K, S, C, H, W)");
    require_rank("query_term", inputs[1].dims, 6, "(B, Kq, 1, C, H, W)");
    require_rank("weights", inputs[2].dims, 2, "(K, S)");
}

// -1 on either side agrees with everything.
void require_equal(const char* what, int64_t a, int64_t b) {
    if (a >= 0 && b >= 0 && a != b)
        refuse(std::string(what) + " disagree: " + std::to_string(a) + " and " + std::to_string(b));
}

void check_agreement(const PluginTensorDesc* inputs) {
    const nvinfer1::Dims &s = inputs[0].dims, &q = inputs[1].dims, &w = inputs[2].dims;
    require_equal("the entries axis of query_term, which is 1, and what was given", 1, q.d[2]);
    require_equal("channels of support_term and query_term", s.d[3], q.d[3]);
    require_equal("heights of support_term and query_term", s.d[4], q.d[4]);
    require_equal("widths of support_term and query_term", s.d[5], q.d[5]);
    require_equal("support sets of support_term and weights", s.d[1], w.d[0]);
    require_equal("entries of support_term and weights", s.d[2], w.d[1]);
    if (s.d[0] != 1) require_equal("queries of support_term (1 is shared by all) and query_term", s.d[0], q.d[0]);
    if (q.d[1] != 1) require_equal("support sets of query_term (1 is shared by all) and support_term", q.d[1], s.d[1]);
}

std::vector<int64_t> expected_shape(const support_mean_problem& p, int32_t output) {
    const bool pool = p.form == SUPPORT_MEAN_POOL;
    if (output == 0) return {p.queries, p.sets, p.channels, p.height, p.width};
    if (pool && output == 1) return {p.queries, p.sets, p.channels, p.height / 2, p.width / 2};
    if (pool && output == 2) return {p.queries, p.sets, p.entries, p.channels, p.height / 2, p.width / 2};
    return {p.queries, p.sets, p.entries, p.channels, p.height, p.width};
}

}  // namespace

const Operation& support_mean_operation() {
    static const Operation operation{"SupportMean", SUPPORT_MEAN, 1};
    return operation;
}

const Operation& support_mean_pool_operation() {
    static const Operation operation{"SupportMeanPool", SUPPORT_MEAN_POOL, 3};
    return operation;
}

void report(const std::string& message) noexcept {
    std::strncpy(g_last_error, message.c_str(), sizeof g_last_error - 1);
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
    nvinfer1::ILogger* logger = g_finder == nullptr ? nullptr : g_finder->findLogger();
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, g_last_error);
        return;
    }
#endif
    std::fprintf(stderr, "%s\n", g_last_error);
}

const char* last_error() noexcept { return g_last_error; }

#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { g_finder = finder; }
#endif

void check_attributes(const Operation& operation, const Attributes& attributes) {
    if (!(attributes.negative_slope > 0.0f && attributes.negative_slope <= 1.0f))
        refuse("attribute negative_slope is " + std::to_string(attributes.negative_slope) + "; it must lie in (0, 1]");
    const int32_t fewest = operation.fewest_outputs;
    if (attributes.outputs != fewest && attributes.outputs != fewest + 1)
        refuse("attribute outputs is " + std::to_string(attributes.outputs) + "; " + operation.name + " has " +
               std::to_string(fewest) + ", or " + std::to_string(fewest + 1) + " with activated");
}

Attributes read_attributes(const Operation& operation, const nvinfer1::PluginFieldCollection* fields) {
    if (fields == nullptr || (fields->nbFields > 0 && fields->fields == nullptr)) refuse("no attributes were given");
    Attributes out{};
    bool slope = false, outputs = false;
    for (int32_t i = 0; i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        const std::string name = field.name == nullptr ? "" : field.name;
        if (name == "plugin_namespace" || name == "plugin_version") continue;  // the parser's own business
        if (name != "negative_slope" && name != "outputs")
            refuse("attribute " + name + " is unknown; accepted: negative_slope (float), outputs (int)");
        if (field.data == nullptr || field.length != 1)
            refuse("attribute " + name + " has " + std::to_string(field.length) + " values; it takes one");
        if (name == "negative_slope") {
            if (slope) refuse("attribute negative_slope was given twice");
            slope = true;
            if (field.type == PluginFieldType::kFLOAT32)
                std::memcpy(&out.negative_slope, field.data, sizeof(float));
            else
                refuse("attribute negative_slope has field type " + std::to_string(static_cast<int>(field.type)) +
                       "; it takes one float32");
        } else {
            if (outputs) refuse("attribute outputs was given twice");
            outputs = true;
            if (field.type == PluginFieldType::kINT32)
                std::memcpy(&out.outputs, field.data, sizeof(int32_t));
            else
                refuse("attribute outputs has field type " + std::to_string(static_cast<int>(field.type)) +
                       "; it takes one int32");
        }
    }
    if (!slope) refuse("attribute negative_slope is missing; give the LeakyReLU slope as a float");
    if (!outputs) refuse("attribute outputs is missing; give the node's number of outputs");
    check_attributes(operation, out);
    return out;
}

std::vector<PluginField> fields_of(const Attributes* attributes) {
    return {PluginField{"negative_slope", attributes == nullptr ? nullptr : &attributes->negative_slope,
                        PluginFieldType::kFLOAT32, 1},
            PluginField{"outputs", attributes == nullptr ? nullptr : &attributes->outputs, PluginFieldType::kINT32, 1}};
}

void check_partial(const Operation& operation, const Attributes& attributes, const PluginTensorDesc* inputs,
                   int32_t input_count, int32_t output_count) {
    check_counts(operation, attributes, input_count, output_count);
    check_ranks(inputs);
    check_agreement(inputs);
}

support_mean_problem problem_of(const Operation& operation, const Attributes& attributes, const PluginTensorDesc* inputs,
                                int32_t input_count, const PluginTensorDesc* outputs, int32_t output_count) {
    check_partial(operation, attributes, inputs, input_count, output_count);
    for (int32_t i = 0; i < input_count; ++i)
        if (!supports(i, inputs))
            refuse("input " + std::to_string(i) + " has a type or format that is not supported; support_term and query_term "
                   "share float32, float16 or bfloat16 (TensorRT 10 and later), linear or, in 16 bits with channels a multiple of 8, kHWC8; "
                   "weights are float32, linear");
    const nvinfer1::Dims &s = inputs[0].dims, &q = inputs[1].dims;
    support_mean_problem p{};
    p.struct_size = sizeof p;
    p.form = operation.form;
    p.dtype = dtype_of(inputs[0].type);
    p.activated = attributes.outputs > operation.fewest_outputs;
    p.layout = channels_last(inputs[0]) ? SUPPORT_MEAN_CHANNELS_LAST : SUPPORT_MEAN_CHANNELS_FIRST;
    p.negative_slope = attributes.negative_slope;
    p.queries = q.d[0];
    p.support_queries = s.d[0];
    p.sets = s.d[1];
    p.query_sets = q.d[1];
    p.entries = s.d[2];
    p.channels = s.d[3];
    p.height = s.d[4];
    p.width = s.d[5];
    support_mean::check_problem(p);
    for (int32_t i = 0; i < output_count; ++i) {
        const std::vector<int64_t> expected = expected_shape(p, i);
        const nvinfer1::Dims& given = outputs[i].dims;
        bool same = given.nbDims == static_cast<int32_t>(expected.size()) && outputs[i].type == inputs[0].type &&
                    outputs[i].format == inputs[0].format;
        for (int32_t d = 0; same && d < given.nbDims; ++d) same = given.d[d] == expected[d];
        if (!same)
            refuse("output " + std::to_string(i) + " has shape " + shape_text(given) +
                   ", which the inputs do not give, or another type or format than support_term");
    }
    return p;
}

bool supports(int32_t position, const PluginTensorDesc* tensors) {
    const PluginTensorDesc& t = tensors[position];
    if (position == 2) return t.type == DataType::kFLOAT && t.format == nvinfer1::TensorFormat::kLINEAR;
    if (position == 0)
        return dtype_of(t.type) >= 0 && (t.format == nvinfer1::TensorFormat::kLINEAR || channels_last(t));
    return t.type == tensors[0].type && t.format == tensors[0].format;
}

void launch(const Operation& operation, const Attributes& attributes, const PluginTensorDesc* input_descs,
            const PluginTensorDesc* output_descs, const void* const* inputs, void* const* outputs, void* stream) {
    const support_mean_problem p = problem_of(operation, attributes, input_descs, 3, output_descs, attributes.outputs);
    support_mean_buffers b = support_mean::needed_bytes(p);
    b.support.data = const_cast<void*>(inputs[0]);
    b.query.data = const_cast<void*>(inputs[1]);
    b.weights.data = const_cast<void*>(inputs[2]);
    b.mean.data = outputs[0];
    if (p.form == SUPPORT_MEAN_POOL) {
        b.pooled_mean.data = outputs[1];
        b.pooled.data = outputs[2];
    }
    if (p.activated) b.activated.data = outputs[attributes.outputs - 1];
    char message[512];
    const int status = support_mean_run(&p, &b, stream, message, sizeof message);
    if (status != SUPPORT_MEAN_OK) throw Refused(status, message);
}

nvinfer1::DimsExprs output_shape(const Operation& operation, int32_t output, const nvinfer1::DimsExprs* inputs,
                                 int32_t input_count, nvinfer1::IExprBuilder& builder) {
    if (input_count != 3 || inputs[0].nbDims != 6 || inputs[1].nbDims != 6 || inputs[2].nbDims != 2)
        refuse(std::string(operation.name) + " takes support_term (Bs, K, S, C, H, W), query_term (B, Kq, 1, C, H, W) and "
               "weights (K, S); it was given " + std::to_string(input_count) + " inputs or other ranks");
    const bool pool = operation.form == SUPPORT_MEAN_POOL, half = pool && (output == 1 || output == 2);
    const bool entries = output == (pool ? 2 : 1) || output == (pool ? 3 : 1);
    auto size = [&](int axis) {
        const nvinfer1::IDimensionExpr* full = inputs[0].d[axis];
        return half ? builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *full, *builder.constant(2)) : full;
    };
    nvinfer1::DimsExprs out{};
    int32_t n = 0;
    out.d[n++] = inputs[1].d[0];
    out.d[n++] = inputs[0].d[1];
    if (entries) out.d[n++] = inputs[0].d[2];
    out.d[n++] = inputs[0].d[3];
    out.d[n++] = size(4);
    out.d[n++] = size(5);
    out.nbDims = n;
    return out;
}

}  // namespace plugin
}  // namespace universeg
