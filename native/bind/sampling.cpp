// Choosing the next token, and scoring choices: plain arithmetic, the same bits whatever the instruction set, in a module of its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "machine/epilogue.h"
#include "machine/message.h"
#include "sampling/sampler.h"
#include "sampling/scores.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace clarion {

namespace {

template <typename T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

using Rows =
    nb::ndarray<nb::ro, nb::ndim<2>, nb::device::cpu>;  // or it would be copied where rows are padded
template <typename T>
using Column = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

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

LogitRows rows_of(const Rows& rows) {
    const auto n_vocab = static_cast<int64_t>(rows.shape(1));
    if (n_vocab > 1 && rows.stride(1) != 1) refuse({"logits of a row do not lie beside each other"});
    if (rows.dtype() == nb::dtype<float>())
        return {static_cast<const float*>(rows.data()), n_vocab, rows.stride(0)};
    if (rows.dtype() == nb::dtype<double>())
        return {static_cast<const double*>(rows.data()), n_vocab, rows.stride(0)};
    refuse({"rows of logits are neither float32 nor float64"});
}

void score_rows(const Rows& logits, const Array<int64_t>& targets, const std::optional<Rows>& reference,
                int threads, const Column<double>& surprise, const Column<double>& divergence,
                const Column<int64_t>& choice) {
    const size_t n = logits.shape(0);
    const LogitRows rows = rows_of(logits);
    if (rows.n_vocab() < 1) refuse({"rows of logits are empty"});
    if (targets.shape(0) != n || surprise.shape(0) != n || divergence.shape(0) != n || choice.shape(0) != n)
        refuse({"targets or scores are not one for each of ", n, " rows"});
    for (size_t i = 0; i < n; ++i)
        if (targets.data()[i] < 0 || targets.data()[i] >= rows.n_vocab())
            refuse({"target ", targets.data()[i], " is not in a vocabulary of ", rows.n_vocab()});
    if (reference && (reference->shape(0) != n || reference->shape(1) != logits.shape(1)))
        refuse({"the reference's rows differ in number or vocabulary size"});
    const std::optional<LogitRows> others = reference ? std::optional(rows_of(*reference)) : std::nullopt;
    const nb::gil_scoped_release unlocked;
    score(rows, targets.data(), others ? &*others : nullptr, static_cast<int64_t>(n), threads,
          {surprise.data(), divergence.data(), choice.data()});
}

nb::list as_list(const std::vector<TokenProbability>& pairs) {
    nb::list result;
    for (const auto& [token, probability] : pairs) result.append(nb::make_tuple(token, probability));
    return result;
}

// The next tokens of several states, each from its row of logits: a run's epilogue. What came of each is a token, or the
// message of an error. Who holds it holds the states and the logits, too.
class Drawing {
  public:
    Drawing(std::deque<Sampler>& samplers, std::vector<SamplerState*> states, const Rows& logits,
            std::vector<int64_t> rows)
        : samplers_(samplers),
          states_(std::move(states)),
          rows_(std::move(rows)),
          tokens_(states_.size()),
          errors_(states_.size()),
          epilogue_{static_cast<int64_t>(states_.size()), &item, this} {
        const LogitRows table = rows_of(logits);
        if (table.n_vocab() != samplers_[0].n_vocab() || logits.dtype() != nb::dtype<float>())
            refuse({"logits are no float32 rows of the vocabulary's size"});
        if (rows_.size() != states_.size()) refuse({"rows are not one for each state"});
        for (const int64_t row : rows_)
            if (row < 0 || row >= static_cast<int64_t>(logits.shape(0)))
                refuse({"row ", row, " of logits: there is none"});
        if (std::find(states_.begin(), states_.end(), nullptr) != states_.end()) refuse({"a state is None"});
        if (states_.size() > 1 && std::set(states_.begin(), states_.end()).size() != states_.size())
            refuse({"two states are one"});
        logits_ = static_cast<const float*>(logits.data());
        stride_ = logits.stride(0);
    }
    Drawing(const Drawing&) = delete;

    nb::capsule epilogue() { return nb::capsule(&epilogue_, Epilogue::capsule); }

    nb::list tokens() const {
        nb::list result;
        for (size_t i = 0; i < states_.size(); ++i)
            result.append(errors_[i].empty() ? nb::object(nb::int_(tokens_[i]))
                                             : nb::object(nb::str(errors_[i].c_str())));
        return result;
    }

  private:
    static void item(void* context, int64_t item, int thread) {
        auto& self = *static_cast<Drawing*>(context);
        const auto i = static_cast<size_t>(item);
        try {
            self.tokens_[i] = self.samplers_[static_cast<size_t>(thread)].sample(
                *self.states_[i], self.logits_ + self.rows_[i] * self.stride_);
        } catch (const std::exception& error) {
            self.errors_[i] = error.what();
        }
    }

    std::deque<Sampler>& samplers_;
    std::vector<SamplerState*> states_;
    std::vector<int64_t> rows_;
    const float* logits_ = nullptr;
    int64_t stride_ = 0;
    std::vector<int32_t> tokens_;
    std::vector<std::string> errors_;
    Epilogue epilogue_;
};

// A workspace for each thread that draws.
class Samplers {
  public:
    Samplers(int64_t n_vocab, int threads) {
        if (threads < 1) refuse({"threads: found ", threads, ", expected at least 1"});
        for (int t = 0; t < threads; ++t) samplers_.emplace_back(n_vocab);
    }
    Samplers(const Samplers&) = delete;

    std::unique_ptr<Drawing> drawing(std::vector<SamplerState*> states, const Rows& logits,
                                     std::vector<int64_t> rows) {
        return std::make_unique<Drawing>(samplers_, std::move(states), logits, std::move(rows));
    }

    nb::list log_probabilities(const Rows& logits, int64_t row, int32_t token, int64_t n) {
        if (row < 0 || row >= static_cast<int64_t>(logits.shape(0)) || logits.dtype() != nb::dtype<float>() ||
            static_cast<int64_t>(logits.shape(1)) != samplers_[0].n_vocab())
            refuse({"row ", row, " of logits: there is none"});
        return as_list(samplers_[0].log_probabilities(
            static_cast<const float*>(logits.data()) + row * logits.stride(0), token, n));
    }

  private:
    std::deque<Sampler> samplers_;
};

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
    nb::class_<Drawing>(m, "Drawing", "Tokens to be drawn, as a run's epilogue.")
        .def_prop_ro("epilogue", &Drawing::epilogue)
        .def("tokens", &Drawing::tokens);
    nb::class_<Samplers>(m, "Samplers", "The sampling workspaces of a program's threads.")
        .def(nb::init<int64_t, int>(), "n_vocab"_a, "threads"_a)
        .def("drawing", &Samplers::drawing, "states"_a, "logits"_a, "rows"_a, nb::keep_alive<0, 1>(),
             nb::keep_alive<0, 2>(), nb::keep_alive<0, 3>())
        .def("log_probabilities", &Samplers::log_probabilities, "logits"_a, "row"_a, "token"_a, "n"_a);
    m.def("score", &score_rows, "logits"_a, "targets"_a, "reference"_a.none(), "threads"_a,
          "surprise"_a.noconvert(), "divergence"_a.noconvert(), "choice"_a.noconvert());
}

}  // namespace clarion
