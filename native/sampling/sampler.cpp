#include "sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "machine/message.h"
#include "sampling/philox.h"

namespace clarion {

namespace {

// Logits are looked at in blocks of this many: their maxima bound the k-th greatest logit from below, and
// only blocks that reach the bound are read a second time. 256 floats are 16 full cache lines.
constexpr int64_t block = 256;
constexpr int lanes = 16;
// A penalty this large excludes a token for certain and leaves its logit finite.
constexpr double largest_penalty = 1e30;

// e^x for x <= 0: x = n ln 2 + r with |r| <= ln 2 / 2, then the Taylor series up to r^13 / 13!, whose
// remainder is below half a unit in the last place. Basic operations only: the same bits on every processor.
inline double exp_negative(double x) {
    constexpr double shift = 0x1.8p52;  // adding it rounds to an integer and leaves that in the low bits
    const double clamped = x < -708.0 ? -708.0 : x;
    const double shifted = clamped * 0x1.71547652b82fep0 + shift;
    const double n = shifted - shift;
    const double r = (clamped - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);
    return x < -708.0 ? 0.0 : p * power;
}

// Sum of e^((x[i] - top) / temperature), in eight running sums; each term also goes to `terms` where that is
// given.
template <bool store>
double exp_sum(const float* x, int64_t n, float top, double temperature, double* terms) {
    double sums[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int l = 0; l < 8; ++l) {
            const double term = exp_negative((static_cast<double>(x[i + l]) - top) / temperature);
            if constexpr (store) terms[i + l] = term;
            sums[l] += term;
        }
    }
    for (; i < n; ++i) {
        const double term = exp_negative((static_cast<double>(x[i]) - top) / temperature);
        if constexpr (store) terms[i] = term;
        sums[i % 8] += term;
    }
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

}  // namespace

// ---- SamplerState

SamplerState::SamplerState(int64_t n_vocab, SamplingParameters parameters)
    : n_vocab_(n_vocab), parameters_(std::move(parameters)) {
    for (const auto& [token, value] : parameters_.bias) check(token);
    if (parameters_.dry_multiplier == 0.0) return;
    is_breaker_.resize(static_cast<size_t>(n_vocab));
    for (const int32_t token : parameters_.dry_breakers) {
        check(token);
        is_breaker_[token] = 1;
    }
}

void SamplerState::check(int32_t token) const {
    if (token < 0 || token >= n_vocab_) refuse({"token ", token, " is outside the vocabulary of ", n_vocab_});
}

void SamplerState::extend(const int32_t* tokens, int64_t n) {
    for (int64_t i = 0; i < n; ++i) check(tokens[i]);
    history_.insert(history_.end(), tokens, tokens + n);
}

// ---- Sampler: adjustments, on few tokens

Sampler::Sampler(int64_t n_vocab)
    : n_vocab_(n_vocab),
      n_blocks_((n_vocab + block - 1) / block),
      adjusted_(new float[n_vocab]),
      slot_(new int32_t[n_vocab]),
      block_max_(new float[n_blocks_]),
      token_(new int32_t[static_cast<size_t>(n_vocab) + 1]),
      logit_(new float[static_cast<size_t>(n_vocab) + 1]),
      weight_(new double[static_cast<size_t>(n_vocab) + 1]()),
      keys_(new Key[n_vocab]) {
    std::fill_n(slot_.get(), n_vocab, -1);
}

Sampler::Touched& Sampler::touch(int32_t token, const float* logits) {
    int32_t& slot = slot_[token];
    if (slot < 0) {
        slot = static_cast<int32_t>(touched_.size());
        touched_.push_back({token, 0, 0, logits[token]});
    }
    return touched_[slot];
}

// The logits to sample from: the given ones, or a copy where bias, penalties or DRY change some of them. Each
// changed logit is computed in double and rounded once.
const float* Sampler::adjust(const SamplerState& state, const float* logits) {
    touched_.clear();
    for (const auto& [token, value] : state.parameters_.bias) touch(token, logits).logit += value;
    penalize(state, logits);
    dry(state, logits);
    if (touched_.empty()) return logits;
    std::memcpy(adjusted_.get(), logits, static_cast<size_t>(n_vocab_) * sizeof(float));
    for (const Touched& t : touched_) {
        adjusted_[t.token] = static_cast<float>(t.logit);
        slot_[t.token] = -1;
    }
    return adjusted_.get();
}

void Sampler::penalize(const SamplerState& state, const float* logits) {
    const SamplingParameters& p = state.parameters_;
    if (p.repeat_penalty == 1.0 && p.presence_penalty == 0.0 && p.frequency_penalty == 0.0) return;
    const auto length = static_cast<int64_t>(state.history_.size());
    const int64_t window = p.penalty_window < 0 ? length : std::min(p.penalty_window, length);
    for (int64_t i = length - window; i < length; ++i) touch(state.history_[i], logits).count++;
    for (Touched& t : touched_) {
        if (t.count == 0) continue;
        t.logit = t.logit > 0.0 ? t.logit / p.repeat_penalty : t.logit * p.repeat_penalty;
        t.logit -= p.presence_penalty + t.count * p.frequency_penalty;
    }
}

// "Don't repeat yourself": where the end of the history, of length L, already stands at an earlier place, the
// token that followed there loses multiplier * base^(L - allowed length). matches_[i] is how far the history
// read backwards agrees with itself read backwards from i tokens before its end (the Z function, linear
// time).
void Sampler::dry(const SamplerState& state, const float* logits) {
    const SamplingParameters& p = state.parameters_;
    if (p.dry_multiplier == 0.0) return;
    const auto length = static_cast<int64_t>(state.history_.size());
    const int64_t n = p.dry_window < 0 ? length : std::min(p.dry_window, length);
    const int32_t* last = state.history_.data() + length - 1;
    int64_t limit = 0;  // tokens since the latest breaker
    while (limit < n && !state.is_breaker_[static_cast<size_t>(last[-limit])]) ++limit;
    if (limit < p.dry_allowed_length) return;

    matches_.resize(static_cast<size_t>(n));
    int64_t left = 0, right = 0;
    for (int64_t i = 1; i < n; ++i) {
        int64_t z = i < right ? std::min<int64_t>(right - i, matches_[i - left]) : 0;
        while (i + z < n && last[-z] == last[-(i + z)]) ++z;
        matches_[i] = static_cast<int32_t>(z);
        if (i + z > right) left = i, right = i + z;
        const int64_t repeated = std::min(z, limit);
        const int32_t next = last[-(i - 1)];
        if (repeated < p.dry_allowed_length || repeated == 0 || state.is_breaker_[next]) continue;
        Touched& t = touch(next, logits);
        t.dry_length = std::max(t.dry_length, repeated);
    }
    for (Touched& t : touched_) {
        if (t.dry_length == 0) continue;
        double penalty = p.dry_multiplier;
        for (int64_t i = p.dry_allowed_length; i < t.dry_length && penalty < largest_penalty; ++i)
            penalty *= p.dry_base;
        t.logit -= std::min(penalty, largest_penalty);
    }
}

// ---- Sampler: one pass over all logits

void Sampler::scan(const float* x) {
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    int32_t bad[lanes] = {};
    greatest_ = lowest;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        float top[lanes];
        std::fill_n(top, lanes, lowest);
        const int64_t end = std::min((b + 1) * block, n_vocab_);
        int64_t i = b * block;
        for (; i + lanes <= end; i += lanes) {
            for (int l = 0; l < lanes; ++l) {
                top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
                bad[l] |= x[i + l] <= FLT_MAX ? 0 : 1;  // NaN fails every comparison
            }
        }
        for (; i < end; ++i) {
            top[0] = std::max(top[0], x[i]);
            bad[0] |= x[i] <= FLT_MAX ? 0 : 1;
        }
        for (int width = lanes / 2; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) top[l] = top[l + width] > top[l] ? top[l + width] : top[l];
        block_max_[b] = top[0];
        greatest_ = std::max(greatest_, top[0]);
    }
    if (std::any_of(bad, bad + lanes, [](int32_t b) { return b != 0; })) {
        const float* found = std::find_if(x, x + n_vocab_, [](float v) { return !(v <= FLT_MAX); });
        throw std::domain_error(
            text({"the logit of token ", found - x, " is ", *found != *found ? "NaN" : "infinite"}));
    }
    if (greatest_ == lowest) throw std::domain_error("every token is excluded: all logits are -infinity");
}

