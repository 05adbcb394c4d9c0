#include "residency/strings.h"

#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

namespace clarion {

StringOffsets string_offsets(const uint8_t* bytes, uint64_t size, uint64_t start, uint64_t count) {
    constexpr uint64_t prefix = sizeof(uint64_t);
    if (start > size || count > (size - start) / prefix)
        throw std::out_of_range("offset " + std::to_string(start) + ": array length is " +
                                std::to_string(count) + ", allowed: what fits before the file ends at " +
                                std::to_string(size));
    StringOffsets found{std::make_unique_for_overwrite<int64_t[]>(count),
                        std::make_unique_for_overwrite<int64_t[]>(count), start};
    const auto fail = [&](uint64_t i, const std::string& what) {
        throw std::out_of_range("offset " + std::to_string(found.end) + ": string " + std::to_string(i) +
                                what + ", allowed: what fits before the file ends at " +
                                std::to_string(size));
    };
    for (uint64_t i = 0; i < count; ++i) {
        if (size - found.end < prefix) fail(i, " has no length");
        uint64_t length;
        std::memcpy(&length, bytes + found.end, prefix);
        if constexpr (std::endian::native == std::endian::big) length = __builtin_bswap64(length);
        if (length > size - found.end - prefix) fail(i, " has length " + std::to_string(length));
        found.starts[i] = static_cast<int64_t>(found.end + prefix);
        found.lengths[i] = static_cast<int64_t>(length);
        found.end += prefix + length;
    }
    return found;
}

std::string_view string_at(const uint8_t* bytes, uint64_t size, int64_t start, int64_t length) {
    if (start < 0 || length < 0 || static_cast<uint64_t>(start) > size ||
        static_cast<uint64_t>(length) > size - static_cast<uint64_t>(start))
        throw std::out_of_range("strings: beyond the bytes");
    return {reinterpret_cast<const char*>(bytes) + start, static_cast<size_t>(length)};
}

}  // namespace clarion
