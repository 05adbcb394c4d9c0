// Machine, KvCache and Program. A program's specification is a dict (see docs/machine.md); what it says is
// checked in machine/program.cpp, here only that each entry is there and of the right type.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bind/bind.h"
#include "machine/epilogue.h"
#include "machine/kv_cache.h"
#include "machine/message.h"
#include "machine/names.h"
#include "machine/op.h"
#include "machine/pool.h"
#include "machine/program.h"
#include "machine/slot_states.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
T as(nb::handle value, Message where, bool convert = true) {
    T result;
    if (!nb::try_cast(value, result, convert)) refuse({text(where), ": found ", nb::repr(value).c_str()});
    return result;
}

// One of the spec's dictionaries, and its place for messages.
struct Entry {
    nb::dict dict;
    std::string where;

    Entry(nb::handle value, std::string place) : where(std::move(place)) {
        if (!nb::isinstance<nb::dict>(value)) refuse({where, ": expected a dict"});
        dict = nb::borrow<nb::dict>(value);
    }
    nb::object operator[](const char* key) const {
        nb::object value = dict.attr("get")(key);
        if (value.is_none()) refuse({where, ": lacks '", key, "'"});
        return value;
    }
    template <typename T>
    [[gnu::noinline]] T get(const char* key) const {
        return as<T>((*this)[key], {where, ".", key});
    }
    int64_t integer(const char* key) const { return get<int64_t>(key); }
    std::string string(const char* key) const { return get<std::string>(key); }
    std::vector<int64_t> indices(const char* key) const { return get<std::vector<int64_t>>(key); }
    template <typename T>
    [[gnu::noinline]] std::map<std::string, T> map(const char* key) const {
        const Entry values((*this)[key], text({where, ".", key}));
        std::map<std::string, T> result;
        for (auto [name, value] : values.dict)
            result[as<std::string>(name, {values.where})] = as<T>(value, {values.where});
        return result;
    }
    [[gnu::noinline]] std::vector<Entry> list(const char* key) const {
        const nb::object values = (*this)[key];
        const std::string place = text({where, ".", key});
        if (!nb::isinstance<nb::list>(values)) refuse({place, ": expected a list"});
        std::vector<Entry> result;
        for (nb::handle value : values) result.emplace_back(value, text({place, "[", result.size(), "]"}));
        return result;
    }
};

// A program, the arrays that it points into and the weights of stores that it reads.
class BoundProgram {
  public:
    BoundProgram(Pool& pool, nb::dict dict, int threads)
        : pool_(pool), program_(pool, read(Entry(dict, "spec")), threads) {}

    int threads() const { return program_.threads(); }
    std::vector<int64_t> items() const { return {program_.items().begin(), program_.items().end()}; }

    bool run(nb::list states, Vector tokens, Vector positions, Vector sequences, nb::list tables,
             Vector outputs, nb::handle epilogue) {
        const size_t n = tokens.shape(0);
        if (positions.shape(0) != n || sequences.shape(0) != n)
            refuse({"found ", n, " tokens, ", positions.shape(0), " positions and ", sequences.shape(0),
                    " sequences, expected as many of each"});
        if (states.size() != tables.size())
            refuse({"found ", states.size(), " groups of states and ", tables.size(), " tables"});
        int64_t n_sequences = INT32_MAX;  // without states, sequences are names and nothing else
        std::vector<Matrix> kept;
        std::vector<StateGroup> groups;
        for (size_t i = 0; i < tables.size(); ++i) {
            const Matrix& table = kept.emplace_back(as<Matrix>(tables[i], {"tables[", i, "]"}, false));
            groups.push_back({nullptr, nullptr, table.data(), static_cast<int64_t>(table.shape(1))});
            if (const nb::object state = states[i]; PyCapsule_IsValid(state.ptr(), SlotStates::capsule))
                groups[i].slots =
                    static_cast<SlotStates*>(PyCapsule_GetPointer(state.ptr(), SlotStates::capsule));
            else
                groups[i].cache = as<KvCache*>(state, {"states[", i, "]"});
            n_sequences = std::min(n_sequences, static_cast<int64_t>(table.shape(0)));
        }
        const Batch batch{static_cast<int64_t>(n),
                          static_cast<int64_t>(outputs.shape(0)),
                          tokens.data(),
                          positions.data(),
                          sequences.data(),
                          outputs.data(),
                          n_sequences,
                          groups};
        const Epilogue* then = nullptr;
        if (!epilogue.is_none()) {
            then = static_cast<const Epilogue*>(PyCapsule_GetPointer(epilogue.ptr(), Epilogue::capsule));
            if (!then) throw nb::python_error();
        }
        const nb::gil_scoped_release release;
        if (!program_.run(batch)) return false;
        if (!then) return true;
        if (const int threads = program_.threads(); threads > 1 && then->n > 1)
            pool_.each(threads, then->n,
                       [=](int64_t i, int thread) { then->item(then->context, i, thread); });
        else
            for (int64_t i = 0; i < then->n; ++i) then->item(then->context, i, 0);
        return true;
    }

