#include "sampling/scores.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <system_error>
#include <thread>
#include <vector>

#include "sampling/passes.h"

namespace clarion {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

double weight_sum(const float* x, int64_t n, float top) {
    float weights[passes::block];
    double total = 0.0;
    for (int64_t i = 0; i < n; i += passes::block) {
        const int64_t size = std::min(passes::block, n - i);
        passes::weigh(x + i, size, top, 1.0, -infinity, infinity, weights);
        total += passes::sum(weights, size);
    }
    return total;
}

passes::Apart compare(const LogitRows& logits, double top, const LogitRows& reference, double reference_top,
                      int64_t row) {
    double spaces[2][passes::block];
    passes::Apart total;
    for (int64_t i = 0; i < logits.n_vocab(); i += passes::block) {
        const int64_t size = std::min(passes::block, logits.n_vocab() - i);
        const passes::Apart part =
            passes::compare(logits.doubles(row, i, size, spaces[0]), top,
                            reference.doubles(row, i, size, spaces[1]), reference_top, size);
        total.x_sum += part.x_sum, total.y_sum += part.y_sum, total.apart += part.apart;
    }
    return total;
}

void score_row(const LogitRows& logits, int64_t target, const LogitRows* reference, int64_t row,
               const ScoreColumns& columns) {
    const int64_t choice = logits.first_greatest(row);
    const int64_t theirs = reference == nullptr ? choice : reference->first_greatest(row);
    columns.choice[row] = choice;
    columns.divergence[row] = 0.0;
    columns.surprise[row] = std::numeric_limits<double>::quiet_NaN();
    if (choice < 0 || theirs < 0) return;
    const double top = logits.at(row, choice);
    double total;
    if (const float* x = logits.floats(row); x != nullptr && reference == nullptr) {
        total = weight_sum(x, logits.n_vocab(), x[choice]);
    } else {
        const LogitRows& other = reference == nullptr ? logits : *reference;
        // With P and Q the two sums: sum e^y / Q (ln(e^y / Q) - ln(e^x / P)) = (sum e^y (y - x)) / Q - ln Q + ln P.
        const passes::Apart sums = compare(logits, top, other, other.at(row, theirs), row);
        total = sums.x_sum;
        const double divergence = sums.apart / sums.y_sum - std::log(sums.y_sum) + std::log(sums.x_sum);
        columns.divergence[row] = std::max(divergence, 0.0);
    }
    columns.surprise[row] = std::log(total) - (logits.at(row, target) - top);
}

// Threads that are waited for at the end; where the system gives no more, those that there are do all.
class Helpers {
  public:
    template <typename Work>
    Helpers(size_t n, const Work& work) {
        threads_.reserve(n);
        try {
            while (threads_.size() < n) threads_.emplace_back(work);
        } catch (const std::system_error&) {
            return;
        }
    }
    ~Helpers() {
        for (std::thread& thread : threads_) thread.join();
    }

  private:
    std::vector<std::thread> threads_;
};

}  // namespace

double LogitRows::at(int64_t row, int64_t token) const {
    const int64_t i = row * stride_ + token;
    return floats_ != nullptr ? static_cast<double>(floats_[i]) : doubles_[i];
}

int64_t LogitRows::first_greatest(int64_t row) const {
    return floats_ != nullptr ? passes::first_greatest(floats_ + row * stride_, n_vocab_)
                              : passes::first_greatest(doubles_ + row * stride_, n_vocab_);
}

const double* LogitRows::doubles(int64_t row, int64_t begin, int64_t n, double* space) const {
    if (floats_ == nullptr) return doubles_ + row * stride_ + begin;
    std::copy_n(floats_ + row * stride_ + begin, n, space);
    return space;
}

void score(const LogitRows& logits, const int64_t* targets, const LogitRows* reference, int64_t n,
           int threads, const ScoreColumns& columns) {
    std::atomic<int64_t> next = 0;
    const auto work = [&] {
        for (int64_t row; (row = next.fetch_add(1, std::memory_order_relaxed)) < n;)
            score_row(logits, targets[row], reference, row, columns);
    };
    const auto helpers = static_cast<size_t>(std::clamp<int64_t>(n - 1, 0, std::max(threads - 1, 0)));
    const Helpers others(helpers, work);
    work();
}

}  // namespace clarion
