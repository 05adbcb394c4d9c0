// avxvnni.h by the instructions of AVX-512 VNNI with 256 bits, which are the same in another encoding ("Intel 64 and IA-32
// Architectures Software Developer's Manual", VPDPBUSD), for processors that have only these.
#pragma once

#include <immintrin.h>

#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32

#include "simd/avxvnni.h"
