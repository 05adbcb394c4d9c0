// The extension module that quantizes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "quantize/quantizer.h"

namespace nb = nanobind;
namespace quantize = clarion::quantize;

namespace {

using FloatRows = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Columns = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Which numbers an array holds: bfloat16 has no type of its own in numpy and comes as its bits.
quantize::Source source_of(const FloatRows& rows) {
    if (rows.dtype() == nb::dtype<float>()) return quantize::Source::f32;
    if (rows.dtype() == nb::dtype<uint16_t>()) return quantize::Source::bf16;
    if (rows.dtype().code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && rows.dtype().bits == 16)
        return quantize::Source::f16;
    throw std::invalid_argument("rows must be float32, float16, or uint16 for bfloat16");
}

// Whether to go on: not after Ctrl-C, which only Python's main thread hears of.
bool go_on() {
    const nb::gil_scoped_acquire gil;
    return PyErr_Occurred() == nullptr && PyErr_CheckSignals() == 0;
}

auto quantize_rows(int type_id, FloatRows rows, std::optional<Columns> importance, int threads) {
    const quantize::Quantizer* quantizer = quantize::find(type_id);
    if (quantizer == nullptr)
        throw std::invalid_argument("type id " + std::to_string(type_id) + " cannot be written");
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be 1 to 1024");
    const size_t n_rows = rows.shape(0), cols = rows.shape(1);
    if (cols % static_cast<size_t>(quantizer->block) != 0)
        throw std::invalid_argument("rows must be whole blocks of " + std::to_string(quantizer->block));
    if (importance && importance->shape(0) != cols) throw std::invalid_argument("importance must be [cols]");
    const size_t row_bytes =
        cols / static_cast<size_t>(quantizer->block) * static_cast<size_t>(quantizer->bytes);
    std::unique_ptr<uint8_t[]> out(new uint8_t[n_rows * row_bytes]);
    const quantize::Matrix matrix{rows.data(), source_of(rows), static_cast<int64_t>(n_rows),
                                  static_cast<int64_t>(cols), importance ? importance->data() : nullptr};
    int64_t bad = -1;
    {
        const nb::gil_scoped_release released;
        bad = quantize::run(*quantizer, matrix, threads, out.get(), go_on);
    }
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    uint8_t* p = out.release();
    nb::capsule owner(p, [](void* q) noexcept { delete[] static_cast<uint8_t*>(q); });
    return nb::make_tuple(nb::ndarray<nb::numpy, uint8_t>(p, {n_rows, row_bytes}, owner), bad);
}

}  // namespace

NB_MODULE(CLARION_MODULE, m) {
    m.def("quantize", &quantize_rows, nb::arg("type_id"), nb::arg("rows"), nb::arg("importance").none(),
          nb::arg("threads"),
          "Rows [rows, cols] of floats as a format's bytes [rows, row_bytes], and the position of the first "
          "weight "
          "that is not finite or too large, or -1. Ctrl-C ends it early.");
    m.def(
        "writable",
        [] {
            int count = 0;
            const quantize::Quantizer* table = quantize::quantizers(count);
            nb::dict limits;
            for (int i = 0; i < count; ++i) limits[nb::int_(table[i].id)] = table[i].limit;
            return limits;
        },
        "The largest magnitude that each format can hold, by type id.");
}
