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
// Candidates that are sorted rather than tallied: that takes 40 us, a tally of 150,000 logits 140 us.
constexpr int64_t few = 1024;
// What lies this far below the greatest logit has no weight: 10^6 times e^-52 is below the rounding of 1.
constexpr float depth = 52.0f;
constexpr float least_range = 1e-30f;  // equal logits need no buckets, but a width that can be computed with
constexpr int32_t any_id = std::numeric_limits<int32_t>::max();
// So many tokens in one bucket are worth asking whether their logits are equal: asking takes as long as listing these.
constexpr double crowd = 4096;

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

// The last float on the way from `from` to `to` with a property that all have up to it, `from` itself included.
template <typename Property>
float last(float from, float to, const Property& has) {
    if (has(to)) return to;
    for (;;) {
        const auto middle = static_cast<float>((static_cast<double>(from) + to) / 2.0);
        if (middle == from || middle == to) return from;
        (has(middle) ? from : to) = middle;
    }
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
    is_list_ = list(threshold, counted ? f.top_k : 0, few);
    if (!is_list_) return filter_cuts(f);
    filter_list(f, early_min && f.top_p < 1.0 ? weigh_all() : 0.0);
}

int32_t Candidates::draw(double temperature, double share) {
    if (is_list_) {
        const double mark = share * weigh_list(temperature);
        return token_[reach(weight_.get(), n_, [=](double sum) { return sum > mark; }).index];
    }
    // Weights in float nearly always tell. The mark is a share of their sum, too, so that of what they may err,
    // relatively, at most half is left in how far the mark is from a running sum: 2 share (1 - share) of it.
    const double range = static_cast<double>(top_) - std::max(low_.logit, least_);
    float estimates[passes::block];
    weigh_blocks(temperature, estimates);
    const int32_t token = find(temperature, share, passes::estimate_error(range / temperature) / 2.0);
    if (token >= 0) return token;
    weigh_blocks(temperature, block_weight_);
    return find(temperature, share, 0.0);
}

// The token at which the running sum of block_mass_, and within a block of exact weights, exceeds its share of total_.
// -1 if it does so within error * total_ of where a token begins or ends, unless there is no error.
int32_t Candidates::find(double temperature, double share, double error) {
    const double mark = share * total_, margin = error * total_;
    const Reached b = reach(block_mass_.get(), n_blocks_, [=](double sum) { return sum > mark; });
    weigh_block(b.index, temperature, block_weight_);
    const Reached t = reach(block_weight_, size(b.index), [=](double sum) { return b.before + sum > mark; });
    const double before = b.before + t.before, after = before + block_weight_[t.index];
    if (error != 0.0 && !(before + margin < mark && mark < after - margin)) return -1;
    return static_cast<int32_t>(begin(b.index) + t.index);
}

std::vector<TokenProbability> Candidates::probabilities(double temperature) {
    std::vector<TokenProbability> result;
    if (is_list_) {
        const double total = weigh_list(temperature);
        for (int64_t i = 0; i < n_; ++i) result.push_back({token_[i], weight_[i] / total});
        return result;
    }
    weigh_blocks(temperature, block_weight_);
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (!weigh_block(b, temperature, block_weight_)) continue;
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
    list(n <= n_blocks_ ? kth_block(n) : -FLT_MAX, n, n_vocab_);
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

// Of the keys, the last one of the smallest prefix, in order, whose weights reach `mass`; the last of all when none
// does. Adds up the weights by parts of equal width of the keys' values and goes on with the part in which that is.
Candidates::Key Candidates::boundary(const double* weights, int64_t n_keys, double mass) {
    constexpr int32_t n_parts = 64;
    Key *first = keys_.get(), *last = first + n_keys;
    const auto by_value = [](const Key& a, const Key& b) { return a.value < b.value; };
    double before = 0.0;
    while (last - first > n_parts) {
        const auto [least, greatest] = std::minmax_element(first, last, by_value);
        if (least->value == greatest->value) break;
        const double low = least->value, per_part = n_parts / (greatest->value - low);
        const auto part = [=](const Key& key) {
            return std::min(static_cast<int32_t>((key.value - low) * per_part), n_parts - 1);
        };
        double masses[n_parts] = {};
        for (const Key* key = first; key < last; ++key) masses[part(*key)] += weights[key->index];
        const Reached at = reach(masses, n_parts, [=](double sum) { return before + sum >= mass; });
        last = std::remove_if(first, last, [&](const Key& key) { return part(key) != at.index; });
        before += at.before;
    }
    if (!std::is_sorted(first, last)) std::sort(first, last);
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

// Lists the logits >= threshold, in order of id; if k > 0, only the k greatest. False if more than `most` would be
// listed, unless k is so much less that the list can be cut back to k on the way: later ones have to be greater then.
bool Candidates::list(float threshold, int64_t k, int64_t most) {
    n_ = 0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (block_max_[b] < threshold) continue;
        for (int64_t i = begin(b); i < begin(b) + size(b); ++i) {
            token_[n_] = static_cast<int32_t>(i);
            logit_[n_] = x_[i];
            n_ += x_[i] >= threshold;
        }
        if (n_ <= most) continue;
        if (k == 0 || 2 * k > most) return false;
        keep_top(k);
        threshold = std::nextafter(*std::min_element(logit_.get(), logit_.get() + n_), infinity);
    }
    if (k > 0) keep_top(k);
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
        passes::weigh(x_ + begin(b), size(b), greatest_, 1.0, -FLT_MAX, greatest_, block_weight_);
        total += passes::sum(block_weight_, size(b));
    }
    return total;
}

