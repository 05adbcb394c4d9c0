// POWER9 and later, little-endian or not: vectors of the compiler, four registers of VSX each.
#pragma once

#include "simd/portable.h"
