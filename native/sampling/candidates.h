// Which tokens the filters leave, and with what weight.
//
// A few candidates are a list, which filters sort. Many are what lies within cuts of the logits: one pass adds up the
// weights by buckets of equal width, in which a filter finds where its cut lies, and only the members of that bucket
// are listed and ordered. Nothing sorts the vocabulary, and nothing copies it.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sampling/passes.h"

namespace clarion {

struct Filters {
    int64_t top_k = 0;       // 0: all
    double typical_p = 1.0;  // 1: off
    double top_p = 1.0;      // 1: off
    double min_p = 0.0;      // 0: off
};

struct TokenProbability {
    int32_t token;
    double probability;
};

class Candidates {
  public:
    explicit Candidates(int64_t n_vocab);

    // Begins with all tokens of logits [n_vocab], which must stay as they are until the last use.
    // Throws std::domain_error when a logit is NaN or +infinity, or when all are -infinity.
    void scan(const float* logits);
    int32_t most_probable() const;
    void filter(const Filters& filters);
    // Of what is left, with weights e^(logit / temperature): the first token, in order of id, at which the running
    // share of weights exceeds `share`.
    int32_t draw(double temperature, double share);
    // What is left with these weights, in order of id.
    std::vector<TokenProbability> probabilities(double temperature);
    // ln softmax(logits) at `token`, then of the n most probable tokens, most probable first.
    std::vector<TokenProbability> log_probabilities(int32_t token, int64_t n);

  private:
    // A place in a filter's order: by value, then the more probable, then the lower id.
    struct Key {
        double value;
        float logit;
        int32_t index;
        bool operator<(const Key& other) const {
            if (value != other.value) return value < other.value;
            return logit != other.logit ? logit > other.logit : index < other.index;
        }
    };
    static Key by_logit(float logit, int64_t index) {
        return {-static_cast<double>(logit), logit, static_cast<int32_t>(index)};
    }
    Key by_distance(float logit, int64_t index) const {
        return {typical_.distance(logit), logit, static_cast<int32_t>(index)};
    }
    struct Bound {
        float logit;
        int32_t id;  // of tokens with this logit, those up to this one are left
    };
    using Run = passes::Run;
    static constexpr Run nothing = {INFINITY, -INFINITY};
    static Key select(Key* keys, int64_t k, int64_t n);
    Key boundary(const double* weights, int64_t n_keys, double mass);
    template <typename Order>
    Key edge(Order order, double mass);

    int64_t begin(int64_t b) const { return b * passes::block; }
    int64_t size(int64_t b) const { return b + 1 < n_blocks_ ? passes::block : n_vocab_ - begin(b); }
    float kth_block(int64_t k);
    bool list(float threshold, int64_t k, int64_t most);
    void keep_top(int64_t k);
    double weigh_all();
    double weigh_list(double temperature);
    void filter_list(const Filters& filters, double mass);
    template <typename Predicate>
    void keep(Predicate predicate);

    void filter_cuts(const Filters& filters);
    template <bool counts, int n_sums>
    void tally();
    int32_t place(float logit) const;
    Run run(int32_t first, int32_t last) const;
    void collect(Run one, Run other = nothing);
    template <typename Number>
    bool collect_equal(Run run, Number number);
    template <typename Order>
    Bound edge(Run one, Run other, double crowded, Order order, double mass);
    void count_list();
    void cut_count(int64_t k);
    void cut_typical(double share);
    double radius(const double* distance, int32_t nearest, double mass) const;
    void keep_as_near(Bound token);
    void cut_nucleus(double share);
    void cut_min(double share);
    bool inside(float logit, int64_t token) const;
    template <typename Weight>
    bool weigh_block(int64_t b, double temperature, Weight* weights);
    template <typename Weight>
    void weigh_blocks(double temperature, Weight* weights);
    int32_t find(double temperature, double share, double error);

    static constexpr int n_buckets =
        1024;                        // so that the sums, of two kinds and two of each, fill 32 KiB of level 1
    static constexpr int lanes = 2;  // so that sums in one bucket need not wait for each other

    const int64_t n_vocab_, n_blocks_;
    const float* x_ = nullptr;
    std::unique_ptr<float[]> block_max_;    // [n_blocks]
    float greatest_ = 0.0f, least_ = 0.0f;  // of all finite logits

    // The list, in order of id: token, logit, weight.
    bool is_list_ = false;
    int64_t n_ = 0;
    std::unique_ptr<int32_t[]> token_;  // [n_vocab + 1]
    std::unique_ptr<float[]> logit_;    // [n_vocab + 1]
    std::unique_ptr<double[]> weight_;  // [n_vocab + 1]
    std::unique_ptr<Key[]> keys_;       // [max(n_vocab, n_buckets)]

    // The cuts: tokens from low_ to high_.
    Bound low_{}, high_{};
    passes::Typical typical_{};
    float top_ = 0.0f;       // the greatest logit that is left
    float per_unit_ = 0.0f;  // buckets in a unit of logit
    // Of each bucket what is left: tokens, weights, weights times how far the logits are below the greatest.
    int64_t count_[n_buckets] = {};
    double mass_[n_buckets] = {}, moment_[n_buckets] = {};
    double middle_[n_buckets] = {};         // the weight of a bucket's middle
    std::unique_ptr<double[]> block_mass_;  // [n_blocks]
    double block_weight_[passes::block] = {};
    double total_ = 0.0;  // of all blocks
};

}  // namespace clarion
