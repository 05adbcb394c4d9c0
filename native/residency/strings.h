// Where the strings of a GGUF array lie: each is a u64 length and that many bytes, one after the other, so
// the last can only be found by walking over all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace clarion {

struct StringOffsets {
    std::unique_ptr<int64_t[]> starts, lengths;  // of the bytes of string i, in the file
    uint64_t end;                                // the first byte after the last string
};

// Walks over `count` strings from `start` on, in a file of `size` bytes. Throws std::out_of_range, naming
// string and offset, when one does not fit; the memory used is at most twice the file's size.
StringOffsets string_offsets(const uint8_t* bytes, uint64_t size, uint64_t start, uint64_t count);

// The bytes of a string in a file of `size` bytes. Throws std::out_of_range when it lies beyond them.
std::string_view string_at(const uint8_t* bytes, uint64_t size, int64_t start, int64_t length);

}  // namespace clarion
