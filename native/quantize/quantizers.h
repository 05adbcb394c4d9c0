// One function for each format; which file holds it is said by the name before the underscore.
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

}  // namespace clarion::quantize
