// By ONNX Runtime's C API. Statuses become exceptions; objects are given back by their deleters.
#include <memory>
#include <stdexcept>

#include <onnxruntime_c_api.h>

#include "frozen.h"

// All functions below are in version 10 of the interface, which every later library has too.
static const OrtApi* api = OrtGetApiBase()->GetApi(10);

static void check(OrtStatus* status) {
    if (!status) return;
    const std::string message = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw std::runtime_error("ONNX Runtime: " + message);
}

template <class T> using Held = std::unique_ptr<T, void (*)(T*)>;

template <class T, class Make> static Held<T> made(void (*release)(T*), Make make) {
    T* object = nullptr;
    check(make(&object));
    return {object, release};
}

std::vector<float> run(const std::string& file, const Prepare& prepare) {
    if (!api) throw std::runtime_error("this ONNX Runtime is too old");
    const auto env = made<OrtEnv>(
        api->ReleaseEnv, [](auto p) { return api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "segment", p); });
    check(api->DisableTelemetryEvents(env.get()));
    const auto options = made<OrtSessionOptions>(
        api->ReleaseSessionOptions, [](auto p) { return api->CreateSessionOptions(p); });
#ifdef _WIN32
    const std::wstring path(file.begin(), file.end());
#else
    const std::string& path = file;
#endif
    const auto session = made<OrtSession>(
        api->ReleaseSession, [&](auto p) { return api->CreateSession(env.get(), path.c_str(), options.get(), p); });

    OrtAllocator* allocator = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    const auto metadata = made<OrtModelMetadata>(
        api->ReleaseModelMetadata, [&](auto p) { return api->SessionGetModelMetadata(session.get(), p); });
    char* record = nullptr;
    check(api->ModelMetadataLookupCustomMetadataMap(metadata.get(), allocator, "universeg.frozen", &record));
    Contract contract{0, 0, record ? record : ""};
    if (record) check(api->AllocatorFree(allocator, record));

    const auto type = made<OrtTypeInfo>(
        api->ReleaseTypeInfo, [&](auto p) { return api->SessionGetInputTypeInfo(session.get(), 0, p); });
    const OrtTensorTypeAndShapeInfo* shape = nullptr;  // belongs to `type`
    check(api->CastTypeInfoToTensorInfo(type.get(), &shape));
    size_t rank = 0;
    if (shape) check(api->GetDimensionsCount(shape, &rank));
    if (rank != 4) throw std::runtime_error("the model's input is no image (B,1,H,W)");
    int64_t sides[4];
    check(api->GetDimensions(shape, sides, 4));
    contract.height = sides[2];
    contract.width = sides[3];

    auto query = prepare(contract);
    const int64_t one[4] = {1, 1, contract.height, contract.width};
    const auto memory = made<OrtMemoryInfo>(api->ReleaseMemoryInfo, [](auto p) {
        return api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, p);
    });
    const auto input = made<OrtValue>(api->ReleaseValue, [&](auto p) {
        return api->CreateTensorWithDataAsOrtValue(
            memory.get(), query.data(), query.size() * sizeof(float), one, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, p);
    });
    const char *inputs[] = {"query"}, *outputs[] = {"probability"};
    const OrtValue* given = input.get();
    const auto output = made<OrtValue>(
        api->ReleaseValue, [&](auto p) { return api->Run(session.get(), nullptr, inputs, &given, 1, outputs, 1, p); });
    float* probability = nullptr;
    check(api->GetTensorMutableData(output.get(), reinterpret_cast<void**>(&probability)));
    return {probability, probability + query.size()};
}
