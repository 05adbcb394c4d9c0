// From the logits of one position to one token.
//
// The order is fixed: logit bias, repetition, presence and frequency penalties, DRY, top-k, typical-p, top-p,
// min-p, temperature, draw. Whatever is equal is ordered by token id, lower first. Every number that decides
// is computed in double by basic operations in a fixed order, so one seed gives one text on every processor.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sampling/candidates.h"

namespace clarion {

struct SamplingParameters {
    std::vector<std::pair<int32_t, double>> bias;  // (token, added to its logit)
    double repeat_penalty = 1.0;
    double presence_penalty = 0.0;
    double frequency_penalty = 0.0;
    int64_t penalty_window = 64;  // tokens; negative: the whole history
    double dry_multiplier = 0.0;  // 0: no DRY
    double dry_base = 1.75;
    int64_t dry_allowed_length = 2;
    int64_t dry_window = -1;            // tokens; negative: the whole history
    std::vector<int32_t> dry_breakers;  // tokens that no repetition reaches across
    Filters filters;
    double temperature = 1.0;  // 0: the most probable token, whatever the filters say
    uint64_t seed = 0;
};

// What one sequence brings to its next draw. Throws std::invalid_argument for tokens outside the vocabulary.
class SamplerState {
  public:
    SamplerState(int64_t n_vocab, SamplingParameters parameters);
    SamplerState(const SamplerState&) = delete;
    void extend(const int32_t* tokens, int64_t n);

  private:
    friend class Sampler;
    void check(int32_t token) const;

    int64_t n_vocab_;
    SamplingParameters parameters_;
    std::vector<uint8_t> is_breaker_;  // [n_vocab] with DRY, else empty
    std::vector<int32_t> history_;     // the prompt and every token drawn
    uint64_t n_draws_ = 0;
};

// The workspace. One for each thread that samples; it carries nothing from one call to the next.
class Sampler {
  public:
    explicit Sampler(int64_t n_vocab);
    int64_t n_vocab() const { return n_vocab_; }

    // Draws the next token of `state` from logits [n_vocab] and appends it to the state's history.
    // Throws std::domain_error when a logit is NaN or +infinity, or when no token is left to draw.
    int32_t sample(SamplerState& state, const float* logits);

    // The tokens that `sample` would draw from, in order of id, with their probabilities. Throws as `sample` does.
    std::vector<TokenProbability> survivors(const SamplerState& state, const float* logits);

    // ln softmax(logits) at `token`, then of the n most probable tokens, most probable first.
    std::vector<TokenProbability> log_probabilities(const float* logits, int32_t token, int64_t n);

  private:
    struct Touched {
        int32_t token;
        int32_t count;       // occurrences in the penalty window
        int64_t dry_length;  // longest repetition that this token would continue
        double logit;
    };
    const float* adjust(const SamplerState& state, const float* logits);
    void penalize(const SamplerState& state, const float* logits);
    void dry(const SamplerState& state, const float* logits);
    Touched& touch(int32_t token, const float* logits);
    bool leave(const SamplerState& state, const float* logits);

    int64_t n_vocab_;
    Candidates candidates_;
    std::unique_ptr<float[]> adjusted_;  // [n_vocab] logits after the adjustments
    std::unique_ptr<int32_t[]> slot_;    // [n_vocab] index into touched_, or -1
    std::vector<Touched> touched_;
    std::vector<int32_t> matches_;  // DRY
};

}  // namespace clarion
