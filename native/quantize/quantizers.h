// One function for each format.
#pragma once

#include "quantize/quantizer.h"

namespace clarion::quantize {

void quantize_f16(const Run&);
void quantize_bf16(const Run&);
void quantize_q4_0(const Run&);
void quantize_q4_1(const Run&);
void quantize_q5_0(const Run&);
void quantize_q5_1(const Run&);
void quantize_q8_0(const Run&);
void quantize_q8_1(const Run&);
void quantize_q8_k(const Run&);
void quantize_q2_k(const Run&);
void quantize_q3_k(const Run&);
void quantize_q4_k(const Run&);
void quantize_q5_k(const Run&);
void quantize_q6_k(const Run&);
void quantize_iq1_s(const Run&);
void quantize_iq1_m(const Run&);
void quantize_iq2_xxs(const Run&);
void quantize_iq2_xs(const Run&);
void quantize_iq2_s(const Run&);
void quantize_iq3_xxs(const Run&);
void quantize_iq3_s(const Run&);
void quantize_iq4_nl(const Run&);
void quantize_iq4_xs(const Run&);
void quantize_tq1_0(const Run&);
void quantize_tq2_0(const Run&);
void quantize_q1_0(const Run&);
void quantize_q2_0(const Run&);
void quantize_mxfp4(const Run&);
void quantize_nvfp4(const Run&);

}  // namespace clarion::quantize
