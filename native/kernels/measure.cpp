// What the machine does at best, to hold results against: reads of memory, and products of 8-bit integers.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels/reference.h"
#include "residency/huge_pages.h"
#include "simd/simd.h"

namespace clarion {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Runs body(thread) on each thread, from a common start, until `seconds` have passed; body returns the work
// of one call. The sum over threads of work per second.
template <typename Body>
double rate(int threads, double seconds, const Body& body) {
    if (threads < 1 || !(seconds > 0)) throw std::invalid_argument("threads and seconds must be positive");
    std::vector<double> rates(static_cast<size_t>(threads));
    std::atomic<int> ready{0};
    const auto work = [&](int thread) {
        body(thread);  // warm up
        ready.fetch_add(1);
        while (ready.load() < threads) std::this_thread::yield();
        double done = 0;
        const auto start = Clock::now();
        do done += body(thread);
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

double measure_bandwidth(int threads, double seconds) {
    // Larger than any last-level cache that one core gets to itself; each thread reads its own, in the pages that
    // weights are copied to.
    constexpr size_t bytes = size_t{128} << 20;
    std::vector<std::unique_ptr<HugePages>> buffers;
    for (int i = 0; i < threads; ++i) {
        buffers.push_back(std::make_unique<HugePages>(bytes + 4096));
        std::memset(buffers.back()->data(), i + 1, bytes + 4096);
    }
    std::atomic<int> sink{0};
    return rate(threads, seconds, [&](int thread) {
        const uint8_t* p = buffers[static_cast<size_t>(thread)]->data();
        simd::u8x64 x[4] = {simd::set1_u8(0), simd::set1_u8(0), simd::set1_u8(0), simd::set1_u8(0)};
        for (size_t i = 0; i < bytes; i += 256) {
            for (size_t j = 0; j < 4; ++j) {
                simd::prefetch(p + i + 64 * j + 4096);
                x[j] = simd::bit_xor(x[j], simd::load_bytes(p + i + 64 * j));
            }
        }
        alignas(64) uint8_t out[64];
        simd::store_bytes(out, simd::bit_xor(simd::bit_xor(x[0], x[1]), simd::bit_xor(x[2], x[3])));
        sink.fetch_xor(out[0]);
        return static_cast<double>(bytes);
    });
}

double measure_multiply(int threads, double seconds) {
    std::atomic<int> sink{0};
    return rate(threads, seconds, [&](int) {
        int32_t keep = 0;
        const double products = simd::multiply_burst(100000, &keep);
        sink.fetch_xor(keep);
        return products;
    });
}

}  // namespace clarion
