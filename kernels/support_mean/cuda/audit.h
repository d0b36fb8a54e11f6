// The CPU's memory checker: while a host run is audited, every access must be aligned, lie in a registered buffer, and
// every byte of an output must be written exactly once. Outside a host run it is switched off and costs one test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace universeg {
namespace support_mean {
namespace audit {

struct Buffer {
    std::string name;
    uintptr_t begin;
    size_t bytes;
    bool output;
    std::vector<uint8_t> writes;  // per byte, outputs only
};

struct Record {
    std::vector<Buffer> buffers;
};

inline Record*& current() {
    static thread_local Record* record = nullptr;
    return record;
}

inline Buffer& find(const void* at, size_t bytes, const char* verb) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(at);
    for (Buffer& b : current()->buffers)
        if (address >= b.begin && address - b.begin <= b.bytes && bytes <= b.bytes - (address - b.begin)) {
            if (address % bytes != 0)
                throw std::logic_error(std::string(verb) + " of " + std::to_string(bytes) + " bytes in " + b.name +
                                       " is not aligned: offset " + std::to_string(address - b.begin));
            return b;
        }
    throw std::logic_error(std::string(verb) + " of " + std::to_string(bytes) + " bytes outside every buffer");
}

inline void read(const void* at, size_t bytes) {
    if (current() == nullptr) return;
    if (find(at, bytes, "read").output) throw std::logic_error("an output was read");
}

inline void write(const void* at, size_t bytes) {
    if (current() == nullptr) return;
    Buffer& b = find(at, bytes, "write");
    if (!b.output) throw std::logic_error("input " + b.name + " was written");
    const size_t offset = reinterpret_cast<uintptr_t>(at) - b.begin;
    for (size_t i = 0; i < bytes; ++i)
        if (b.writes[offset + i]++ != 0)
            throw std::logic_error("byte " + std::to_string(offset + i) + " of " + b.name + " was written twice");
}

// Registers buffers for as long as it lives; `finish` checks that outputs are complete.
class Session {
public:
    Session() { current() = &record_; }
    ~Session() { current() = nullptr; }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void add(std::string name, const void* data, size_t bytes, bool output) {
        if (bytes == 0) return;
        record_.buffers.push_back({std::move(name), reinterpret_cast<uintptr_t>(data), bytes, output,
                                   std::vector<uint8_t>(output ? bytes : 0)});
    }

    void finish() const {
        for (const Buffer& b : record_.buffers)
            for (size_t i = 0; i < b.writes.size(); ++i)
                if (b.writes[i] == 0)
                    throw std::logic_error("byte " + std::to_string(i) + " of " + b.name + " was never written");
    }

private:
    Record record_;
};

}  // namespace audit
}  // namespace support_mean
}  // namespace universeg
