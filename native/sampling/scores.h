// How well rows of logits predict what came, and how far they are from a reference's.
#pragma once

#include <cstdint>

namespace clarion {

// Rows of floats or doubles [n, n_vocab], each `stride` elements after the one before.
class LogitRows {
  public:
    LogitRows(const float* data, int64_t n_vocab, int64_t stride)
        : floats_(data), n_vocab_(n_vocab), stride_(stride) {}
    LogitRows(const double* data, int64_t n_vocab, int64_t stride)
        : doubles_(data), n_vocab_(n_vocab), stride_(stride) {}

    int64_t n_vocab() const { return n_vocab_; }
    const float* floats(int64_t row) const { return floats_ == nullptr ? nullptr : floats_ + row * stride_; }
    double at(int64_t row, int64_t token) const;
    int64_t first_greatest(int64_t row) const;  // -1 unless all are numbers
    // A piece of a row; `space` is where floats become doubles.
    const double* doubles(int64_t row, int64_t begin, int64_t n, double* space) const;

  private:
    const float* floats_ = nullptr;
    const double* doubles_ = nullptr;
    int64_t n_vocab_, stride_;
};

// One number for each row. A row that is not all numbers has the surprise NaN and the choice -1.
struct ScoreColumns {
    double* surprise;    // -ln of the probability of the target
    double* divergence;  // Kullback-Leibler, of the reference's distribution from the row's; 0 without one
    int64_t* choice;     // the first of the most probable tokens
};

// Scores n rows on so many threads. Rows of floats without a reference are weighed in float, all others in double.
void score(const LogitRows& logits, const int64_t* targets, const LogitRows* reference, int64_t n,
           int threads, const ScoreColumns& columns);

}  // namespace clarion