int32_t Sampler::greatest(const float* x) const {
    const int64_t first =
        (std::find(block_max_.get(), block_max_.get() + n_blocks_, greatest_) - block_max_.get()) * block;
    return static_cast<int32_t>(std::find(x + first, x + n_vocab_, greatest_) - x);
}

// ---- Sampler: order

Sampler::Key Sampler::by_logit(float logit, int64_t index) {
    return {-static_cast<double>(logit), logit, static_cast<int32_t>(index)};
}

// The one that comes at place k, counted from 0, of n; what precedes it stands before it afterwards.
[[gnu::noinline]] Sampler::Key Sampler::select(Key* keys, int64_t k, int64_t n) {
    std::nth_element(keys, keys + k, keys + n);
    return keys[k];
}

[[gnu::noinline]] void Sampler::sort(Key* first, Key* last) { std::sort(first, last); }

// ---- Sampler: candidates

// Takes the finite logits >= threshold, in order of id.
void Sampler::gather(const float* x, float threshold) {
    threshold = std::max(threshold, -FLT_MAX);
    int64_t n = 0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (block_max_[b] < threshold) continue;
        const int64_t end = std::min((b + 1) * block, n_vocab_);
        for (int64_t i = b * block; i < end; ++i) {
            token_[n] = static_cast<int32_t>(i);
            logit_[n] = x[i];
            n += x[i] >= threshold;
        }
    }
    n_ = n;
}

