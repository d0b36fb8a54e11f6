// The plugin for TensorRT 8.5 to 9: IPluginV2DynamicExt. Included by plugin.cpp only.
#pragma once

#include "common.h"

namespace universeg {
namespace plugin {

// What an engine keeps of a plugin; `magic` and `size` tell foreign or damaged bytes.
struct Serialized {
    char magic[4];
    uint32_t size;
    int32_t form;
    Attributes attributes;
};
constexpr char kMagic[4] = {'U', 'S', 'M', '1'};

class Plugin final : public nvinfer1::IPluginV2DynamicExt {
public:
    Plugin(const Operation& operation, const Attributes& attributes, std::string plugin_namespace)
        : operation_(operation), attributes_(attributes), namespace_(std::move(plugin_namespace)) {}

    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override {
        return reported<nvinfer1::IPluginV2DynamicExt*>("clone", nullptr,
                                                        [&] { return new Plugin(operation_, attributes_, namespace_); });
    }

    nvinfer1::DimsExprs getOutputDimensions(int32_t output, const nvinfer1::DimsExprs* inputs, int32_t input_count,
                                            nvinfer1::IExprBuilder& builder) noexcept override {
        nvinfer1::DimsExprs none{};
        none.nbDims = -1;
        return reported(operation_.name, none,
                        [&] { return output_shape(operation_, output, inputs, input_count, builder); });
    }

    bool supportsFormatCombination(int32_t position, const nvinfer1::PluginTensorDesc* tensors, int32_t,
                                   int32_t) noexcept override {
        return reported(operation_.name, false, [&] { return supports(position, tensors); });
    }

    void configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                         const nvinfer1::DynamicPluginTensorDesc*, int32_t output_count) noexcept override {
        reported(operation_.name, false, [&] {
            std::vector<nvinfer1::PluginTensorDesc> descs;
            for (int32_t i = 0; i < input_count; ++i) descs.push_back(inputs[i].desc);
            check_partial(operation_, attributes_, descs.data(), input_count, output_count);
            return true;
        });
    }

    size_t getWorkspaceSize(const nvinfer1::PluginTensorDesc*, int32_t, const nvinfer1::PluginTensorDesc*,
                            int32_t) const noexcept override {
        return 0;
    }

    int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                    const void* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept override {
        return reported(operation_.name, 1, [&] {
            launch(operation_, attributes_, input_descs, output_descs, inputs, outputs, stream);
            return 0;
        });
    }

    nvinfer1::DataType getOutputDataType(int32_t, const nvinfer1::DataType* inputs, int32_t) const noexcept override {
        return inputs[0];
    }

    const char* getPluginType() const noexcept override { return operation_.name; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    int32_t getNbOutputs() const noexcept override { return attributes_.outputs; }
    int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}
    void destroy() noexcept override { delete this; }
    void setPluginNamespace(const char* value) noexcept override {
        reported("setPluginNamespace", false, [&] {
            namespace_ = value == nullptr ? "" : value;
            return true;
        });
    }
    const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

    size_t getSerializationSize() const noexcept override { return sizeof(Serialized); }
    void serialize(void* buffer) const noexcept override {
        Serialized out{};
        std::memcpy(out.magic, kMagic, sizeof kMagic);
        out.size = sizeof out;
        out.form = operation_.form;
        out.attributes = attributes_;
        std::memcpy(buffer, &out, sizeof out);
    }

private:
    const Operation& operation_;
    const Attributes attributes_;
    std::string namespace_;
};

class Creator final : public nvinfer1::IPluginCreator {
public:
    explicit Creator(const Operation& operation) : operation_(operation), fields_(fields_of(nullptr)) {
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    }

    nvinfer1::IPluginV2* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields) noexcept override {
        return reported<nvinfer1::IPluginV2*>(operation_.name, nullptr, [&] {
            return new Plugin(operation_, read_attributes(operation_, fields), namespace_);
        });
    }

    nvinfer1::IPluginV2* deserializePlugin(const char*, const void* data, size_t bytes) noexcept override {
        return reported<nvinfer1::IPluginV2*>(operation_.name, nullptr, [&] {
            Serialized in{};
            if (data == nullptr || bytes != sizeof in)
                throw support_mean::Refused(SUPPORT_MEAN_INVALID,
                                            "the engine holds " + std::to_string(bytes) + " bytes for this plugin, not " +
                                                std::to_string(sizeof in) + "; build the engine again with this library");
            std::memcpy(&in, data, sizeof in);
            if (std::memcmp(in.magic, kMagic, sizeof kMagic) != 0 || in.size != sizeof in || in.form != operation_.form)
                throw support_mean::Refused(SUPPORT_MEAN_INVALID,
                                            "the engine's bytes are not of this plugin; build the engine again with this "
                                            "library");
            check_attributes(operation_, in.attributes);
            return new Plugin(operation_, in.attributes, namespace_);
        });
    }

    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
    const char* getPluginName() const noexcept override { return operation_.name; }
    const char* getPluginVersion() const noexcept override { return kVersion; }
    void setPluginNamespace(const char* value) noexcept override {
        reported("setPluginNamespace", false, [&] {
            namespace_ = value == nullptr ? "" : value;
            return true;
        });
    }
    const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

private:
    const Operation& operation_;
    const std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_;
    std::string namespace_ = kNamespace;
};

using CreatorInterface = nvinfer1::IPluginCreator;

}  // namespace plugin
}  // namespace universeg
