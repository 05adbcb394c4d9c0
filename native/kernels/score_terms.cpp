#include "kernels/score_terms.h"

#include "machine/kv_format.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using simd::f32x16;

constexpr float lane_numbers[kv_lanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace

void cap_scores(float* s, float cap) {
    const f32x16 most = simd::set1(cap);
    for (int64_t i = 0; i < kv_page; i += kv_lanes)
        simd::store(s + i, simd::mul(most, simd::tanh(simd::div(simd::load(s + i), most))));
}

void slope_scores(float* s, float slope, int64_t distance) {
    for (int64_t i = 0; i < kv_page; i += kv_lanes) {
        const f32x16 first = simd::set1(static_cast<float>(distance - i));
        const f32x16 away = simd::abs(simd::sub(first, simd::load(lane_numbers)));
        simd::store(s + i, simd::fma(simd::set1(-slope), away, simd::load(s + i)));
    }
}

}  // namespace clarion