    void cancel() { program_.cancel(); }

    template <typename Framework>
    nb::object buffer(const std::string& name) {
        const Buffer& b = program_.buffer(name);
        const size_t shape[2] = {static_cast<size_t>(program_.max_rows(b)), static_cast<size_t>(b.width)};
        const int64_t strides[2] = {b.row_bytes / 4, 1};
        const nb::handle owner = nb::find(this);
        if (b.kind == Kind::f32)
            return nb::cast(nb::ndarray<Framework, float>(b.data, 2, shape, owner, strides));
        if (b.kind == Kind::i32)
            return nb::cast(nb::ndarray<Framework, int32_t>(b.data, 2, shape, owner, strides));
        refuse({"buffer '", name, "' is encoded"});
    }

  private:
    [[gnu::noinline]] ProgramSpec read(const Entry& spec) {
        ProgramSpec result{};
        result.arena_bytes = spec.integer("arena_bytes");
        result.max_tokens = spec.integer("max_tokens");
        result.max_outputs = spec.integer("max_outputs");
        for (const Entry& b : spec.list("buffers")) {
            auto& buffer = result.buffers.emplace_back();
            buffer.name = b.string("name");
            buffer.kind = kind_named(b.string("kind"), {b.where, ".kind"});
            buffer.rows = rows_named(b.string("rows"), {b.where, ".rows"});
            buffer.width = b.integer("width");
            buffer.offset = b.integer("offset");
            buffer.slots_per_token = b.integer("slots_per_token");
        }
        for (const Entry& w : spec.list("weights")) {
            auto& weight = result.weights.emplace_back();
            weight.name = w.string("name");
            weight.format = static_cast<int>(std::clamp<int64_t>(w.integer("format"), -1, INT32_MAX));
            weight.rows = w.integer("rows");
            weight.cols = w.integer("cols");
            weight.experts = w.integer("experts");
            const nb::object data = w["data"];
            if (PyCapsule_IsValid(data.ptr(), extents_capsule)) {
                weight.extents =
                    static_cast<const Extents*>(PyCapsule_GetPointer(data.ptr(), extents_capsule));
                capsules_.push_back(data);
                continue;
            }
            weight.panels = w.dict.contains("panels") && w.get<bool>("panels");
            data_.push_back(w.get<Bytes>("data"));
            weight.data = {reinterpret_cast<const std::byte*>(data_.back().data()), data_.back().nbytes()};
        }
        for (const Entry& o : spec.list("ops")) {
            auto& op = result.ops.emplace_back();
            op.op = o.string("op");
            op.inputs = o.indices("inputs");
            op.outputs = o.indices("outputs");
            op.weights = o.indices("weights");
            op.ints = o.map<int64_t>("ints");
            op.floats = o.map<double>("floats");
            op.arrays = o.map<std::vector<double>>("arrays");
        }
        for (const auto& place : spec.get<std::vector<std::vector<int64_t>>>("states")) {
            if (place.size() != 2) refuse({"spec.states: expected (group, layer) for each"});
            result.states.push_back({place[0], place[1]});
        }
        return result;
    }

    std::vector<Bytes> data_;
    std::vector<nb::object> capsules_;
    Pool& pool_;
    Program program_;
};

