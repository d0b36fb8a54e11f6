// What both plugin generations share: names, attributes, shape checks, and the way errors reach the user.
#pragma once

#include <NvInfer.h>

#include <cstdint>
#include <string>
#include <vector>

#include "problem.h"

namespace universeg {
namespace plugin {

constexpr const char* kNamespace = "universeg_rt";
constexpr const char* kVersion = "1";

// One of the two operations.
struct Operation {
    const char* name;
    int32_t form;           // support_mean_form
    int32_t fewest_outputs; // without activated
};
const Operation& support_mean_operation();
const Operation& support_mean_pool_operation();

// The node's attributes.
struct Attributes {
    float negative_slope;
    int32_t outputs;
};

// Reads attributes; throws support_mean::Refused for a missing, unknown, repeated, mistyped or out-of-range one.
Attributes read_attributes(const Operation& operation, const nvinfer1::PluginFieldCollection* fields);
void check_attributes(const Operation& operation, const Attributes& attributes);

// The fields that the ONNX node carries, for getFieldNames and for serialisation.
std::vector<nvinfer1::PluginField> fields_of(const Attributes* attributes);

// Shows one line in TensorRT's log (or on stderr where no logger is known) and keeps it for universeg_rt_last_error.
void report(const std::string& message) noexcept;
const char* last_error() noexcept;
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;
#endif

// Runs `body`; on an exception reports it and returns `otherwise`. TensorRT's interfaces must not throw.
template <typename Result, typename Body>
Result reported(const char* where, Result otherwise, Body body) noexcept {
    try {
        return body();
    } catch (const std::exception& error) {
        report(std::string("universeg_rt plugin, ") + where + ": " + error.what());
        return otherwise;
    }
}

// The problem that tensors of these descriptions pose; Refused where counts, ranks, types, formats or shapes do not fit.
support_mean_problem problem_of(const Operation& operation, const Attributes& attributes,
                                const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                                const nvinfer1::PluginTensorDesc* outputs, int32_t output_count);

// As problem_of for shapes that may hold -1 while a network is built: then only what is known is checked.
void check_partial(const Operation& operation, const Attributes& attributes, const nvinfer1::PluginTensorDesc* inputs,
                   int32_t input_count, int32_t output_count);

// True where `position` of the inputs and outputs may have this type and format, given those before it.
bool supports(int32_t position, const nvinfer1::PluginTensorDesc* tensors);

// Launches the operation; throws support_mean::Refused.
void launch(const Operation& operation, const Attributes& attributes, const nvinfer1::PluginTensorDesc* input_descs,
            const nvinfer1::PluginTensorDesc* output_descs, const void* const* inputs, void* const* outputs,
            void* stream);

// Shape of one output by expressions of the input shapes; Refused where ranks do not fit.
nvinfer1::DimsExprs output_shape(const Operation& operation, int32_t output, const nvinfer1::DimsExprs* inputs,
                                 int32_t input_count, nvinfer1::IExprBuilder& builder);

}  // namespace plugin
}  // namespace universeg
