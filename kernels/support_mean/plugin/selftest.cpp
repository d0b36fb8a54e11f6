// Opens a built plugin library without TensorRT and drives it as TensorRT would: creation, refused attributes, types and
// shapes, serialisation and back, and an enqueue that must be refused before any CUDA call. Prints one line a check.
//
//   plugin_selftest LIBRARY [LIBNVINFER]
//
// With LIBNVINFER (TensorRT 8.5 to 9 only) also registers the operations there, as a program on 8.5 does, and creates them
// through its registry.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <NvInfer.h>

using namespace nvinfer1;

namespace {

int g_failed = 0;
const char* (*g_last_error)();

void check(bool ok, const std::string& what) {
    std::printf("%s %s\n", ok ? "ok    " : "FAILED", what.c_str());
    if (!ok) ++g_failed;
}

// The last refusal must name the thing that was wrong.
void check_refused(bool refused, const std::string& what, const char* word) {
    const bool named = refused && std::strstr(g_last_error(), word) != nullptr;
    check(named, what + " is refused: " + (refused ? g_last_error() : "(accepted)"));
}

struct Fields {
    float slope = 0.01f;
    int32_t outputs = 3;
    std::vector<PluginField> list;
    PluginFieldCollection collection{};

    Fields(float slope_, int32_t outputs_) : slope(slope_), outputs(outputs_) {
        list = {PluginField{"negative_slope", &slope, PluginFieldType::kFLOAT32, 1},
                PluginField{"outputs", &outputs, PluginFieldType::kINT32, 1}};
    }
    const PluginFieldCollection* get() {
        collection.nbFields = static_cast<int32_t>(list.size());
        collection.fields = list.data();
        return &collection;
    }
};

PluginTensorDesc desc(std::vector<int> sizes, DataType type) {
    PluginTensorDesc out{};
    out.dims.nbDims = static_cast<int32_t>(sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) out.dims.d[i] = sizes[i];
    out.type = type;
    out.format = TensorFormat::kLINEAR;
    return out;
}

// A call of SupportMeanPool with B = 2 queries, K = 1 set, S = 3 entries of 4 x 6 x 8.
std::vector<PluginTensorDesc> good_inputs(DataType type) {
    return {desc({1, 1, 3, 4, 6, 8}, type), desc({2, 1, 1, 4, 6, 8}, type), desc({1, 3}, DataType::kFLOAT)};
}
std::vector<PluginTensorDesc> good_outputs(DataType type) {
    return {desc({2, 1, 4, 6, 8}, type), desc({2, 1, 4, 3, 4}, type), desc({2, 1, 3, 4, 3, 4}, type)};
}

#if NV_TENSORRT_MAJOR >= 10
using AnyPlugin = IPluginV3;
using AnyCreator = IPluginCreatorV3One;
void destroy(AnyPlugin* plugin) { delete plugin; }
AnyPlugin* create(AnyCreator& creator, const PluginFieldCollection* fields) {
    return creator.createPlugin("node", fields, TensorRTPhase::kBUILD);
}
IPluginV3OneBuild& build(AnyPlugin& p) {
    return *static_cast<IPluginV3OneBuild*>(p.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime(AnyPlugin& p) {
    return *static_cast<IPluginV3OneRuntime*>(p.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}
int32_t output_count(AnyPlugin& p) { return build(p).getNbOutputs(); }
bool supports(AnyPlugin& p, int32_t position, const std::vector<PluginTensorDesc>& tensors) {
    std::vector<DynamicPluginTensorDesc> dynamic(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) dynamic[i].desc = tensors[i];
    return build(p).supportsFormatCombination(position, dynamic.data(), 3, static_cast<int32_t>(tensors.size()) - 3);
}
int32_t enqueue(AnyPlugin& p, const std::vector<PluginTensorDesc>& in, const std::vector<PluginTensorDesc>& out,
                const void* const* inputs, void* const* outputs) {
    return runtime(p).enqueue(in.data(), out.data(), inputs, outputs, nullptr, nullptr);
}
AnyPlugin* round_trip(AnyCreator& creator, AnyPlugin& p) {
    const PluginFieldCollection* stored = runtime(p).getFieldsToSerialize();
    return creator.createPlugin("node", stored, TensorRTPhase::kRUNTIME);
}
#else
using AnyPlugin = IPluginV2DynamicExt;
using AnyCreator = IPluginCreator;
void destroy(AnyPlugin* plugin) { plugin->destroy(); }
AnyPlugin* create(AnyCreator& creator, const PluginFieldCollection* fields) {
    return static_cast<AnyPlugin*>(creator.createPlugin("node", fields));
}
int32_t output_count(AnyPlugin& p) { return p.getNbOutputs(); }
bool supports(AnyPlugin& p, int32_t position, const std::vector<PluginTensorDesc>& tensors) {
    return p.supportsFormatCombination(position, tensors.data(), 3, static_cast<int32_t>(tensors.size()) - 3);
}
int32_t enqueue(AnyPlugin& p, const std::vector<PluginTensorDesc>& in, const std::vector<PluginTensorDesc>& out,
                const void* const* inputs, void* const* outputs) {
    return p.enqueue(in.data(), out.data(), inputs, outputs, nullptr, nullptr);
}
AnyPlugin* round_trip(AnyCreator& creator, AnyPlugin& p) {
    std::vector<char> bytes(p.getSerializationSize());
    p.serialize(bytes.data());
    check(creator.deserializePlugin("node", bytes.data(), bytes.size() - 1) == nullptr, "truncated bytes are refused");
    std::vector<char> damaged = bytes;
    damaged[0] ^= 1;
    check(creator.deserializePlugin("node", damaged.data(), damaged.size()) == nullptr, "foreign bytes are refused");
    return static_cast<AnyPlugin*>(creator.deserializePlugin("node", bytes.data(), bytes.size()));
}
#endif

void check_attributes(AnyCreator& creator) {
    const auto refused = [&](const char* what, const char* word, Fields& fields) {
        AnyPlugin* plugin = create(creator, fields.get());
        check_refused(plugin == nullptr, what, word);
        if (plugin != nullptr) destroy(plugin);
    };
    Fields slope(1.5f, 3), negative(-0.1f, 3), outputs(0.01f, 5), missing(0.01f, 3), unknown(0.01f, 3), mistyped(0.01f, 3),
        twice(0.01f, 3), empty(0.01f, 3);
    refused("negative_slope 1.5", "negative_slope", slope);
    refused("negative_slope -0.1", "negative_slope", negative);
    refused("outputs 5", "outputs", outputs);
    missing.list.pop_back();
    refused("a missing attribute", "outputs is missing", missing);
    unknown.list.push_back(PluginField{"axis", &unknown.outputs, PluginFieldType::kINT32, 1});
    refused("an unknown attribute", "axis", unknown);
    mistyped.list[0].type = PluginFieldType::kINT32;
    refused("an integer slope", "negative_slope has field type", mistyped);
    twice.list.push_back(twice.list[0]);
    refused("a repeated attribute", "twice", twice);
    empty.list[1].length = 0;
    refused("an attribute without a value", "0 values", empty);
    check(create(creator, nullptr) == nullptr, "no attributes at all are refused");
}

void check_shapes(AnyPlugin& plugin) {
    // Addresses that no launch may reach: each of these calls must be refused on its descriptions alone.
    const auto at = [](uintptr_t megabyte) { return reinterpret_cast<void*>(megabyte << 20); };
    const void* inputs[3] = {at(1), at(2), at(3)};
    void* outputs[3] = {at(4), at(5), at(6)};
    const auto refused = [&](const char* what, const char* word, const std::vector<PluginTensorDesc>& in,
                             const std::vector<PluginTensorDesc>& out) {
        check_refused(enqueue(plugin, in, out, inputs, outputs) != 0, what, word);
    };
    auto in = good_inputs(DataType::kFLOAT);
    const auto out = good_outputs(DataType::kFLOAT);
    in[1].dims.d[3] = 5;
    refused("other channels in the query term", "channels", in, out);
    in = good_inputs(DataType::kFLOAT);
    in[2].dims.d[1] = 4;
    refused("weights for other entries", "entries", in, out);
    in = good_inputs(DataType::kFLOAT);
    in[0].dims.d[0] = 3;
    refused("support for other queries", "queries", in, out);
    in = good_inputs(DataType::kFLOAT);
    in[0].dims.d[2] = in[2].dims.d[1] = 0;
    refused("an empty support set", "entries (S) is 0", in, out);
    in = good_inputs(DataType::kFLOAT);
    in[0].dims.nbDims = 5;
    refused("a support term of rank 5", "(Bs, K, S, C, H, W)", in, out);
    in = good_inputs(DataType::kFLOAT);
    in[2].type = DataType::kHALF;
    refused("half precision weights", "type or format", in, out);
    in = good_inputs(DataType::kFLOAT);
    auto wrong = out;
    wrong[2].dims.d[4] = 6;
    refused("a pooled output of another size", "output 2", in, wrong);
    void* overlapping[3] = {outputs[0], outputs[0], outputs[2]};
    check_refused(enqueue(plugin, in, out, inputs, overlapping) != 0, "overlapping outputs", "overlaps");
    void* misaligned[3] = {static_cast<char*>(outputs[0]) + 4, outputs[1], outputs[2]};
    check_refused(enqueue(plugin, in, out, inputs, misaligned) != 0, "a misaligned output", "misaligned");
}

void check_formats(AnyPlugin& plugin) {
    for (DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32}) {
        auto tensors = good_inputs(type);
        for (const auto& out : good_outputs(type)) tensors.push_back(out);
        const bool good = type == DataType::kFLOAT || type == DataType::kHALF;
        const std::string number = std::to_string(static_cast<int>(type));
        check(supports(plugin, 0, tensors) == good, "type " + number + " of the support term");
        if (!good) continue;
        for (int32_t i = 1; i < 6; ++i)
            check(supports(plugin, i, tensors), "the same type at position " + std::to_string(i));
        tensors[4].type = type == DataType::kFLOAT ? DataType::kHALF : DataType::kFLOAT;
        check(!supports(plugin, 4, tensors), "another output type is not offered");
        tensors[1].format = TensorFormat::kCHW32;
        check(!supports(plugin, 1, tensors), "a format that is not linear is not offered");
        tensors[0].format = TensorFormat::kHWC8;
        check(!supports(plugin, 0, tensors), "channels last with 4 channels, which would be padded, are not offered");
        for (size_t i = 0; i < tensors.size(); ++i) {
            if (i == 2) continue;
            tensors[i].format = TensorFormat::kHWC8;
            tensors[i].type = type;
            tensors[i].dims.d[tensors[i].dims.nbDims - 3] = 8;
        }
        const bool half = type == DataType::kHALF;
        for (int32_t i : {0, 1, 3, 4, 5})
            if (i == 0 || half)
                check(supports(plugin, i, tensors) == half, "channels last at position " + std::to_string(i));
        tensors[4].format = TensorFormat::kLINEAR;
        check(!half || !supports(plugin, 4, tensors), "a linear output of channels-last inputs is not offered");
        tensors[2].format = TensorFormat::kHWC8;
        check(!supports(plugin, 2, tensors), "weights are linear");
    }
}

#if NV_TENSORRT_MAJOR < 10
void check_registry(const char* path, int32_t (*enlist)(void*)) {
    void* libnvinfer = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    check(libnvinfer != nullptr, std::string("open ") + path);
    if (libnvinfer == nullptr) return;
    check(enlist(libnvinfer) == 0, "the operations register");
    const auto registry = reinterpret_cast<IPluginRegistry* (*)()>(dlsym(libnvinfer, "getPluginRegistry"));
    for (const char* name : {"SupportMean", "SupportMeanPool"}) {
        IPluginCreator* creator = registry()->getPluginCreator(name, "1", "universeg_rt");
        check(creator != nullptr, std::string(name) + " is found in the registry");
        if (creator == nullptr) continue;
        Fields fields(0.01f, std::strcmp(name, "SupportMean") == 0 ? 1 : 3);
        AnyPlugin* plugin = create(*creator, fields.get());
        check(plugin != nullptr && std::strcmp(plugin->getPluginNamespace(), "universeg_rt") == 0, "and creates a plugin");
        if (plugin != nullptr) destroy(plugin);
    }
    check_refused(enlist(libnvinfer) != 0, "registering twice", "already registered");
}
#endif

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 3) {
        std::fprintf(stderr, "usage: plugin_selftest LIBRARY [LIBNVINFER]\n");
        return 2;
    }
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    g_last_error = reinterpret_cast<const char* (*)()>(dlsym(library, "universeg_rt_last_error"));
    const auto generation = reinterpret_cast<int32_t (*)()>(dlsym(library, "universeg_rt_plugin_generation"));
    const auto enlist = reinterpret_cast<int32_t (*)(void*)>(dlsym(library, "universeg_rt_register"));
#if NV_TENSORRT_MAJOR >= 10
    const auto list = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
    check(generation() == 10, "the library says generation 10");
#else
    const auto list = reinterpret_cast<IPluginCreator* const* (*)(int32_t&)>(dlsym(library, "getPluginCreators"));
    check(generation() == 8, "the library says generation 8");
#endif
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
    check(dlsym(library, "setLoggerFinder") != nullptr, "setLoggerFinder is exported");
#endif
    check_refused(enlist(nullptr) != 0, "registering with no libnvinfer", "NULL");
    check_refused(enlist(library) != 0, "registering with another library", "not of libnvinfer");

    int32_t count = 0;
    auto* const* creators = list(count);
    check(count == 2, "two creators");
    auto& mean = *static_cast<AnyCreator*>(creators[0]);
    auto& pool = *static_cast<AnyCreator*>(creators[1]);
    check(std::strcmp(mean.getPluginName(), "SupportMean") == 0 && std::strcmp(pool.getPluginName(), "SupportMeanPool") == 0,
          "their names");
    check(std::strcmp(pool.getPluginVersion(), "1") == 0 && std::strcmp(pool.getPluginNamespace(), "universeg_rt") == 0,
          "version and namespace");
    check(pool.getFieldNames()->nbFields == 2, "two attributes are announced");

    check_attributes(pool);
    Fields fields(0.25f, 3), with_activated(0.01f, 4), mean_fields(0.01f, 1);
    AnyPlugin* plugin = create(pool, fields.get());
    AnyPlugin* four = create(pool, with_activated.get());
    AnyPlugin* one = create(mean, mean_fields.get());
    check(plugin != nullptr && four != nullptr && one != nullptr, "good attributes are accepted");
    if (g_failed != 0 || plugin == nullptr) return 1;
    check(output_count(*plugin) == 3 && output_count(*four) == 4 && output_count(*one) == 1, "numbers of outputs");
    AnyPlugin* copy = static_cast<AnyPlugin*>(plugin->clone());
    check(copy != nullptr && output_count(*copy) == 3, "clone");
    AnyPlugin* back = round_trip(pool, *four);
    check(back != nullptr && output_count(*back) == 4, "serialisation and back");
    check_formats(*plugin);
    check_shapes(*plugin);
#if NV_TENSORRT_MAJOR < 10
    if (argc == 3) check_registry(argv[2], enlist);
#endif
    for (AnyPlugin* p : {plugin, four, one, copy, back})
        if (p != nullptr) destroy(p);
    std::printf("%s\n", g_failed == 0 ? "all ok" : "some checks failed");
    return g_failed == 0 ? 0 : 1;
}
