#include "kernels/rows.h"

#include "machine/names.h"

namespace clarion {

void expect_kind(const OpSpec& spec, const Buffer& b, Kind kind) {
    if (b.kind != kind) spec.fail({"buffer '", b.name, "' is ", name(b.kind), ", expected ", name(kind)});
}

void expect_float(const OpSpec& spec, const Buffer& b) {
    if (b.kind == Kind::i32) spec.fail({"buffer '", b.name, "' is i32, expected floats"});
}

void expect_width(const OpSpec& spec, const Buffer& b, int64_t width) {
    if (b.width != width) spec.fail({"buffer '", b.name, "' is ", b.width, " wide, expected ", width});
}

void expect_rows(const OpSpec& spec, const Buffer& b, Rows rows, int64_t slots_per_token) {
    if (b.rows != rows)
        spec.fail({"buffer '", b.name, "' has rows of ", name(b.rows), ", expected ", name(rows)});
    if (b.slots_per_token != slots_per_token)
        spec.fail({"buffer '", b.name, "' has ", b.slots_per_token, " slots for each token, expected ",
                   slots_per_token});
}

void expect_some_tokens(const OpSpec& spec, const Buffer& b) {
    expect_rows(spec, b, b.rows == Rows::outputs ? Rows::outputs : Rows::tokens);
}

void expect_like(const OpSpec& spec, const Buffer& b, const Buffer& like) {
    expect_width(spec, b, like.width);
    expect_rows(spec, b, like.rows, like.slots_per_token);
}

void expect_heads(const OpSpec& spec, const Buffer& b, int64_t n_head, int64_t head_dim) {
    if (n_head < 1 || head_dim < 1 || n_head > b.width || head_dim > b.width || n_head * head_dim != b.width)
        spec.fail({"buffer '", b.name, "' is ", b.width, " wide, expected ", n_head, " heads of ", head_dim});
}

void expect_in_place(const OpSpec& spec, size_t i, const Buffer& b) {
    if (i < spec.outputs.size() && spec.outputs[i] && spec.outputs[i]->data != b.data)
        spec.fail({"output '", spec.outputs[i]->name, "' must be '", b.name, "', which is changed in place"});
}

}  // namespace clarion
