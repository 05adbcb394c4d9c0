// Draws from random rows: what is drawn is left, shares add up to 1, and all processors do the same.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "sampling/sampler.h"
#include "tests/check.h"
#include "tests/random.h"

namespace clarion::tests {

namespace {

constexpr uint64_t draws_hash = 0xba65ac07a7299703;

std::vector<float> logits(Random& random, int64_t n) {
    constexpr float scales[] = {0.0f, 1e-38f, 1e-7f, 0.1f, 3.0f, 40.0f, 1e30f};
    const float scale = scales[random.bits() % std::size(scales)];
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) {
        v = scale * (random.next() + random.next() + random.next());
        if (random.bits() % 50 == 0) v = -std::numeric_limits<float>::infinity();
    }
    x[random.bits() % x.size()] = random.bits() % 2 == 0 ? 4e37f * random.next() : 0.0f;
    return x;
}

SamplingParameters parameters(Random& random) {
    const auto share = [&] { return random.bits() % 9 == 0 ? 0.0 : random.bits() * 0x1p-32; };
    SamplingParameters p;
    p.temperature = 0.01 + 2.0 * share();
    p.seed = random.bits();
    if (random.bits() % 2 == 0) p.filters.top_k = 1 + random.bits() % 8000;
    if (random.bits() % 2 == 0) p.filters.top_p = share();
    if (random.bits() % 2 == 0) p.filters.min_p = 1.0 - share();
    if (random.bits() % 4 == 0) p.filters.typical_p = share();
    return p;
}

}  // namespace

void test_sampling() {
    Random random(11);
    uint64_t hash =
        14695981039346656037u;  // FNV-1a, of what is left and drawn without typical-p, which takes a logarithm
    const auto mix = [&](uint64_t bits) { hash = (hash ^ bits) * 1099511628211u; };
    for (int round = 0; round < 300; ++round) {
        constexpr int64_t sizes[] = {1, 2, 17, 256, 257, 1024, 1025, 1500, 5000};
        const std::vector<float> x = logits(random, sizes[random.bits() % std::size(sizes)]);
        const SamplingParameters p = parameters(random);
        const auto n = static_cast<int64_t>(x.size());
        if (std::all_of(x.begin(), x.end(), [](float v) { return std::isinf(v); })) continue;
        Sampler sampler(n);
        SamplerState state(n, p);
        const std::vector<TokenProbability> left = sampler.survivors(state, x.data());
        double sum = 0.0;
        for (const auto& [token, probability] : left) {
            sum += probability;
            if (p.filters.typical_p == 1.0)
                mix(static_cast<uint64_t>(token) ^ std::bit_cast<uint64_t>(probability));
        }
        check(std::fabs(sum - 1.0) < 1e-9);
        int32_t drawn = 0;
        for (int draw = 0; draw < 8; ++draw) {
            drawn = sampler.sample(state, x.data());
            if (p.filters.typical_p == 1.0) mix(static_cast<uint64_t>(drawn));
            check(std::any_of(left.begin(), left.end(), [&](const TokenProbability& t) {
                return t.token == drawn && t.probability > 0.0;
            }));
        }
        const int64_t n_top = std::min<int64_t>(n, 20);
        check(static_cast<int64_t>(sampler.log_probabilities(x.data(), drawn, n_top).size()) <= n_top + 1);
    }
    if (hash != draws_hash)
        std::fprintf(stderr, "sampling: hash %llx\n", static_cast<unsigned long long>(hash));
    check(hash == draws_hash);
}

}  // namespace clarion::tests
