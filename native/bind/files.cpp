// Files and the memory that weights lie in: what is the same for every instruction set, in a module of its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <memory>
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
using Offsets = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

// Copies begin at cache lines.
size_t aligned(size_t size) { return (size + 63) / 64 * 64; }

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
        "string_offsets",
        [](const Bytes& bytes, uint64_t start, uint64_t count) {
            StringOffsets found = string_offsets(bytes.data(), bytes.size(), start, count);
            return nb::make_tuple(take(std::move(found.starts), count), take(std::move(found.lengths), count),
                                  found.end);
        },
        "bytes"_a, "start"_a, "count"_a,
        "Where `count` strings from `start` on lie: (starts i64[count], lengths i64[count], end).");

    m.def(
        "copy_to_huge_pages",
        [](const std::vector<Bytes>& arrays, int threads) {
            size_t total = 0;
            for (const Bytes& array : arrays) total += aligned(array.size());
            auto memory = std::make_shared<HugePages>(total);
            std::vector<CopyJob> jobs;
            std::vector<nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>> copies;
            uint8_t* to = memory->data();
            for (const Bytes& array : arrays) {
                jobs.push_back({array.data(), to, array.size()});
                auto keep = std::make_unique<std::shared_ptr<HugePages>>(memory);
                nb::capsule owner(
                    keep.get(), [](void* p) noexcept { delete static_cast<std::shared_ptr<HugePages>*>(p); });
                keep.release();
                copies.emplace_back(to, std::initializer_list<size_t>{array.size()}, owner);
                to += aligned(array.size());
            }
            {
                const nb::gil_scoped_release unlocked;
                copy_all(jobs, threads);
            }
            return copies;
        },
        "arrays"_a, "threads"_a,
        "Copies of u8[n] arrays, read-only, in memory of large pages; pages of a mapping are released behind "
        "them.");
}

}  // namespace clarion
