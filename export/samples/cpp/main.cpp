// Segments one image by a frozen task: a file that `universeg-export --freeze` wrote.
//
//     segment TASK.onnx IMAGE MASK.pgm
//
// IMAGE is a binary PGM (P5, 8 or 16 bits) or, where it ends in .raw, float32 in this machine's byte order; it has the
// size that the network reads. MASK.pgm is 255 where the probability is at least the file's threshold, else 0.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "frozen.h"

[[noreturn]] static void fail(const std::string& message) { throw std::runtime_error(message); }

static std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// A number of a PGM's header; steps over space and comments before it.
static int64_t header_number(const std::string& data, size_t& at) {
    while (at < data.size() && (std::isspace(static_cast<unsigned char>(data[at])) || data[at] == '#'))
        at = data[at] == '#' ? std::min(data.find('\n', at), data.size()) : at + 1;
    int64_t value = 0;
    const size_t first = at;
    for (; at < data.size() && std::isdigit(static_cast<unsigned char>(data[at])) && at < first + 9; ++at)
        value = 10 * value + (data[at] - '0');
    if (at == first) fail("the image's header is no PGM's");
    return value;
}

static std::string size(int64_t height, int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width) + " pixels (height x width)";
}

static std::vector<double> read_pgm(const std::string& data, int64_t height, int64_t width) {
    if (data.compare(0, 2, "P5") != 0) fail("the image is no binary PGM (P5); a file of raw float32 is called .raw");
    size_t at = 2;
    const int64_t columns = header_number(data, at), rows = header_number(data, at), most = header_number(data, at);
    if (rows != height || columns != width)
        fail("the image is " + size(rows, columns) + "; the network reads " + size(height, width) + ": resize it");
    const size_t bytes = most < 256 ? 1 : 2, count = static_cast<size_t>(height * width);
    ++at;  // one white space ends the header
    if (most < 1 || most > 65535 || data.size() < at + bytes * count) fail("the image is cut off");
    std::vector<double> out(count);
    const auto* pixel = reinterpret_cast<const unsigned char*>(data.data()) + at;
    for (size_t i = 0; i < count; ++i)
        out[i] = bytes == 1 ? pixel[i] : pixel[2 * i] * 256 + pixel[2 * i + 1];
    return out;
}

static std::vector<double> read_raw(const std::string& data, int64_t height, int64_t width) {
    std::vector<float> values(static_cast<size_t>(height * width));
    if (data.size() != values.size() * sizeof(float))
        fail("the image has " + std::to_string(data.size()) + " bytes; expected: float32 of " + size(height, width));
    std::memcpy(values.data(), data.data(), data.size());
    return {values.begin(), values.end()};
}

// The image's own range becomes [0, 1]: the one normalisation that this sample knows.
static std::vector<float> min_max(const std::vector<double>& image, const std::string& record) {
    if (record.find("\"normalise\": \"minmax\"") == std::string::npos)
        fail("the file asks for another normalisation than min-max, which this sample does not do");
    const auto [low, high] = std::minmax_element(image.begin(), image.end());
    if (!(*low < *high) || !std::all_of(image.begin(), image.end(), [](double v) { return std::isfinite(v); }))
        fail("the image is constant, or holds numbers that are not finite");
    std::vector<float> out(image.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>((image[i] - *low) / (*high - *low));
    return out;
}

static float threshold_of(const std::string& record) {
    const std::string key = "\"threshold\": ";
    const size_t at = record.find(key);
    if (at == std::string::npos) fail("the file does not say from which probability on to mark");
    return std::strtof(record.c_str() + at + key.size(), nullptr);
}

int main(int count, char** arguments) try {
    if (count != 4) fail("usage: segment TASK.onnx IMAGE.pgm|IMAGE.raw MASK.pgm");
    const std::string path = arguments[2];
    const bool is_raw = path.size() > 4 && path.compare(path.size() - 4, 4, ".raw") == 0;
    Contract contract;
    const auto probability = run(arguments[1], [&](const Contract& found) {
        if (found.record.empty()) fail("the model is no frozen task: it has no metadata universeg.frozen");
        contract = found;
        const auto image = (is_raw ? read_raw : read_pgm)(read_file(path), found.height, found.width);
        return min_max(image, found.record);
    });
    const float threshold = threshold_of(contract.record);
    std::ofstream mask(arguments[3], std::ios::binary);
    mask << "P5\n" << contract.width << " " << contract.height << "\n255\n";
    for (const float p : probability) mask.put(p >= threshold ? static_cast<char>(255) : 0);
    if (!mask.flush()) fail(std::string("cannot write ") + arguments[3]);
} catch (const std::exception& error) {
    std::cerr << "segment: " << error.what() << "\n";
    return 1;
}
