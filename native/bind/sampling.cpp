// Choosing the next token: plain arithmetic, the same bits whatever the instruction set, in a module of its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "machine/message.h"
#include "sampling/sampler.h"

namespace nb = nanobind;

namespace clarion {

namespace {

template <typename T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename T>
T field(const nb::dict& parameters, const char* name) {
    return nb::cast<T>(parameters[name]);
}

SamplingParameters parameters_from(const nb::dict& d) {
    SamplingParameters p;
    for (auto [token, value] : field<nb::dict>(d, "logit_bias"))
        p.bias.emplace_back(nb::cast<int32_t>(token), nb::cast<double>(value));
    p.repeat_penalty = field<double>(d, "repeat_penalty");
    p.presence_penalty = field<double>(d, "presence_penalty");
    p.frequency_penalty = field<double>(d, "frequency_penalty");
    p.penalty_window = field<int64_t>(d, "penalty_window");
    p.dry_multiplier = field<double>(d, "dry_multiplier");
    p.dry_base = field<double>(d, "dry_base");
    p.dry_allowed_length = field<int64_t>(d, "dry_allowed_length");
    p.dry_window = field<int64_t>(d, "dry_window");
    for (auto token : field<nb::iterable>(d, "dry_breakers"))
        p.dry_breakers.push_back(nb::cast<int32_t>(token));
    p.filters.top_k = field<int64_t>(d, "top_k");
    p.filters.typical_p = field<double>(d, "typical_p");
    p.filters.top_p = field<double>(d, "top_p");
    p.filters.min_p = field<double>(d, "min_p");
    p.temperature = field<double>(d, "temperature");
    p.seed = field<uint64_t>(d, "seed");
    return p;
}

const float* logits_of(const Sampler& sampler, const Array<float>& logits) {
    if (static_cast<int64_t>(logits.shape(0)) != sampler.n_vocab())
        refuse({"logits and sampler differ in vocabulary size"});
    return logits.data();
}

nb::list as_list(const std::vector<TokenProbability>& pairs) {
    nb::list result;
    for (const auto& [token, probability] : pairs) result.append(nb::make_tuple(token, probability));
    return result;
}

}  // namespace

NB_MODULE(sampling, m) {
    nb::set_leak_warnings(false);
    nb::class_<SamplerState>(m, "SamplerState")
        .def("__init__",
             [](SamplerState* self, int64_t n_vocab, const nb::dict& parameters) {
                 new (self) SamplerState(n_vocab, parameters_from(parameters));
             })
        .def("extend", [](SamplerState& self, const Array<int32_t>& tokens) {
            self.extend(tokens.data(), static_cast<int64_t>(tokens.shape(0)));
        });
    nb::class_<Sampler>(m, "Sampler")
        .def(nb::init<int64_t>())
        .def("sample",
             [](Sampler& self, SamplerState& state, const Array<float>& logits) {
                 // Keeps the interpreter's lock: a busy Python thread would give it back after 5 ms only.
                 return self.sample(state, logits_of(self, logits));
             })
        .def("survivors",
             [](Sampler& self, const SamplerState& state, const Array<float>& logits) {
                 return as_list(self.survivors(state, logits_of(self, logits)));
             })
        .def("log_probabilities", [](Sampler& self, const Array<float>& logits, int32_t token, int64_t n) {
            return as_list(self.log_probabilities(logits_of(self, logits), token, n));
        });
}

}  // namespace clarion
