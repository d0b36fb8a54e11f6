// What a runtime does with a frozen file; one source file implements it for each runtime.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct Contract {
    int64_t height, width;  // of the images that the network reads
    std::string record;     // the file's metadata entry "universeg.frozen", a JSON text
};

// Called with the file's contract, gives the query: height x width numbers in [0, 1].
using Prepare = std::function<std::vector<float>(const Contract&)>;

// The probability of each pixel, in the order of the query. Throws std::exception with a message for people.
std::vector<float> run(const std::string& file, const Prepare& prepare);
