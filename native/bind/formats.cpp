// Weight formats and activations, for the tests of their arithmetic and for tools.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "bind/bind.h"
#include "kernels/direct.h"
#include "machine/encoding.h"
#include "machine/names.h"

namespace nb = nanobind;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;
using Rows2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

auto owned(std::unique_ptr<float[]> data, std::vector<size_t> shape) {
    float* p = data.release();
    nb::capsule owner(p, [](void* q) noexcept { delete[] static_cast<float*>(q); });
    return nb::ndarray<nb::numpy, float>(p, shape.size(), shape.data(), owner);
}

}  // namespace

void bind_formats(nb::module_& m) {
    m.attr("MULTIPLIES_BF16") = multiplies_bf16();  // BF16 weights with activations of that kind
    m.def(
        "encoded_row_bytes",
        [](const std::string& kind, int64_t width) { return row_bytes(kind_named(kind, {"kind"}), width); },
        nb::arg("kind"), nb::arg("width"));
    m.def(
        "dequantize",
        [](int type_id, Bytes data, int64_t n) {
            auto x = std::make_unique<float[]>(static_cast<size_t>(n));
            dequantize(type_id, data.data(), static_cast<int64_t>(data.size()), n, x.get());
            return owned(std::move(x), {static_cast<size_t>(n)});
        },
        nb::arg("type_id"), nb::arg("data"), nb::arg("n"), "n weights as float32");
    m.def(
        "linear",
        [](int type_id, Bytes data, int64_t rows, int64_t cols, Rows2 x, const std::string& kind,
           bool panels) {
            if (static_cast<int64_t>(x.shape(1)) != cols) throw std::invalid_argument("x must be [T, cols]");
            const auto n_tokens = static_cast<int64_t>(x.shape(0));
            auto y = std::make_unique<float[]>(static_cast<size_t>(n_tokens * rows));
            linear(type_id, data.data(), static_cast<int64_t>(data.size()), rows, cols, panels, x.data(),
                   n_tokens, kind_named(kind, {"kind"}), y.get());
            return owned(std::move(y), {static_cast<size_t>(n_tokens), static_cast<size_t>(rows)});
        },
        nb::arg("type_id"), nb::arg("data"), nb::arg("rows"), nb::arg("cols"), nb::arg("x"), nb::arg("kind"),
        nb::arg("panels") = false,
        "x [T, cols] times the transpose of a matrix [rows, cols], on this thread: float32 [T, rows]");
    m.def("can_be_panels", &can_be_panels, nb::arg("type_id"), nb::arg("rows"),
          "whether a matrix of so many rows may lie as panels of 16");
    m.def(
        "interleave",
        [](int type_id, int64_t cols, Bytes rows, Writable panels) {
            if (rows.size() != panels.size()) throw std::invalid_argument("interleave: the sizes differ");
            const nb::gil_scoped_release unlocked;
            interleave(type_id, cols, rows.data(), panels.data(), static_cast<int64_t>(rows.size()));
        },
        nb::arg("type_id"), nb::arg("cols"), nb::arg("rows").noconvert(), nb::arg("panels").noconvert(),
        "Writes rows of a matrix, 16 at a time, as panels: u8[n] to u8[n].");
}

}  // namespace clarion
