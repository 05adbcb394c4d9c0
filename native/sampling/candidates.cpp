#include "sampling/candidates.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "machine/message.h"

namespace clarion {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
// Candidates that are sorted rather than tallied: that takes 40 us, a pass over 150,000 logits 100 us.
constexpr int64_t few = 1024;
// What lies this far below the greatest logit has no weight: 10^6 times e^-52 is below the rounding of 1.
constexpr float depth = 52.0f;
constexpr float least_range = 1e-30f;  // equal logits need no buckets, but a width that can be computed with
constexpr int32_t any_id = std::numeric_limits<int32_t>::max();

// Where a running sum comes to its end, and the sum before that place.
struct Reached {
    int64_t index = 0;
    double before = 0.0;
};

// The first place with which the sum is `enough`; the last one that adds to it, if none is.
template <typename Enough>
Reached reach(const double* mass, int64_t n, const Enough& enough) {
    Reached at;
    double sum = 0.0;
    for (int64_t i = 0; i < n; ++i) {
        if (mass[i] == 0.0) continue;
        at = {i, sum};
        sum += mass[i];
        if (enough(sum)) break;
    }
    return at;
}

}  // namespace

Candidates::Candidates(int64_t n_vocab)
    : n_vocab_(n_vocab),
      n_blocks_((n_vocab + passes::block - 1) / passes::block),
      block_max_(new float[n_blocks_]),
      token_(new int32_t[static_cast<size_t>(n_vocab) + 1]),
      logit_(new float[static_cast<size_t>(n_vocab) + 1]),
      weight_(new double[static_cast<size_t>(n_vocab) + 1]()),
      keys_(new Key[std::max<int64_t>(n_vocab, n_buckets)]),
      block_mass_(new double[n_blocks_]) {}

void Candidates::scan(const float* logits) {
    x_ = logits;
    greatest_ = -infinity;
    least_ = infinity;
    bool numbers = true;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const passes::Extremes found = passes::extremes(x_ + begin(b), size(b));
        block_max_[b] = found.greatest;
        greatest_ = std::max(greatest_, found.greatest);
        least_ = std::min(least_, found.least);
        numbers &= found.numbers;
    }
    if (!numbers) {
        const float* found = std::find_if(x_, x_ + n_vocab_, [](float v) { return !(v <= FLT_MAX); });
        throw std::domain_error(
            text({"the logit of token ", found - x_, " is ", *found != *found ? "NaN" : "infinite"}));
    }
    if (greatest_ == -infinity) throw std::domain_error("every token is excluded: all logits are -infinity");
}

int32_t Candidates::most_probable() const {
    const float* b = std::find(block_max_.get(), block_max_.get() + n_blocks_, greatest_);
    return static_cast<int32_t>(std::find(x_ + begin(b - block_max_.get()), x_ + n_vocab_, greatest_) - x_);
}

void Candidates::filter(const Filters& f) {
    const bool counted = f.top_k > 0 && f.top_k < n_vocab_, typical = f.typical_p < 1.0;
    const bool early_min = f.min_p > 0.0 && !counted && !typical;
    float threshold = -FLT_MAX;
    // At least k logits reach the k-th greatest block maximum, so nothing below it is among the k greatest.
    if (counted && f.top_k <= n_blocks_) threshold = kth_block(f.top_k);
    // Top-p and min-p both cut the same ranking, so min-p may go first, a little below its exact place.
    if (early_min)
        threshold = std::nextafter(static_cast<float>(greatest_ + std::log(f.min_p) - 1e-6), -FLT_MAX);
    is_list_ = list(threshold, few);
    if (!is_list_) return filter_cuts(f);
    if (counted) keep_top(f.top_k);
    filter_list(f, early_min && f.top_p < 1.0 ? weigh_all() : 0.0);
}

void Candidates::weigh(double temperature) {
    temperature_ = temperature;
    if (is_list_) {
        total_ = weigh_list(temperature);
        return;
    }
    total_ = 0.0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const bool any = weigh_block(b, temperature);
        total_ += block_mass_[b] = any ? passes::sum(block_weight_, size(b)) : 0.0;
    }
}

