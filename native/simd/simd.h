// The vector vocabulary of every kernel: 16 lanes of 32 bits, whatever the registers are.
//
// A build picks one header through CLARION_SIMD_HEADER. Each header defines, in namespace clarion::simd, the
// types f32x16, i32x16 and u8x64 and the functions listed in generic.h, which is the reference: the others
// must agree with it (exactly for integers; for floats up to fused rounding and the order of a reduction).
//
// Lanes are *rows* of a weight matrix, positions of a page of the cache or elements of a head, so sums run along the
// instruction stream and never across lanes: that is what makes a result independent of the batch it ran in.
#pragma once

#include CLARION_SIMD_HEADER

#include "simd/codebook_words.h"
#include "simd/math.h"
