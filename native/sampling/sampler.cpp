#include "sampling/sampler.h"

#include <algorithm>
#include <cstring>

#include "machine/message.h"
#include "sampling/philox.h"

namespace clarion {

namespace {

// A penalty this large excludes a token for certain and leaves its logit finite.
constexpr double largest_penalty = 1e30;

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

// ---- Sampler

Sampler::Sampler(int64_t n_vocab)
    : n_vocab_(n_vocab), candidates_(n_vocab), adjusted_(new float[n_vocab]), slot_(new int32_t[n_vocab]) {
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

int32_t Sampler::sample(SamplerState& state, const float* logits) {
    const int32_t token = leave(state, logits)
                              ? candidates_.draw(state.parameters_.temperature,
                                                 philox_uniform(state.parameters_.seed, state.n_draws_))
                              : candidates_.most_probable();
    ++state.n_draws_;
    state.history_.push_back(token);
    return token;
}

std::vector<TokenProbability> Sampler::survivors(const SamplerState& state, const float* logits) {
    if (leave(state, logits)) return candidates_.probabilities(state.parameters_.temperature);
    return {{candidates_.most_probable(), 1.0}};
}

// Leaves the tokens to draw from; false if the most probable one is to be taken.
bool Sampler::leave(const SamplerState& state, const float* logits) {
    if (state.n_vocab_ != n_vocab_) refuse({"state and sampler differ in vocabulary size"});
    candidates_.scan(adjust(state, logits));
    if (state.parameters_.temperature == 0.0) return false;
    candidates_.filter(state.parameters_.filters);
    return true;
}

std::vector<TokenProbability> Sampler::log_probabilities(const float* logits, int32_t token, int64_t n) {
    candidates_.scan(logits);
    return candidates_.log_probabilities(token, n);
}

}  // namespace clarion