double Candidates::weigh_list(double temperature) {
    top_ = *std::max_element(logit_.get(), logit_.get() + n_);
    passes::weigh(logit_.get(), n_, top_, temperature, -FLT_MAX, top_, weight_.get());
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
    const bool counted = f.top_k > 0 && f.top_k < n_vocab_, typical = f.typical_p < 1.0;
    low_ = {-FLT_MAX, any_id};
    high_ = {greatest_, any_id};
    top_ = greatest_;
    static_assert(depth <= passes::widest_place * (n_buckets - 2));
    per_unit_ = static_cast<float>(n_buckets - 2) / std::clamp(greatest_ - least_, least_range, depth);
    if (typical)
        counted ? tally<true, 2>() : tally<false, 2>();
    else if (f.top_p < 1.0)
        counted ? tally<true, 1>() : tally<false, 1>();
    else if (counted)
        tally<true, 0>();
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

// Adds up all candidates by bucket: tokens, if they are to be counted, and no sums, weights, or weights and moments.
template <bool counts, int n_sums>
void Candidates::tally() {
    struct Sums {
        double of[std::max(n_sums, 1)] = {};
    };
    Sums sums[n_sums > 0 ? n_buckets : 1][lanes];
    double shares[passes::block], moments[passes::block];
    int32_t count[counts ? n_buckets : 1][lanes] = {}, at[passes::block];
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const float* x = x_ + begin(b);
        const int64_t n = size(b);
        if (greatest_ == least_) {  // then each share is 1, and nothing is below the top
            const int64_t equal = passes::count(x, n, {least_, greatest_});
            if constexpr (n_sums > 0) sums[0][0].of[0] += static_cast<double>(equal);
            if constexpr (counts) count[0][0] += static_cast<int32_t>(equal);
            continue;
        }
        passes::places(x, n, greatest_, per_unit_, n_buckets - 1, at);
        if constexpr (n_sums == 1) passes::shares(x, n, greatest_, per_unit_, at, shares);
        if constexpr (n_sums == 2) passes::moments(x, n, greatest_, per_unit_, at, shares, moments);
        const auto add = [&](int64_t i, int l) {
            if constexpr (n_sums > 0) sums[at[i]][l].of[0] += shares[i];
            if constexpr (n_sums > 1) sums[at[i]][l].of[1] += moments[i];
            if constexpr (counts) ++count[at[i]][l];
        };
        int64_t i = 0;
        for (; i + lanes <= n; i += lanes)
            for (int l = 0; l < lanes; ++l) add(i + l, l);
        for (; i < n; ++i) add(i, 0);
    }
    passes::middles(1.0 / static_cast<double>(per_unit_), n_buckets, middle_);
    middle_[n_buckets - 1] = 0.0;  // what is in the last bucket adds nothing to a sum of at least 1
    for (int32_t j = 0; j < n_buckets; ++j) {
        if constexpr (counts) count_[j] = count[j][0] + count[j][1];
        if constexpr (n_sums > 0) mass_[j] = middle_[j] * (sums[j][0].of[0] + sums[j][1].of[0]);
        if constexpr (n_sums > 1) moment_[j] = middle_[j] * (sums[j][0].of[1] + sums[j][1].of[1]);
    }
    mass_[n_buckets - 1] = moment_[n_buckets - 1] = 0.0;
}

// The logits of buckets `first` to `last` that may be left.
Candidates::Run Candidates::run(int32_t first, int32_t last) const {
    const auto lowest = [this](int32_t j) {
        return clarion::last(greatest_, -FLT_MAX, [=, this](float v) { return place(v) <= j; });
    };
    const float high = first == 0 ? greatest_ : std::nextafter(lowest(first - 1), -infinity);
    return {std::max(lowest(last), low_.logit), std::min(high, high_.logit)};
}

