#include "residency/strings.h"

#include <bit>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

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

namespace {

// Numbers texts from 0 on, in the order in which they first come. One table, because a node of memory for each of a
// vocabulary's texts, as std::unordered_map has it, takes longer than all the rest.
class Numbering {
  public:
    explicit Numbering(size_t most) : slots_(std::bit_ceil(2 * most + 1), empty) {}

    uint32_t operator()(std::string_view text) {
        uint32_t& number = slots_[slot(text)];
        if (number == empty) {
            number = static_cast<uint32_t>(texts_.size());
            texts_.push_back(text);
        }
        return number;
    }
    bool contains(std::string_view text) const { return slots_[slot(text)] != empty; }
    const std::vector<std::string_view>& texts() const { return texts_; }

  private:
    static constexpr uint32_t empty = UINT32_MAX;
    std::vector<uint32_t> slots_;
    std::vector<std::string_view> texts_;

    // Where its number is, or belongs.
    size_t slot(std::string_view text) const {
        const size_t mask = slots_.size() - 1;
        size_t at = std::hash<std::string_view>{}(text)&mask;
        while (slots_[at] != empty && texts_[slots_[at]] != text) at = (at + 1) & mask;
        return at;
    }
};

}  // namespace

std::optional<Merges> read_merges(const std::vector<std::string_view>& strings,
                                  const std::vector<std::string_view>& tokens) {
    constexpr size_t most = size_t{1} << 30;
    if (strings.size() >= most || tokens.size() >= most)
        throw std::length_error("merges: 2^30 strings or more");
    Numbering known(tokens.size()), distinct(strings.size()), symbols(2 * strings.size());
    for (const std::string_view token : tokens) known(token);
    Merges found;
    found.pairs.reserve(strings.size());
    std::string joined;
    for (const std::string_view text : strings) {
        const size_t space = text.find(' ');
        if (space == 0 || space == text.npos || space + 1 == text.size()) return std::nullopt;
        if (distinct(text) < found.pairs.size()) continue;
        const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
        const uint32_t left_number = symbols(left);
        found.pairs.emplace_back(left_number, symbols(right));
        joined.assign(left).append(right);
        if (!known.contains(joined)) found.missing.push_back(joined);
    }
    found.symbols = symbols.texts();
    for (const std::string_view symbol : found.symbols)
        if (!known.contains(symbol)) found.missing.emplace_back(symbol);
    return found;
}

}  // namespace clarion
