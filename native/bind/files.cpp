// Files and the memory that weights lie in: what is the same for every instruction set, in a module of its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "bind/store.h"
#include "formats/facts.h"
#include "residency/huge_pages.h"
#include "residency/mapping.h"
#include "residency/strings.h"
#include "tokenizer/merging.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewOffsets = nb::ndarray<nb::memview, int64_t, nb::ndim<1>>;

NewOffsets take(std::unique_ptr<int64_t[]> values, size_t count) {
    int64_t* data = values.get();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<int64_t*>(p); });
    values.release();
    return NewOffsets(data, {count}, owner);
}

std::vector<std::string_view> views(const Bytes& bytes, const Offsets& starts, const Offsets& lengths) {
    if (lengths.size() != starts.size()) throw std::invalid_argument("strings: as many lengths as starts");
    std::vector<std::string_view> found(starts.size());
    for (size_t i = 0; i < found.size(); ++i)
        found[i] = string_at(bytes.data(), bytes.size(), starts.data()[i], lengths.data()[i]);
    return found;
}

nb::list list_of(size_t size) {
    nb::list list = nb::steal<nb::list>(PyList_New(static_cast<Py_ssize_t>(size)));
    if (!list.is_valid()) throw nb::python_error();
    return list;
}

nb::list list_of(const std::vector<int32_t>& numbers) {
    nb::list list = list_of(numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
        PyObject* number = PyLong_FromLong(numbers[i]);
        if (number == nullptr) throw nb::python_error();
        PyList_SetItem(list.ptr(), static_cast<Py_ssize_t>(i), number);
    }
    return list;
}

// With texts of its own: those of a file may change under it.
class BoundMerging {
  public:
    BoundMerging(const std::vector<std::string_view>& merges, const std::vector<std::string_view>& tokens)
        : texts_(joined(merges, tokens)), merging_(views_of(merges, 0), views_of(tokens, total(merges))) {}

    std::vector<int32_t> encode(std::string_view word) const { return merging_.encode(word); }

  private:
    std::unique_ptr<char[]> texts_;
    Merging merging_;

    static size_t total(const std::vector<std::string_view>& strings) {
        size_t n = 0;
        for (const std::string_view string : strings) n += string.size();
        return n;
    }
    static std::unique_ptr<char[]> joined(const std::vector<std::string_view>& merges,
                                          const std::vector<std::string_view>& tokens) {
        auto texts = std::make_unique_for_overwrite<char[]>(total(merges) + total(tokens));
        char* to = texts.get();
        for (const auto* strings : {&merges, &tokens})
            for (const std::string_view string : *strings) to = std::copy(string.begin(), string.end(), to);
        return texts;
    }
    std::vector<std::string_view> views_of(const std::vector<std::string_view>& strings, size_t begin) const {
        std::vector<std::string_view> own;
        own.reserve(strings.size());
        for (const std::string_view string : strings) {
            own.emplace_back(texts_.get() + begin, string.size());
            begin += string.size();
        }
        return own;
    }
};

// Texts; what is no UTF-8 becomes lone surrogates.
template <typename String>
nb::list decoded(const std::vector<String>& strings) {
    nb::list texts = list_of(strings.size());
    for (size_t i = 0; i < strings.size(); ++i) {
        PyObject* text = PyUnicode_DecodeUTF8(strings[i].data(), static_cast<Py_ssize_t>(strings[i].size()),
                                              "surrogateescape");
        if (text == nullptr) throw nb::python_error();
        PyList_SetItem(texts.ptr(), static_cast<Py_ssize_t>(i), text);
    }
    return texts;
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
        .def("populate", &Mapping::populate,
             "Begins to map the pages that are in memory, in the background; the first reads of them cause "
             "no faults.")
        .def_prop_ro(
            "bytes",
            [](nb::handle self) {
                const auto& mapping = nb::cast<const Mapping&>(self);
                return nb::ndarray<nb::memview, const uint8_t, nb::ndim<1>>(mapping.data(), {mapping.size()},
                                                                            self);
            },
            "A memoryview of u8[size], read-only; keeps the mapping alive.");

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
        "formats",
        [] {
            nb::list list;
            for (const FormatFacts& f : format_facts())
                list.append(nb::make_tuple(f.id, f.name, f.block, f.bytes));
            return list;
        },
        "(type id, name, weights in a block, bytes in a block) of each weight format.");

    m.def(
        "string_offsets",
        [](const Bytes& bytes, uint64_t start, uint64_t count) {
            StringOffsets found = string_offsets(bytes.data(), bytes.size(), start, count);
            return nb::make_tuple(take(std::move(found.starts), count), take(std::move(found.lengths), count),
                                  found.end);
        },
        "bytes"_a, "start"_a, "count"_a,
        "Where `count` strings from `start` on lie: memoryviews of i64[count], starts and lengths, and the "
        "end.");

    m.def(
        "strings",
        [](const Bytes& bytes, const Offsets& starts, const Offsets& lengths) {
            return decoded(views(bytes, starts, lengths));
        },
        "bytes"_a, "starts"_a.noconvert(), "lengths"_a.noconvert(),
        "The strings that lie there, as a list; what is no UTF-8 becomes lone surrogates.");

    nb::class_<BoundMerging>(m, "Merging", "Merges the characters of words by rank, until they are tokens.")
        .def(
            "__init__",
            [](BoundMerging* self, const Bytes& bytes, const Offsets& starts, const Offsets& lengths,
               const Bytes& token_bytes, const Offsets& token_starts, const Offsets& token_lengths) {
                try {
                    new (self) BoundMerging(views(bytes, starts, lengths),
                                            views(token_bytes, token_starts, token_lengths));
                } catch (const Merging::NoMerge& merge) {
                    PyErr_SetObject(PyExc_ValueError, nb::int_(merge.index).ptr());
                    throw nb::python_error();
                }
            },
            "bytes"_a, "starts"_a.noconvert(), "lengths"_a.noconvert(), "token_bytes"_a,
            "token_starts"_a.noconvert(), "token_lengths"_a.noconvert(),
            "Of the merges that lie there, each two symbols with a space between; the first of equal ones "
            "counts. "
            "A ValueError\nhas the number of one that is no merge.")
        .def(
            "encode",
            [](const BoundMerging& self, std::string_view word) { return list_of(self.encode(word)); },
            "word"_a, "The tokens of a word in UTF-8; what is none gives -1 - byte for each of its bytes.");

    nb::class_<HugePages>(m, "HugePages", "Zeros, in huge pages as far as the system has them.")
        .def(nb::init<size_t>(), "size"_a)
        .def_prop_ro(
            "bytes",
            [](nb::handle self) {
                auto& memory = nb::cast<HugePages&>(self);
                return nb::ndarray<nb::memview, uint8_t, nb::ndim<1>>(memory.data(), {memory.size()}, self);
            },
            "A memoryview of u8[size]; keeps the memory alive.");

    bind_store(m);
    bind_states(m);

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