// Lists what is left of one run and another, with weights at temperature 1.
void Candidates::collect(Run one, Run other) {
    int32_t found[passes::block];
    n_ = 0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        if (block_max_[b] < std::min(one.low, other.low)) continue;
        const int64_t n = passes::between(x_ + begin(b), size(b), one, other, found);
        for (int64_t i = 0; i < n; ++i) {
            const int64_t id = begin(b) + found[i];
            token_[n_] = static_cast<int32_t>(id);
            logit_[n_] = x_[id];
            n_ += inside(x_[id], id);
        }
    }
    passes::weigh(logit_.get(), n_, greatest_, 1.0, -FLT_MAX, greatest_, weight_.get());
}

// If all logits of a run are equal: lists only the last of the first number(weight) by id, with the weight of them all.
template <typename Number>
bool Candidates::collect_equal(Run run, Number number) {
    float logit = infinity;
    int64_t n = 0;
    const auto count = [&](int64_t b, Run of) { return passes::count(x_ + begin(b), size(b), of); };
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const int64_t found = block_max_[b] < run.low ? 0 : count(b, run);
        if (found == 0) continue;
        if (n == 0)
            logit = *std::find_if(x_ + begin(b), x_ + n_vocab_,
                                  [=](float v) { return v >= run.low && v <= run.high; });
        if (count(b, {logit, logit}) < found) return false;
        n += found;
    }
    if (n == 0) return false;
    double weight;
    passes::weigh(&logit, 1, greatest_, 1.0, -FLT_MAX, greatest_, &weight);
    const int64_t wanted = std::clamp<int64_t>(number(weight), 1, n);
    int64_t b = 0, left = wanted;
    for (int64_t found; (found = count(b, {logit, logit})) < left; ++b) left -= found;
    int64_t id = begin(b);
    while ((left -= x_[id] == logit) > 0) ++id;
    if (logit == low_.logit) id = std::min<int64_t>(id, low_.id);
    n_ = 1;
    token_[0] = static_cast<int32_t>(id);
    logit_[0] = logit;
    weight_[0] = static_cast<double>(wanted) * weight;
    return true;
}

// Lists what is left of one run and another; the last of it that stays, when those that come first in `order` stay
// until they reach `mass`. If the run has a crowd of equal logits, lists the last one instead.
template <typename Order>
Candidates::Bound Candidates::edge(Run one, Run other, double crowded, Order order, double mass) {
    const auto number = [=](double weight) { return static_cast<int64_t>(std::ceil(mass / weight)); };
    if (crowded >= crowd && other.low > other.high && collect_equal(one, number))
        return {logit_[0], token_[0]};
    collect(one, other);
    const Key key = edge(order, mass);
    return {key.logit, key.index};
}

// Counts what is left of the list in the sums of its buckets.
void Candidates::count_list() {
    int32_t at[passes::block];
    for (int64_t begin = 0; begin < n_; begin += passes::block) {
        const int64_t n = std::min(passes::block, n_ - begin);
        passes::places(&logit_[begin], n, greatest_, per_unit_, n_buckets - 1, at);
        for (int64_t i = 0, k = begin; i < n; ++i, ++k) {
            if (!inside(logit_[k], token_[k])) continue;
            mass_[at[i]] += weight_[k];
            moment_[at[i]] += weight_[k] * (static_cast<double>(greatest_) - logit_[k]);
        }
    }
}

void Candidates::cut_count(int64_t k) {
    int32_t j = 0;
    int64_t before = 0;
    for (; j < n_buckets - 1 && before + count_[j] < k; ++j) before += count_[j];
    const Run of = run(j, j);
    if (count_[j] < crowd || !collect_equal(of, [=](double) { return k - before; })) collect(of);
    if (n_ > 0) {  // the last bucket counts excluded tokens, too
        for (int64_t i = 0; i < n_; ++i) keys_[i] = by_logit(logit_[i], token_[i]);
        const Key last = select(keys_.get(), std::min(k - before, n_) - 1, n_);
        low_ = {last.logit, last.index};
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
        const double low = (j - 0.5) / static_cast<double>(per_unit_);
        const double high = (j + 0.5) / static_cast<double>(per_unit_);
        const double rounding = 1e-6 * high + 1e-9 * (1.0 + log_total);
        near[j] = std::max({0.0, low - centre, centre - high}) - rounding;
        far[j] = std::max(std::fabs(low - centre), std::fabs(high - centre)) + rounding;
    }
    const auto nearest = static_cast<int32_t>(std::min_element(far, far + n_buckets) - far);
    const double least = radius(near, nearest, share * total), most = radius(far, nearest, share * total);
    // The cut is at least and at most this far: buckets that reach the one and not the other may have members on either
    // side of it. They are in one run, or one on each side of the entropy.
    const auto uncertain = [&](int32_t j) { return near[j] <= most && far[j] >= least; };
    double before = 0.0, crowded = 0.0;
    Run runs[2] = {nothing, nothing};
    for (int32_t j = 0, end, n = 0; j < n_buckets; j = end) {
        end = j + 1;
        if (far[j] < least) before += mass_[j];
        if (!uncertain(j)) continue;
        for (end = j; end < n_buckets && uncertain(end); ++end)
            crowded += mass_[end] > 0.0 ? mass_[end] / middle_[end] : 0.0;
        runs[n++] = run(j, end - 1);
    }
    const auto order = [this](float logit, int64_t i) { return by_distance(logit, i); };
    keep_as_near(edge(runs[0], runs[1], crowded, order, share * total - before));

    for (int32_t j = 0; j < n_buckets; ++j) mass_[j] = far[j] < least ? mass_[j] : 0.0;
    count_list();
    const double* first = std::find_if(mass_, mass_ + n_buckets, [](double mass) { return mass > 0.0; });
    const auto j = static_cast<int32_t>(first - mass_);
    if (!uncertain(j) && !collect_equal(run(j, j), [](double) { return 1; })) collect(run(j, j));
    top_ = -infinity;
    for (int64_t i = 0; i < n_; ++i) top_ = std::max(top_, logit_[i] <= high_.logit ? logit_[i] : -infinity);
}

