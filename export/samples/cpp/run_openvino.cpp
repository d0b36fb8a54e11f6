// By OpenVINO's C++ API. Static tasks; `exact` ones need ONNX Runtime.
#include <algorithm>
#include <stdexcept>

#include <openvino/openvino.hpp>

#include "frozen.h"

std::vector<float> run(const std::string& file, const Prepare& prepare) {
    ov::Core core;
    const auto model = core.read_model(file);
    const auto shape = model->input().get_partial_shape();
    if (shape.size() != 4 || shape[2].is_dynamic() || shape[3].is_dynamic())
        throw std::runtime_error("the model's input is no image (B,1,H,W)");
    Contract contract{shape[2].get_length(), shape[3].get_length(), ""};
    if (model->has_rt_info("framework", "universeg.frozen"))
        contract.record = model->get_rt_info<std::string>("framework", "universeg.frozen");
    if (contract.record.find("\"kind\": \"exact\"") != std::string::npos)
        throw std::runtime_error("OpenVINO runs static files; an exact one needs ONNX Runtime");

    auto query = prepare(contract);
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();
    const ov::Shape one{1, 1, static_cast<size_t>(contract.height), static_cast<size_t>(contract.width)};
    request.set_input_tensor(ov::Tensor(ov::element::f32, one, query.data()));
    request.infer();
    const auto* probability = request.get_output_tensor().data<const float>();
    return {probability, probability + query.size()};
}
