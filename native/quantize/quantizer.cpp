#include "quantize/quantizer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "quantize/table.h"
#include "simd/half.h"

namespace clarion::quantize {

namespace {

// Weights of a piece of work: 128 KB of float32, an eighth of a core's L2 cache of 1 MB, and a multiple of every
// format's block times 16 lanes.
constexpr int64_t piece = 32768;

// The first weight that is not finite or larger than the limit, or n. Of magnitudes the bits have the order of the
// values, and infinity and NaN come last.
int64_t first_bad(const float* x, int64_t n, float limit) {
    const auto magnitude = [&](int64_t i) { return std::bit_cast<int32_t>(x[i]) & 0x7fffffff; };
    const auto most = std::bit_cast<int32_t>(limit);
    int32_t largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, magnitude(i));
    int64_t i = largest <= most ? n : 0;
    while (i < n && magnitude(i) <= most) ++i;
    return i;
}

// n weights as float32, in `buffer` unless they are that already.
const float* widened(const Matrix& matrix, int64_t at, int64_t n, float* buffer) {
    if (matrix.source == Source::f32) return static_cast<const float*>(matrix.x) + at;
    const auto* halves = static_cast<const uint16_t*>(matrix.x) + at;
    if (matrix.source == Source::f16)
        for (int64_t i = 0; i < n; ++i) buffer[i] = simd::f16_to_f32(halves[i]);
    else
        for (int64_t i = 0; i < n; ++i) buffer[i] = simd::bf16_to_f32(halves[i]);
    return buffer;
}

class Work {
  public:
    Work(const Quantizer& quantizer, const Matrix& matrix, uint8_t* out)
        : quantizer_(quantizer), matrix_(matrix), n_(matrix.rows * matrix.cols), out_(out), bad_(n_) {}

    void join() {
        const auto buffer = std::make_unique<float[]>(matrix_.source == Source::f32 ? 0 : piece);
        for (int64_t at; !stop_ && (at = next_.fetch_add(piece)) < n_;)
            one(at, std::min(piece, n_ - at), buffer.get());
        const std::lock_guard lock(mutex_);
        ++finished_;
        done_.notify_one();
    }
    // Whether all of `threads` have finished within a while.
    bool finished(int threads) {
        std::unique_lock lock(mutex_);
        return done_.wait_for(lock, std::chrono::milliseconds(50), [&] { return finished_ == threads; });
    }
    void stop() { stop_ = true; }
    int64_t first_bad_position() const { return bad_ == n_ ? -1 : bad_.load(); }

  private:
    void one(int64_t at, int64_t n, float* buffer) {
        const float* x = widened(matrix_, at, n, buffer);
        const int64_t bad = at + first_bad(x, n, quantizer_.limit);
        if (bad < at + n) {
            // Pieces before this one are taken already: the least position that any thread finds is the first.
            int64_t least = bad_;
            while (bad < least && !bad_.compare_exchange_weak(least, bad)) {
            }
            return stop();
        }
        quantizer_.quantize({x, n / quantizer_.block, matrix_.importance, at % matrix_.cols, matrix_.cols,
                             out_ + at / quantizer_.block * quantizer_.bytes});
    }

    const Quantizer& quantizer_;
    const Matrix& matrix_;
    int64_t n_;
    uint8_t* out_;
    std::atomic<int64_t> next_{0}, bad_;
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable done_;
    int finished_ = 0;
};

}  // namespace

const Quantizer* quantizers(int& count) {
    count = static_cast<int>(std::size(table));
    return table;
}

const Quantizer* find(int id) {
    const auto* found =
        std::find_if(std::begin(table), std::end(table), [&](const Quantizer& q) { return q.id == id; });
    return found == std::end(table) ? nullptr : found;
}

int64_t run(const Quantizer& quantizer, const Matrix& matrix, int threads, uint8_t* out, bool (*waiting)()) {
    Work work(quantizer, matrix, out);
    std::vector<std::jthread> others;
    others.reserve(static_cast<size_t>(threads));
    while (static_cast<int>(others.size()) < threads) {
        try {
            others.emplace_back([&] { work.join(); });
        } catch (const std::system_error&) {  // no more to be had
            if (others.empty()) throw;
            threads = static_cast<int>(others.size());
        }
    }
    while (!work.finished(threads))
        if (!waiting()) work.stop();
    others.clear();
    return work.first_bad_position();
}

}  // namespace clarion::quantize
