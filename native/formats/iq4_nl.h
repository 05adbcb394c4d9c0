// IQ4_NL: 32 weights in 18 bytes.  d: f16 | q: 16 bytes, low nibbles columns 0-15, high nibbles 16-31.
// weight = d * codebook[q]
#pragma once

#include "formats/codebooks.h"
#include "formats/format.h"
#include "formats/mxfp4.h"

namespace clarion {

struct IQ4_NL {
    static constexpr int id = 20;
    static constexpr const char* name = "IQ4_NL";
    static constexpr int block = 32, bytes = 18;
    static constexpr int group = 32, live = 1;
    static constexpr int32_t offset = 127, largest = 240;
    static constexpr bool has_min = false;

    static void scales(const uint8_t* panel, int64_t blocks, float* scale, float*) {
        gather_f16(panel, 0, bytes, blocks, scale);
    }

    template <typename Sink>
    [[gnu::always_inline]] static void weights(const uint8_t* panel, int64_t at, Sink& sink) {
        MXFP4::put_codes(panel, at + 2, codebooks.iq4, sink);
    }

    static void unpack(const uint8_t* block, uint8_t* u, float* scale, float*) {
        *scale = f16_at(block);
        unpack_codes(block + 2, u);
    }

    // 32 columns from 16 bytes of nibbles.
    static void unpack_codes(const uint8_t* q, uint8_t* u) {
        unpack_nibbles<16>(q, u);
        for (int i = 0; i < 32; ++i) u[i] = codebooks.iq4[u[i]];
    }
};

}  // namespace clarion
