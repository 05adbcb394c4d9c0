// The formats that can be written: id, weights and bytes of a block, the largest magnitude that its scale in f16
// allows, and the function.
#pragma once

#include "quantize/quantizers.h"

namespace clarion::quantize {

inline constexpr float f16_max = 65504.0f;

inline constexpr Quantizer table[] = {
    {1, 1, 2, f16_max, quantize_f16},
    {30, 1, 2, 3.3895e38f, quantize_bf16},
    {2, 32, 18, 8 * f16_max, quantize_q4_0},
    {3, 32, 20, f16_max, quantize_q4_1},
    {6, 32, 22, 16 * f16_max, quantize_q5_0},
    {7, 32, 24, f16_max, quantize_q5_1},
    {8, 32, 34, 127 * f16_max, quantize_q8_0},
    {9, 32, 36, 32 * f16_max / 64, quantize_q8_1},
    {15, 256, 292, 3e38f, quantize_q8_k},
    {10, 256, 84, 15 * f16_max, quantize_q2_k},
    {11, 256, 110, 32 * 3 * f16_max, quantize_q3_k},
    {12, 256, 144, 63 * f16_max, quantize_q4_k},
    {13, 256, 176, 63 * f16_max, quantize_q5_k},
    {14, 256, 210, 127 * 31 * f16_max, quantize_q6_k},
    {19, 256, 50, 15 * f16_max, quantize_iq1_s},
    {29, 256, 56, 15 * f16_max, quantize_iq1_m},
    {16, 256, 66, 3 * 43 * f16_max, quantize_iq2_xxs},
    {17, 256, 74, 3 * 43 * f16_max, quantize_iq2_xs},
    {22, 256, 82, 3 * 43 * f16_max, quantize_iq2_s},
    {18, 256, 98, 7 * 62 * f16_max, quantize_iq3_xxs},
    {21, 256, 110, 31 * 15 * f16_max, quantize_iq3_s},
    {20, 32, 18, 113 * f16_max, quantize_iq4_nl},
    {23, 256, 136, 31 * 113 * f16_max, quantize_iq4_xs},
    {34, 256, 54, f16_max, quantize_tq1_0},
    {35, 256, 66, f16_max, quantize_tq2_0},
    {41, 128, 18, f16_max, quantize_q1_0},
    {42, 64, 18, 2 * f16_max, quantize_q2_0},
    {39, 32, 17, 1e18f, quantize_mxfp4},
    {40, 64, 36, 6 * 448.0f, quantize_nvfp4},
};

}  // namespace clarion::quantize
