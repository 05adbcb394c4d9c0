// IBM Z from z14 on: vectors of the compiler, four registers each.
#pragma once

#include "simd/portable.h"
