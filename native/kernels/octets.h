// The octets of some rows of Kind::fast (machine/encoding.h), in the order in which products want them.
//
// Few tokens have one, and in other blocks. A product that looked for them, token after token and panel after panel, would
// wait for mispredicted branches. So an operation lists them once, before its first item; a product goes over those of a tile,
// whoever's they are.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/product.h"
#include "machine/encoding.h"

namespace clarion {

// Rows of tokens that are multiplied by one call, and their octets: Octet::token counts the tokens that have some.
struct OctetList {
    const Octet* octets = nullptr;
    const int32_t* ends = nullptr;    // where the octets of each 256 columns end, after those before them
    const int32_t* tokens = nullptr;  // which row each token that has some is
    int64_t n_tokens = 0;

    const Octet* begin_of(int64_t column) const {
        return octets + (column == 0 ? 0 : ends[column / octet_columns - 1]);
    }
    const Octet* end_of(int64_t column) const {
        return octets + ends[(column + octet_columns - 1) / octet_columns - 1];
    }
    static constexpr int64_t octet_columns = 256;  // no tile ends within
};

class OctetLists {
  public:
    // Room for so many rows of a buffer, in so many lists. None where its rows have no octets.
    void reserve(Kind kind, int64_t n_cols, int64_t n_rows, int64_t n_lists);
    void clear();
    void add(const ActivationRows& rows, int64_t n_rows);
    // The list that was added as number i.
    OctetList operator[](int64_t i) const;

  private:
    struct Begin {
        size_t octet, token;
    };
    int64_t n_cols_ = 0, n_parts_ = 0;  // parts of 256 columns; 0 where there are no octets
    std::vector<Octet> octets_;
    std::vector<int32_t> ends_, tokens_;
    std::vector<Begin> begins_;  // of each list, and behind the last one
};

}  // namespace clarion
