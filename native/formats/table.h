// The format table: one line each.
#pragma once

#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/q4_0.h"
#include "formats/q4_k.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"

namespace clarion {

template <typename... Formats>
struct FormatList {};

using AllFormats = FormatList<F32,   //
                              F16,   //
                              Q4_0,  //
                              Q8_0,  //
                              Q4_K,  //
                              Q5_K,  //
                              Q6_K,  //
                              BF16>;

}  // namespace clarion
