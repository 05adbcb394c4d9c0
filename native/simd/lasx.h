// LoongArch with LASX: vectors of the compiler, two registers each.
#pragma once

#include "simd/portable.h"
