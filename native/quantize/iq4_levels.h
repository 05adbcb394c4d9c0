// The sixteen levels of IQ4_NL and IQ4_XS, which are not evenly spaced.
#pragma once

#include "codebooks_data.h"
#include "quantize/lanes.h"

namespace clarion::quantize {

struct Iq4Levels {
    static constexpr float low = codebook_data::iq4[0], high = codebook_data::iq4[15];

    CLARION_LANES static F nearest(F v) {
        F level = all(low);
#pragma GCC unroll 16
        for (int i = 1; i < 16; ++i)
            level = select(v > all(border(i)), all(codebook_data::iq4[i] + 0.0f), level);
        return level;
    }
    static I code(F v) {
        I code = all(0);
        for (int i = 1; i < 16; ++i) code = code - (v > all(border(i)));  // a comparison that holds is -1
        return code;
    }

  private:
    static constexpr float border(int i) {
        return 0.5f * (codebook_data::iq4[i - 1] + codebook_data::iq4[i]);
    }
};

}  // namespace clarion::quantize
