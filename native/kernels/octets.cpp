#include "kernels/octets.h"

#include <algorithm>
#include <cmath>

#include "simd/simd.h"

namespace clarion {

void OctetWriter::take(int64_t b, float least, const float*& block, float* rest, float& amax) {
    float largest[4] = {};
    for (int i = 0; i < 32; ++i) largest[i / 8] = std::max(largest[i / 8], std::fabs(block[i]));
    const auto which = std::max_element(largest, largest + 4) - largest;
    largest[which] = 0.0f;
    const float others = *std::max_element(largest, largest + 4);
    if (!(amax * amax - others * others > least) || n_ == most_) return;
    constexpr float limit = simd::high_limit;
    const float inverse = limit / amax;
    Octet& octet = octets_[n_++];
    octet = {static_cast<int32_t>(4 * b + which), 0, amax / limit, 0, {}};
    int32_t a[16] = {};
    std::copy_n(block, 32, rest);
    for (int i = 0; i < 8; ++i) {
        float& x = rest[8 * which + i];
        a[i] = static_cast<int32_t>(std::lrint(x * inverse));
        octet.sum += a[i];
        x = 0.0f;
    }
    uint8_t quads[4 * simd::high_accumulator::quad_bytes];
    simd::encode_quads(quads, simd::load(a));
    std::copy_n(quads, sizeof octet.quads, octet.quads);
    block = rest;
    amax = others;
}

void OctetWriter::finish(std::byte* row, const EncodedLayout& layout) const {
    auto* fsum32 = reinterpret_cast<float*>(row + layout.fsum32);
    auto* fsum16 = reinterpret_cast<float*>(row + layout.fsum16);
    for (int64_t i = 0; i < n_; ++i) {
        const float sum = octets_[i].scale * static_cast<float>(octets_[i].sum);
        fsum32[octets_[i].place / 4] += sum;
        fsum16[octets_[i].place / 2] += sum;
    }
    *reinterpret_cast<int32_t*>(row + layout.n_wide) = static_cast<int32_t>(n_);
}

void OctetLists::reserve(Kind kind, int64_t n_cols, int64_t n_rows, int64_t n_lists) {
    const EncodedLayout layout(kind, n_cols);
    if (layout.most_wide == 0) return;
    n_wide_ = layout.n_wide;
    most_ = static_cast<int32_t>(layout.most_wide);
    places_ = static_cast<uint32_t>(layout.padded / 8);
    parts_ = (n_cols + OctetList::part - 1) / OctetList::part;
    const int64_t n_octets = n_rows * layout.most_wide;
    memory_.reset(new int32_t[static_cast<size_t>(n_octets * octet_words + n_rows + n_lists * (parts_ + 2))]);
    octets_ = reinterpret_cast<Octet*>(memory_.get());
    tokens_ = memory_.get() + n_octets * octet_words;
    ends_ = tokens_ + n_rows;
}

// A counting sort by the part of the columns. A program may read rows that nothing was encoded to, so what they say is not
// believed: no access is out of bounds.
void OctetLists::add(const ActivationRows& rows, int64_t n_rows) {
    if (parts_ == 0) return;
    int32_t* ends = ends_ + n_lists_++ * (parts_ + 2);
    std::fill_n(ends, parts_ + 2, 0);
    const int64_t first = n_octets_, first_token = n_tokens_;
    for (const bool counting : {true, false}) {
        int32_t token = 0;
        for (int64_t t = 0; t < n_rows; ++t) {
            const std::byte* row = rows.row(t) + n_wide_;
            const int32_t n = std::min(*reinterpret_cast<const int32_t*>(row), most_);
            if (n <= 0) continue;
            const auto* octet = reinterpret_cast<const Octet*>(row + 4);
            for (const Octet* end = octet + n; octet != end; ++octet) {
                if (static_cast<uint32_t>(octet->place) >= places_) continue;
                int32_t& at = ends[octet->place / (OctetList::part / 8)];
                if (!counting) (octets_[first + at] = *octet).token = token;
                ++at;
            }
            if (counting) tokens_[n_tokens_++] = static_cast<int32_t>(t);
            ++token;
        }
        if (!counting) break;
        for (int64_t p = 0; p < parts_; ++p) {
            const int32_t n = ends[p];
            ends[p] = static_cast<int32_t>(n_octets_ - first);  // where it begins, until it is filled
            n_octets_ += n;
        }
    }
    ends[parts_] = static_cast<int32_t>(first);
    ends[parts_ + 1] = static_cast<int32_t>(first_token);
}

OctetList OctetLists::operator[](int64_t i) const {
    if (parts_ == 0) return {};
    const int32_t* ends = ends_ + i * (parts_ + 2);
    const int64_t next = i + 1 < n_lists_ ? ends[2 * parts_ + 3] : n_tokens_;
    return {octets_ + ends[parts_], ends, tokens_ + ends[parts_ + 1], next - ends[parts_ + 1]};
}

}  // namespace clarion
