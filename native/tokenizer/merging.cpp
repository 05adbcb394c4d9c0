#include "tokenizer/merging.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>
#include <stdexcept>

namespace clarion {

namespace {

struct Symbol {
    uint32_t number;          // `none`: not known
    uint32_t begin, end;      // bytes of the word
    uint32_t previous, next;  // positions of the neighbours, `none` at the ends
};

// Two neighbours that may become one, if they are still there when their turn comes.
struct Candidate {
    uint32_t rank, position;
    bool operator>(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : position > other.position;
    }
};

uint32_t character_length(unsigned char lead) {
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

}  // namespace

Numbering::Numbering(size_t most) : slots_(std::bit_ceil(2 * most + 1), none) { texts_.reserve(most); }

uint32_t Numbering::add(std::string_view text) {
    uint32_t& number = slots_[slot(text)];
    if (number == none) {
        number = static_cast<uint32_t>(texts_.size());
        texts_.push_back(text);
    }
    return number;
}

uint32_t Numbering::find(std::string_view text) const { return slots_[slot(text)]; }

size_t Numbering::slot(std::string_view text) const {
    const size_t mask = slots_.size() - 1;
    size_t at = std::hash<std::string_view>{}(text)&mask;
    while (slots_[at] != none && texts_[slots_[at]] != text) at = (at + 1) & mask;
    return at;
}

Merging::Merging(const std::vector<std::string_view>& merges, const std::vector<std::string_view>& tokens)
    : symbols_(tokens.size() + 3 * merges.size()), n_tokens_(static_cast<uint32_t>(tokens.size())) {
    constexpr size_t most = size_t{1} << 29;
    if (merges.size() >= most || tokens.size() >= most)
        throw std::length_error("merges: 2^29 strings or more");
    for (const std::string_view token : tokens) symbols_.add(token);
    slots_.assign(std::bit_ceil(2 * merges.size() + 1), Numbering::none);
    rules_.reserve(merges.size());
    size_t n_bytes = 0;
    for (const std::string_view text : merges) n_bytes += text.size();
    joined_.reserve(n_bytes);  // views of it must stay where they are
    std::string joined;
    for (size_t i = 0; i < merges.size(); ++i) {
        const std::string_view text = merges[i];
        const size_t space = text.find(' ');
        if (space == 0 || space == text.npos || space + 1 == text.size()) throw NoMerge{i};
        const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
        Rule rule{symbols_.add(left), symbols_.add(right), 0};
        uint32_t& rank = slots_[slot(rule.left, rule.right)];
        if (rank != Numbering::none) continue;  // the first of equal ones counts
        joined.assign(left).append(right);
        rule.joined = symbols_.find(joined);
        if (rule.joined == Numbering::none) {
            const size_t begin = joined_.size();
            joined_ += joined;
            rule.joined = symbols_.add(std::string_view(joined_).substr(begin));
        }
        rank = static_cast<uint32_t>(rules_.size());
        rules_.push_back(rule);
    }
}

size_t Merging::slot(uint32_t left, uint32_t right) const {
    const size_t mask = slots_.size() - 1;
    const uint64_t mixed = (uint64_t{left} << 32 | right) * 0x9e3779b97f4a7c15u;  // 2^64 / the golden ratio
    size_t at = (mixed >> 32) & mask;
    const auto other = [&](const Rule& rule) { return rule.left != left || rule.right != right; };
    while (slots_[at] != Numbering::none && other(rules_[slots_[at]])) at = (at + 1) & mask;
    return at;
}

std::vector<int32_t> Merging::encode(std::string_view word) const {
    constexpr uint32_t none = Numbering::none;
    if (word.size() >= none) throw std::length_error("a word of 2^32 bytes or more");
    std::vector<Symbol> symbols;
    for (size_t begin = 0; begin < word.size();) {
        const size_t length =
            std::min<size_t>(character_length(static_cast<unsigned char>(word[begin])), word.size() - begin);
        const auto position = static_cast<uint32_t>(symbols.size());
        symbols.push_back({symbols_.find(word.substr(begin, length)), static_cast<uint32_t>(begin),
                           static_cast<uint32_t>(begin + length), position - 1, position + 1});
        begin += length;
    }
    if (symbols.empty()) return {};
    symbols.back().next = none;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto propose = [&](uint32_t position) {
        if (position == none || symbols[position].next == none) return;
        const Symbol &left = symbols[position], &right = symbols[left.next];
        if (left.number == none || right.number == none) return;
        const uint32_t rank = slots_[slot(left.number, right.number)];
        if (rank != none) queue.push({rank, position});
    };
    for (uint32_t position = 0; position < symbols.size(); ++position) propose(position);
    while (!queue.empty()) {
        const auto [rank, position] = queue.top();
        queue.pop();
        Symbol& left = symbols[position];
        if (left.begin == left.end || left.next == none)
            continue;  // it became part of another, or has no neighbour
        Symbol& right = symbols[left.next];
        const Rule& rule = rules_[rank];
        if (left.number != rule.left || right.number != rule.right) continue;
        left.number = rule.joined;
        left.end = right.end;
        left.next = right.next;
        right.begin = right.end;
        if (left.next != none) symbols[left.next].previous = position;
        propose(left.previous);
        propose(position);
    }
    std::vector<int32_t> tokens;
    for (uint32_t position = 0; position != none; position = symbols[position].next) {
        const Symbol& symbol = symbols[position];
        if (symbol.number < n_tokens_) {
            tokens.push_back(static_cast<int32_t>(symbol.number));
            continue;
        }
        for (uint32_t i = symbol.begin; i < symbol.end; ++i)
            tokens.push_back(-1 - static_cast<int32_t>(static_cast<unsigned char>(word[i])));
    }
    return tokens;
}

}  // namespace clarion
