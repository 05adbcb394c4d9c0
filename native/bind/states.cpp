// The memory of recurrent states, as src/clarion/runtime/states sees it. Programs take it by a capsule.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <span>
#include <utility>
#include <vector>

#include "bind/store.h"
#include "machine/slot_states.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<nb::memview, float, nb::ndim<1>>;

// What a run does to a slot: the arrays that it reads and writes.
nb::tuple begin(nb::handle self, int64_t layer, int64_t slot, int64_t position, int64_t n) {
    auto& states = nb::cast<SlotStates&>(self);
    const SlotRun run = states.begin(layer, slot, position, n);
    const auto [size, log] = states.layers()[static_cast<size_t>(layer)];
    const auto view = [&](const float* data, int64_t floats) -> nb::object {
        if (!data) return nb::none();
        return nb::cast(Floats(const_cast<float*>(data), {static_cast<size_t>(floats)}, self));
    };
    nb::list replayed, kept, saves;
    for (int64_t p = run.replay_from; p < position; ++p) replayed.append(view(run.old_log(p), log));
    for (int64_t p = position; p < position + n; ++p) kept.append(view(run.new_log(p), log));
    for (int i = 0; i < 2; ++i)
        if (run.save[i]) saves.append(nb::make_tuple(run.save_at[i], view(run.save[i], size)));
    return nb::make_tuple(view(run.start, size), replayed, kept, saves, view(run.current, size));
}

}  // namespace

void bind_states(nb::module_& m) {
    nb::class_<SlotStates>(m, "SlotStates", "Recurrent states of slots, and snapshots of them.")
        .def(
            "__init__",
            [](SlotStates* self, const std::vector<std::pair<int64_t, int64_t>>& layers, int64_t slots,
               int64_t snapshots) {
                std::vector<SlotStates::Layer> shapes;
                for (const auto& [size, log] : layers) shapes.push_back({size, log});
                new (self) SlotStates(std::move(shapes), slots, snapshots);
            },
            "layers"_a, "slots"_a, "snapshots"_a = 0, "layers: floats of each one's state, and of its log.")
        .def_prop_ro("slots", &SlotStates::slots)
        .def_prop_ro("snapshots", &SlotStates::snapshots)
        .def_prop_ro("slot_bytes", &SlotStates::slot_bytes)
        .def_prop_ro("snapshot_bytes", &SlotStates::snapshot_bytes)
        .def_prop_ro(
            "native", [](SlotStates& self) { return nb::capsule(&self, SlotStates::capsule); },
            "What `Program.run` takes, while this object lives.")
        .def("first", &SlotStates::first, "slot"_a, "position"_a,
             "The first position from which on each one up to this one can be gone back to.")
        .def("settled", &SlotStates::settled, "slot"_a, "position"_a,
             "The last position up to this one of which a snapshot can be saved; 0 if there is none.")
        .def("reset", &SlotStates::reset, "slot"_a)
        .def("copy", &SlotStates::copy, "slot"_a, "other"_a)
        .def("save", &SlotStates::save, "slot"_a, "position"_a, "snapshot"_a)
        .def("restore", &SlotStates::restore, "snapshot"_a, "slot"_a, "position"_a)
        .def("layer_bytes", &SlotStates::layer_bytes, "layer"_a)
        .def(
            "write",
            [](const SlotStates& self, int64_t layer, int64_t slot, int64_t position, Writable to) {
                self.write(layer, slot, position, std::as_writable_bytes(std::span(to.data(), to.size())));
            },
            "layer"_a, "slot"_a, "position"_a, "to"_a.noconvert(), "A layer of a slot as bytes, for `read`.")
        .def(
            "read",
            [](SlotStates& self, int64_t layer, int64_t slot, int64_t position, Bytes from) {
                self.read(layer, slot, position, std::as_bytes(std::span(from.data(), from.size())));
            },
            "layer"_a, "slot"_a, "position"_a, "from_"_a.noconvert())
        .def(
            "begin", &begin, "layer"_a, "slot"_a, "position"_a, "n"_a,
            "What an operation does for n tokens, for who does it in Python: (start, rows to apply again, "
            "rows to keep, [(position, copy to make)], current), arrays of float32; start is None for zeros, "
            "a row that is not kept is None.");
}

}  // namespace clarion