// Takes the k greatest. At least k logits reach the k-th greatest block maximum, so nothing below it is among
// them.
void Sampler::gather_top(const float* x, int64_t k) {
    float threshold = -FLT_MAX;
    if (k <= n_blocks_) {
        for (int64_t b = 0; b < n_blocks_; ++b) keys_[b] = by_logit(block_max_[b], b);
        threshold = select(keys_.get(), k - 1, n_blocks_).logit;
    }
    gather(x, threshold);
    if (n_ <= k) return;
    for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], i);
    const Key last = select(keys_.get(), k - 1, n_);
    keep([&](int64_t i) { return !(last < by_logit(logit_[i], i)); });
}

// Keeps the candidates i with predicate(i), in their order. The predicate may look at candidate i only.
template <typename Predicate>
void Sampler::keep(Predicate predicate) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_; ++i) {
        const bool kept = predicate(i);
        token_[n] = token_[i];
        logit_[n] = logit_[i];
        weight_[n] = weight_[i];
        n += kept;
    }
    n_ = n;
}

// weight_ = e^((logit - greatest candidate) / temperature); returns their sum.
double Sampler::weigh(double temperature) {
    const float top = *std::max_element(logit_.get(), logit_.get() + n_);
    return exp_sum<true>(logit_.get(), n_, top, temperature, weight_.get());
}

// Of the keys, the last one of the smallest prefix, in order, whose weights reach `mass`; the last of all
// when none does. Halves the range in linear time instead of sorting it.
Sampler::Key Sampler::boundary(int64_t n_keys, double mass) {
    Key *first = keys_.get(), *last = first + n_keys;
    double before = 0.0;
    while (last - first > 64) {
        Key* middle = first + (last - first) / 2;
        select(first, middle - first, last - first);
        double half = 0.0;
        for (const Key* key = first; key < middle; ++key) half += weight_[key->index];
        if (before + half >= mass) {
            last = middle;
        } else {
            before += half;
            first = middle;
        }
    }
    sort(first, last);
    for (; first < last - 1; ++first) {
        before += weight_[first->index];
        if (before >= mass) break;
    }
    return *first;
}

// Locally typical sampling (Meister et al., 2022): the tokens whose information is nearest to the entropy, up
// to `share` of the probability.
void Sampler::keep_typical(double share) {
    const double total = weigh(1.0), log_total = std::log(total);
    const double top = *std::max_element(logit_.get(), logit_.get() + n_);
    double entropy = 0.0;
    for (int64_t i = 0; i < n_; ++i) entropy += weight_[i] / total * (log_total - (logit_[i] - top));
    const auto key = [&](int64_t i) {
        return Key{std::fabs(log_total - (logit_[i] - top) - entropy), logit_[i], static_cast<int32_t>(i)};
    };
    for (int64_t i = 0; i < n_; ++i) keys_[i] = key(i);
    const Key last = boundary(n_, share * total);
    keep([&](int64_t i) { return !(last < key(i)); });
}

