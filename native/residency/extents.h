// Where the rows of a weight lie: in extents, each of which can move on its own.
//
// An extent is some neighbouring rows of one matrix (of one expert, where a weight has several): a power of two of them,
// whole panels of 16 rows, or all rows of the matrix where these are no whole panels. One 64-bit word says where it lies and
// in which layout, so a reader never sees the address of one copy with the layout of another. All copies of an extent say
// the same, and products of rows and of panels have the same bits, so an extent may switch while a run reads it.
//
// What a word pointed to must stay readable until no run can hold it any more: residency/store.h says when that is.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cassert>
#include <cstdint>
#include <memory>

namespace clarion {

enum class Layout { rows, panels };  // as in a file, or kernels/panel.h

// The copy of an extent that is in use.
struct Extent {
    const uint8_t* data;  // of its first row; null where the extent is not resident
    int64_t first_row;    // of its matrix
    bool panels;
};

// What keeps old copies alive while runs may read them. An interface, because the store is compiled into one module and its
// readers into another.
class Readers {
  public:
    // A run begins; `urgent` where somebody waits for it, and background work should not disturb it. Returns the
    // version of the weights that it begins with.
    virtual uint64_t enter(bool urgent) noexcept = 0;
    virtual void leave(uint64_t version, bool urgent) noexcept = 0;

  protected:
    ~Readers() = default;
};

class Extents {
  public:
    // Matrices of [rows, cols], one for each expert; extents have `extent_bytes` at most, but 16 rows at least. Nothing is
    // resident. `may_be_panels`: whether copies may have that layout. `readers`: null where copies never go.
    Extents(int64_t rows, int64_t experts, int64_t row_bytes, int64_t extent_bytes, bool may_be_panels,
            Readers* readers)
        : rows(rows),
          experts(experts),
          row_bytes(row_bytes),
          may_be_panels(may_be_panels),
          readers(readers),
          shift_(rows % 16 != 0 ? whole : shift_of(rows, extent_bytes / row_bytes)),
          per_expert_(((rows - 1) >> shift_) + 1),
          words_(std::make_unique<std::atomic<uint64_t>[]>(static_cast<size_t>(count()))) {}

    const int64_t rows, experts, row_bytes;
    const bool may_be_panels;
    Readers* const readers;

    int64_t count() const { return experts * per_expert_; }
    // In all rows of all experts, one after the other as in a file.
    int64_t first_row(int64_t i) const { return i / per_expert_ * rows + first_in_matrix(i); }
    int64_t n_rows(int64_t i) const { return std::min(int64_t{1} << shift_, rows - first_in_matrix(i)); }

    Extent at(int64_t i) const { return extent(i, first_in_matrix(i)); }
    // The one that holds this row of an expert's matrix: one load.
    Extent holding(int64_t expert, int64_t row) const {
        const int64_t i = row >> shift_;
        return extent(expert * per_expert_ + i, i << shift_);
    }

    // From now on the extent lies there. Whoever calls it sees to it that no run holds the copy before when that goes.
    void publish(int64_t i, const uint8_t* data, Layout layout) {
        const auto address = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(data));
        assert(address >> 63 == 0);  // no system gives its programs such an address
        words_[static_cast<size_t>(i)].store(address << 1 | (layout == Layout::panels ? 1 : 0),
                                             std::memory_order_release);
    }

  private:
    static constexpr int whole = 62;  // all rows of a matrix are one extent
    static int shift_of(int64_t rows, int64_t most) {
        return rows <= most ? whole : std::bit_width(static_cast<uint64_t>(std::max<int64_t>(most, 16))) - 1;
    }
    int64_t first_in_matrix(int64_t i) const { return i % per_expert_ << shift_; }
    Extent extent(int64_t i, int64_t first_row) const {
        const uint64_t word = words_[static_cast<size_t>(i)].load(std::memory_order_acquire);
        return {reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(word >> 1)), first_row,
                (word & 1) != 0};
    }

    const int shift_;
    const int64_t per_expert_;
    std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

// Under this name a capsule carries a `const Extents*` from the module that has the store to the one that runs programs.
inline constexpr const char* extents_capsule = "clarion.Extents";

}  // namespace clarion
