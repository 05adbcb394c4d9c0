#include "machine/encoding.h"

namespace clarion {

int64_t row_bytes(Kind kind, int64_t width) {
    const bool plain = kind == Kind::f32 || kind == Kind::i32;
    const int64_t bytes = plain                ? 4 * width
                          : kind == Kind::bf16 ? 2 * width
                                               : EncodedLayout(kind, width).bytes;
    return ((bytes + 63) / 64 | 1) * 64;
}

}  // namespace clarion
