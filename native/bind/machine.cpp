// Machine, KvCache and Program. A program's specification is a dict (see docs/machine.md); what it says is
// checked in machine/program.cpp, here only that each entry is there and of the right type.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind/bind.h"
#include "machine/kv_cache.h"
#include "machine/message.h"
#include "machine/op.h"
#include "machine/pool.h"
#include "machine/program.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
T as(nb::handle value, const std::string& where) {
    T result;
    if (!nb::try_cast(value, result)) refuse({where, ": found ", nb::repr(value).c_str()});
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
    T get(const char* key) const {
        return as<T>((*this)[key], text({where, ".", key}));
    }
    template <typename Use>
    void each(const char* key, Use use) const {
        const nb::object list = (*this)[key];
        const std::string place = text({where, ".", key});
        if (!nb::isinstance<nb::list>(list) && !nb::isinstance<nb::tuple>(list))
            refuse({place, ": expected a list"});
        size_t i = 0;
        for (nb::handle value : list) use(Entry(value, text({place, "[", i++, "]"})));
    }
    template <typename T>
    std::map<std::string, T> map(const char* key) const {
        const Entry values((*this)[key], text({where, ".", key}));
        std::map<std::string, T> result;
        for (auto [name, value] : values.dict)
            result[as<std::string>(name, values.where)] = as<T>(value, values.where);
        return result;
    }
};

Kind kind_of(const std::string& name, const std::string& where) {
    if (name == "f32") return Kind::f32;
    if (name == "fast") return Kind::fast;
    if (name == "high") return Kind::high;
    if (name == "i32") return Kind::i32;
    refuse({where, ".kind: found '", name, "', expected f32, fast, high or i32"});
}

Rows rows_of(const std::string& name, const std::string& where) {
    if (name == "tokens") return Rows::tokens;
    if (name == "outputs") return Rows::outputs;
    if (name == "slots") return Rows::slots;
    refuse({where, ".rows: found '", name, "', expected tokens, outputs or slots"});
}

// A program and the arrays that it points into.
class BoundProgram {
  public:
    BoundProgram(Pool& pool, nb::dict dict) : program_(pool, read(Entry(dict, "spec"))) {}

    bool run(KvCache* cache, Vector tokens, Vector positions, Vector sequences, Matrix pages,
             Vector outputs) {
        const size_t n = tokens.shape(0);
        if (positions.shape(0) != n || sequences.shape(0) != n)
            refuse({"found ", n, " tokens, ", positions.shape(0), " positions and ", sequences.shape(0),
                    " sequences, expected as many of each"});
        const Batch batch{static_cast<int64_t>(n),
                          static_cast<int64_t>(outputs.shape(0)),
                          tokens.data(),
                          positions.data(),
                          sequences.data(),
                          pages.data(),
                          static_cast<int64_t>(pages.shape(0)),
                          static_cast<int64_t>(pages.shape(1)),
                          outputs.data(),
                          cache};
        const nb::gil_scoped_release release;
        return program_.run(batch);
    }

    void cancel() { program_.cancel(); }

    nb::object buffer(const std::string& name) {
        const Buffer& b = program_.buffer(name);
        const size_t shape[2] = {static_cast<size_t>(program_.max_rows(b)), static_cast<size_t>(b.width)};
        const int64_t strides[2] = {b.row_bytes / 4, 1};
        const nb::handle owner = nb::find(this);
        if (b.kind == Kind::f32)
            return nb::cast(nb::ndarray<nb::numpy, float>(b.data, 2, shape, owner, strides));
        if (b.kind == Kind::i32)
            return nb::cast(nb::ndarray<nb::numpy, int32_t>(b.data, 2, shape, owner, strides));
        refuse({"buffer '", name, "' is encoded"});
    }

