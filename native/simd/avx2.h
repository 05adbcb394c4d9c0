#pragma once

#include "simd/generic.h"
