// One store of weights: which extent of which weight lies where, and who may still read an earlier copy.
//
// Who owns what. Each unit (a weight, as Extents) has one writer, the policy that added it: it alone places and evicts the
// unit's extents, and owns the memory of copies that it has not placed yet. Once a copy is placed nobody writes to it until
// it was replaced and no run can hold it any more. Readers have a const Extents.
//
// Versions. The store counts its switches. A run enters with the version that it finds, and leaves. A switch to version v
// is seen by every run that enters with v or a later version, because both happen under one mutex; a run that entered with
// an earlier version may hold the copy from before the switch. So that copy may go when reached() >= v: all runs inside
// entered with v or later. Within a run, threads load an extent's word with acquire; what the writer wrote into the copy
// before it released the word is there. What they read of an old copy is over before the run leaves.
//
// An extent can also be nowhere. A run that is inside was promised all of its weights, so that is possible only while none is
// inside; a run that needs the extent then refuses to begin (Program::run).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "residency/copying.h"
#include "residency/extents.h"

namespace clarion {

class Store final : public Readers {
  public:
    // While it moves, an extent is in memory twice; each costs a call and a switch.
    static constexpr int64_t default_extent_bytes = 32 << 20;

    explicit Store(int64_t extent_bytes = default_extent_bytes);

    // A new unit, of which nothing is resident; it lives as long as the store. Throws std::invalid_argument unless all
    // numbers are positive and the unit's bytes are a number.
    Extents& add(int64_t rows, int64_t experts, int64_t row_bytes, bool may_be_panels);

    // For the unit's writer: the extent lies at `data` from now on. Returns the version of this switch. Throws
    // std::invalid_argument for an extent that the unit does not have, and for panels where there can be none.
    uint64_t place(Extents& unit, int64_t extent, const uint8_t* data, Layout layout);
    // For the unit's writer: the extent lies nowhere. False, and nothing changes, while a run is inside.
    bool evict(Extents& unit, int64_t extent);

    // Every run that entered with an earlier version has left.
    uint64_t reached() const;
    // Waits until reached() is `version` or later; false if the store ended before.
    bool wait(uint64_t version) const;

    // Closed while an urgent run is inside: background work passes it.
    const Gate& gate() const { return gate_; }
    // Ends all waiting of background work, for good. Runs go on.
    void end();

    uint64_t enter(bool urgent) noexcept override;
    void leave(uint64_t version, bool urgent) noexcept override;

  private:
    static void check(const Extents& unit, int64_t extent);
    uint64_t oldest() const { return inside_.empty() ? version_ : inside_.front(); }

    const int64_t extent_bytes_;
    Gate gate_;
    mutable std::condition_variable changed_;
    mutable std::mutex mutex_;  // guards what follows, and all switches
    std::vector<std::unique_ptr<Extents>> units_;
    uint64_t version_ = 0;
    std::vector<uint64_t> inside_;  // the version of each run, in the order in which they entered: ascending
    int urgent_ = 0;                // of them
    bool ended_ = false;
};

}  // namespace clarion
