// The plugin for TensorRT 10 and later: IPluginV3. Included by plugin.cpp only.
#pragma once

#include "common.h"

namespace universeg {
namespace plugin {

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
public:
    Plugin(const Operation& operation, const Attributes& attributes)
        : operation_(operation), attributes_(attributes), fields_(fields_of(&attributes_)) {
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    }
    Plugin(const Plugin& other) : Plugin(other.operation_, other.attributes_) {}
    Plugin& operator=(const Plugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
            case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
            case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
            case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    nvinfer1::IPluginV3* clone() noexcept override {
        return reported<nvinfer1::IPluginV3*>("clone", nullptr, [&] { return new Plugin(*this); });
    }

    const char* getPluginName() const noexcept override { return operation_.name; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return attributes_.outputs; }

    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t output_count, const nvinfer1::DataType* inputs,
                               int32_t input_count) const noexcept override {
        if (input_count < 1) return -1;
        for (int32_t i = 0; i < output_count; ++i) outputs[i] = inputs[0];
        return 0;
    }

    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* outputs, int32_t output_count,
                            nvinfer1::IExprBuilder& builder) noexcept override {
        return reported(operation_.name, -1, [&] {
            for (int32_t i = 0; i < output_count; ++i)
                outputs[i] = output_shape(operation_, i, inputs, input_count, builder);
            return 0;
        });
    }

    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t,
                                   int32_t) noexcept override {
        return reported(operation_.name, false, [&] {
            std::vector<nvinfer1::PluginTensorDesc> descs;
            for (int32_t i = 0; i <= position; ++i) descs.push_back(tensors[i].desc);
            return supports(position, descs.data());
        });
    }

    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                            const nvinfer1::DynamicPluginTensorDesc*, int32_t output_count) noexcept override {
        return reported(operation_.name, -1, [&] {
            std::vector<nvinfer1::PluginTensorDesc> descs;
            for (int32_t i = 0; i < input_count; ++i) descs.push_back(inputs[i].desc);
            check_partial(operation_, attributes_, descs.data(), input_count, output_count);
            return 0;
        });
    }

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) noexcept override {
        return reported(operation_.name, -1, [&] {
            problem_of(operation_, attributes_, inputs, input_count, outputs, output_count);
            return 0;
        });
    }

    int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                    const void* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept override {
        return reported(operation_.name, 1, [&] {
            launch(operation_, attributes_, input_descs, output_descs, inputs, outputs, stream);
            return 0;
        });
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

private:
    const Operation& operation_;
    const Attributes attributes_;
    const std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_;
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
    explicit Creator(const Operation& operation) : operation_(operation), fields_(fields_of(nullptr)) {
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    }

    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase) noexcept override {
        return reported<nvinfer1::IPluginV3*>(operation_.name, nullptr, [&] {
            return new Plugin(operation_, read_attributes(operation_, fields));
        });
    }

    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
    const char* getPluginName() const noexcept override { return operation_.name; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    const char* getPluginNamespace() const noexcept override { return kNamespace; }

private:
    const Operation& operation_;
    const std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_;
};

using CreatorInterface = nvinfer1::IPluginCreatorInterface;

}  // namespace plugin
}  // namespace universeg