KvCache make_cache(const std::vector<std::vector<int64_t>>& layers, int64_t pages, int64_t page_size,
                   const std::string& keys, const std::string& values) {
    if (page_size != KvCache::page_size)
        refuse({"page_size: found ", page_size, ", expected ", KvCache::page_size});
    std::vector<KvCache::Layer> shapes;
    for (const auto& layer : layers) {
        if (layer.size() != 3) refuse({"layers: expected (n_head_kv, dim_k, dim_v) for each"});
        shapes.push_back({layer[0], layer[1], layer[2]});
    }
    return KvCache(std::move(shapes), pages, {kv_format(keys), kv_format(values.empty() ? keys : values)});
}

}  // namespace

void bind_machine(nb::module_& m) {
    m.def("op_names", &op_names, "The operations that a program may use.");

    nb::class_<Pool>(m, "Machine", nb::is_weak_referenceable(),
                     "The threads that run programs; l1 and l2: bytes of cache for each; fetch_near: see "
                     "tiling.h; processors: a mask for each.")
        .def(
            "__init__",
            [](Pool* self, int threads, int64_t l1, int64_t l2, bool fetch_near,
               const nb::bytes& processors) {
                new (self)
                    Pool(threads, Tiling({l1, l2}, fetch_near), {processors.c_str(), processors.size()});
            },
            "threads"_a, "l1"_a = Caches().l1, "l2"_a = Caches().l2, "fetch_near"_a = false,
            "processors"_a = nb::bytes("", 0))
        .def_prop_ro("threads", &Pool::threads)
        .def(
            "grow",
            [](Pool& self, int threads, const nb::bytes& processors) {
                const nb::gil_scoped_release unlocked;
                self.grow(threads, {processors.c_str(), processors.size()});
            },
            "threads"_a, "processors"_a = nb::bytes("", 0), "Starts threads until there are so many.");

    nb::class_<KvCache>(m, "KvCache", "Keys and values of all layers, in pages of 64 positions.")
        .def(
            "__init__",
            [](KvCache* self, const std::vector<std::vector<int64_t>>& layers, int64_t pages,
               int64_t page_size, const std::string& keys, const std::string& values) {
                new (self) KvCache(make_cache(layers, pages, page_size, keys, values));
            },
            "layers"_a, "pages"_a, "page_size"_a = KvCache::page_size, "keys"_a = "f16", "values"_a = "",
            "Formats: f32, f16, bf16, q8_0, q4_0; values are stored as keys if not given.")
        .def_prop_ro("bytes", &KvCache::bytes)
        .def_prop_ro("pages", &KvCache::pages)
        .def_prop_ro("page_bytes", &KvCache::page_bytes)
        .def(
            "page",
            [](KvCache& self, int64_t page) {
                const std::span<std::byte> bytes = self.page(page);
                return nb::ndarray<nb::memview, uint8_t, nb::ndim<1>>(bytes.data(), {bytes.size()},
                                                                      nb::find(self));
            },
            "page"_a, "The bytes of a page in all layers, u8 [page_bytes], to be saved and put back.")
        .def("copy_page", &KvCache::copy_page, "source"_a, "destination"_a);

    nb::class_<BoundProgram>(m, "Program", "A program, ready to run batches.")
        .def(nb::init<Pool&, nb::dict, int>(), "machine"_a, "spec"_a, "threads"_a = 0, nb::keep_alive<1, 2>())
        .def_prop_ro("threads", &BoundProgram::threads)
        .def_prop_ro("items", &BoundProgram::items,
                     "Into how many items each operation of the last run split; not while one goes on.")
        .def("run", &BoundProgram::run, "states"_a, "tokens"_a.noconvert(), "positions"_a.noconvert(),
             "sequences"_a.noconvert(), "tables"_a.noconvert(), "outputs"_a.noconvert(),
             "epilogue"_a.none() = nb::none(),
             "Runs one batch, with the interpreter lock released, and then the epilogue; False, without it, "
             "if it was cancelled.")
        .def("cancel", &BoundProgram::cancel,
             "Ends the run in progress between two operations; from any thread.")
        .def("buffer", &BoundProgram::buffer<nb::numpy>, "name"_a,
             "A buffer's rows, a view of the arena: an array of f32 or i32.")
        .def("rows", &BoundProgram::buffer<nb::memview>, "name"_a,
             "The same as a memoryview, without numpy.");
}

}  // namespace clarion