int32_t Candidates::draw(double share) {
    double mark = share * total_;
    if (!is_list_) {  // the block at which the running sum exceeds the mark becomes the list
        const auto [chosen, before] =
            reach(block_mass_.get(), n_blocks_, [=](double sum) { return sum > mark; });
        mark -= before;
        weigh_block(chosen, temperature_);
        n_ = size(chosen);
        for (int64_t i = 0; i < n_; ++i) token_[i] = static_cast<int32_t>(begin(chosen) + i);
        std::copy_n(block_weight_, n_, weight_.get());
    }
    return token_[reach(weight_.get(), n_, [=](double sum) { return sum > mark; }).index];
}

std::vector<TokenProbability> Candidates::probabilities() {
    std::vector<TokenProbability> result;
    if (is_list_) {
        for (int64_t i = 0; i < n_; ++i) result.push_back({token_[i], weight_[i] / total_});
        return result;
    }
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (!weigh_block(b, temperature_)) continue;
        for (int64_t i = 0, id = begin(b); i < size(b); ++i, ++id)
            if (inside(x_[id], id)) result.push_back({static_cast<int32_t>(id), block_weight_[i] / total_});
    }
    return result;
}

std::vector<TokenProbability> Candidates::log_probabilities(int32_t token, int64_t n) {
    const double log_total = std::log(weigh_all());
    const auto entry = [&](int32_t id) {
        return TokenProbability{id, static_cast<double>(x_[id]) - greatest_ - log_total};
    };
    std::vector<TokenProbability> result{entry(token)};
    n = std::min(n, n_vocab_);
    if (n == 0) return result;
    list(n <= n_blocks_ ? kth_block(n) : -FLT_MAX, n_vocab_);
    keep_top(n);
    for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], token_[i]);
    std::sort(keys_.get(), keys_.get() + n_);
    for (int64_t i = 0; i < n_; ++i) result.push_back(entry(keys_[i].index));
    return result;
}

// ---- order

// The one that comes at place k, counted from 0, of n; what precedes it stands before it afterwards.
Candidates::Key Candidates::select(Key* keys, int64_t k, int64_t n) {
    if (!std::is_sorted(keys, keys + n)) std::nth_element(keys, keys + k, keys + n);
    return keys[k];
}

// Of the keys, the last one of the smallest prefix, in order, whose weights reach `mass`; the last of all
// when none does. Halves the range in linear time instead of sorting it.
Candidates::Key Candidates::boundary(const double* weights, int64_t n_keys, double mass) {
    Key *first = keys_.get(), *last = first + n_keys;
    double before = 0.0;
    bool sorted = std::is_sorted(first, last);  // so are equal logits
    while (!sorted && last - first > 64) {
        Key* middle = first + (last - first) / 2;
        select(first, middle - first, last - first);
        double half = 0.0;
        for (const Key* key = first; key < middle; ++key) half += weights[key->index];
        if (before + half >= mass) {
            last = middle;
        } else {
            before += half;
            first = middle;
        }
    }
    if (!sorted) std::sort(first, last);
    for (; first < last - 1; ++first) {
        before += weights[first->index];
        if (before >= mass) break;
    }
    return *first;
}

// The last of the list that stays, when those that come first in `order` stay until they reach `mass`.
template <typename Order>
Candidates::Key Candidates::edge(Order order, double mass) {
    for (int64_t i = 0; i < n_; ++i) keys_[i] = order(logit_[i], i);
    Key key = boundary(weight_.get(), n_, mass);
    key.index = token_[key.index];
    return key;
}

// ---- a list of few

float Candidates::kth_block(int64_t k) {
    for (int64_t b = 0; b < n_blocks_; ++b) keys_[b] = by_logit(block_max_[b], b);
    return std::max(select(keys_.get(), k - 1, n_blocks_).logit, -FLT_MAX);
}

