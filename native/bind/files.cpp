// Files and the memory that weights lie in: what is the same for every instruction set, in a module of its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif

#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "residency/copying.h"
#include "residency/huge_pages.h"
#include "residency/mapping.h"
#include "residency/strings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

Offsets take(std::unique_ptr<int64_t[]> values, size_t count) {
    int64_t* data = values.get();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<int64_t*>(p); });
    values.release();
    return Offsets(data, {count}, owner);
}

}  // namespace

NB_MODULE(files, m) {
    // Whoever still holds a model when the interpreter ends holds its mapping: that is no fault to report.
    nb::set_leak_warnings(false);
    nb::class_<Mapping>(m, "Mapping",
                        "A file mapped read-only; a page that is gone reads as zeros and sets `damaged`.")
        .def(
            "__init__",
            [](Mapping* self, nb::object path) {
                PyObject* encoded = nullptr;
                if (PyUnicode_FSConverter(path.ptr(), &encoded) == 0) throw nb::python_error();
                const auto name = nb::steal<nb::bytes>(encoded);
                try {
                    new (self) Mapping(name.c_str());
                } catch (const std::system_error& error) {
                    errno = error.code().value();
                    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.ptr());
                    throw nb::python_error();
                }
            },
            "path"_a)
        .def_prop_ro("size", &Mapping::size)
        .def_prop_ro("damaged", &Mapping::damaged)
        .def_prop_ro(
            "bytes",
            [](nb::handle self) {
                const auto& mapping = nb::cast<const Mapping&>(self);
                return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(mapping.data(), {mapping.size()},
                                                                          self);
            },
            "u8[size], read-only; keeps the mapping alive.");

    m.def(
        "cpuid",
        [](uint32_t leaf, uint32_t subleaf) -> nb::object {
#if defined(__x86_64__) || defined(_M_X64)
            uint32_t a, b, c, d;
            if (__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) != 0) return nb::make_tuple(a, b, c, d);
#endif
            return nb::none();
        },
        "leaf"_a, "subleaf"_a, "eax, ebx, ecx and edx; None where this processor has no such leaf.");

    m.def(
        "string_offsets",
        [](const Bytes& bytes, uint64_t start, uint64_t count) {
            StringOffsets found = string_offsets(bytes.data(), bytes.size(), start, count);
            return nb::make_tuple(take(std::move(found.starts), count), take(std::move(found.lengths), count),
                                  found.end);
        },
        "bytes"_a, "start"_a, "count"_a,
        "Where `count` strings from `start` on lie: (starts i64[count], lengths i64[count], end).");

    m.def(
        "strings",
        [](const Bytes& bytes, const Offsets& starts, const Offsets& lengths) {
            const size_t n = starts.size();
            if (lengths.size() != n) throw std::invalid_argument("strings: as many lengths as starts");
            nb::list texts = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(n)));
            if (!texts.is_valid()) throw nb::python_error();
            for (size_t i = 0; i < n; ++i) {
                const int64_t start = starts.data()[i], length = lengths.data()[i];
                const auto size = static_cast<int64_t>(bytes.size());
                if (start < 0 || length < 0 || start > size || length > size - start)
                    throw std::out_of_range("strings: beyond the bytes");
                PyObject* text = PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(bytes.data()) + start,
                                                      static_cast<Py_ssize_t>(length), "surrogateescape");
                if (text == nullptr) throw nb::python_error();
                PyList_SET_ITEM(texts.ptr(), static_cast<Py_ssize_t>(i), text);
            }
            return texts;
        },
        "bytes"_a, "starts"_a.noconvert(), "lengths"_a.noconvert(),
        "The strings that lie there, as a list; what is no UTF-8 becomes lone surrogates.");

    nb::class_<HugePages>(m, "HugePages", "Zeros, in huge pages as far as the system has them.")
        .def(nb::init<size_t>(), "size"_a)
        .def_prop_ro(
            "bytes",
            [](nb::handle self) {
                auto& memory = nb::cast<HugePages&>(self);
                return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(memory.data(), {memory.size()}, self);
            },
            "u8[size]; keeps the memory alive.");

    nb::class_<Gate>(m, "Gate", "Holds copies up, or ends them, from another thread.")
        .def(nb::init<>())
        .def("open", &Gate::open)
        .def("close", &Gate::close)
        .def("end", &Gate::end, "For good.")
        .def("wait", &Gate::pass, nb::call_guard<nb::gil_scoped_release>(),
             "Waits while it is closed; False once it has ended.");

    m.def(
        "copy",
        [](const Writable& to, const Bytes& from, const Gate& gate) {
            if (from.size() != to.size()) throw std::invalid_argument("copy: the sizes differ");
            const nb::gil_scoped_release unlocked;
            return copy(to.data(), from.data(), from.size(), gate);
        },
        "to"_a.noconvert(), "from_"_a.noconvert(), "gate"_a,
        "Copies u8[n] while the gate is open, with the interpreter lock released; False if it ended.");

    m.def(
        "release",
        [](const Bytes& bytes) {
            const nb::gil_scoped_release unlocked;
            release_mapped_pages(bytes.data(), bytes.size());
        },
        "bytes"_a.noconvert(),
        "Lets go of whole pages of a mapping; they come back from the file when they are read again.");
}

}  // namespace clarion