  private:
    ProgramSpec read(const Entry& spec) {
        ProgramSpec result{};
        result.arena_bytes = spec.get<int64_t>("arena_bytes");
        result.max_tokens = spec.get<int64_t>("max_tokens");
        result.max_outputs = spec.get<int64_t>("max_outputs");
        spec.each("buffers", [&](const Entry& b) {
            const Rows rows = rows_of(b.get<std::string>("rows"), b.where);
            const int64_t slots = rows == Rows::slots ? b.get<int64_t>("slots_per_token") : 0;
            result.buffers.push_back({b.get<std::string>("name"),
                                      kind_of(b.get<std::string>("kind"), b.where), rows,
                                      b.get<int64_t>("width"), b.get<int64_t>("offset"), slots});
        });
        spec.each("weights", [&](const Entry& w) {
            Bytes data = w.get<Bytes>("data");
            result.weights.push_back({w.get<std::string>("name"),
                                      w.get<int>("format"),
                                      w.get<int64_t>("rows"),
                                      w.get<int64_t>("cols"),
                                      w.get<int64_t>("experts"),
                                      {reinterpret_cast<const std::byte*>(data.data()), data.nbytes()}});
            data_.push_back(std::move(data));
        });
        spec.each("ops", [&](const Entry& op) {
            using Indices = std::vector<int64_t>;
            result.ops.push_back({op.get<std::string>("op"), op.get<Indices>("inputs"),
                                  op.get<Indices>("outputs"), op.get<Indices>("weights"),
                                  op.map<int64_t>("ints"), op.map<double>("floats"),
                                  op.map<std::vector<double>>("arrays")});
        });
        return result;
    }

    std::vector<Bytes> data_;
    Program program_;
};

KvCache make_cache(const std::vector<std::vector<int64_t>>& layers, int64_t pages, int64_t page_size,
                   const std::string& kind) {
    if (page_size != KvCache::page_size)
        refuse({"page_size: found ", page_size, ", expected ", KvCache::page_size});
    if (kind != "f16" && kind != "f32") refuse({"kind: found '", kind, "', expected f16 or f32"});
    std::vector<KvCache::Layer> shapes;
    for (const auto& layer : layers) {
        if (layer.size() != 3) refuse({"layers: expected (n_head_kv, dim_k, dim_v) for each"});
        shapes.push_back({layer[0], layer[1], layer[2]});
    }
    return KvCache(std::move(shapes), pages, kind == "f16" ? KvCache::Store::f16 : KvCache::Store::f32);
}

}  // namespace

void bind_machine(nb::module_& m) {
    m.def("op_names", &op_names, "The operations that a program may use.");

    nb::class_<Pool>(m, "Machine", "The threads that run programs.")
        .def(nb::init<int>(), "threads"_a)
        .def_prop_ro("threads", &Pool::threads);

    nb::class_<KvCache>(m, "KvCache", "Keys and values of all layers, in pages of 64 positions.")
        .def(
            "__init__",
            [](KvCache* self, const std::vector<std::vector<int64_t>>& layers, int64_t pages,
               int64_t page_size,
               const std::string& kind) { new (self) KvCache(make_cache(layers, pages, page_size, kind)); },
            "layers"_a, "pages"_a, "page_size"_a = KvCache::page_size, "kind"_a = "f16")
        .def_prop_ro("bytes", &KvCache::bytes)
        .def_prop_ro("pages", &KvCache::pages)
        .def("copy_page", &KvCache::copy_page, "source"_a, "destination"_a);

    nb::class_<BoundProgram>(m, "Program", "A plan, ready to run batches.")
        .def(nb::init<Pool&, nb::dict>(), "machine"_a, "spec"_a, nb::keep_alive<1, 2>())
        .def("run", &BoundProgram::run, "cache"_a.none(), "tokens"_a.noconvert(), "positions"_a.noconvert(),
             "sequences"_a.noconvert(), "pages"_a.noconvert(), "outputs"_a.noconvert(),
             "Runs one batch, with the interpreter lock released; False if it was cancelled.")
        .def("cancel", &BoundProgram::cancel,
             "Ends the run in progress between two operations; from any thread.")
        .def("buffer", &BoundProgram::buffer, "name"_a, "A buffer's rows, a view of the arena: f32 or i32.");
}

}  // namespace clarion