// Lists the logits >= threshold, in order of id; false if there are more than `most`.
bool Candidates::list(float threshold, int64_t most) {
    int64_t n = 0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (block_max_[b] < threshold) continue;
        for (int64_t i = begin(b); i < begin(b) + size(b); ++i) {
            token_[n] = static_cast<int32_t>(i);
            logit_[n] = x_[i];
            n += x_[i] >= threshold;
        }
        if (n > most) return false;
    }
    n_ = n;
    return true;
}

// Keeps what satisfies the predicate, which is given logit and token, in its order.
template <typename Predicate>
void Candidates::keep(Predicate predicate) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_; ++i) {
        const bool kept = predicate(logit_[i], token_[i], weight_[i]);
        token_[n] = token_[i];
        logit_[n] = logit_[i];
        weight_[n] = weight_[i];
        n += kept;
    }
    n_ = n;
}

void Candidates::keep_top(int64_t k) {
    if (n_ <= k) return;
    for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], token_[i]);
    const Key last = select(keys_.get(), k - 1, n_);
    keep([&](float logit, int32_t token, double) { return !(last < by_logit(logit, token)); });
}

double Candidates::weigh_all() {
    double total = 0.0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        passes::weigh(x_ + begin(b), size(b), greatest_, 1.0, -FLT_MAX, block_weight_);
        total += passes::sum(block_weight_, size(b));
    }
    return total;
}

double Candidates::weigh_list(double temperature) {
    top_ = *std::max_element(logit_.get(), logit_.get() + n_);
    passes::weigh(logit_.get(), n_, top_, temperature, -FLT_MAX, weight_.get());
    return passes::sum(weight_.get(), n_);
}

// `mass`, if it is greater than that of the list, is what top-p takes its share of.
void Candidates::filter_list(const Filters& f, double mass) {
    if (f.typical_p < 1.0) {
        const double total = weigh_list(1.0), log_total = std::log(total);
        typical_ = {top_, log_total, 0.0};
        double entropy = 0.0;
        for (int64_t i = 0; i < n_; ++i) entropy += weight_[i] / total * typical_.distance(logit_[i]);
        typical_.entropy = entropy;
        const auto order = [this](float logit, int64_t i) { return by_distance(logit, i); };
        const Key last = edge(order, f.typical_p * total);
        keep([&](float logit, int32_t token, double) { return !(last < by_distance(logit, token)); });
    }
    if (f.top_p < 1.0) {
        const double total = weigh_list(1.0);
        const Key last = edge(by_logit, f.top_p * std::max(mass, total));
        keep([&](float logit, int32_t token, double) { return !(last < by_logit(logit, token)); });
    }
    if (f.min_p > 0.0) {
        weigh_list(1.0);  // the greatest weight is 1
        keep([&](float, int32_t, double weight) { return weight >= f.min_p; });
    }
}

// ---- cuts through many

void Candidates::filter_cuts(const Filters& f) {
    const bool counted = f.top_k > 0 && f.top_k < n_vocab_;
    low_ = by_logit(-FLT_MAX, any_id);
    has_far_ = false;
    top_ = greatest_;
    const bool typical = f.typical_p < 1.0;
    const float range = std::clamp(greatest_ - least_, least_range, depth);
    per_unit_ = static_cast<float>(n_buckets - 2) / range;
    if (counted)
        typical ? tally<true, true>() : tally<true, false>();
    else if (typical)
        tally<false, true>();
    else if (f.top_p < 1.0)
        tally<false, false>();
    if (counted) cut_count(f.top_k);
    if (typical) cut_typical(f.typical_p);
    if (f.top_p < 1.0) cut_nucleus(f.top_p);
    if (f.min_p > 0.0) cut_min(f.min_p);
}

int32_t Candidates::place(float logit) const {
    int32_t found;
    passes::places(&logit, 1, greatest_, per_unit_, n_buckets - 1, &found);
    return found;
}

