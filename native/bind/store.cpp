// The store of weights, as its policies see it (src/clarion/residency).
#include "residency/store.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bind/store.h"
#include "residency/copying.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A unit, for its writer. It keeps alive what its extents point to, and what runs may still read of earlier copies.
class BoundUnit {
  public:
    BoundUnit(Store& store, Extents& extents)
        : store_(store), extents_(extents), placed_(static_cast<size_t>(extents.count())) {}

    int64_t count() const { return extents_.count(); }
    std::pair<int64_t, int64_t> span(int64_t extent) const {
        check(extent);
        const int64_t begin = extents_.first_row(extent) * extents_.row_bytes;
        return {begin, begin + extents_.n_rows(extent) * extents_.row_bytes};
    }
    std::optional<std::pair<uintptr_t, bool>> at(int64_t extent) const {
        check(extent);
        const Extent found = extents_.at(extent);
        if (found.data == nullptr) return std::nullopt;
        return std::pair(reinterpret_cast<uintptr_t>(found.data), found.panels);
    }
    uint64_t place(int64_t extent, Bytes data, bool panels) {
        const auto [begin, end] = span(extent);
        if (static_cast<int64_t>(data.size()) != end - begin)
            throw std::invalid_argument("extent " + std::to_string(extent) + ": found " +
                                        std::to_string(data.size()) + " bytes, expected " +
                                        std::to_string(end - begin));
        const uint64_t version =
            store_.place(extents_, extent, data.data(), panels ? Layout::panels : Layout::rows);
        retire(extent, version, std::move(data));
        return version;
    }
    bool evict(int64_t extent) {
        if (!store_.evict(extents_, extent)) return false;
        retire(extent, 0, {});
        return true;
    }
    static nb::object capsule(nb::handle self) {
        const auto& unit = nb::cast<const BoundUnit&>(self);
        nb::object result = nb::steal(PyCapsule_New(&unit.extents_, extents_capsule, [](PyObject* capsule) {
            Py_DECREF(static_cast<PyObject*>(PyCapsule_GetContext(capsule)));
        }));
        if (!result.is_valid() || PyCapsule_SetContext(result.ptr(), self.inc_ref().ptr()) != 0)
            throw nb::python_error();
        return result;
    }

  private:
    void check(int64_t extent) const {
        if (extent < 0 || extent >= count()) throw nb::index_error("the unit has no such extent");
    }
    void retire(int64_t extent, uint64_t version, Bytes data) {
        Bytes& placed = placed_[static_cast<size_t>(extent)];
        std::swap(placed, data);
        const uint64_t reached = store_.reached();
        while (!retired_.empty() && retired_.front().first <= reached) retired_.pop_front();
        if (data.is_valid() && version > reached) retired_.emplace_back(version, std::move(data));
    }

    Store& store_;
    Extents& extents_;
    std::vector<Bytes> placed_;
    std::deque<std::pair<uint64_t, Bytes>> retired_;  // the version that replaced them, ascending
};

// Inside a store, from enter() to leave() or to its end.
class Run {
  public:
    Run(Store& store, bool urgent) : store_(store), urgent_(urgent) {}
    ~Run() { leave(); }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    uint64_t enter() {
        if (version_) throw std::invalid_argument("the run is inside already");
        version_ = store_.enter(urgent_);
        return *version_;
    }
    void leave() {
        if (version_) store_.leave(*version_, urgent_);
        version_.reset();
    }

  private:
    Store& store_;
    const bool urgent_;
    std::optional<uint64_t> version_;
};

}  // namespace

void bind_store(nb::module_& m) {
    nb::class_<BoundUnit>(m, "Unit", "A weight in a store, for its one writer.")
        .def_prop_ro("count", &BoundUnit::count, "Extents.")
        .def("span", &BoundUnit::span, "extent"_a, "Its first byte within the weight, and its end.")
        .def("at", &BoundUnit::at, "extent"_a, "Its address and whether it is panels; None: not resident.")
        .def("place", &BoundUnit::place, "extent"_a, "data"_a.noconvert(), "panels"_a = false,
             "From now on the extent lies there: u8[n]. Returns the store's version, from which on runs read "
             "it.")
        .def("evict", &BoundUnit::evict, "extent"_a,
             "The extent lies nowhere; False, and it stays, while a run is inside.")
        .def_prop_ro("reader", &BoundUnit::capsule, "What a program takes in place of the weight's bytes.");

    nb::class_<Run>(m, "Run", "Inside a store, as a run of a program is.")
        .def("__enter__", &Run::enter, "The version that it reads, or a later one.")
        .def("__exit__", [](Run& run, nb::args) { run.leave(); });

    nb::class_<Store> store(m, "Store",
                            "Which extent of which weight lies where, and who may read earlier copies.");
    store.attr("DEFAULT_EXTENT_BYTES") = Store::default_extent_bytes;
    store
        .def(nb::init<int64_t>(), "extent_bytes"_a = Store::default_extent_bytes,
             "Extents have so many bytes at most, but 16 rows at least.")
        .def(
            "add",
            [](Store& store, int64_t rows, int64_t experts, int64_t row_bytes, bool panels) {
                return new BoundUnit(store, store.add(rows, experts, row_bytes, panels));
            },
            "rows"_a, "experts"_a, "row_bytes"_a, "panels"_a = false, nb::rv_policy::take_ownership,
            nb::keep_alive<0, 1>(), "A unit of which nothing is resident; its copies may be panels.")
        .def(
            "run", [](Store& store, bool urgent) { return new Run(store, urgent); }, "urgent"_a = false,
            nb::keep_alive<0, 1>(), "What a program does while it runs, as a context manager.")
        .def("reached", &Store::reached, "Every run that began with an earlier version has ended.")
        .def("wait", &Store::wait, "version"_a, nb::call_guard<nb::gil_scoped_release>(),
             "Waits until so much is reached; False if the store ended before.")
        .def(
            "gate", [](const Store& store) { return store.gate().pass(); },
            nb::call_guard<nb::gil_scoped_release>(),
            "Waits while an urgent run is inside; False once the store has ended.")
        .def("end", &Store::end, "Ends what waits, for good; runs go on.");

    m.def(
        "copy",
        [](const Writable& to, const Bytes& from, const Store& store) {
            if (from.size() != to.size()) throw std::invalid_argument("copy: the sizes differ");
            const nb::gil_scoped_release unlocked;
            return copy(to.data(), from.data(), from.size(), store.gate());
        },
        "to"_a.noconvert(), "from_"_a.noconvert(), "store"_a,
        "Copies u8[n], with the interpreter lock released, but not while an urgent run is inside the store; "
        "False "
        "if it ended.");
}

}  // namespace clarion
