// What some models do to the scores of attention before the softmax, for one query and the 64 positions of a page.
#pragma once

#include <cstdint>

namespace clarion {

// s = cap * tanh(s / cap)
void cap_scores(float* s, float cap);

// Takes slope * |distance| from each (Press et al. 2022, ALiBi); `distance` is that of the query from the first position, and
// is less by one for each that follows.
void slope_scores(float* s, float slope, int64_t distance);

}  // namespace clarion