// Adds up all candidates by bucket: weights, and, where a filter will ask for them, weights times distances, or tokens.
template <bool counts, bool moments>
void Candidates::tally() {
    struct Sums {
        double share, moment;
    };
    Sums sums[lanes][n_buckets] = {};
    int32_t count[counts ? lanes : 1][n_buckets] = {}, at[passes::block];
    double shares[passes::block], products[passes::block];
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const float* x = x_ + begin(b);
        passes::places(x, size(b), greatest_, per_unit_, n_buckets - 1, at);
        passes::shares(x, size(b), greatest_, per_unit_, at, shares);
        if constexpr (moments)
            for (int64_t i = 0; i < size(b); ++i)
                products[i] = shares[i] * (static_cast<double>(greatest_) - x[i]);
        const auto add = [&](int64_t i, int l) {
            Sums& s = sums[l][at[i]];
            s.share += shares[i];
            if constexpr (moments) s.moment += products[i];
            if constexpr (counts) ++count[l][at[i]];
        };
        int64_t i = 0;
        for (; i + lanes <= size(b); i += lanes)
            for (int l = 0; l < lanes; ++l) add(i + l, l);
        for (; i < size(b); ++i) add(i, 0);
    }
    for (int32_t j = 0; j < n_buckets - 1; ++j) {
        const Sums &a = sums[0][j], &b = sums[1][j], &c = sums[2][j], &d = sums[3][j];
        const double middle = passes::exp_negative(-(j + 0.5) / per_unit_);
        mass_[j] = middle * ((a.share + b.share) + (c.share + d.share));
        moment_[j] = middle * ((a.moment + b.moment) + (c.moment + d.moment));
    }
    if constexpr (counts)
        for (int32_t j = 0; j < n_buckets; ++j)
            count_[j] = (count[0][j] + count[1][j]) + (count[2][j] + count[3][j]);
    // What is in the last bucket adds nothing to a sum of at least 1.
    mass_[n_buckets - 1] = moment_[n_buckets - 1] = 0.0;
}

// Adds to the list what is left in buckets `first` to `last`, with weights at temperature 1.
void Candidates::collect(int32_t first, int32_t last) {
    int32_t at[passes::block], found[passes::block];
    const int64_t begun = n_;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (block_max_[b] < low_.logit) continue;
        passes::places(x_ + begin(b), size(b), greatest_, per_unit_, n_buckets - 1, at);
        const int64_t n = passes::between(at, size(b), first, last, found);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t id = begin(b) + found[i];
            if (!inside(x_[id], id)) continue;
            token_[n_] = static_cast<int32_t>(id);
            logit_[n_++] = x_[id];
        }
    }
    passes::weigh(&logit_[begun], n_ - begun, greatest_, 1.0, -FLT_MAX, &weight_[begun]);
}

// Counts what is left of the list in the sums of its buckets.
void Candidates::count_list() {
    for (int64_t i = 0; i < n_; ++i) {
        if (!inside(logit_[i], token_[i])) continue;
        const int32_t j = place(logit_[i]);
        mass_[j] += weight_[i];
        moment_[j] += weight_[i] * (static_cast<double>(greatest_) - logit_[i]);
    }
}

void Candidates::cut_count(int64_t k) {
    int32_t j = 0;
    int64_t before = 0;
    for (; j < n_buckets - 1 && before + count_[j] < k; ++j) before += count_[j];
    n_ = 0;
    collect(j, j);
    if (n_ > 0) {  // the last bucket counts excluded tokens, too
        for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], token_[i]);
        low_ = select(keys_.get(), std::min(k - before, n_) - 1, n_);
    }
    std::fill(mass_ + j, mass_ + n_buckets, 0.0);
    std::fill(moment_ + j, moment_ + n_buckets, 0.0);
    count_list();
}

