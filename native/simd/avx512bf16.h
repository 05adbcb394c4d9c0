// AVX-512 VNNI and BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).
#pragma once

#include "simd/avx512vnni.h"
#include "simd/bf16_products.h"
