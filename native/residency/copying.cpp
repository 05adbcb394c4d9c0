#include "residency/copying.h"

#include <algorithm>
#include <cstring>

namespace clarion {

bool copy(uint8_t* to, const uint8_t* from, size_t size, const Gate& gate) {
    constexpr size_t piece = size_t{2} << 20;
    for (size_t at = 0; at < size; at += piece) {
        if (!gate.pass()) return false;
        std::memcpy(to + at, from + at, std::min(piece, size - at));
    }
    return true;
}

}  // namespace clarion