// Nucleus sampling (Holtzman et al., 2019): the most probable tokens whose weights reach `mass`. What lies
// far below the greatest logit is only looked at when the nearer tokens do not suffice.
void Sampler::keep_nucleus(double mass) {
    const float top = *std::max_element(logit_.get(), logit_.get() + n_);
    int64_t n = 0;
    for (const float depth : {4.0f, 8.0f, 16.0f, std::numeric_limits<float>::infinity()}) {
        double near = 0.0;
        n = 0;
        for (int64_t i = 0; i < n_; ++i) {
            if (logit_[i] < top - depth) continue;
            keys_[n++] = by_logit(logit_[i], i);
            near += weight_[i];
        }
        if (near >= mass) break;
    }
    const Key last = boundary(n, mass);
    keep([&](int64_t i) { return !(last < by_logit(logit_[i], i)); });
}

// ---- Sampler: the whole way

int32_t Sampler::sample(SamplerState& state, const float* logits) {
    if (state.n_vocab_ != n_vocab_) refuse({"state and sampler differ in vocabulary size"});
    const SamplingParameters& p = state.parameters_;
    const float* x = adjust(state, logits);
    scan(x);
    int32_t token;
    if (p.temperature == 0.0) {
        token_[0] = token = greatest(x);
        weight_[0] = total_ = 1.0;
        n_ = 1;
    } else {
        filter(p, x);
        total_ = weigh(p.temperature);
        token = draw(philox_uniform(p.seed, state.n_draws_) * total_);
    }
    ++state.n_draws_;
    state.history_.push_back(token);
    return token;
}

void Sampler::filter(const SamplingParameters& p, const float* x) {
    const bool typical = p.typical_p < 1.0, nucleus = p.top_p < 1.0;
    double mass = 0.0;  // of what top-p takes its share
    if (p.top_k > 0 && p.top_k < n_vocab_) {
        gather_top(x, p.top_k);
    } else if (p.min_p > 0.0 && !typical) {
        // Top-p and min-p both cut the same ranking, so min-p may go first, a little below its exact place.
        gather(x, std::nextafter(static_cast<float>(greatest_ + std::log(p.min_p) - 1e-6), -FLT_MAX));
        if (nucleus) mass = exp_sum<false>(x, n_vocab_, greatest_, 1.0, nullptr);
    } else {
        gather(x, -FLT_MAX);
    }
    if (typical) keep_typical(p.typical_p);
    if (nucleus || p.min_p > 0.0) {
        const double total = weigh(1.0);
        if (nucleus) keep_nucleus(p.top_p * std::max(mass, total));
        const double least = p.min_p * *std::max_element(weight_.get(), weight_.get() + n_);
        keep([&](int64_t i) { return weight_[i] >= least; });
    }
}

// The first candidate, in order of id, at which the running sum of weights exceeds `mark`.
int32_t Sampler::draw(double mark) const {
    double sum = 0.0;
    int32_t token = token_[0];
    for (int64_t i = 0; i < n_; ++i) {
        if (weight_[i] == 0.0) continue;
        token = token_[i];
        sum += weight_[i];
        if (sum > mark) break;
    }
    return token;
}

std::vector<TokenProbability> Sampler::survivors() const {
    std::vector<TokenProbability> result;
    for (int64_t i = 0; i < n_; ++i) result.push_back({token_[i], weight_[i] / total_});
    return result;
}

std::vector<TokenProbability> Sampler::log_probabilities(const float* logits, int32_t token, int64_t n) {
    scan(logits);
    const double log_total = std::log(exp_sum<false>(logits, n_vocab_, greatest_, 1.0, nullptr));
    const auto entry = [&](int32_t id) {
        return TokenProbability{id, static_cast<double>(logits[id]) - greatest_ - log_total};
    };
    std::vector<TokenProbability> result{entry(token)};
    if (n == 0) return result;
    gather_top(logits, std::min(n, n_vocab_));
    for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], i);
    sort(keys_.get(), keys_.get() + n_);
    for (int64_t i = 0; i < n_; ++i) result.push_back(entry(token_[keys_[i].index]));
    return result;
}

}  // namespace clarion
