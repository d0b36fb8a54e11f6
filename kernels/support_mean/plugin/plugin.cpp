// The TensorRT plugin library: one source, the generation chosen by the headers it is compiled against.
//
// Nothing registers itself when the library is loaded: registration by static object needs libnvinfer's symbols, and
// then the library could not be opened without it. TensorRT 8.6 and later find the creators through
// registry.load_library; for 8.5, call universeg_rt_register with a handle of libnvinfer.
#include "common.h"

#if NV_TENSORRT_MAJOR >= 10
#include "generation_v3.h"
#define UNIVERSEG_RT_GENERATION 10
#else
#include "generation_v2.h"
#define UNIVERSEG_RT_GENERATION 8
#endif

#include <dlfcn.h>

#include <cstring>

#define UNIVERSEG_RT_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace universeg::plugin;

CreatorInterface* const* creators(int32_t& count) {
    static Creator mean(support_mean_operation()), pool(support_mean_pool_operation());
    static CreatorInterface* const list[] = {&mean, &pool};
    count = 2;
    return list;
}

// Major version from TensorRT's version number: 8601 is 8.6.1, 100100 is 10.1.0.
int32_t major_of(int32_t version) { return version < 10000 ? version / 1000 : version / 10000; }

}  // namespace

#if UNIVERSEG_RT_GENERATION == 10
UNIVERSEG_RT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) { return creators(count); }
#else
UNIVERSEG_RT_EXPORT nvinfer1::IPluginCreator* const* getPluginCreators(int32_t& count) { return creators(count); }
#endif

#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
UNIVERSEG_RT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { set_logger_finder(finder); }
#endif

// 8: for TensorRT 8.5 to 9. 10: for TensorRT 10 and later.
UNIVERSEG_RT_EXPORT int32_t universeg_rt_plugin_generation() { return UNIVERSEG_RT_GENERATION; }

// Version of the headers that the library was compiled against, as 10.14.
UNIVERSEG_RT_EXPORT const char* universeg_rt_plugin_headers() {
    static const std::string text = std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR);
    return text.c_str();
}

UNIVERSEG_RT_EXPORT const char* universeg_rt_last_error() { return last_error(); }

// Registers the creators with the TensorRT behind `libnvinfer` (from dlopen): the way for 8.5, which has no
// load_library, while its Python module opens libnvinfer privately. Only TensorRT 8.5 to 9: later ones moved the
// registry's functions between versions and have load_library, through which they call this library instead.
// Returns a support_mean_status; the reason of a refusal is in universeg_rt_last_error.
UNIVERSEG_RT_EXPORT int32_t universeg_rt_register(void* libnvinfer) {
    return reported<int32_t>("universeg_rt_register", SUPPORT_MEAN_INVALID, [&]() -> int32_t {
        using universeg::support_mean::Refused;
        if (libnvinfer == nullptr)
            throw Refused(SUPPORT_MEAN_INVALID, "the handle of libnvinfer is NULL; open it with dlopen first");
        const auto version = reinterpret_cast<int32_t (*)()>(dlsym(libnvinfer, "getInferLibVersion"));
        if (version == nullptr || dlsym(libnvinfer, "getPluginRegistry") == nullptr)
            throw Refused(SUPPORT_MEAN_INVALID, "the handle is not of libnvinfer: it has no plugin registry");
        const int32_t found = major_of(version());
#if UNIVERSEG_RT_GENERATION == 10
        throw Refused(SUPPORT_MEAN_UNSUPPORTED, "this library was built against TensorRT " +
                                                    std::string(universeg_rt_plugin_headers()) + " and runs under " +
                                                    std::to_string(found) + (found == 8 || found == 9
                                                        ? "; build it against headers of TensorRT 8.5 to 9"
                                                        : "; load it with the registry's load_library instead"));
#else
        if (found != 8 && found != 9)
            throw Refused(SUPPORT_MEAN_INVALID, "this library was built against TensorRT " +
                                                    std::string(universeg_rt_plugin_headers()) + " and runs under " +
                                                    std::to_string(found) +
                                                    "; build it against headers of TensorRT 10 or later");
        const auto registry = reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(libnvinfer, "getPluginRegistry"));
        if (registry() == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "libnvinfer gave no plugin registry");
        int32_t count = 0;
        CreatorInterface* const* list = creators(count);
        for (int32_t i = 0; i < count; ++i)
            if (!registry()->registerCreator(*list[i], kNamespace))
                throw Refused(SUPPORT_MEAN_INVALID, "TensorRT refused to register the operations; is another universeg_rt "
                                                    "plugin library already registered?");
        return SUPPORT_MEAN_OK;
#endif
    });
}
