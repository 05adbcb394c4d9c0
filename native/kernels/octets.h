// The octets of rows of Kind::fast (machine/encoding.h): how a row gets them, and lists of those of some rows, in the order in
// which products want them.
//
// Few tokens have one, and each in other blocks. A product that looked for them, token after token and panel after panel, would
// wait for mispredicted branches. So an operation lists them once, before its first item; a product goes over those of a tile,
// whoever's they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/product.h"
#include "machine/encoding.h"

namespace clarion {

class OctetWriter {
  public:
    OctetWriter(const EncodedLayout& layout, std::byte* row)
        : octets_(reinterpret_cast<Octet*>(row + layout.wide)), most_(layout.most_wide) {}

    // Leaves an octet of block b out, if that lowers the square of what is largest, `amax`, by more than `least`: then the
    // block is what is left, in `rest`. Blocks come in order.
    void take(int64_t b, float least, const float*& block, float* rest, float& amax);
    // Adds the octets to the sums that the weights' minima meet.
    void finish(std::byte* row, const EncodedLayout& layout) const;

  private:
    Octet* octets_;
    int64_t most_, n_ = 0;
};

// Rows that are multiplied by one call, and their octets. Octet::token counts the rows that have some.
struct OctetList {
    static constexpr int64_t part = 256;  // columns; no tile begins or ends within

    const Octet* octets = nullptr;
    const int32_t* ends =
        nullptr;  // where the octets of each part end, which follow those of the part before
    const int32_t* tokens = nullptr;  // which row each one is that has some
    int64_t n_tokens = 0;

    const Octet* begin_at(int64_t column) const {
        return octets + (column == 0 ? 0 : ends[column / part - 1]);
    }
    const Octet* end_at(int64_t column) const { return octets + ends[(column + part - 1) / part - 1]; }
};

// The lists of an operation.
class OctetLists {
  public:
    // Room for so many rows, in so many lists. Rows that can have no octets need none.
    void reserve(Kind kind, int64_t n_cols, int64_t n_rows, int64_t n_lists);
    void clear() { n_octets_ = n_tokens_ = n_lists_ = 0; }
    void add(const ActivationRows& rows, int64_t n_rows);
    // What was added as number i.
    OctetList operator[](int64_t i) const;

  private:
    static constexpr int64_t octet_words = sizeof(Octet) / sizeof(int32_t);

    std::unique_ptr<int32_t[]> memory_;
    Octet* octets_ = nullptr;
    int32_t* tokens_ = nullptr;
    int32_t* ends_ = nullptr;  // of each list: its parts, and where its octets and its tokens begin
    int32_t most_ = 0;         // octets of a row
    uint32_t places_ = 0;      // where they can be
    int64_t n_wide_ = 0, parts_ = 0, n_octets_ = 0, n_tokens_ = 0, n_lists_ = 0;
};

}  // namespace clarion
