// WebAssembly with SIMD: vectors of the compiler, four registers each.
#pragma once

#include "simd/portable.h"
