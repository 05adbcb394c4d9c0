// Rotary position embedding (Su et al. 2021).
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/rms_norm.h"
#include "machine/op.h"

namespace clarion {

// What happens to each head of a query or key: an optional RmsNorm over the head, then a rotation of its
// first n_rot elements by the angles of the token's row in the rope table. Pair i is (x[2i], x[2i+1]), or
// (x[i], x[i + n_rot/2]) if `neox`. The other elements pass through.
class HeadTransform {
  public:
    // `gain` may be null: then there is no norm. Throws std::invalid_argument.
    HeadTransform(const OpSpec& spec, const Buffer& table, const Weight* gain, int64_t head_dim,
                  int64_t n_rot, bool neox, double eps);

    int64_t head_dim() const { return head_dim_; }
    // One head, x [head_dim] to y [head_dim]; y may be x. `table` is the token's row.
    void apply(const float* x, const float* table, float* y) const;

  private:
    int64_t head_dim_, n_rot_;
    bool neox_;
    std::optional<RmsNorm> norm_;
};

}  // namespace clarion