// How far from the entropy one has to go to find `mass`, when all of a bucket is as far as `distance` says, which grows
// from the nearest bucket on in both directions.
double Candidates::radius(const double* distance, int32_t nearest, double mass) const {
    int32_t up = nearest, down = nearest + 1;
    double sum = 0.0, reached = 0.0;
    while ((up >= 0 || down < n_buckets) && (sum == 0.0 || sum < mass)) {
        const bool is_up = down == n_buckets || (up >= 0 && distance[up] <= distance[down]);
        const int32_t j = is_up ? up-- : down++;
        if (mass_[j] > 0.0) reached = distance[j];
        sum += mass_[j];
    }
    return reached;
}

// Cuts off what comes behind a token in the order of distances from the entropy.
void Candidates::keep_as_near(Bound token) {
    const double distance = typical_.distance(token.logit);
    if (typical_.above(token.logit) < 0.0) {
        low_ = token;
        high_.logit = last(token.logit, greatest_, [&](float v) { return typical_.above(v) <= distance; });
    } else {
        high_ = token;
        const float low = last(token.logit, -FLT_MAX, [&](float v) { return typical_.above(v) > -distance; });
        if (low > low_.logit) low_ = {low, any_id};
    }
}

// Nucleus sampling (Holtzman et al., 2019): the most probable tokens, up to `share` of the probability.
void Candidates::cut_nucleus(double share) {
    const double wanted = share * passes::sum(mass_, n_buckets);
    const Reached bucket = reach(mass_, n_buckets, [=](double sum) { return sum >= wanted; });
    const auto j = static_cast<int32_t>(bucket.index);
    low_ = edge(run(j, j), nothing, mass_[j] / middle_[j], by_logit, wanted - bucket.before);
}

// Tokens at least `share` times as probable as the most probable one.
void Candidates::cut_min(double share) {
    const double least = top_ + std::log(share);
    auto low = static_cast<float>(least);
    if (low < least) low = std::nextafter(low, infinity);
    if (low > low_.logit) low_ = {low, any_id};
}

bool Candidates::inside(float logit, int64_t token) const {
    return (logit > low_.logit || (logit == low_.logit && token <= low_.id)) &&
           (logit < high_.logit || (logit == high_.logit && token <= high_.id));
}

// The weights of a block, 0 for what is not left; false if it is nothing.
template <typename Weight>
bool Candidates::weigh_block(int64_t b, double temperature, Weight* weights) {
    if (block_max_[b] < low_.logit) return false;
    const int64_t first = begin(b), n = size(b);
    const float* x = x_ + first;
    // Behind the last token of a tie, what equals it is out.
    const float low = low_.id < first ? std::nextafter(low_.logit, infinity) : low_.logit;
    const float high = high_.id < first ? std::nextafter(high_.logit, -infinity) : high_.logit;
    passes::weigh(x, n, top_, temperature, low, high, weights);
    for (const Bound& bound : {low_, high_})
        for (int64_t i = bound.id - first + 1; i > 0 && i < n; ++i)
            if (x[i] == bound.logit) weights[i] = 0;
    return true;
}

template <typename Weight>
void Candidates::weigh_blocks(double temperature, Weight* weights) {
    total_ = 0.0;
    for (int64_t b = 0; b < n_blocks_; ++b) {
        const bool any = weigh_block(b, temperature, weights);
        total_ += block_mass_[b] = any ? passes::sum(weights, size(b)) : 0.0;
    }
}

}  // namespace clarion