// Locally typical sampling (Meister et al., 2022): the tokens whose information is nearest to the entropy, up
// to `share` of the probability.
void Candidates::cut_typical(double share) {
    const double total = passes::sum(mass_, n_buckets), log_total = std::log(total);
    const double centre = passes::sum(moment_, n_buckets) / total;  // of entropy, below the greatest logit
    typical_ = {greatest_, log_total, log_total + centre};

    // How far the members of a bucket are from the entropy, at least and at most, with what rounding may add.
    double near[n_buckets], far[n_buckets];
    for (int32_t j = 0; j < n_buckets; ++j) {
        const double low = j / static_cast<double>(per_unit_);
        const double high = (j + 1) / static_cast<double>(per_unit_);
        const double rounding = 1e-6 * low + 1e-9 * (1.0 + log_total);
        near[j] = std::max({0.0, low - centre, centre - high}) - rounding;
        far[j] = std::max(std::fabs(low - centre), std::fabs(high - centre)) + rounding;
    }
    const auto radius = [&](const double* distance) {
        int64_t n = 0;
        for (int32_t j = 0; j < n_buckets; ++j)
            if (mass_[j] > 0.0) keys_[n++] = {distance[j], 0.0f, j};
        return boundary(mass_, n, share * total).value;
    };
    const double least = radius(near), most = radius(far);  // the cut is at least and at most this far
    // The members of buckets that reach the one and not the other may be on either side of it.
    double before = 0.0;
    n_ = 0;
    const auto uncertain = [&](int32_t j) { return near[j] <= most && far[j] >= least; };
    for (int32_t j = 0, end; j < n_buckets; j = end) {
        end = j + 1;
        if (far[j] < least) before += mass_[j];
        if (!uncertain(j)) continue;
        while (end < n_buckets && uncertain(end)) ++end;
        collect(j, end - 1);
    }
    far_ = edge([this](float logit, int64_t i) { return by_distance(logit, i); }, share * total - before);
    has_far_ = true;
    for (int32_t j = 0; j < n_buckets; ++j) mass_[j] = far[j] < least ? mass_[j] : 0.0;
    count_list();
    const double* first = std::find_if(mass_, mass_ + n_buckets, [](double mass) { return mass > 0.0; });
    n_ = 0;
    collect(static_cast<int32_t>(first - mass_), static_cast<int32_t>(first - mass_));
    top_ = *std::max_element(logit_.get(), logit_.get() + n_);
}

// Nucleus sampling (Holtzman et al., 2019): the most probable tokens, up to `share` of the probability.
void Candidates::cut_nucleus(double share) {
    const double wanted = share * passes::sum(mass_, n_buckets);
    const Reached bucket = reach(mass_, n_buckets, [=](double sum) { return sum >= wanted; });
    n_ = 0;
    collect(static_cast<int32_t>(bucket.index), static_cast<int32_t>(bucket.index));
    low_ = edge(by_logit, wanted - bucket.before);
}

// Tokens at least `share` times as probable as the most probable one.
void Candidates::cut_min(double share) {
    const double least = top_ + std::log(share);
    auto low = static_cast<float>(least);
    if (low < least) low = std::nextafter(low, infinity);
    if (low > low_.logit) low_ = by_logit(low, any_id);
}

bool Candidates::inside(float logit, int64_t token) const {
    return !(low_ < by_logit(logit, token)) && !(has_far_ && far_ < by_distance(logit, token));
}

// The weights of a block, 0 for what is not left; false if it is nothing.
bool Candidates::weigh_block(int64_t b, double temperature) {
    if (block_max_[b] < low_.logit) return false;
    const int64_t first = begin(b), n = size(b), ties = low_.index - first;
    const float* x = x_ + first;
    // Behind the last token of a tie, what equals it is out.
    const float low = ties < 0 ? std::nextafter(low_.logit, infinity) : low_.logit;
    passes::weigh(x, n, top_, temperature, low, block_weight_);
    for (int64_t i = std::max<int64_t>(ties + 1, 0); ties >= 0 && i < n; ++i)
        if (x[i] == low_.logit) block_weight_[i] = 0.0;
    if (has_far_ && passes::drop_far(x, n, typical_, far_.value, block_weight_)) {
        for (int64_t i = 0; i < n; ++i)
            if (!inside(x[i], first + i)) block_weight_[i] = 0.0;
    }
    return true;
}

}  // namespace clarion
