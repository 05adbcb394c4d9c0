// The format table: one line each.
#include <iterator>

#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/q4_0.h"
#include "formats/q4_k.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"

namespace clarion {

namespace {

const Format table[] = {
    f32::format,   //
    f16::format,   //
    q4_0::format,  //
    q8_0::format,  //
    q4_k::format,  //
    q5_k::format,  //
    q6_k::format,  //
    bf16::format,  //
};

}  // namespace

const Format* formats_begin() { return std::begin(table); }
const Format* formats_end() { return std::end(table); }

const Format* find_format(int id) {
    for (const Format& f : table)
        if (f.id == id) return &f;
    return nullptr;
}

}  // namespace clarion
