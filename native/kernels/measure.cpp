#include "kernels/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/panels.h"
#include "machine/checked.h"
#include "residency/huge_pages.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Each thread makes a body, and calls it from a common start until `seconds` have passed; it returns the work of one
// call. The sum over threads of work per second.
template <typename Make>
double rate(int threads, double seconds, const Make& make) {
    if (threads < 1 || !(seconds > 0)) throw std::invalid_argument("threads and seconds must be positive");
    std::vector<double> rates(static_cast<size_t>(threads));
    std::atomic<int> ready{0};
    const auto work = [&](int thread) {
        auto body = make();
        body();  // warm up
        ready.fetch_add(1);
        while (ready.load() < threads) std::this_thread::yield();
        double done = 0;
        const auto start = Clock::now();
        do done += body();
        while (since(start) < seconds);
        rates[static_cast<size_t>(thread)] = done / since(start);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
    work(0);
    for (auto& t : others) t.join();
    double total = 0;
    for (const double r : rates) total += r;
    return total;
}

}  // namespace

double measure_bandwidth(int threads, double seconds, int64_t bytes) {
    expect_range(bytes, 1 << 20, int64_t{1} << 40, {"bytes"});
    const size_t size = static_cast<size_t>(bytes) / 256 * 256;
    std::atomic<int> sink{0};
    // Each thread reads its own, in the pages that weights are copied to, and touches it first: so it lies in the
    // memory that is nearest to it.
    return rate(threads, seconds, [&] {
        auto buffer = std::make_unique<HugePages>(size + 4096);
        std::memset(buffer->data(), 1, size + 4096);
        return [&sink, size, buffer = std::move(buffer)] {
            const uint8_t* p = buffer->data();
            simd::u8x64 x[4] = {simd::set1_u8(0), simd::set1_u8(0), simd::set1_u8(0), simd::set1_u8(0)};
            for (size_t i = 0; i < size; i += 256) {
                for (size_t j = 0; j < 4; ++j) {
                    simd::prefetch(p + i + 64 * j + 4096);
                    x[j] = simd::bit_xor(x[j], simd::load_bytes(p + i + 64 * j));
                }
            }
            alignas(64) uint8_t out[64];
            simd::store_bytes(out, simd::bit_xor(simd::bit_xor(x[0], x[1]), simd::bit_xor(x[2], x[3])));
            sink.fetch_xor(out[0]);
            return static_cast<double>(size);
        };
    });
}

double measure_multiply(int threads, double seconds) {
    std::atomic<int> sink{0};
    return rate(threads, seconds, [&] {
        return [&sink] {
            int32_t keep = 0;
            const double products = simd::multiply_burst(100000, &keep);
            sink.fetch_xor(keep);
            return products;
        };
    });
}

double measure_fma(int threads, double seconds) {
    constexpr int sums = 6 * panels_at_once, rounds = 10000;
    std::atomic<float> sink{0};
    return rate(threads, seconds, [&] {
        return [&sink] {
            // Where a vector is two registers, a compiler that knows both to be equal would compute one of them.
            alignas(64) float start[simd::lanes] = {};
            __asm__ volatile("" : : "r"(start) : "memory");
            simd::f32x16 x[sums], factor = simd::set1(sink.load());
#pragma GCC unroll 16
            for (int i = 0; i < sums; ++i)
                x[i] = simd::add(simd::load(start), simd::set1(static_cast<float>(i)));
            for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 16
                for (int i = 0; i < sums; ++i) x[i] = simd::fma(x[i], factor, factor);
            for (int i = 1; i < sums; ++i) x[0] = simd::add(x[0], x[i]);
            sink.store(std::min(0.5f, simd::reduce_max(x[0])));
            return static_cast<double>(sums) * rounds * simd::lanes;
        };
    });
}

double measure_change(int threads, double seconds, int64_t bytes) {
    expect_range(bytes, 1 << 10, int64_t{1} << 40, {"bytes"});
    const size_t size = static_cast<size_t>(bytes) / 256 * 256;
    return rate(threads, seconds, [&] {
        auto buffer = std::make_unique<HugePages>(size);
        std::memset(buffer->data(), 0, size);
        const size_t times = std::max<size_t>(1, (size_t{1} << 20) / size);
        return [size, times, buffer = std::move(buffer)] {
            const simd::f32x16 factor = simd::set1(0.5f);
            for (size_t time = 0; time < times; ++time)
                for (size_t i = 0; i < size; i += 256)
#pragma GCC unroll 4
                    for (size_t j = 0; j < 256; j += 64) {
                        auto* p = reinterpret_cast<float*>(buffer->data() + i + j);
                        simd::store(p, simd::mul(factor, simd::load(p)));
                    }
            return static_cast<double>(size) * static_cast<double>(times);
        };
    });
}

}  // namespace clarion
