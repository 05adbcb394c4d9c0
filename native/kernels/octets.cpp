#include "kernels/octets.h"

namespace clarion {

void OctetLists::reserve(Kind kind, int64_t n_cols, int64_t n_rows, int64_t n_lists) {
    const EncodedLayout layout(kind, n_cols);
    n_cols_ = n_cols;
    n_parts_ = layout.most_wide == 0 ? 0 : (n_cols + OctetList::octet_columns - 1) / OctetList::octet_columns;
    if (n_parts_ == 0) return;
    octets_.reserve(static_cast<size_t>(n_rows * layout.most_wide));
    tokens_.reserve(static_cast<size_t>(n_rows));
    ends_.reserve(static_cast<size_t>(n_lists * n_parts_));
    begins_.reserve(static_cast<size_t>(n_lists + 1));
    clear();
}

void OctetLists::clear() {
    if (n_parts_ == 0) return;
    octets_.clear();
    tokens_.clear();
    ends_.clear();
    begins_.assign(1, {0, 0});
}

// A counting sort by the part of the columns.
void OctetLists::add(const ActivationRows& rows, int64_t n_rows) {
    if (n_parts_ == 0) return;
    const EncodedLayout layout(Kind::fast, n_cols_);
    const auto part = [](const Octet& octet) { return octet.place / (OctetList::octet_columns / 8); };
    const size_t first_end = ends_.size(), first = octets_.size();
    ends_.resize(first_end + static_cast<size_t>(n_parts_), 0);
    int32_t* ends = ends_.data() + first_end;
    const auto each = [&](const auto& body) {
        for (int64_t t = 0; t < n_rows; ++t) {
            const std::byte* row = rows.row(t);
            const auto n = *reinterpret_cast<const int32_t*>(row + layout.n_wide);
            const auto* octets = reinterpret_cast<const Octet*>(row + layout.wide);
            if (n != 0) body(t, octets, octets + n);
        }
    };
    each([&](int64_t t, const Octet* octet, const Octet* end) {
        tokens_.push_back(static_cast<int32_t>(t));
        for (; octet != end; ++octet) ++ends[part(*octet)];
    });
    int32_t total = 0;
    for (int64_t p = 0; p < n_parts_; ++p) {
        const int32_t n = ends[p];
        ends[p] = total;  // where it begins, until it is filled
        total += n;
    }
    octets_.resize(first + static_cast<size_t>(total));
    int32_t token = 0;
    each([&](int64_t, const Octet* octet, const Octet* end) {
        for (; octet != end; ++octet) {
            Octet& to = octets_[first + static_cast<size_t>(ends[part(*octet)]++)];
            to = *octet;
            to.token = token;
        }
        ++token;
    });
    begins_.push_back({octets_.size(), tokens_.size()});
}

OctetList OctetLists::operator[](int64_t i) const {
    if (n_parts_ == 0) return {};
    const Begin &begin = begins_[static_cast<size_t>(i)], &end = begins_[static_cast<size_t>(i) + 1];
    return {octets_.data() + begin.octet, ends_.data() + i * n_parts_, tokens_.data() + begin.token,
            static_cast<int64_t>(end.token - begin.token)};
}

}  // namespace clarion
